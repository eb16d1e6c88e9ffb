"""A tool that does nothing but record: run as ``python -m benchmarks.producer COUNT WORKSPACES BYTES``.

Prints one JSON object: when the first record() began (time.monotonic, comparable between processes of one machine),
and when the last record() and the last confirm came.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time

from taximeter import Meter


def main() -> None:
    count, workspaces, payload_bytes = map(int, sys.argv[1:4])
    rng = random.Random(1)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(workspaces)))  # Zipf
    names = [f"ws-{n:06d}" for n in rng.choices(range(workspaces), cum_weights=weights, k=count)]
    text = "".join(rng.choices("abcdefghij klmnop qrstu vwxyz", k=payload_bytes // 2)) if payload_bytes else None
    with Meter.from_env() as meter:
        record = meter.record
        start = time.monotonic()
        for name in names:
            record(
                name,
                tool="chat",
                provider="openai",
                model="gpt-4o",
                quantities={"input_tokens": 1200, "output_tokens": 300},
                input=text,
                output=text,
            )
        recorded = time.monotonic()
        meter.flush(timeout=600)
        confirmed = time.monotonic()
    print(json.dumps({"start": start, "recorded": recorded, "confirmed": confirmed}))


if __name__ == "__main__":
    main()
