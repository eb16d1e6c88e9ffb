"""Notices to people: real mail servers and services, through Apprise, in a process that may go nowhere else."""

from __future__ import annotations

import contextlib
import email
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest
from aiosmtpd.controller import Controller

import notice_receivers
from notice_receivers import RawReceiver
from taximeter_cli.embedded.process import free_port
from taximeter_worker.notices import apprise_service, texts


class Mailbox:
    """Keeps what a mail server took; ``answer`` is what it says to it."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], Message]] = []
        self.answer = "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        if self.answer.startswith("250"):
            self.taken.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content)))
        return self.answer


@pytest.fixture
def mail() -> Iterator[tuple[Mailbox, str]]:
    """A mail server and Apprise's address of olga's box there."""
    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    yield box, f"mailto://127.0.0.1:{port}/?from=taximeter@example.com&to=olga@example.com&mode=insecure"
    controller.stop()


def last_try(conn) -> tuple[str, str]:
    return conn.execute("SELECT outcome, detail FROM taximeter.notice_tries ORDER BY id DESC LIMIT 1").fetchone()


def test_a_mail_arrives(conn, mail, target, put, deliverer, states):
    box, address = mail
    target(address, channel="apprise")
    put("insufficient")
    deliverer.run()
    assert (states(), last_try(conn)[0]) == (["delivered"], "delivered")
    ((recipients, message),) = box.taken
    assert recipients == ["olga@example.com"]
    assert "acme" in str(message["subject"])
    assert "AI is off" in str(message["subject"])


def test_a_mail_server_that_refuses_is_tried_again(conn, mail, target, put, deliverer, make_due, states):
    box, address = mail
    box.answer = "451 later"
    target(address, channel="apprise")
    put("low")
    deliverer.run()
    assert (states(), last_try(conn)) == (["pending"], ("failed", "The service did not take it."))
    box.answer = "250 OK"
    make_due()
    deliverer.run()
    assert (states(), len(box.taken)) == (["delivered"], 1)


def test_a_chat_gets_a_line_and_the_cause(receiver, target, put, deliverer, states):
    target(receiver.url.replace("http://", "json://"), channel="apprise")
    put("low")
    deliverer.run()
    assert states() == ["delivered"]
    (request,) = receiver.requests
    assert request.notice["title"] == "Taximeter: acme: the balance is low"


def test_a_service_may_not_lead_into_our_network(conn, mail, receiver, target, put, deliverer, states):
    box, address = mail
    for url in (
        address,
        receiver.url.replace("http://", "json://"),
        receiver.url.replace("http://127.0.0.1", "json://localhost"),
    ):
        target(url, channel="apprise", allow_private=False)
    put("low")
    deliverer.run()
    assert (states(), box.taken, receiver.requests) == (["pending"] * 3, [], [])
    outcomes = conn.execute("SELECT outcome, detail FROM taximeter.notice_tries").fetchall()
    assert {outcome for outcome, _ in outcomes} == {"refused"}
    assert not any("127.0.0.1" in detail or "localhost" in detail for _, detail in outcomes)


def test_a_service_that_hangs_costs_one_deadline(conn, target, put, deliverer, states, monkeypatch):
    monkeypatch.setattr(apprise_service, "SECONDS_MAX", 3.0)
    bad = RawReceiver(notice_receivers.trickling)
    with contextlib.closing(bad):
        target(bad.url.replace("http://", "json://"), channel="apprise")
        put("low")
        deliverer.run()
    assert (states(), last_try(conn)[0]) == (["pending"], "failed")


def test_the_process_that_sends_is_given_no_secret_of_ours(monkeypatch):
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.internal")
    kept = set(apprise_service._ENVIRONMENT)
    assert not any(name.startswith("TAXIMETER") or "PROXY" in name for name in kept)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            (
                '{"type":"workspace.insufficient","timestamp":"2026-01-01T00:00:00Z","data":{"workspace":"acme",'
                '"balance":"-0.13","cause":{"kind":"usage","id":"e-1"},"advice":"AI is off."}}'
            ),
            (
                "Taximeter: acme: AI is off",
                "AI is off.\nBalance: -0.13 USD.\nCause: usage e-1.\nAt 2026-01-01T00:00:00Z.",
            ),
        ),
        (
            (
                '{"type":"payment.booked","timestamp":"2026-01-01T00:00:00Z","data":{"workspace":"acme","amount":"25",'
                '"balance":"24","cause":{"kind":"payment","id":"p-1"}}}'
            ),
            (
                "Taximeter: acme: a payment was booked",
                "Amount: 25 USD.\nBalance: 24 USD.\nCause: payment p-1.\nAt 2026-01-01T00:00:00Z.",
            ),
        ),
        (
            (
                '{"type":"budget.warned","timestamp":"2026-01-01T00:00:00Z","data":{"workspace":"acme",'
                '"balance":"24","cause":{"kind":"usage"},"advice":"Budget search is spent to 80 %."}}'
            ),
            (
                "Taximeter: acme: a budget is nearly used up",
                "Budget search is spent to 80 %.\nBalance: 24 USD.\nCause: usage.\nAt 2026-01-01T00:00:00Z.",
            ),
        ),
        (
            (
                '{"type":"budget.restored","timestamp":"2026-01-01T00:00:00Z","data":{"workspace":"acme",'
                '"cause":{"kind":"period"}}}'
            ),
            (
                "Taximeter: acme: a budget is open again",
                "Cause: the budget's period went on.\nAt 2026-01-01T00:00:00Z.",
            ),
        ),
    ],
)
def test_what_a_person_reads(body, expected):
    assert texts.of(body) == expected
