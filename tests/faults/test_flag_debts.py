"""Whoever changes a balance or a limit and dies before the flag is written leaves a debt, and a worker pays it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from factories import make_payment
from instances import COMMAND
from taximeter import names
from taximeter_db import flag_debts, workspaces
from taximeter_db.connect import booking_connection, connection
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_worker.errors import FlagsUnavailableError
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from waiting import eventually
from workers import Feed, set_prices, usage

USD = 10**12


def enabled(client: Any, workspace_id: str) -> str | None:
    return client.hget(names.flag_key(workspace_id), "enabled")


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def spend(priced_url: str, workspace_id: str) -> None:
    """Book a debit of 1 USD past every worker, as somebody who dies before the flag would."""
    with connection(priced_url) as conn:
        workspaces.set_limits(conn, workspace_id)
    with booking_connection(priced_url) as conn:
        owed = make_payment(workspace_id, -USD, "debit", kind="adjustment")
        booking.book(conn, (), [owed])


def test_a_worker_killed_after_the_commit_of_a_replay(
    new_worker, priced_url, valkey_broker_url, redis_url, redis_client, ledger
):
    """No message comes again for a replayed event: only the debt tells that its flag was not written."""
    worker = new_worker(priced_url, valkey_broker_url, redis_url)
    worker.start(TAXIMETER_FAILPOINT="before_flag")
    feed = Feed(valkey_broker_url)
    feed.send(usage("acme", 500_000, model="new"))
    eventually(lambda: ledger.quarantined() == {"price_missing": 1})
    set_prices(priced_url, "new")
    assert worker.wait(90) == -signal.SIGKILL, worker.text()
    assert ledger.usages == 1
    assert ledger.quarantined() == {}
    assert enabled(redis_client, "acme") is None
    assert ledger.one("SELECT workspace_id FROM taximeter.stale_flags") == "acme", "the audit would only find it later"
    worker.start()
    eventually(lambda: enabled(redis_client, "acme") == "0", what="the debt is paid")
    eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.stale_flags") == 0)
    assert worker.stop() == 0
    feed.close()


@pytest.mark.parametrize("change", ["credit", "workspace set", "quarantine replay"])
def test_a_command_killed_after_its_commit(
    change: str, new_worker, priced_url, valkey_broker_url, redis_url, redis_client, ledger, tmp_path: Path
):
    worker = new_worker(priced_url, valkey_broker_url, redis_url).start()
    feed = Feed(valkey_broker_url)
    feed.send(usage("acme", 500_000), usage("poor", -1))
    eventually(lambda: enabled(redis_client, "acme") == "0")
    eventually(lambda: ledger.quarantined() == {"negative_quantity": 1})
    assert worker.stop() == 0
    entry = ledger.one("SELECT id FROM taximeter.quarantine")
    arguments, workspace_id, wanted = {
        "credit": (["credit", "acme", "5", "--id", "p-1"], "acme", "1"),
        "workspace set": (["workspace", "set", "acme", "--minimum-balance", "-9"], "acme", "1"),
        "quarantine replay": (
            ["quarantine", "replay", str(entry), "--set", "data.quantities.input_tokens=500000"],
            "poor",
            "0",
        ),
    }[change]
    addresses = {"TAXIMETER_DATABASE_URL": priced_url, "TAXIMETER_REDIS_URL": redis_url}
    done = command(*arguments, TAXIMETER_FAILPOINT="before_flag", **addresses)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert enabled(redis_client, workspace_id) != wanted
    assert ledger.one("SELECT workspace_id FROM taximeter.stale_flags") == workspace_id
    worker.start()
    eventually(lambda: enabled(redis_client, workspace_id) == wanted, what="the debt is paid")
    eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.stale_flags") == 0)
    assert worker.stop() == 0
    feed.close()


def test_whoever_writes_the_flag_settles_its_debt(priced_url, redis_url, redis_client):
    spend(priced_url, "acme")
    publisher = FlagPublisher(FlagWriter(redis_url, 5.0), Metrics())
    with booking_connection(priced_url) as conn, booking_connection(priced_url) as other:
        [state] = booking.read_states(conn, ["acme"])
        # Somebody else changes it at the same time: that debt is not ours to settle.
        workspaces.set_limits(other, "acme", minimum=-5 * USD)
        assert publisher.publish(conn, [state], owed=True) is None
        assert [debt.workspace_id for debt in flag_debts.owed(conn)] == ["acme"]
        assert publisher.publish(conn, booking.read_states(conn, ["acme"]), owed=True) is None
        assert flag_debts.owed(conn) == []
    assert enabled(redis_client, "acme") == "1"


@pytest.mark.parametrize("failure", [RuntimeError("a fault of ours"), FlagsUnavailableError("no answer")])
@pytest.mark.parametrize("owed", [True, False])
def test_any_failure_of_writing_leaves_a_debt(failure: Exception, owed: bool, priced_url, redis_url, monkeypatch):
    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(FlagWriter, "write", fail)
    publisher = FlagPublisher(FlagWriter(redis_url, 5.0), Metrics())
    with booking_connection(priced_url) as conn:
        event = make_payment(amount=USD)
        workspaces.set_limits(conn, "acme")
        flag_debts.settle(conn, flag_debts.owed(conn))
        outcome = booking.book(conn, (), [event], context=BookingContext(owe_flags=owed))
        assert isinstance(publisher.publish(conn, list(outcome.states.values()), owed=owed), type(failure))
        assert [debt.workspace_id for debt in flag_debts.owed(conn)] == ["acme"]


def test_a_change_that_is_rolled_back_owes_nothing(priced_url):
    with booking_connection(priced_url) as conn:
        workspaces.set_limits(conn, "acme")
        flag_debts.settle(conn, flag_debts.owed(conn))
        event = make_payment(amount=USD)

        def die() -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            booking.book(conn, (), [event], context=BookingContext(before_commit=die))
        assert flag_debts.owed(conn) == []
