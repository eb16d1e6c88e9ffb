"""`taximeter tokens`: making, listing and revoking what programs use the JSON API with."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from taximeter_cli import main
from taximeter_db import access, connect, service_tokens

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a command line to `taximeter tokens` in this process; its output, or with ``code`` its errors."""
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", database_url)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["taximeter", "tokens", *arguments])
        assert main.run() == code
        done = capsys.readouterr()
        return done.err if code else done.out

    return run


def test_a_token_is_made_listed_and_revoked(run: Run, database_url: str):
    made = json.loads(run("new", "robot", "--workspace", "acme", "--workspace", "other", "--read", "--json"))
    assert made.keys() == {"name", "token"}
    assert made["name"] == "robot"
    with connect.connection(database_url) as conn:
        known = service_tokens.find(conn, made["token"])
        assert known == service_tokens.Known("robot", ("acme", "other"), read_only=True)
        [listed] = json.loads(run("list", "--json"))
        assert (listed["name"], listed["workspaces"], listed["read_only"]) == ("robot", ["acme", "other"], True)
        assert made["token"] not in run("list", "--json") + run("list")
        assert json.loads(run("revoke", "robot", "--json")) == {"name": "robot", "revoked": True}
        assert service_tokens.find(conn, made["token"]) is None
        log = [(one.field, one.value_before, one.value_after) for one in access.changes(conn, "other")]
        assert log == [("token", "robot", None), ("token", None, "robot")]
    assert run("list").strip() == "There is no token."


def test_one_without_a_workspace_is_for_every_one(run: Run, database_url: str):
    token = run("new", "robot").strip()
    with connect.connection(database_url) as conn:
        assert service_tokens.find(conn, token) == service_tokens.Known("robot", None, read_only=False)
    assert json.loads(run("list", "--json"))[0]["workspaces"] is None
    assert "all" in run("list")


def test_several_of_one_name_are_told_apart_by_a_workspace(run: Run):
    run("new", "robot")
    run("new", "robot", "--workspace", "acme")
    assert "of which workspace" in run("revoke", "robot", code=1)
    assert "is revoked" in run("revoke", "robot", "--workspace", "*")
    assert [token["workspaces"] for token in json.loads(run("list", "--json"))] == [["acme"]]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["new", "no spaces"], 1),
        (["new", ""], 1),
        (["new", "robot", "--workspace", "no spaces"], 2),
        (["new"], 2),
        (["revoke", "nobody"], 1),
        (["revoke", "robot", "--workspace", "a b"], 2),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(run: Run, arguments: list[str], code: int):
    told = run(*arguments, code=code)
    assert told
    assert "Traceback" not in told
    assert json.loads(run("list", "--json")) == []
