# ruff: noqa: INP001, T201 -- a script of its own, run by `make audit`
"""Audit of what is installed because of us: its licences, and the vulnerabilities that are known of it.

Licences are read from the installed packages and compared with the list below; one that is not on it fails. Vulnerabilities
need an advisory service: where it cannot be reached, that is said and nothing fails.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "requirements.txt"
EVERYTHING = ROOT / "requirements-dev.txt"

PERMISSIVE = frozenset(
    {"MIT", "MIT-0", "MIT-CMU", "BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "PSF-2.0", "0BSD", "Zlib"}
    | {"CC0-1.0", "CNRI-Python"}
)
# Used unchanged, as libraries: the LGPL and the MPL ask for nothing more than their text and their own sources.
WEAK = frozenset({"LGPL-3.0-only", "LGPL-3.0-or-later", "MPL-2.0"})
ALLOWED = PERMISSIVE | WEAK
_SPELLINGS = {
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
# Packages whose metadata name no licence that can be understood, with the one that their own files hold.
READ_BY_HAND = {
    "axe-playwright-python": "MIT",
    "dirtyjson": "MIT OR AFL-2.1",
    "mistralai": "Apache-2.0",
    "tiktoken": "MIT",
    "tqdm": "MPL-2.0 AND MIT",
}


def required(path: Path) -> list[str]:
    """Names of the packages that a requirements file pins."""
    return re.findall(r"^([A-Za-z0-9._-]+)==", path.read_text(encoding="utf-8"), re.MULTILINE)


def licences(name: str) -> set[str] | None:
    """The licences of an installed package that all apply, or None if it is not installed (another platform's)."""
    try:
        facts = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    expression = facts.get("License-Expression") or READ_BY_HAND.get(name, "")
    if expression:
        return {_choose(part.strip(" ()")) for part in expression.split(" AND ")}
    named = [line.rpartition(" :: ")[2] for line in facts.get_all("Classifier", []) if line.startswith("License ::")]
    found = {_SPELLINGS.get(one, one) for one in named if one not in {"OSI Approved", "DFSG approved"}}
    short = (facts.get("License") or "").strip()
    return found or {_SPELLINGS.get(short, short) if short and "\n" not in short else "unknown"}


def _choose(expression: str) -> str:
    """Of licences to choose from, one that is allowed."""
    options = [one.strip(" ()") for one in expression.split(" OR ")]
    return next((one for one in options if one in ALLOWED), options[0])


def check_licences() -> list[str]:
    """Print each licence with its packages; returns a sentence for each package that is not allowed."""
    faults, table = [], dict[str, list[str]]()
    for name in sorted({*required(EVERYTHING), *required(SHIPPED)}):
        found = licences(name)
        if found is None:
            continue
        table.setdefault(" AND ".join(sorted(found)), []).append(name)
        faults += [f"{name}: licence {one!r} is not on the list in tools/audit.py." for one in sorted(found - ALLOWED)]
    for licence, names in sorted(table.items()):
        print(f"{licence:24} {', '.join(names)}")
    return faults


def check_vulnerabilities() -> list[str]:
    """Ask the advisory service; returns a sentence for each known vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(EVERYTHING), "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner=off", "--timeout=20", "--format=json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        report = json.loads(done.stdout)
    except (json.JSONDecodeError, subprocess.TimeoutExpired):
        print("Vulnerabilities: the advisory service could not be reached; nothing was checked.")
        return []
    packages = [one for one in report["dependencies"] if "skip_reason" not in one]
    skipped = len(report["dependencies"]) - len(packages)
    print(f"Vulnerabilities: {len(packages)} packages checked, {skipped} unknown to the advisory service in reach.")
    return [
        f"{one['name']} {one['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version yet'}."
        for one in packages
        for flaw in one.get("vulns", [])
    ]


def main() -> int:
    """Print everything; 1 where something is wrong."""
    faults = check_licences() + check_vulnerabilities()
    for fault in faults:
        print(f"WRONG  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
