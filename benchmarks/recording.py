"""record() itself: how long a call takes while the publisher works and without a broker, and how fast everything is confirmed."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from benchmarks.dramatiq_side import declare
from benchmarks.load import Load
from benchmarks.results import Result
from benchmarks.sides import go
from benchmarks.stack import Stack, running_stack
from benchmarks.stats import in_turns
from taximeter_cli.embedded.process import free_port


def run(form: str) -> Result:
    """Three sides in turns, three times. No worker takes part, so nobody else wants the processor but the broker."""
    events = {"short": 150_000, "full": 500_000, "smoke": 1_000}[form]
    load = Load(events=events)
    with running_stack() as stack:
        sides = in_turns(
            1 if form == "smoke" else 3,
            {
                "broker up": lambda _: record(stack, "recorder", load),
                "broker down": lambda _: record(stack, "recorder", load, broker=False),
                "confirmed": lambda _: record(stack, "producer", load),
            },
        )
    result = Result(sides=sides)
    for side in ("up", "down"):
        for figure in ("p50", "p99"):
            result.take(f"record {side} {figure}", f"broker {side}", f"{figure}_us")
    result.take("confirmed", "confirmed", "confirmed_per_second")
    return result


def record(stack: Stack, module: str, load: Load, *, broker: bool = True) -> dict[str, Any]:
    """Let a process record the load; `broker` False: at an address where nobody listens."""
    environment = stack.fresh(f"record_{load.seed}_{free_port()}")
    declare(environment["TAXIMETER_BROKER_URL"])
    arguments = ["-m", f"benchmarks.{module}", msgspec.json.encode(load).decode()]
    changes = {}
    if not broker:
        changes = {"TAXIMETER_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{free_port()}//"}
        arguments.append("--no-wait")
    process = stack.spawn(arguments, environment | changes, f"{module}.log", piped=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"ready", f"see {module}.log"
    cpu = stack.cpu_meter(producer=[process])
    go(process)
    measured: dict[str, Any] = json.loads(process.stdout.readline())
    used = cpu.used()
    stack.end(process)
    stack.drop(environment)
    if module == "producer":
        measured = {
            name + "_per_second": load.events / (measured[name] - measured["start"])
            for name in ("recorded", "confirmed")
        }
    measured["cpu_us_per_event"] = {
        role: seconds / load.events * 1e6 for role, seconds in used.items() if role in {"producer", "broker"}
    }
    return measured
