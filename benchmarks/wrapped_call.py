"""What `Meter.wrap` adds to a call: a wrapped client of openai whose method answers at once, without network.

Beside it the parts: the check and the record by themselves, on a real spool, broker and Redis. Wall clock at the median, and
this process's CPU time of a call. Run: ``python -m benchmarks.wrapped_call [--calls N]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import redis
from openai.types.chat import ChatCompletion

from benchmarks.dramatiq_side import declare
from benchmarks.sides import fresh
from benchmarks.stack import running_stack
from taximeter import Meter, names

LIMIT_MICROSECONDS = 30
ANSWER = Path(__file__).parents[1] / "tests" / "data" / "adapters" / "oai-chat-cached.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    count = parser.parse_args().calls
    answer = ChatCompletion.model_validate(json.loads(ANSWER.read_text())["response"])
    asked: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    with running_stack() as stack, tempfile.TemporaryDirectory() as spool:
        settings = fresh(stack, 1)
        declare(settings["TAXIMETER_BROKER_URL"])
        with redis.Redis.from_url(settings["TAXIMETER_REDIS_URL"]) as client:
            client.set(names.FLAGS_READY, "1")
        with (
            Meter(
                broker_url=settings["TAXIMETER_BROKER_URL"], redis_url=settings["TAXIMETER_REDIS_URL"], spool=spool
            ) as meter,
            openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9") as bare,
        ):
            bare.chat.completions.create = lambda **_: answer  # type: ignore[method-assign]
            wrapped = meter.wrap(bare)
            usage = {"input_tokens": 86, "cached_input_tokens": 1920, "output_tokens": 300}
            with meter.attribution("acme", tool="chat", user="u-17"):
                tell("the client alone", count, lambda: bare.chat.completions.create(**asked))
                tell("enabled()", count, lambda: meter.enabled("acme"))
                tell("record()", count, lambda: meter.record("acme", tool="chat", quantities=usage))
                median = tell("wrapped", count, lambda: wrapped.chat.completions.create(**asked))
            print(f"{'within' if median < LIMIT_MICROSECONDS else 'OVER'} {LIMIT_MICROSECONDS} µs")


def tell(name: str, count: int, call: Callable[[], object]) -> float:
    """Print and return the median of a call in microseconds."""
    call()
    taken, cpu = [], time.process_time_ns()
    for _ in range(count):
        started = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - started)
    cpu = time.process_time_ns() - cpu
    median = statistics.median(taken) / 1000
    print(f"{name:<18} median {median:7.2f} µs  CPU {cpu / count / 1000:7.2f} µs (the publisher's thread included)")
    return median


if __name__ == "__main__":
    main()
