"""At least once and in order, whatever fails: receivers, deliverers, leases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from taximeter_db.notices import deliveries, targets
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices import webhook
from taximeter_worker.notices.deliverer import Deliverer
from waiting import eventually

_DELIVER = """
import sys
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices import webhook
from taximeter_worker.notices import deliverer
from taximeter_worker.settings import Settings
deliverer.RUN_SECONDS = 60.0
deliverer.Deliverer(Settings(database_url=sys.argv[1], broker_url="redis://", redis_url="redis://"), Metrics()).run()
"""


def told(receiver) -> list[str]:
    return [notice["data"]["status"] for notice in receiver.notices]


def test_one_that_fails_holds_up_those_behind_it_and_no_other_workspace(
    receiver, target, put, deliverer, make_due, states
):
    target(receiver.url, "*")
    failing = {"on": True}

    def answer(request):
        return 503 if failing["on"] and request.notice["data"]["workspace"] == "acme" else 200

    receiver.answer = answer
    put("low", "insufficient", "sufficient")
    put("low", workspace_id="beta")
    for _ in range(3):
        deliverer.run()
        make_due()
    assert {notice["data"]["workspace"] for notice in receiver.notices} == {"acme", "beta"}
    assert set(told(receiver)) == {"low"}
    failing["on"] = False
    before = len(receiver.requests)
    deliverer.run()
    assert told(receiver)[before:] == ["low", "insufficient", "sufficient"]
    assert set(states()) == {"delivered"}


def test_a_try_again_has_the_same_id_and_body(receiver, target, put, deliverer, make_due):
    target(receiver.url)
    receiver.answer = lambda _request: 500
    put("low")
    deliverer.run()
    make_due()
    receiver.answer = lambda _request: 200
    deliverer.run()
    first, second = receiver.requests
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


def test_waits_between_tries_grow(conn, receiver, target, put, deliverer, make_due):
    target(receiver.url)
    receiver.answer = lambda _request: 500
    put("low")
    waits = []
    for _ in range(8):
        deliverer.run()
        query = "SELECT extract(epoch FROM due_at - now())::float8 FROM taximeter.notice_lanes"
        waits.append(conn.execute(query).fetchone()[0])
        make_due()
    assert waits[-1] > 8 * waits[0] > 0
    assert conn.execute("SELECT tries FROM taximeter.notice_deliveries").fetchone() == (8,)


def test_what_fails_for_a_day_is_dead_and_can_be_replayed(conn, receiver, target, put, deliverer, make_due, states):
    added = target(receiver.url)
    receiver.answer = lambda _request: 500
    put("low")
    deliverer.run()
    conn.execute("UPDATE taximeter.notice_deliveries SET queued_at = now() - interval '25 hours'")
    make_due()
    put("insufficient")
    deliverer.run()
    assert states() == ["dead", "pending"]  # the next has its turn
    receiver.answer = lambda _request: 200
    row = targets.get(conn, added.target_id)
    assert deliveries.replay(conn, row, "acme") == 1
    deliverer.run()
    assert states() == ["delivered", "delivered"]
    assert deliveries.replay(conn, row) == 0


def test_a_target_that_hangs_leaves_room_for_others(receiver, target, put, deliverer, monkeypatch):
    """More workspaces wait for it than can be sent at once."""
    monkeypatch.setattr(webhook.Deadline.__init__, "__defaults__", (90.0,))
    released = threading.Event()
    slow = type(receiver)(lambda _request: 200 if released.wait(60) else 500)
    target(slow.url, "*")
    for number in range(40):
        put("low", workspace_id=f"w{number}")
    target(receiver.url, "acme")
    put("low")
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(deliverer.run)
        eventually(lambda: receiver.requests)
        assert len(slow.requests) <= deliveries.LANES_OF_TARGET_MAX
        released.set()
        run.result()
    slow.close()


def test_notices_of_a_removed_target_end(conn, receiver, target, put, deliverer, states):
    added = target(receiver.url)
    put("low")
    targets.remove(conn, targets.get(conn, added.target_id), "olga")
    deliverer.run()
    assert (states(), receiver.requests) == (["dead"], [])
    assert not deliveries.is_due(conn)


def test_a_lease_that_ran_out_is_another_ones(conn, receiver, target, put, deliverer, states):
    """Whoever was frozen for longer than its lease notes nothing when it goes on."""
    target(receiver.url)
    put("low", "insufficient")
    (lane,) = deliveries.claim(conn, 1)
    stale = deliveries.next_of(conn, lane, None)
    assert stale is not None
    assert deliveries.claim(conn, 1) == []
    conn.execute("UPDATE taximeter.notice_lanes SET leased_until = now()")
    deliverer.run()
    assert states() == ["delivered", "delivered"]
    assert not deliveries.finish(conn, stale, deliveries.Try("failed", "late", 1))
    assert states() == ["delivered", "delivered"]
    assert told(receiver) == ["low", "insufficient"]


def test_none_is_lost_and_none_out_of_order_when_deliverers_are_killed(conn, receiver, target, put, settings, states):
    """Killed just before sending and just after it, beside another that goes on."""
    target(receiver.url, "*")
    names = [f"w{number}" for number in range(3)]
    for workspace_id in names:
        put(*(f"s{number}" for number in range(6)), workspace_id=workspace_id)
    for round_number in range(4):
        point = ("before_notice_sent", "after_notice_sent")[round_number % 2]
        environment = {**os.environ, "TAXIMETER_FAILPOINT": f"{point}:{2 + round_number}"}
        command = [sys.executable, "-c", _DELIVER, settings.database_url.reveal()]
        killed = subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL)
        assert killed.returncode == -signal.SIGKILL
        conn.execute("UPDATE taximeter.notice_lanes SET leased_until = now() WHERE lease IS NOT NULL")
    Deliverer(settings, Metrics()).run()
    assert set(states()) == {"delivered"}
    by_workspace = defaultdict(list)
    ids = defaultdict(list)
    for request in receiver.requests:
        data = request.notice["data"]
        if data["status"] not in by_workspace[data["workspace"]]:  # the first time it came
            by_workspace[data["workspace"]].append(data["status"])
        ids[data["workspace"], data["status"]].append(request.headers["webhook-id"])
    assert by_workspace == {name: [f"s{number}" for number in range(6)] for name in names}
    assert all(len(set(repeated)) == 1 for repeated in ids.values())
    for name in names:  # one that came again came before its successor
        order = [notice["data"]["status"] for notice in receiver.notices if notice["data"]["workspace"] == name]
        assert order == sorted(order)


def test_deliverers_side_by_side_keep_the_order(receiver, target, put, settings, states):
    target(receiver.url, "*")
    names = [f"w{number}" for number in range(8)]
    for number in range(10):
        for workspace_id in names:
            put(f"s{number}", workspace_id=workspace_id)
    with ThreadPoolExecutor(3) as pool:
        for run in [pool.submit(Deliverer(settings, Metrics()).run) for _ in range(3)]:
            run.result()
    eventually(lambda: Deliverer(settings, Metrics()).run() == 0 and "pending" not in states())
    for name in names:
        order = [notice["data"]["status"] for notice in receiver.notices if notice["data"]["workspace"] == name]
        assert order == [f"s{number}" for number in range(10)]


@pytest.mark.parametrize("quiet", [0, 600])
def test_a_flapping_balance(conn, receiver, target, put, deliverer, states, quiet):
    target(receiver.url, quiet_seconds=quiet)
    for _ in range(5):
        put("low", "sufficient")
        deliverer.run()
    put("low")
    deliverer.run()
    if not quiet:
        assert told(receiver) == ["low", "sufficient"] * 5 + ["low"]
        return
    assert told(receiver) == ["low", "sufficient"]
    assert states()[-1] == "pending"  # the last state is held back, not left out
    conn.execute(
        "UPDATE taximeter.notice_deliveries SET ended_at = now() - interval '1 hour' WHERE ended_at IS NOT NULL"
    )
    conn.execute("UPDATE taximeter.notice_deliveries SET held_until = now() WHERE held_until IS NOT NULL")
    conn.execute("UPDATE taximeter.notice_lanes SET due_at = now() WHERE due_at IS NOT NULL")
    deliverer.run()
    assert told(receiver) == ["low", "sufficient", "low"]
    assert not deliveries.is_due(conn)


def test_worse_is_told_at_once_in_a_quiet_time(receiver, target, put, deliverer, states):
    target(receiver.url, quiet_seconds=600)
    put("low", "sufficient", "low")
    deliverer.run()
    assert told(receiver) == ["low", "sufficient"]
    put("insufficient")
    deliverer.run()
    assert told(receiver) == ["low", "sufficient", "insufficient"]
    assert states() == ["delivered", "delivered", "superseded", "delivered"]


def test_what_ended_long_ago_is_forgotten(conn, receiver, target, put, deliverer):
    target(receiver.url)
    put("low")
    deliverer.run()
    put("insufficient")
    conn.execute("UPDATE taximeter.notices SET happened_at = now() - interval '100 days'")
    assert deliveries.forget(conn) == 0
    conn.execute(
        "UPDATE taximeter.notice_deliveries SET ended_at = now() - interval '100 days' WHERE state = 'delivered'"
    )
    assert deliveries.forget(conn) == 1
    assert conn.execute("SELECT count(*) FROM taximeter.notice_tries").fetchone() == (0,)
    assert conn.execute("SELECT state FROM taximeter.notice_deliveries").fetchall() == [("pending",)]
