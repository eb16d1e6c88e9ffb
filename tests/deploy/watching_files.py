"""What the alerts and dashboards ask Prometheus for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from deploy.compose_file import DEPLOY

PROMETHEUS = DEPLOY / "prometheus"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """All panels that show something."""
    return [panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every query of a panel, as Prometheus gets it from Grafana."""
    return [target["expr"].replace("$__rate_interval", "1m") for panel in panels() for target in panel["targets"]]


def metrics(expressions: Iterable[str]) -> set[str]:
    """The series of ours that these ask for."""
    return {name for expression in expressions for name in re.findall(r"taximeter_\w+", expression)}


def everything_asked_for() -> set[str]:
    """The series of ours that any panel or alert asks for."""
    return metrics([*queries(), *(rule["expr"] for rule in rules())])
