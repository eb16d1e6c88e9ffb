from __future__ import annotations

import datetime as dt
import itertools
import uuid
from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import names
from taximeter_db import connect, workspaces
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking, partitions
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Policy, Rejected, event_key

USD = 10**12


def _log(conn, workspace_id="acme"):
    return conn.execute(
        "SELECT seq, event_id, cost, balance_after FROM taximeter.usage_log WHERE workspace_id = %s ORDER BY seq",
        [workspace_id],
    ).fetchall()


def test_a_batch_moves_balances_and_numbers_usages_in_order(conn, usage):
    batch = [usage("a", "a1", cost=10), usage("b", "b1", cost=5), usage("a", "a2", cost=7)]
    outcome = booking.book(conn, batch)
    assert (outcome.usages_booked, outcome.usages_duplicate, outcome.cost) == (3, 0, 22)
    assert {name: state.balance for name, state in outcome.states.items()} == {"a": -17, "b": -5}
    pico = Decimal("0.000000000001")
    assert _log(conn, "a") == [(1, "a1", 10 * pico, -10 * pico), (2, "a2", 7 * pico, -17 * pico)]
    booking.book(conn, [usage("a", "a3", cost=1)])
    assert _log(conn, "a")[-1] == (3, "a3", pico, -18 * pico)
    assert verify(conn).ok


def test_everything_about_a_usage_is_kept(conn, usage):
    occurred = dt.datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=dt.UTC)
    given = usage(
        quantities={"input_tokens": 1200, "seconds": Decimal("1.5")},
        occurred_at=int(occurred.timestamp()) * 10**6 + 123456,
        payload=b'{"input":"\\u0000\\ud800","output":1}',
        provider=None,
        model=None,
    )
    before = dt.datetime.now(dt.UTC)
    booking.book(conn, [given])
    row = conn.execute(
        "SELECT tool, provider, model, quantities, occurred_at, recorded_at, event_id FROM taximeter.usage_log"
    ).fetchone()
    assert row[:5] == ("chat", None, None, {"input_tokens": 1200, "seconds": 1.5}, occurred)
    assert before <= row[5] <= dt.datetime.now(dt.UTC)
    assert row[6] == given.event_id
    assert conn.execute("SELECT quantities->>'seconds' FROM taximeter.usages").fetchone() == ("1.5",)
    assert conn.execute("SELECT payload, seq FROM taximeter.usage_payloads").fetchone() == (given.payload, 1)


def test_a_second_delivery_changes_nothing_but_the_count(conn, usage):
    batch = [usage("a", cost=10), usage("b", cost=5)]
    first = booking.book(conn, batch)
    second = booking.book(conn, list(reversed(batch)))
    assert (second.usages_booked, second.usages_duplicate, second.cost) == (0, 2, 0)
    assert {s.workspace_id: s.balance for s in second.states.values()} == {
        s.workspace_id: s.balance for s in first.states.values()
    }
    assert second.states["a"].version > first.states["a"].version
    assert workspaces.get(conn, "a").duplicate_count == 1
    assert verify(conn).ok


def test_duplicates_and_conflicts_within_one_batch(conn, usage):
    first = usage("a", "x", cost=10)
    outcome = booking.book(conn, [first, usage("a", "x", cost=10), usage("a", "x", cost=11), usage("b", "x", cost=4)])
    assert (outcome.usages_booked, outcome.usages_duplicate) == (2, 1)
    assert outcome.rejected == {"id_conflict": 1}
    assert "another usage" in outcome.refused[0].detail
    assert workspaces.get(conn, "a").balance == -10


@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_booked_decides_and_not_what_comes_first_in_a_batch(conn, usage, swapped):
    """Delivered again in another order, the event that is booked must not be quarantined as a conflict with its rival."""
    booked, rival = usage("a", "x", cost=10), usage("a", "x", cost=11)
    booking.book(conn, [booked])
    outcome = booking.book(conn, [rival, booked] if swapped else [booked, rival])
    assert (outcome.usages_booked, outcome.usages_duplicate) == (0, 1)
    assert [refused.event for refused in outcome.refused] == [rival.raw]
    assert conn.execute("SELECT event FROM taximeter.quarantine_log").fetchall() == [(rival.raw,)]


