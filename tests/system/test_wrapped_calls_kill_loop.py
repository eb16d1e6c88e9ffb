"""A tool with wrapped clients, killed -9 in a loop: every answer that its caller received is booked once.

The provider is a server on this machine that gives each answer an id and amounts of its own. What the caller has received
is what it appended to a file after the call had returned, so that its knowledge survives the kill. Threads and tasks call
at once, whole answers and streams of two libraries; a kill strikes wherever they are: while the provider answers, between
the pieces of a stream, between record and return, while the spool is published.

``TAXIMETER_SEED=<printed seed>`` repeats when it is killed; the timing of the processes is the machine's own.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from servers.provider import Replay, Reply, Request, as_events, as_json, serving
from taximeter import names
from taximeter_db.connect import connection
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_db.queries import usages
from taximeter_db.queries.payloads import payloads
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, payment

TOOL = Path(__file__).with_name("wrapped_tool.py")
AT_ONCE = 5
"""Calls that the tool has under way at once."""
CALLS_BETWEEN_KILLS = 80
PAID = Decimal(1_000)
OUTPUT_PRICE = Decimal("0.000002")
INPUT_PRICE = Decimal("0.000001")


def tokens(number: int) -> tuple[int, int]:
    """Input and output tokens of an answer: no two answers have the same."""
    return 1_000 + number, 1 + number % 50


class Numbered(Replay):
    """A provider that gives each answer the next number, in the format that was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)
        self.given = 0

    def reply_to(self, request: Request) -> Reply:
        self.requests.clear()
        if not request.body:
            raise ConnectionAbortedError("the tool was killed before it had sent all of its request")
        number = next(self._numbers)
        self.given = max(self.given, number)
        if request.path.endswith("/messages"):
            return _messages(number)
        if request.path.endswith("/responses"):
            return _responses(number)
        return _chat_stream(number) if request.body.get("stream") else as_json(_chat(number))


def _chat(number: int) -> dict[str, Any]:
    asked, told = tokens(number)
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}]
    usage = {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}
    return {
        "id": f"answer-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": choices,
        "usage": usage,
    }


