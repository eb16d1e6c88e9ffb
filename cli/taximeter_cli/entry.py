"""The console script. It runs in a bare install of the SDK too, where it says what to install."""

from __future__ import annotations

import importlib.util
import sys

_NEEDED = ("typer", "rich", "psycopg", "sqlalchemy", "alembic", "celery")


def main() -> int:
    """Run the command line; the exit code is 0, 1 for an error or 2 for a usage error."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        extra = "embedded" if "up" in sys.argv[1:2] else "worker"
        sys.stderr.write(
            "taximeter: only the SDK is installed here, which AI tools import; this command needs more:\n"
            f"    pip install 'taximeter[{extra}]'\n"
        )
        return 1
    from taximeter_cli import streams
    from taximeter_cli.main import run

    streams.open_streams()
    return streams.close_streams(run())


if __name__ == "__main__":
    sys.exit(main())