def test_a_conflict_names_both_fingerprints_and_the_first_stays(conn, usage):
    booked = usage("a", "x", cost=10)
    booking.book(conn, [booked])
    other = usage("a", "x", cost=11)
    outcome = booking.book(conn, [other, usage("a", "y", cost=1)])
    assert outcome.usages_booked == 1
    reason, detail, event, workspace_id, event_id = conn.execute(
        "SELECT reason, detail, event, workspace_id, event_id FROM taximeter.quarantine_log"
    ).fetchone()
    assert (reason, event, workspace_id, event_id) == ("id_conflict", other.raw, "a", "x")
    assert booked.fingerprint.hex() in detail
    assert other.fingerprint.hex() in detail
    assert workspaces.get(conn, "a").balance == -11


def test_one_usage_beyond_the_column_is_quarantined_alone(conn, usage):
    batch = [usage("a", f"e{n}", cost=1) for n in range(20)]
    batch[13].cost = 10**27 + 1
    batch[17].cost = 2 * 10**27
    outcome = booking.book(conn, batch)
    assert outcome.usages_booked == 18
    assert outcome.rejected == {"out_of_range": 2}
    assert [entry.event_id for entry in outcome.refused] == ["e13", "e17"]
    assert workspaces.get(conn, "a").balance == -18
    assert verify(conn).ok


def test_a_balance_may_reach_its_documented_size(conn, usage, payment):
    booking.book(conn, [], [payment("rich", amount=10**12 * USD)])
    booking.book(conn, [usage("poor", cost=10**12 * USD)])
    assert workspaces.get(conn, "rich").balance == 10**24
    assert workspaces.get(conn, "poor").balance == -(10**24)


def test_unknown_workspaces_get_the_default_limits(conn, usage, payment):
    booking.book(
        conn, [usage("new")], [payment("paid")], context=BookingContext(policy=Policy(minimum=-5 * USD, low=2 * USD))
    )
    for name in ("new", "paid"):
        details = workspaces.get(conn, name)
        assert (details.minimum, details.low) == (-5 * USD, 2 * USD)
    booking.book(conn, [usage("stock")])
    assert workspaces.get(conn, "stock").minimum == -120_000_000_000


def test_unknown_workspaces_can_be_quarantined_without_harm_to_known_ones(conn, usage, payment):
    workspaces.set_limits(conn, "known")
    policy = Policy(quarantine_unknown=True)
    outcome = booking.book(
        conn,
        [usage("unknown"), usage("known", cost=3)],
        [payment("known", amount=9), payment("unknown")],
        context=BookingContext(policy=policy),
    )
    assert (outcome.usages_booked, outcome.payments_booked) == (1, 1)
    assert outcome.rejected == {"unknown_workspace": 2}
    assert workspaces.get(conn, "known").balance == 6
    assert conn.execute("SELECT count(*) FROM taximeter.workspaces").fetchone() == (1,)
    assert conn.execute("SELECT count(*) FROM taximeter.usage_keys").fetchone() == (1,)
    outcome = booking.book(conn, [usage("unknown")], context=BookingContext(policy=policy))
    assert outcome.usages_booked == 0


def test_the_same_bytes_are_parked_once_while_open(conn):
    entry = Rejected("bad_json", "It ends too early.\x00\ud800", b"{", "application/json\x00")
    for _ in range(2):
        booking.book(conn, [], rejected=[entry, entry])
    assert conn.execute("SELECT count(*) FROM taximeter.quarantine").fetchone() == (1,)
    conn.execute("UPDATE taximeter.quarantine SET resolved_at = now(), resolution = 'dismissed'")
    booking.book(conn, [], rejected=[entry])
    assert conn.execute("SELECT count(*) FROM taximeter.quarantine").fetchone() == (2,)


