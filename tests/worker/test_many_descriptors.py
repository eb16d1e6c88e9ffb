"""A worker in a process of many open files: no select(), which takes no descriptor above 1,023."""

from __future__ import annotations

import ast
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter_worker.consume.brokers.waker import Waker, wait_readable
from waiting import eventually
from workers import usage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def many_open_files() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_worker_books_with_more_than_1024_open_files(new_runtime, broker_url, feed, ledger, many_open_files):
    runtime = new_runtime(broker_url)
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 2)
    assert not runtime.metrics.registry.get_sample_value("taximeter_broker_reconnects_total")


def test_a_wait_ends_with_a_wake_or_with_the_time(many_open_files):
    waker = Waker()
    assert waker.fileno() > 1023
    assert wait_readable([waker], 0) == []
    waker.wake()
    assert wait_readable([waker], 60) == [waker]
    waker.clear()
    assert wait_readable([waker], 0.01) == []
    waker.close()


def test_nothing_of_the_worker_calls_select():
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "worker").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"select.select", "selectors.SelectSelector"}
    ]
    assert calls == []
