"""A tool that times each record() of a tight loop: run as ``python -m benchmarks.recorder LOAD``.

Prints the percentiles in microseconds, and when the last confirm came (0 where it was told not to wait: a second argument).
"""

from __future__ import annotations

import os
import sys
import time

from benchmarks.load import from_command_line, report, wait_for_go
from benchmarks.stats import percentile
from taximeter import Meter


def main() -> None:
    load = from_command_line()
    names = load.workspace_ids()
    quantities = {"input_tokens": 1200, "output_tokens": 300}
    taken = [0] * len(names)
    clock = time.perf_counter_ns
    meter = Meter(broker_url=os.environ["TAXIMETER_BROKER_URL"], spool=os.environ["TAXIMETER_SPOOL"])
    wait_for_go()
    start, cpu = time.monotonic(), time.process_time()
    for index, name in enumerate(names):
        began = clock()
        meter.record(name, tool="chat", provider="openai", model="gpt-4o", quantities=quantities)
        taken[index] = clock() - began
    recorded = time.monotonic()
    if len(sys.argv) < 3:
        meter.flush(timeout=600)
    report(
        p50_us=percentile(taken, 50) / 1_000,
        p99_us=percentile(taken, 99) / 1_000,
        p999_us=percentile(taken, 99.9) / 1_000,
        max_us=max(taken) / 1_000,
        recorded_per_second=len(names) / (recorded - start),
        confirmed_per_second=len(names) / (time.monotonic() - start),
        cpu_us_per_event=(time.process_time() - cpu) / len(names) * 1e6,
    )
    meter.close(timeout=0)


if __name__ == "__main__":
    main()