def test_nothing_is_half_booked_when_the_commit_does_not_come(conn, usage, payment):
    class PulledPlugError(Exception):
        pass

    def pull() -> None:
        raise PulledPlugError

    with pytest.raises(PulledPlugError):
        booking.book(conn, [usage("a")], context=BookingContext(before_commit=pull))
    with pytest.raises(PulledPlugError):
        booking.book(conn, [], [payment("a")], context=BookingContext(before_commit=pull))
    for table in ("usages", "usage_keys", "payments", "quarantine"):
        assert conn.execute(f"SELECT count(*) FROM taximeter.{table}").fetchone() == (0,)
    assert verify(conn).ok


def test_a_missing_partition_is_made_when_it_is_needed(database_url, conn, usage):
    conn.execute("DELETE FROM taximeter.usage_partitions")
    for (name,) in conn.execute(
        "SELECT relid::text FROM pg_partition_tree('taximeter.usages') WHERE isleaf UNION ALL "
        "SELECT relid::text FROM pg_partition_tree('taximeter.usage_payloads') WHERE isleaf"
    ).fetchall():
        conn.execute(f"DROP TABLE {name}")
    assert booking.book(conn, [usage(payload=b"{}")]).usages_booked == 1
    assert conn.execute("SELECT count(*) FROM taximeter.usage_partitions").fetchone() == (1,)


@pytest.mark.parametrize("width", ["day", "week", "month"])
def test_partitions_follow_each_other_without_gap(conn, width: str):
    conn.execute("UPDATE taximeter.ledger_state SET partition_width = %s", [width])
    made = partitions.ensure(conn, ahead_days=200)
    assert made >= 3
    assert partitions.ensure(conn, ahead_days=200) == 0
    slices = conn.execute("SELECT starts_at, ends_at FROM taximeter.usage_partitions ORDER BY 1").fetchall()
    assert all(one[1] == other[0] for one, other in itertools.pairwise(slices))
    assert slices[0][0] <= dt.datetime.now(dt.UTC)
    assert slices[-1][1] >= dt.datetime.now(dt.UTC) + dt.timedelta(days=200)


def test_payments_credit_once_and_conflict_otherwise(conn, usage, payment):
    paid = payment(
        "a", payment_id="p1", amount=25 * USD, transaction={"provider": "stripe", "reference": "pi_3"}, note="thanks"
    )
    outcome = booking.book(conn, [usage("a", cost=USD)], [paid, paid])
    assert (outcome.payments_booked, outcome.payments_duplicate, outcome.amount) == (1, 1, 25 * USD)
    assert outcome.states["a"].balance == 24 * USD
    outcome = booking.book(
        conn, [], [paid, payment("a", payment_id="p1", amount=26 * USD), payment("a", payment_id="p2", amount=1)]
    )
    assert (outcome.payments_booked, outcome.payments_duplicate) == (1, 1)
    assert outcome.rejected == {"id_conflict": 1}
    assert conn.execute(
        "SELECT payment_id, kind, amount, balance_after, transaction FROM taximeter.payment_log ORDER BY recorded_at"
    ).fetchall() == [
        ("p1", "top_up", Decimal(25), Decimal(25), {"provider": "stripe", "reference": "pi_3"}),
        ("p2", "top_up", Decimal("1E-12"), Decimal("24.000000000001"), None),
    ]
    assert verify(conn).ok


def test_a_repeated_payment_still_reports_the_state(conn, payment):
    paid = payment("a", payment_id="p1")
    booking.book(conn, [], [paid])
    assert booking.book(conn, [], [paid]).states["a"].balance == paid.amount


def test_negative_adjustment(conn, payment):
    outcome = booking.book(conn, [], [payment("a", amount=-5, kind="adjustment")])
    assert outcome.states["a"].balance == -5


