"""The systemd unit: read by systemd's own tools, which cannot start it here."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compose_file import DEPLOY
from servers import require
from taximeter_worker.settings import Settings

UNIT = DEPLOY / "systemd" / "taximeter-worker.service"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
EXPOSURE_MAX = 1.5


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy whose program exists on this machine."""
    require("systemd-analyze", shutil.which("systemd-analyze"), "install systemd")
    copy = tmp_path / request.param.name
    copy.write_text(request.param.read_text().replace("/opt/taximeter/bin/taximeter", sys.executable))
    return copy


def _settings(unit: Path = UNIT) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


def test_systemd_understands_every_line(unit: Path):
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr, "a word about this unit; others are not ours"


def test_exposure_stays_low(unit: Path):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    (found,) = re.findall(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert float(found) <= EXPOSURE_MAX, done.stdout


def test_has_time_to_drain():
    drain = Settings.__dataclass_fields__["drain_seconds"].default
    assert int(_settings()["TimeoutStopSec"]) >= drain + 20


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_holds_no_secret_and_no_shell(path: Path):
    service = _settings(path)
    part = path.stem.removeprefix("taximeter-")
    assert service["ExecStart"] == f"/opt/taximeter/bin/taximeter {part}"
    assert service["EnvironmentFile"] == f"/etc/taximeter/{part}.env", "a file, and so a database user, of its own"
    if part == "gateway":
        assert "LoadCredential" not in service, "it opens no contents"
        assert service["StateDirectory"] == "taximeter-gateway"
        assert service["Environment"] == "TAXIMETER_SPOOL=%S/taximeter-gateway/spool"
        return
    # under DynamicUser a file of mode 0600 can be read in no other way
    name, _, file = service["LoadCredential"].partition(":")
    assert (name, file) == ("master-key", "/etc/taximeter/master-key")
    assert service["Environment"] == "TAXIMETER_MASTER_KEY_FILE=%d/master-key", "no secret, but where it is"
