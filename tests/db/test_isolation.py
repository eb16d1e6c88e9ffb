"""What one workspace's data makes PostgreSQL refuse costs the others a repetition, and not their booking."""

from __future__ import annotations

import datetime as dt
import itertools

import psycopg
import pytest

from taximeter_db import schema, workspaces
from taximeter_db.audit.verify import verify
from taximeter_db.errors import SchemaError
from taximeter_db.ledger import booking, partitions, usages
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Rejected
from taximeter_db.money import AMOUNT_LIMIT

USD = 10**12


class Counted:
    """Counts the transactions that came as far as their commit."""

    def __init__(self) -> None:
        self.transactions = 0
        self.context = BookingContext(before_commit=self._count)

    def _count(self) -> None:
        self.transactions += 1


@pytest.fixture
def at_the_end(conn, payment):
    """Workspace "full": its balance has room for 3 USD below the upper end of the range, and for its total as well."""
    booking.book(conn, [], [payment("full", amount=AMOUNT_LIMIT - 3 * USD)])
    return "full"


def test_five_hundred_payments_beyond_the_range_cost_two_transactions_more(conn, payment, at_the_end):
    counted = Counted()
    paid = [payment(at_the_end if number % 2 else f"w{number}", amount=USD) for number in range(1_000)]
    outcome = booking.book(conn, [], paid, context=counted.context)
    # two of them fit: the range ends just before its limit
    assert (outcome.payments_booked, outcome.rejected) == (502, {"out_of_range": 498})
    assert len(outcome.refused) == 498
    assert counted.transactions <= 3
    assert workspaces.get(conn, at_the_end).balance == AMOUNT_LIMIT - USD
    assert verify(conn).ok


def test_usages_beyond_the_range_are_found_together_and_duplicates_among_them_stay_duplicates(conn, usage):
    booking.book(conn, [usage("deep", "first", cost=AMOUNT_LIMIT - 5)])
    counted = Counted()
    batch = [
        usage("deep", "first", cost=AMOUNT_LIMIT - 5),
        *(usage("deep", f"e{number}", cost=2) for number in range(300)),
        *(usage(f"w{number}", cost=3) for number in range(300)),
    ]
    outcome = booking.book(conn, batch, context=counted.context)
    assert (outcome.usages_booked, outcome.usages_duplicate) == (302, 1)
    assert outcome.rejected == {"out_of_range": 298}
    assert counted.transactions <= 3
    assert verify(conn).ok


def test_a_clock_that_jumped_ahead_a_year_blocks_nobody(conn, usage):
    booking.book(conn, [usage("jumped"), usage("well")])
    conn.execute("UPDATE taximeter.workspaces SET updated_at = now() + interval '1 year' WHERE workspace_id = 'jumped'")
    counted = Counted()
    outcome = booking.book(conn, [usage("jumped"), usage("well"), usage("new")], context=counted.context)
    assert (outcome.usages_booked, outcome.rejected) == (3, {})
    # one slice for that far time, and the ones until then are still made by the calendar
    slices = conn.execute("SELECT starts_at, ends_at FROM taximeter.usage_partitions ORDER BY 1").fetchall()
    assert slices[-1][1] > dt.datetime.now(dt.UTC) + dt.timedelta(days=365)
    assert any(one[1] < other[0] for one, other in itertools.pairwise(slices))
    assert partitions.ensure(conn, ahead_days=450) > 0
    slices = conn.execute("SELECT starts_at, ends_at FROM taximeter.usage_partitions ORDER BY 1").fetchall()
    assert all(one[1] == other[0] for one, other in itertools.pairwise(slices))
    assert booking.book(conn, [usage("jumped"), usage("well")]).usages_booked == 2
    assert verify(conn).ok


def test_clocks_that_jumped_by_different_times_cost_one_repetition(conn, usage):
    names = [f"ahead-{months}" for months in range(4, 34)]
    booking.book(conn, [usage(name) for name in names])
    for number, name in enumerate(names, 4):
        conn.execute(
            "UPDATE taximeter.workspaces SET updated_at = now() + make_interval(months => %s) WHERE workspace_id = %s",
            [number, name],
        )
    tries = []
    context = BookingContext(claims=None, before_commit=lambda: tries.append("commit"))
    with pytest.MonkeyPatch.context() as patch:
        debit = usages._debit
        patch.setattr(usages, "_debit", lambda *args: tries.append("try") or debit(*args))
        outcome = booking.book(conn, [usage(name) for name in [*names, "well"]], context=context)
    assert (outcome.usages_booked, outcome.rejected) == (31, {})
    assert (tries.count("commit"), tries.count("try") <= 3) == (1, True), tries


