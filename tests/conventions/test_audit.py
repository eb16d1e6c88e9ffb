"""`make audit`: no licence comes in unnoticed."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "tools" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_licence_is_allowed(audit: ModuleType):
    assert len(audit.required(audit.SHIPPED)) > 40
    assert audit.check_licences() == []


def test_an_unknown_licence_fails(audit: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit, "READ_BY_HAND", {})
    monkeypatch.setattr(audit, "ALLOWED", audit.PERMISSIVE)
    faults = "\n".join(audit.check_licences())
    assert "axe-playwright-python: licence 'unknown' is not on the list" in faults
    assert "psycopg: licence 'LGPL-3.0-only' is not on the list" in faults


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        ("", []),
        ("<html>no such service</html>", []),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', []),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            ["a 1: CVE-1, fixed in 2."],
        ),
    ],
)
def test_vulnerabilities_fail_and_an_absent_service_does_not(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, answer: str, faults: list[str]
):
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, answer, ""))
    assert audit.check_vulnerabilities() == faults


def test_requirements_are_pinned_by_hash():
    for name in ("requirements.txt", "requirements-dev.txt", "deploy/requirements-build.txt"):
        for block in (ROOT / name).read_text().replace("\\\n", "").splitlines():
            if block.strip() and not block.startswith(("#", " ")):
                assert "==" in block, f"{name}: {block[:60]}"
                assert "--hash=sha256:" in block, f"{name}: {block[:60]}"