def _chat_stream(number: int) -> Reply:
    told = {**_chat(number), "object": "chat.completion.chunk", "usage": None}
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in "abc"), {}]
    chunks = [{**told, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    return as_events([*chunks, {**told, "choices": [], "usage": _chat(number)["usage"]}], end="data: [DONE]\n\n")


def _responses(number: int) -> Reply:
    asked, told = tokens(number)
    response: dict[str, Any] = {"id": f"answer-{number}", "object": "response", "created_at": 1, "model": "m"}
    response |= {"output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": None}
    usage = {"input_tokens": asked, "output_tokens": told, "total_tokens": asked + told}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    delta = {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": "H"}
    return as_events(
        [
            {"type": "response.created", "sequence_number": 0, "response": {**response, "status": "in_progress"}},
            *({**delta, "sequence_number": at, "logprobs": []} for at in (1, 2, 3)),
            {
                "type": "response.completed",
                "sequence_number": 4,
                "response": {**response, "status": "completed", "usage": usage},
            },
        ],
        named=True,
    )


def _messages(number: int) -> Reply:
    asked, told = tokens(number)
    message: dict[str, Any] = {"id": f"answer-{number}", "type": "message", "role": "assistant", "model": "m"}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "H"}}
    return as_events(
        [
            {
                "type": "message_start",
                "message": {**message, "usage": {"input_tokens": asked, "output_tokens": 1}},
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            delta,
            delta,
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": told},
            },
            {"type": "message_stop"},
        ],
        named=True,
    )


@pytest.fixture
def provider() -> Iterator[Numbered]:
    with serving(Numbered()) as running:
        yield running


class Tool:
    """The tool's processes, one after the other, and what their callers have received."""

    def __init__(self, address: str, received: Path, environment: dict[str, str]) -> None:
        self._received = received
        self._process = subprocess.Popen(
            [sys.executable, TOOL, address, received],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def start(self, calls: int) -> int:
        """Start a process that makes `calls` calls, and then ends by itself; returns its id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def received(self) -> list[tuple[str, str]]:
        """Id of the answer, and for whom, of each call that has returned."""
        lines = self._received.read_text().splitlines() if self._received.exists() else []
        return [(answer, user) for answer, user in (line.split() for line in lines)]

    def close(self) -> None:
        self._process.kill()  # what it has started ends by itself
        self._process.communicate()


def booked(url: str) -> Iterator[tuple[str, usages.UsageRow]]:
    """Each usage that is booked, with the provider's id of its answer."""
    with connection(url) as conn:
        first = 1
        while rows := usages.between(conn, "acme", first, first + usages.PAGE_MAX - 1):
            found = payloads(conn, "acme", rows, 100_000)
            for row in rows:
                yield json.loads(found[row.seq].data)["metadata"]["request_id"], row
            first += usages.PAGE_MAX


@pytest.fixture
def run(
    provider: Numbered,
    ledger: Ledger,
    redis_url: str,
    environment: dict[str, str],
    new_worker: Callable[..., WorkerProcess],
    tmp_path: Path,
) -> Callable[[int, str], None]:
    """``run(calls, broker_url)``."""
    output = Price(
        target=Target(None, "p", "m"), unit="output_tokens", amount=OUTPUT_PRICE * 1_000_000, per=Decimal(1_000_000)
    )
    with connection(ledger.url) as conn:
        set_price(conn, output)

    def run(calls: int, broker_url: str) -> None:
        new_worker(ledger.url, broker_url, redis_url).start()
        feed = Feed(broker_url)
        feed.pay(payment("acme", f"{PAID}.00"))
        feed.close()
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            eventually(lambda: client.hget(names.balance_key("acme"), "balance") == str(PAID), 120)
        settings = {
            "TAXIMETER_BROKER_URL": broker_url,
            "TAXIMETER_REDIS_URL": redis_url,
            "TAXIMETER_SPOOL": str(tmp_path / "spool"),
        }
        tool = Tool(provider.address, tmp_path / "received", {**environment, **settings})
        try:
            kills = _kill_in_a_loop(tool, provider, calls)
        finally:
            tool.close()
        _compare(tool, provider, ledger, kills)

    return run


def _kill_in_a_loop(tool: Tool, provider: Numbered, calls: int) -> int:
    """Kill the tool until its callers have received `calls` answers; returns how often that took."""
    seed = int(os.environ.get("TAXIMETER_SEED") or random.randrange(10**9))
    print(f"\nTAXIMETER_SEED={seed}")
    dice, kills = random.Random(seed), 0
    while len(tool.received()) < calls:
        process = tool.start(10**9)
        goal = provider.given + dice.randrange(1, CALLS_BETWEEN_KILLS)
        eventually(lambda goal=goal: provider.given >= goal, 120, "the tool calls")
        time.sleep(dice.uniform(0.0, 0.01))
        os.kill(process, signal.SIGKILL)
        assert tool.ended() == -signal.SIGKILL
        kills += 1
    # The last one lives: it publishes what the dead have left behind.
    tool.start(20)
    assert tool.ended() == 0
    return kills


def _compare(tool: Tool, provider: Numbered, ledger: Ledger, kills: int) -> None:
    received = tool.received()
    eventually(lambda: ledger.usages >= len(received), 120, "all that was received is booked")
    ledger.verify()
    found = list(booked(ledger.url))
    times = Counter(answer for answer, _ in found)
    print(
        f"{kills} kills; {provider.given} answers given, {len(received)} received, {len(found)} booked; "
        f"{ledger.duplicates} duplicates were seen"
    )
    assert [answer for answer, count in times.items() if count > 1] == [], "booked twice"
    assert [answer for answer, _ in received if answer not in times] == [], "received and not booked"
    assert len(received) == len(set(received))
    # A caller that was killed between the record and its own note has received that answer without knowing it.
    assert len(found) - len(received) <= kills * AT_ONCE
    users = dict(received)
    spent = Decimal(0)
    for answer, row in found:
        asked, told = tokens(int(answer.removeprefix("answer-")))
        assert row.quantities == {"input_tokens": asked, "output_tokens": told}
        assert row.user_id == users.get(answer, row.user_id)
        spent += asked * INPUT_PRICE + told * OUTPUT_PRICE
    assert ledger.quarantined() == {}
    with psycopg.connect(ledger.url) as conn:
        balance = conn.execute("SELECT balance FROM taximeter.workspaces WHERE workspace_id = 'acme'").fetchone()
    assert balance == (PAID - spent,)


@pytest.mark.timeout(900)
def test_every_answer_that_a_killed_caller_received_is_booked_once(run, valkey_broker_url):
    run(300, valkey_broker_url)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_calls_of_a_killed_caller_are_booked_once(run, broker_url):
    run(10_000, broker_url)
