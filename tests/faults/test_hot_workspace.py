"""Nine tenths of the traffic on one workspace cost its row no more than one update a batch."""

from __future__ import annotations

from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from waiting import eventually
from workers import usage

BATCHES = 20
EVENTS = 100


def test_one_update_a_batch_however_hot(new_runtime, broker_url, feed, ledger):
    runtime = new_runtime(broker_url)
    for batch in range(BATCHES):
        feed.send(*(usage("hot" if number % 10 else f"cold{batch}") for number in range(EVENTS)))
    eventually(lambda: ledger.usages == BATCHES * EVENTS)
    with booking_connection(ledger.url) as conn:
        [hot] = booking.read_states(conn, ["hot"])
    assert hot.usage_count == BATCHES * EVENTS * 9 // 10
    transactions = runtime.metrics.registry.get_sample_value("taximeter_batch_events_count")
    assert hot.version <= transactions <= BATCHES, "every transaction moves the row once, whatever it holds of it"
    ledger.verify()
