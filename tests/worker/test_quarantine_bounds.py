"""What bounds the quarantine in a running worker: dismissed entries are forgotten in time, and its size is a metric."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taximeter_cli.embedded.logins import WORKER, part_url
from taximeter_db import quarantine
from taximeter_db.connect import booking_connection, connection
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Rejected
from taximeter_worker.app import make_app
from taximeter_worker.background import ledger_gauges
from taximeter_worker.background.ledger_gauges import LedgerGauges
from taximeter_worker.settings import Settings
from taximeter_worker.tasks.periodic import BEAT_SCHEDULE, FORGET


@pytest.mark.parametrize(
    ("setting", "forgotten"),
    [({}, {100, 91}), ({"TAXIMETER_QUARANTINE_DAYS": "30"}, {100, 91, 89, 31}), ({"TAXIMETER_QUARANTINE_DAYS": "0"}, set())],
    ids=["default", "30 days", "for ever"],
)  # fmt: skip
def test_the_beat_forgets_what_was_dismissed_long_ago_and_nothing_open(
    setting: dict[str, str], forgotten: set[int], database_url: str, redis_url: str
):
    ages = [100, 91, 89, 31, 29, 0]
    with connection(database_url) as owner:
        booking.book(
            owner, [], [], [Rejected("bad_json", "No.", b"%d %s" % (age, what), None) for age in ages for what in (b"open", b"dismissed")]
        )  # fmt: skip
        for entry in quarantine.find(owner):
            if entry.event.endswith(b"dismissed"):
                quarantine.dismiss(owner, entry.id, by="olga", note="noise")
        owner.execute("ALTER TABLE taximeter.quarantine DISABLE TRIGGER USER")
        for age in ages:
            owner.execute(
                """UPDATE taximeter.quarantine SET received_at = now() - make_interval(days => %(age)s, mins => 1),
                          resolved_at = CASE WHEN resolved_at IS NULL THEN NULL ELSE now() - make_interval(days => %(age)s, mins => 1) END
                   WHERE convert_from(event, 'UTF8') ~ ('^' || %(age)s || ' ')""",
                {"age": age},
            )
        owner.execute("ALTER TABLE taximeter.quarantine ENABLE TRIGGER USER")
        app = make_app(
            Settings.from_env(
                {
                    "TAXIMETER_DATABASE_URL": part_url(database_url, WORKER),
                    "TAXIMETER_BROKER_URL": redis_url,
                    "TAXIMETER_REDIS_URL": redis_url,
                    **setting,
                }
            )
        )
        assert FORGET.name in {entry["task"] for entry in BEAT_SCHEDULE.values()}
        assert app.tasks[FORGET.name]() == len(forgotten)
        left = {entry.event for resolved in (False, True) for entry in quarantine.find(owner, resolved=resolved)}
    kept = {b"%d dismissed" % age for age in ages if age not in forgotten}
    assert left - {b""} == kept | {b"%d open" % age for age in ages}


def test_the_size_on_disk_is_a_metric(
    database_url: str, role_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ledger_gauges, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(ledger_gauges, "DUTY_PARTS", 0)
    gauges = LedgerGauges()

    def told() -> float:
        (size,) = (
            sample.value
            for family in gauges.collect()
            for sample in family.samples
            if sample.name == "taximeter_quarantine_bytes"
        )
        return size

    with booking_connection(role_url("worker")) as conn, connection(role_url("metrics")) as reader:
        gauges.refresh(reader)
        empty = told()
        flood = [Rejected("bad_json", "No.", number.to_bytes(2, "big") * 8_000, None) for number in range(200)]
        booking.book(conn, [], [], flood)
        gauges.refresh(reader)
        assert told() > max(empty, 0)
