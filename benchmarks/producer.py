"""A tool that does nothing but record: run as ``python -m benchmarks.producer LOAD``, with the load as JSON.

Says "ready", waits for a line, and prints one JSON object: when the first record() began (time.monotonic, comparable
between processes of one machine), and when the last record() and the last confirm came.
"""

from __future__ import annotations

import itertools
import sys
import time

from benchmarks.load import from_command_line, report, wait_for_go
from taximeter import Meter


def main() -> None:
    load = from_command_line()
    names, ids, texts = load.workspace_ids(), load.event_ids(), load.texts()
    quantities = {"input_tokens": 1200, "output_tokens": 300}
    with Meter.from_env() as meter:
        record = meter.record
        wait_for_go()
        start = time.monotonic()
        for number, (name, event_id, (given, answer)) in enumerate(
            zip(names, ids, itertools.cycle(texts), strict=False)
        ):
            if load.slice_events and number and number % load.slice_events == 0:
                sys.stdin.readline()
            record(
                name,
                tool="chat",
                provider="openai",
                model="gpt-4o",
                quantities=quantities,
                input=given,
                output=answer,
                id=event_id,
            )
        recorded = time.monotonic()
        meter.flush(timeout=600)
        report(start=start, recorded=recorded, confirmed=time.monotonic())


if __name__ == "__main__":
    main()
