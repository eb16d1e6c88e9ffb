"""`taximeter budget`: setting, listing, showing and removing budgets."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import redis

from taximeter import names
from taximeter_cli import main

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a command line to `taximeter budget` in this process; its output, or with ``code`` its errors."""
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", database_url)
    monkeypatch.setenv("TAXIMETER_REDIS_URL", redis_url)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["taximeter", "budget", *arguments])
        assert main.run() == code, capsys.readouterr()
        done = capsys.readouterr()
        return done.err if code else done.out

    return run


def test_a_budget_is_set_listed_shown_and_removed(run: Run, redis_client: redis.Redis):
    terms = ("--limit", "20", "--period", "day", "--zone", "Europe/Berlin", "--tag", "team=search")
    made = json.loads(run("set", "acme", "search", *terms, "--json"))
    assert (made["name"], made["limit"], made["period"], made["tag"]) == ("search", "20", "day", "team=search")
    assert (made["spent"], made["state"], made["soft"], made["crossings"]) == ("0", "within", False, [])
    assert made["period_ends_at"] is not None
    run("set", "acme", "nothing", "--limit", "0", "--period", "total")
    flag = json.loads(redis_client.hget(names.flag_key("acme"), "budgets"))
    assert flag == [{"name": "nothing", "limit": "0", "period": "total"}]
    assert [one["name"] for one in json.loads(run("list", "acme", "--json"))] == ["nothing", "search"]
    assert "tag team=search" in run("list", "acme")
    shown = run("show", "acme", "nothing")
    assert "exceeded" in shown
    assert "by settings" in shown
    assert json.loads(run("remove", "acme", "nothing", "--json"))["removed"] is True
    assert redis_client.hget(names.flag_key("acme"), "budgets") == "[]"
    assert "has no budget 'nothing'" in run("show", "acme", "nothing", code=1)
    assert "has no budget 'nothing'" in run("remove", "acme", "nothing", code=1)
    assert run("list", "other").strip() == "Workspace other has no budgets."


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--limit", "x", "--period", "day"), "not an amount"),
        (("--limit", "1", "--period", "year"), "not a period"),
        (("--limit", "1", "--period", "day", "--tag", "team"), "not a tag"),
        (("--limit", "1", "--period", "day", "--thresholds", "half"), "whole numbers"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run: Run, wrong: tuple[str, ...], says: str):
    assert says in run("set", "acme", "b", *wrong, code=2)


def test_a_zone_that_there_is_not_is_said(run: Run):
    assert "not a time zone" in run("set", "acme", "b", "--limit", "1", "--period", "day", "--zone", "Mars", code=1)
