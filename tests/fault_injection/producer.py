"""An AI tool as a process of its own: records its planned events at a steady pace until SIGTERM, however often it is killed.

The journal holds how many of them ``record`` has accepted. It is written after ``record`` has returned, so a tool that is
killed in between records one event again when it is back, as a careful caller would.

python -m fault_injection.producer SEED PRODUCER BEGAN_AT RATE JOURNAL
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

from fault_injection.traffic import plan, put
from taximeter import Meter, SpoolError

ASK_EVERY = 50
FLUSH_SECONDS = 240.0
BURST_SECONDS = 2.0


def accepted(journal: Path) -> int:
    """How many events the producer of this journal has got rid of."""
    return int(journal.read_bytes()[:20] or b"0") if journal.exists() else 0


def main() -> None:
    seed, producer, began, rate, journal = sys.argv[1:]
    began_at, path = datetime.fromisoformat(began), Path(journal)
    stopping, parent = [], os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    path.with_suffix(".listening").write_text(str(os.getpid()))
    number = accepted(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    slowest = refused = 0.0
    meter = Meter.from_env(source="/soak")
    due = time.monotonic()
    while not stopping:
        planned = plan(int(seed), int(producer), number)
        try:
            put(meter, planned, began_at)
        except SpoolError:
            refused += 1  # the disk is full: the event was not accepted, and this tool tries again
            time.sleep(0.05)
            continue
        number += 1
        os.pwrite(descriptor, b"%020d" % number, 0)
        if number % ASK_EVERY == 0:
            if os.getppid() != parent:
                return  # nobody is left to stop it
            asked = time.monotonic()
            meter.enabled(planned.workspace)
            slowest = max(slowest, time.monotonic() - asked)
        # After a freeze it catches up, but only so much.
        due = max(due + 1 / float(rate), time.monotonic() - BURST_SECONDS)
        if (ahead := due - time.monotonic()) > 0.005:
            time.sleep(ahead)
    meter.flush(FLUSH_SECONDS)
    meter.close()
    path.with_suffix(".json").write_text(json.dumps({"slowest_check_seconds": slowest, "refused": refused}))


if __name__ == "__main__":
    main()
