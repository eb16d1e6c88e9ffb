"""From a usage in the broker to the webhook, with a real worker and its Celery task."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taximeter_db.connect import connection
from taximeter_db.notices import targets
from taximeter_db.notices.targets import NewTarget
from waiting import eventually
from workers import Feed, payment, usage


@pytest.fixture
def feed(valkey_broker_url) -> Iterator[Feed]:
    made = Feed(valkey_broker_url)
    yield made
    made.close()


@pytest.fixture
def url(receiver, priced_url) -> str:
    with connection(priced_url) as conn:
        new = NewTarget(channel="webhook", address=receiver.url, workspace_id="*", allow_private=True)
        targets.add(conn, new, None, "olga")
    return priced_url


def test_a_usage_that_crosses_the_minimum_reaches_the_webhook(
    url, valkey_broker_url, redis_url, feed, receiver, new_worker
):
    new_worker(url, valkey_broker_url, redis_url).start()
    feed.send(usage(tokens=200_000))
    eventually(lambda: len(receiver.requests) == 1, what="the notice that AI is off")
    feed.pay(payment("acme", "5.00", payment_id="p"))
    eventually(lambda: len(receiver.requests) == 3, what="the payment, and that AI is on")
    assert [(notice["type"], notice["data"]["cause"]["kind"]) for notice in receiver.notices] == [
        ("workspace.insufficient", "usage"),
        ("payment.booked", "payment"),
        ("workspace.restored", "payment"),
    ]


@pytest.mark.parametrize("point", ["after_commit", "before_notice_sent", "after_notice_sent"])
def test_a_worker_that_is_killed_loses_none(url, valkey_broker_url, redis_url, feed, receiver, new_worker, point):
    first = new_worker(url, valkey_broker_url, redis_url)
    first.start(TAXIMETER_FAILPOINT=point)
    feed.send(usage(tokens=200_000))
    eventually(lambda: first.process.poll() is not None, what="the end of the worker")
    with connection(url) as conn:  # what a minute would do
        conn.execute("UPDATE taximeter.notice_lanes SET leased_until = now()")
    new_worker(url, valkey_broker_url, redis_url).start()
    eventually(lambda: receiver.requests)
    with connection(url) as conn:
        query = "SELECT count(*) FROM taximeter.notice_deliveries WHERE state <> 'delivered'"
        eventually(lambda: conn.execute(query).fetchone() == (0,))
        assert conn.execute("SELECT count(*) FROM taximeter.notices").fetchone() == (1,)
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
