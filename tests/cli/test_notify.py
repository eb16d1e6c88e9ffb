"""`taximeter notify`: where notices go, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from notice_receivers import Receiver
from taximeter_cli import main
from taximeter_cli.embedded.logins import WORKER, part_url
from taximeter_db import access, connect
from taximeter_db.notices import deliveries, outbox
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices.deliverer import Deliverer
from taximeter_worker.settings import Settings

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a command line to `taximeter notify` in this process; its output, or with ``code`` its errors."""
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", database_url)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["taximeter", "notify", *arguments])
        assert main.run() == code
        done = capsys.readouterr()
        return done.err if code else done.out

    return run


@pytest.fixture
def deliver(database_url: str) -> Callable[[], int]:
    settings = Settings(database_url=part_url(database_url, WORKER), broker_url="redis://", redis_url="redis://")
    return Deliverer(settings, Metrics()).run


def test_a_target_from_its_making_to_its_end(run: Run, database_url: str, deliver):
    receiver = Receiver()
    made = json.loads(run("add", "--webhook", receiver.url, "--workspace", "acme", "--allow-private", "--json"))
    assert made.keys() == {"id", "secret"}
    number = str(made["id"])
    (listed,) = json.loads(run("list", "--json"))
    assert (listed["id"], listed["workspace"], listed["types"]) == (made["id"], "acme", None)
    assert listed["address"] == receiver.url.removesuffix("/hook")
    assert made["secret"] not in run("list") + run("list", "--json")

    run("test", number, "--timeout", "0", code=1)
    assert json.loads(run("list", "--json"))[0]["pending"] == 1
    deliver()
    assert receiver.requests[0].verified(made["secret"])["type"] == "notice.test"
    with connect.connection(database_url) as conn:
        conn.execute("UPDATE taximeter.notice_deliveries SET state = 'dead'")
        assert json.loads(run("list", "--json"))[0]["dead"] == 1
        assert json.loads(run("replay", number, "--json")) == {"id": made["id"], "replayed": 1}
        deliver()
        secret = json.loads(run("rotate", number, "--json"))["secret"]
        assert secret.startswith("whsec_")
        (entry,) = json.loads(run("log", "acme", "--json"))
        assert (entry["type"], entry["state"], entry["outcome"]) == ("notice.test", "delivered", "delivered")
        assert json.loads(run("remove", number, "--json")) == {"id": made["id"], "removed": True}
        assert [change.field for change in access.changes(conn, "acme")] == ["notices"] * 3
    assert json.loads(run("list", "--json")) == []
    receiver.close()


def test_what_became_of_a_test_is_said(run: Run, database_url: str, deliver, monkeypatch):
    """As if a worker looked while the command waits."""
    receiver = Receiver()
    number = str(json.loads(run("add", "--webhook", receiver.url, "--allow-private", "--json"))["id"])
    asked = deliveries.outcome_of

    def outcome_of(conn, target, notice_id):
        deliver()
        return asked(conn, target, notice_id)

    monkeypatch.setattr(deliveries, "outcome_of", outcome_of)
    assert "took the test notice" in run("test", number)
    receiver.answer = lambda _request: 503
    assert "answered 503" in run("test", number, code=1)
    receiver.close()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["add"], 2),
        (["add", "--webhook", "https://a.example/", "--apprise", "slack://A/B/C"], 2),
        (["add", "--webhook", "http://hooks.example.com/topsecret"], 1),
        (["add", "--webhook", "https://127.0.0.1/topsecret"], 1),
        (["add", "--webhook", "https://user:topsecret@hooks.example.com/"], 1),
        (["add", "--apprise", "nothing://topsecret"], 1),
        (["add", "--apprise", "topsecret"], 1),
        (["add", "--webhook", "https://a.example/", "--type", "workspace.sad"], 1),
        (["add", "--webhook", "https://a.example/", "--quiet", "-1"], 1),
        (["add", "--webhook", "https://a.example/", "--workspace", "no spaces"], 2),
        (["test", "4711"], 1),
        (["replay", "4711"], 1),
        (["rotate", "4711"], 1),
        (["remove", "4711"], 1),
        (["remove", "0"], 2),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(run: Run, arguments: list[str], code: int):
    told = run(*arguments, code=code)
    assert told
    assert "Traceback" not in told
    assert "topsecret" not in told
    assert json.loads(run("list", "--json")) == []


@pytest.mark.parametrize("kind", outbox.TYPES)
def test_every_type_of_the_contract_can_be_asked_for(run: Run, kind: str):
    run("add", "--apprise", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general", "--type", kind)
    assert json.loads(run("list", "--json"))[0]["types"] == [kind]
