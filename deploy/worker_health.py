# ruff: noqa: INP001 -- a script that the image holds on its own, no part of a package
"""Health of the worker in this container: exit code 0 while it receives from its broker, else 1 and a sentence.

Asks the worker's own metrics. Standard library only, so that a check every few seconds costs little.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 5


def problem(port: int) -> str | None:
    """What is wrong with the worker whose metrics are on ``port`` of this machine, or None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"no metrics on port {port}: {error}"
    finally:
        connection.close()
    if "taximeter_broker_connected 1.0" not in text.splitlines():
        return "the worker is alive but does not receive from its broker"
    return None


def main() -> int:
    """Print what is wrong, if anything; returns the exit code."""
    found = problem(int(os.environ.get("TAXIMETER_METRICS_PORT") or 9464))
    if found:
        sys.stderr.write(f"unhealthy: {found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
