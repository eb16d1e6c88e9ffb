"""``python -m taximeter_worker``: a worker in this process."""

from __future__ import annotations

import sys

from taximeter_db.errors import TaximeterDbError
from taximeter_worker.app import run
from taximeter_worker.errors import TaximeterWorkerError


def main() -> int:
    """Run a worker; a wrong setting ends in one sentence."""
    try:
        return run(sys.argv[1:])
    except (TaximeterWorkerError, TaximeterDbError) as error:
        print(f"taximeter worker: {error}", file=sys.stderr)  # noqa: T201 -- this is a command line
        return 1


if __name__ == "__main__":
    sys.exit(main())