def _alter(conn, change: str) -> None:
    conn.execute(change, prepare=False)


def _refuse(conn, condition: str) -> None:
    """Let the database refuse rows of the log for a reason that booking does not know."""
    _alter(
        conn,
        f"""CREATE FUNCTION taximeter.refuse_some() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF {condition} THEN
                    RAISE EXCEPTION 'refused: a secret' USING ERRCODE = 'check_violation', CONSTRAINT = 'of_the_test';
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER refuse_some BEFORE INSERT ON taximeter.usages
                FOR EACH ROW EXECUTE FUNCTION taximeter.refuse_some()""",
    )


def test_any_other_refusal_is_isolated_to_its_workspace(conn, usage):
    _refuse(conn, "NEW.workspace_id = 'cursed'")
    counted = Counted()
    batch = [usage("cursed" if number % 10 == 0 else f"w{number % 50}") for number in range(1_000)]
    outcome = booking.book(conn, batch, context=counted.context)
    assert (outcome.usages_booked, outcome.rejected) == (900, {"not_storable": 100})
    assert {refused.workspace_id for refused in outcome.refused} == {"cursed"}
    assert "secret" not in outcome.refused[0].detail
    assert "CheckViolation, 23514" in outcome.refused[0].detail
    assert counted.transactions < 60, "not one for each culprit"
    conn.execute("DROP TRIGGER refuse_some ON taximeter.usages")
    assert verify(conn).ok


def test_within_a_workspace_only_the_culprit_is_quarantined(conn, usage):
    _refuse(conn, "NEW.event_id = 'bad'")
    batch = [usage("a", "bad" if number == 37 else f"e{number}") for number in range(100)]
    outcome = booking.book(conn, batch)
    assert (outcome.usages_booked, [refused.event_id for refused in outcome.refused]) == (99, ["bad"])


def test_events_are_not_blamed_for_a_rejection_beside_them(conn, usage):
    """Even where the quarantine itself refuses: then nothing is acknowledged, and nothing good is quarantined."""
    conn.execute("ALTER TABLE taximeter.quarantine ADD CONSTRAINT no_test CHECK (reason <> 'of_the_test')")
    with pytest.raises(psycopg.errors.CheckViolation, match="no_test"):
        booking.book(conn, [usage("a")], rejected=[Rejected("of_the_test", "Of the test.", b"{")])
    assert conn.execute("SELECT count(*) FROM taximeter.quarantine").fetchone() == (0,)


def test_keys_that_can_be_neither_claimed_nor_read_do_not_vanish(conn, usage):
    """An insert that another trigger swallows looks like a key that was used before, and reading it finds nothing."""
    _alter(
        conn,
        """CREATE FUNCTION taximeter.swallow() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN IF NEW.workspace_id = 'lost' THEN RETURN NULL; END IF; RETURN NEW; END $$;
           CREATE TRIGGER swallow BEFORE INSERT ON taximeter.usage_keys
               FOR EACH ROW EXECUTE FUNCTION taximeter.swallow()""",
    )
    outcome = booking.book(conn, [usage("lost", "gone"), usage("kept")])
    assert outcome.usages_booked == 1
    assert [(refused.reason, refused.event_id) for refused in outcome.refused] == [("not_storable", "gone")]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE taximeter.workspaces ADD CONSTRAINT of_the_new_version CHECK (version < 2)",
        "DROP VIEW taximeter.usage_log; ALTER TABLE taximeter.usages ALTER COLUMN quantities TYPE jsonb USING quantities::jsonb",
        "ALTER TABLE taximeter.usages DROP COLUMN link",
    ],
    ids=["a constraint", "another type", "a column gone"],
)
def test_on_a_newer_schema_good_events_wait_and_are_never_quarantined(conn, usage, change):
    booking.book(conn, [usage("a")])
    _alter(conn, change)
    conn.execute("UPDATE taximeter.alembic_version SET version_num = '9999'")
    with pytest.raises((SchemaError, psycopg.Error)) as caught:
        booking.book(conn, [usage("a"), usage("b"), usage("c")])
    if isinstance(caught.value, SchemaError):
        assert f"schema is 9999, this version knows {schema.newest()}" in str(caught.value)
    assert conn.execute("SELECT count(*) FROM taximeter.quarantine").fetchone() == (0,)
