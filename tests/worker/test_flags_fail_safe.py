"""No single key is believed: a flag Redis that lost, aged, moved or filled up, and flags that somebody changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from factories import make_payment, make_state
from proxy import Proxy
from taximeter import names
from taximeter_cli.embedded.valkey import Valkey
from taximeter_db import flag_debts, workspaces
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_worker.background.flag_audit import FlagAudit
from taximeter_worker.background.flag_watch import FlagWatch
from taximeter_worker.errors import FlagsUnavailableError
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import ServerState, connect_flags
from taximeter_worker.flags.marks import ReadyMark
from taximeter_worker.flags.writer import FlagWriter, write_states
from taximeter_worker.metrics import Metrics
from waiting import eventually
from workers import Feed, payment, usage

USD = 10**12


def enabled(client: redis.Redis, workspace_id: str) -> str | None:
    return client.hget(names.flag_key(workspace_id), "enabled")


@pytest.fixture
def conn(priced_url: str) -> Iterator[Any]:
    """A database with twenty workspaces that are insufficient."""
    with booking_connection(priced_url) as made:
        for number in range(20):
            workspaces.set_limits(made, f"w{number:02}")
            event = make_payment(f"w{number:02}", -USD, kind="adjustment")
            booking.book(made, (), [event])
        yield made


@pytest.fixture
def writer(redis_url: str) -> Iterator[FlagWriter]:
    made = FlagWriter(redis_url, 5.0)
    yield made
    made.close()


MARK = ReadyMark(epoch=4, flags=10, run="a", holds_from=0)


@pytest.mark.parametrize(
    ("mark", "server", "epoch", "warm"),
    [
        (MARK, ServerState("a", keys=21), 4, True),
        (MARK, ServerState("a", keys=500), 4, True),
        (None, ServerState("a", keys=21), 4, False),
        (MARK, ServerState("b", keys=21), 4, False),
        (MARK, ServerState("a", keys=20), 4, False),
        (MARK, ServerState("a", keys=21), 3, False),
        (MARK, ServerState("a", keys=21), 5, False),
        (ReadyMark(epoch=4, flags=10, run="a"), ServerState("a", keys=21), 4, False),
    ],
    ids=[
        "as filled",
        "more",
        "no mark",
        "another run",
        "keys are gone",
        "database went back",
        "half a rebuild",
        "no holds",
    ],
)
def test_what_the_mark_must_agree_with(mark: ReadyMark | None, server: ServerState, epoch: int, warm: bool):
    assert (marks.why_cold(mark, server, epoch) is None) is warm


@pytest.mark.parametrize("text", ["1", "words", '{"epoch": 1}', ""])
def test_a_mark_of_another_version_is_none(redis_client: redis.Redis, text: str):
    redis_client.set(names.FLAGS_READY, text)
    assert marks.read_ready(redis_client) is None


def test_a_redis_that_went_back_in_time_gets_all_flags_again(
    new_runtime: Callable[..., Any], own_valkey: Callable[..., Valkey], valkey_broker_url: str
):
    """Killed and started from an older snapshot: mark and flags come back together, and the flags are of yesterday."""
    server = own_valkey({"appendonly": "no"})
    new_runtime(valkey_broker_url, redis_url=server.url(0), redis_timeout_seconds=1.0)
    feed = Feed(valkey_broker_url)
    feed.send(usage("acme", 500_000))
    with redis.Redis.from_url(server.url(0), decode_responses=True) as client:
        eventually(lambda: enabled(client, "acme") == "0" and marks.read_ready(client))
        filled = marks.read_ready(client)
        client.save()
        feed.pay(payment("acme", "5"))
        eventually(lambda: enabled(client, "acme") == "1")
    server.kill()
    server.start()
    with redis.Redis.from_url(server.url(0), decode_responses=True) as client:
        eventually(lambda: enabled(client, "acme") == "1", what="nothing is booked, and the flag is right again")
        # By a rebuild of all flags, and not because the audit came by this one.
        eventually(lambda: (mark := marks.read_ready(client)) and mark.epoch > filled.epoch, what="all are rebuilt")
    feed.close()


def test_a_demoted_redis_is_left_for_the_primary_behind_the_same_address(own_valkey: Callable[..., Valkey]):
    old, new = own_valkey(), own_valkey()
    for server in (old, new):
        with server.client() as admin:
            admin.config_set("requirepass", "word")
    with Proxy("127.0.0.1", old.port) as proxy:
        writer = FlagWriter(f"redis://default:word@127.0.0.1:{proxy.port}/0", 5.0)
        assert writer.write([make_state("acme", USD)]).flipped == 1
        with redis.Redis(port=old.port, password="word") as admin:
            admin.config_set("masterauth", "word")
            admin.replicaof("127.0.0.1", str(new.port))
        proxy.retarget("127.0.0.1", new.port)

        def written() -> bool:
            try:
                return bool(writer.write([make_state("acme", -USD, version=2)]).flipped)
            except FlagsUnavailableError:
                return False

        eventually(written, what="the connection to the replica is dropped")
        with redis.Redis(port=new.port, password="word", decode_responses=True) as client:
            assert enabled(client, "acme") == "0"
        with pytest.raises(FlagsUnavailableError, match="replica"):
            connect_flags(f"redis://default:word@127.0.0.1:{old.port}/0")
        writer.close()


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda client: client.delete(names.flag_key("w07")), "missing"),
        (lambda client: client.hset(names.flag_key("w07"), "enabled", "1"), "wrong"),
        (lambda client: client.hset(names.flag_key("w07"), mapping={"version": "999", "enabled": "1"}), "wrong"),
        (lambda client: client.delete(names.flag_key("w07")) and client.set(names.flag_key("w07"), "1"), "missing"),
    ],
    ids=["deleted", "changed", "from the future", "of another type"],
)  # fmt: skip
def test_a_flag_that_somebody_changed_is_repaired_and_counted(conn, writer, redis_client, damage, kind):
    metrics = Metrics()
    watch, audit = FlagWatch(writer, metrics), FlagAudit(writer, metrics)
    audit._after = ""
    watch(conn)
    damage(redis_client)
    drift = lambda: metrics.registry.get_sample_value("taximeter_flag_drift_total", {"kind": kind})  # noqa: E731
    for _ in range(2):
        audit(conn)
        audit._after = ""
    assert drift() == 1
    watch(conn)
    assert enabled(redis_client, "w07") == "0"
    for _ in range(3):
        audit(conn)
        audit._after = ""
    assert drift() == 1, "it is right now"


def test_what_a_batch_is_about_to_write_is_no_drift(conn, writer, redis_client):
    metrics = Metrics()
    FlagWatch(writer, metrics)(conn)
    audit = FlagAudit(writer, metrics)
    audit._after = ""
    event = make_payment("w07", 5 * USD)
    outcome = booking.book(conn, (), [event], context=BookingContext(owe_flags=False))
    audit(conn)
    write_states(redis_client, list(outcome.states.values()))
    audit(conn)
    assert metrics.registry.get_sample_value("taximeter_flag_drift_total", {"kind": "wrong"}) is None
    assert flag_debts.owed(conn) == []


def test_many_wrong_flags_are_all_rebuilt(conn, writer, redis_client):
    metrics = Metrics()
    watch, audit = FlagWatch(writer, metrics), FlagAudit(writer, metrics)
    watch(conn)
    epoch = flag_debts.epoch(conn)
    for number in range(20):
        redis_client.hset(names.flag_key(f"w{number:02}"), "enabled", "1")
    audit._after = ""
    for _ in range(2):
        audit(conn)
    assert not redis_client.exists(names.FLAGS_READY)
    watch(conn)
    assert flag_debts.epoch(conn) == epoch + 1
    assert {enabled(redis_client, f"w{number:02}") for number in range(20)} == {"0"}


def test_a_redis_that_is_full_still_takes_flips_and_whoever_must_be_disabled(conn, own_valkey: Callable[..., Valkey]):
    """Random subjects can fill the memory with new workspaces; the ones that matter go on."""
    server = own_valkey()
    writer, metrics = FlagWriter(server.url(0), 5.0), Metrics()
    watch = FlagWatch(writer, metrics)
    with redis.Redis.from_url(server.url(0), decode_responses=True) as client:
        watch(conn)
        assert not writer.sparse
        assert writer.write([make_state("known", USD)]).flipped == 1
        client.config_set("maxmemory", "1mb")
        client.config_set("maxmemory-policy", "noeviction")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("taximeter:x", "1")
        watch(conn)
        assert writer.sparse
        assert metrics.registry.get_sample_value("taximeter_flag_memory_ratio") > 0.9
        written = writer.write(
            [
                make_state("new", USD),
                make_state("new-low", -1),
                make_state("known", -USD, version=2),
                make_state("spent", -USD),
            ]
        )
        assert (written.left_out, written.flipped, written.refused) == (2, 2, [])
        assert [enabled(client, name) for name in ("new", "new-low", "known", "spent")] == [None, None, "0", "0"]
        assert writer.write([make_state("known", USD, version=3)]).flipped == 1
        watch(conn)
        assert client.exists(names.FLAGS_READY), "what was left out makes no cold cache"
    writer.close()
