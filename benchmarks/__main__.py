"""Run benchmarks: ``python -m benchmarks [NAME …] [--full] [--json FILE]``; `make bench` runs the short form of all.

Every scenario starts its own real servers and stops them again. With --json, the file is written after each scenario, and
scenarios that are not run keep what it says of them; `python -m benchmarks.report` makes docs/performance.md of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from benchmarks import (
    as_of,
    asking,
    end_to_end,
    flip,
    growth,
    machine,
    memory,
    notices,
    partitions,
    profiling,
    reads,
    recording,
    upkeep,
)
from benchmarks.results import Result
from benchmarks.tables import aligned, figure_lines, side_lines

SCENARIOS: dict[str, Callable[[str], Result]] = {
    "end-to-end": end_to_end.run,
    "recording": recording.run,
    "asking": asking.run,
    "flip": flip.run,
    "upkeep": upkeep.run,
    "reads": reads.run,
    "growth": growth.run,
    "memory": memory.run,
}
BY_NAME_ONLY: dict[str, Callable[[str], Result]] = {
    "as-of": as_of.run,
    "notices": notices.run,
    "partitions": partitions.run,
    "profile": profiling.run,
}
"""They answer questions of their own and are held to no target."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*SCENARIOS, *BY_NAME_ONLY]
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(names)} (default: up to memory)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--full", dest="form", action="store_const", const="full", help="longer runs, logs of 20 million")
    form.add_argument("--smoke", dest="form", action="store_const", const="smoke", help="only to see that they work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results here")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}. There are: {', '.join(names)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    results = _read(given.json)
    busy = machine.busy_percent()
    results["machine"] = machine.describe() | {"busy_percent_before": busy}
    if busy > 20:
        print(f"The machine is {busy:.0f} % busy with other things: compare ratios, not rates.")
    for name in given.names or SCENARIOS:
        results["scenarios"][name] = _run(name, given.form or "short")
        if given.json:
            given.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    figures: dict[str, Any] = {}
    for name in given.names or SCENARIOS:
        figures |= msgspec.convert(results["scenarios"][name]["result"], Result).figures
    if figures:
        print("\n" + aligned(figure_lines(figures)))


def _run(name: str, form: str) -> dict[str, Any]:
    print(f"{name}", flush=True)
    began = time.monotonic()
    result = (SCENARIOS | BY_NAME_ONLY)[name](form)
    seconds = time.monotonic() - began
    print(aligned(side_lines(result)))
    for note in result.notes:
        print(f"  {note}")
    print(f"  {seconds:.0f} s\n", flush=True)
    return {"form": form, "seconds": round(seconds), "result": msgspec.to_builtins(result)}


def _read(path: Path | None) -> dict[str, Any]:
    if path is not None and path.exists():
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        return found
    return {"scenarios": {}}


if __name__ == "__main__":
    main()
