"""Run benchmarks: ``python -m benchmarks [NAME …] [--full] [--json FILE]``; `make bench` runs the short form of all."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks import end_to_end, flip

SCENARIOS = {"end-to-end": end_to_end.run, "flip": flip.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="which to run (default: all)")
    parser.add_argument("--full", action="store_true", help="longer runs")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    }
    for name in arguments.names or SCENARIOS:
        print(name, flush=True)
        results[name] = SCENARIOS[name](full=arguments.full)
    _print(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def _print(results: dict[str, Any]) -> None:
    if found := results.get("end-to-end"):
        print(f"\n{'end to end, 2 workers':<34}{'events/s: median':>18}{'min':>10}{'max':>10}")
        titles = {
            "floor": "floor: one Celery task per event",
            "narrow": "Taximeter, narrow events",
            "wide": "Taximeter, 1.8 KB payloads",
        }
        for side, title in titles.items():
            row = found["events_per_second"][side]
            print(f"{title:<34}{row['median']:>18,.0f}{row['min']:>10,.0f}{row['max']:>10,.0f}")
        print(f"narrow / floor: {found['narrow_over_floor']:.0f}x   wide / narrow: {found['wide_over_narrow']:.2f}")
        middle = sorted(found["results"]["narrow"], key=lambda one: one["events_per_second"])[1]
        print(
            "CPU, us an event: "
            + "  ".join(f"{role} {used:.1f}" for role, used in middle["cpu_us_per_event"].items())
            + f"   to the last confirm: {middle['confirmed_per_second']:,.0f}/s"
        )
    if found := results.get("flip"):
        print(f"\n{'publish to enabled() false, ms':<34}{'p50':>10}{'p99':>10}{'max':>10}")
        for row in found["results"]:
            title = f"{row['per_second']:,.0f} events/s, one a message"
            print(f"{title:<34}{row['p50_ms']:>10.1f}{row['p99_ms']:>10.1f}{row['max_ms']:>10.1f}")


if __name__ == "__main__":
    main()
