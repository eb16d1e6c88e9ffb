"""Prometheus and Grafana: the rules load and fire, and nobody asks for a metric that no worker has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.compose_file import DEPLOY, ROOT, load
from deploy.watching_files import PROMETHEUS, everything_asked_for, metrics, panels, queries, rules
from servers import require

PROVISIONING = DEPLOY / "grafana" / "provisioning"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    require("promtool", found, "install prometheus")
    assert found
    return found


def _documented(page: str = "metrics.md") -> set[str]:
    """Names of all series: a histogram has three."""
    names = set()
    rows = re.findall(r"^\| `(taximeter_\w+)` \| ([\w ,]+) \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    for name, kind in rows:
        names |= {name + end for end in ("_bucket", "_sum", "_count")} if "histogram" in kind else {name}
    return names


def test_prometheus_accepts_configuration_and_rules(promtool: str):
    done = subprocess.run(
        [promtool, "check", "config", PROMETHEUS / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then(promtool: str):
    cases = ROOT / "tests" / "deploy" / "alerts_test.yml"
    done = subprocess.run([promtool, "test", "rules", cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_it_and_says_what_to_do():
    cases = yaml.safe_load((ROOT / "tests" / "deploy" / "alerts_test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    for rule in rules():
        for fires in (True, False):
            assert any(one["alertname"] == rule["alert"] and bool(one.get("exp_alerts")) is fires for one in checks), (
                rule
            )
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} == set(rule["annotations"])


def test_every_worker_is_scraped_where_it_serves():
    jobs = {
        one["job_name"]: one for one in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    }
    (found,) = jobs["taximeter-worker"]["dns_sd_configs"]
    services = load()["services"]
    assert (found["names"], found["type"]) == (["worker"], "A")
    assert str(found["port"]) == services["worker"]["environment"]["TAXIMETER_METRICS_PORT"]
    for name in ("worker", "rabbitmq", "grafana"):
        assert set(services[name]["networks"]) & set(services["prometheus"]["networks"])
    assert any('job="taximeter-worker"' in rule["expr"] for rule in rules())


def test_every_metric_asked_for_is_documented():
    documented = _documented() | _documented("gateway.md")
    assert len(documented) > 25
    assert everything_asked_for() - documented == set()


def test_the_dashboard_shows_what_an_operator_needs():
    shown = metrics(queries())
    # what is listed by name is for the operator's own dashboards, what a process has beside memory and time for a closer look
    left_out = {"taximeter_workspace_balance_usd", "taximeter_workspace_enabled"}
    left_out |= {
        f"taximeter_process_{what}" for what in ("virtual_memory_bytes", "open_fds", "max_fds", "start_time_seconds")
    }
    for name in _documented() - left_out:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert any(one.startswith(family) for one in shown), f"{name} is on no panel"


def test_dashboards_are_whole():
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "taximeter.yaml").read_text())["providers"]
    mounts = dict(one.split(":")[:2] for one in load()["services"]["grafana"]["volumes"])
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    assert source["url"] == "http://prometheus:9090"
    assert len({panel["id"] for panel in panels()}) == len(panels()) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        for holder in (panel, *panel["targets"]):
            assert holder["datasource"] == {"type": "prometheus", "uid": source["uid"]}
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_query_can_be_parsed(promtool: str, tmp_path: Path):
    """As recording rules, because promtool reads rules."""
    recording = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recording}]}))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
