"""A thread of a worker does not die and leave the rest behind: it goes on, or the process ends."""

from __future__ import annotations

import threading

import pytest

from taximeter_worker import guarded_thread
from taximeter_worker.consume import poster
from taximeter_worker.guarded_thread import GuardedThread
from waiting import eventually
from workers import usage


def failures(runtime, thread: str) -> float:
    return runtime.metrics.registry.get_sample_value("taximeter_thread_failures_total", {"thread": thread}) or 0.0


@pytest.mark.parametrize("error", [MemoryError, SystemExit, RecursionError, GeneratorExit])
def test_what_escapes_a_poster_does_not_end_it(new_runtime, broker_url, feed, ledger, monkeypatch, error):
    """Outside of what it guards itself: twice on the way out of one batch, which is booked all the same."""
    runtime = new_runtime(broker_url)
    left, book = [2], poster.Poster._book

    def fail_outside(self, messages):
        if left[0] and b"acme" in messages[0].body:
            left[0] -= 1
            raise error
        return book(self, messages)

    monkeypatch.setattr(poster.Poster, "_book", fail_outside)
    feed.send(usage("acme"))
    feed.send(usage("other"))
    eventually(lambda: ledger.usages == 2)
    assert failures(runtime, "post-0") == 2
    runtime.stop()
    assert feed.waiting() == 0, "both were acknowledged"


def test_what_escapes_the_receiver_does_not_end_it(new_runtime, broker_url, feed, ledger, monkeypatch):
    runtime = new_runtime(broker_url)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_broker_connected") == 1)
    consumer, left = runtime._consumer, [1]
    settle = consumer._settle

    def fail(*, acknowledge: bool) -> None:
        if left[0]:
            left[0] -= 1
            raise SystemExit
        settle(acknowledge=acknowledge)

    monkeypatch.setattr(consumer, "_settle", fail)
    consumer._source.wake()
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    eventually(lambda: feed.waiting() == 0)
    assert failures(runtime, "receive") == 1


def test_a_periodic_thread_survives_even_a_connection_that_cannot_be_closed(new_runtime, broker_url, monkeypatch):
    runtime = new_runtime(broker_url)
    eventually(runtime.prices.loaded.is_set)
    left = [1]

    def fail(_conn) -> None:
        if left[0]:
            left[0] -= 1
            raise SystemExit

    monkeypatch.setattr(runtime._threads[0], "_work", fail)
    eventually(lambda: failures(runtime, "price watch") == 1)
    assert runtime._threads[0]._thread._thread.is_alive()


def test_a_thread_that_fails_again_and_again_ends_the_process(monkeypatch):
    monkeypatch.setattr(guarded_thread, "_BACKOFF", guarded_thread.Backoff(0.0001, 0.001))
    stopping, gave_up, counted = threading.Event(), threading.Event(), []

    def fail() -> None:
        raise MemoryError

    thread = GuardedThread("x", fail, stopping, counted.append, gave_up.set)
    thread.start()
    assert gave_up.wait(30)
    assert len(counted) >= guarded_thread.FAILURES_MAX
    stopping.set()
    thread.join(30)
    assert not thread._thread.is_alive()


def test_a_count_that_fails_too_changes_nothing(monkeypatch):
    """Where memory is short, the metric and the log line fail like the work."""
    monkeypatch.setattr(guarded_thread, "_BACKOFF", guarded_thread.Backoff(0.0001, 0.001))
    left, done = [3], threading.Event()

    def work() -> None:
        if left[0]:
            left[0] -= 1
            raise MemoryError
        done.set()

    def no_memory(_name: str) -> None:
        raise MemoryError

    monkeypatch.setattr(guarded_thread.log, "critical", no_memory)
    GuardedThread("x", work, threading.Event(), no_memory).start()
    assert done.wait(30)
