"""When a batch is handed out: at once, whatever the receiving thread waits for."""

from __future__ import annotations

from taximeter_worker.consume import consumer
from waiting import eventually
from workers import Feed, Ledger, usage


def test_a_finished_batch_makes_room_for_the_next(
    new_runtime, broker_url: str, feed: Feed, ledger: Ledger, monkeypatch
):
    """Ten batches of one message, one in work at a time, and nothing more arrives that could end a poll."""
    monkeypatch.setattr(consumer, "POLL_SECONDS", 3600.0)
    feed.send_each([usage() for _ in range(10)])
    runtime = new_runtime(broker_url, batch_events_max=1, batches_in_flight_max=1)
    eventually(lambda: ledger.usages == 10, what="ten usages")
    runtime.stop()
    assert feed.waiting() == 0, "all were acknowledged, so none went back"
