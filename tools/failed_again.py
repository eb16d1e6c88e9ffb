# ruff: noqa: INP001, T201 -- a script of its own, run by CI
"""Run the tests that failed once more, one by one, and tell those that pass alone.

The suite drives real servers and kills them, several tests at a time: one in some thousands fails because its machine was
slow, not because the code is wrong. Such a test is named in the output, to be fixed; it does not hold up everything else.
Many failures are none of that kind, nor are those of tests that try something else in each run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".pytest_cache" / "v"
TESTS_FAILED = 1
"""pytest's exit status where every test ran and some failed; any other means that it did not come to its end."""
AT_MOST = 3
NEVER_AGAIN = ("tests/model/", "tests/fuzz/", "tests/conventions/")
"""Tests with a new seed each run, whose second run would say nothing of the first; and tests that read source code."""


def main() -> int:
    """Return 0 if the tests that failed pass alone."""
    failed = sorted(_read("cache/lastfailed") or {})
    if not failed or _read("taximeter/run_ended") != TESTS_FAILED:
        print("The run did not come to its end.", file=sys.stderr)
        return 1
    final = [test for test in failed if test.startswith(NEVER_AGAIN) or "::" not in test]
    if final or len(failed) > AT_MOST:
        print(f"{len(failed)} failed, which is final: {', '.join(final or failed[:10])}", file=sys.stderr)
        return 1
    for test in failed:
        print(f"Failed beside others, runs alone now: {test}", flush=True)
        browser = ["-m", "browser and not soak"] if test.startswith("tests/dashboard/browser/") else []
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", *browser, test]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            return 1
        print(f"FLAKY: {test} failed beside others and passes alone.", flush=True)
    return 0


def _read(key: str) -> Any:
    path = CACHE / key
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