def test_each_kind_of_payment_has_its_sign_and_the_database_holds_to_it(conn, payment):
    signs = {"top_up": 1, "promo": 1, "refund": 1, "clawback": -1, "reinstated": 1, "expiry": -1}
    assert sorted([*signs, "adjustment"]) == sorted(names.PAYMENT_KINDS)
    for kind, sign in signs.items():
        booking.book(conn, [], [payment(amount=sign * 10, kind=kind, transaction={"payment_id": "p"})])
        assert booking.book(conn, [], [payment(amount=-sign * 10, kind=kind)]).rejected == {"not_storable": 1}
    for amount in (7, -7):
        booking.book(conn, [], [payment(amount=amount, kind="adjustment")])
    assert booking.book(conn, [], [payment(amount=1, kind="gift")]).rejected == {"not_storable": 1}
    assert conn.execute("SELECT balance FROM taximeter.workspaces").fetchone()[0] * 10**12 == 20
    assert verify(conn).ok


def test_a_payment_beyond_the_column_is_quarantined_alone(conn, payment):
    outcome = booking.book(conn, [], [payment("a", amount=7), payment("a", amount=10**27), payment("b", amount=8)])
    assert (outcome.payments_booked, outcome.rejected) == (2, {"out_of_range": 1})
    assert outcome.states["a"].balance == 7


def test_read_states_knows_only_what_exists(conn, usage):
    booking.book(conn, [usage("a", cost=130_000_000_000)])
    (state,) = booking.read_states(conn, ["a", "b"])
    assert (state.workspace_id, state.status, state.enabled) == ("a", "insufficient", False)


@given(st.uuids())
def test_a_canonical_uuid_is_its_own_key(value: uuid.UUID):
    text = str(value)
    own = event_key(text) == value.bytes
    assert own == (text[14] != "8")
    for other in (
        text.upper(),
        text.replace("-", ""),
        f"{{{text}}}",
        text[:-2] + " 0",
        text.replace("-", "_"),
        text + "0",
    ):
        if other != text:
            assert uuid.UUID(bytes=event_key(other)).version == 8


def test_keys_of_uuids_and_of_other_ids_never_meet():
    canonical = str(uuid.uuid4())
    assert event_key(canonical) == uuid.UUID(canonical).bytes
    assert event_key(canonical.upper()) != event_key(canonical)
    hashed = uuid.UUID(bytes=event_key("order-17"))
    assert (hashed.version, hashed.variant) == (8, uuid.RFC_4122)
    # an id that spells another id's hash must not share its key
    assert event_key(str(hashed)) != hashed.bytes
    assert uuid.UUID(bytes=event_key(str(hashed))).version == 8


def test_the_booking_connection_locks_in_the_order_given(conn, usage):
    """The promise against deadlocks rests on this plan; a new PostgreSQL that plans otherwise must fail here."""
    booking.book(conn, [usage(f"w{n}") for n in range(500)])
    conn.execute("ANALYZE taximeter.workspaces")
    plan = "\n".join(
        row[0]
        for row in conn.execute(
            """EXPLAIN UPDATE taximeter.workspaces AS w SET version = w.version + 1
               FROM unnest(%s::text[]) AS v (workspace_id) WHERE w.workspace_id = v.workspace_id""",
            [[f"w{n}" for n in range(500)]],
        )
    )
    assert "Nested Loop" in plan
    assert plan.index("Function Scan on unnest") < plan.index("Index Scan using workspaces_pkey")


def test_a_lost_connection_is_not_swallowed(database_url, usage):
    with connect.booking_connection(database_url) as mine, psycopg.connect(database_url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [mine.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            booking.book(mine, [usage()])


def test_what_is_rejected_is_numbered_in_the_order_in_which_it_came(conn):
    """A replay goes by these numbers: of several events of one id, the first one counts."""
    events = [b"{%d" % number for number in range(40)]
    booking.book(conn, [], rejected=[Rejected("bad_json", "It ends too early.", event, None) for event in events])
    numbered = conn.execute("SELECT event FROM taximeter.quarantine ORDER BY id").fetchall()
    assert [event for (event,) in numbered] == events
