"""The page opens what is stored encrypted, and says so where it cannot."""

from __future__ import annotations

import msgspec
import pytest
from starlette.testclient import TestClient

from dashboard_factory import make_settings, make_usage
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_db.crypto import erasure, master_keys
from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext

CONTENTS = b'{"input":"what is a taxi?","output":"' + b"a car " * 100 + b'"}'
DETAILS = "/workspaces/acme/usages/1"


@pytest.fixture
def masters() -> master_keys.MasterKeys:
    return master_keys.parse(master_keys.new())


def browser(database_url, masters) -> TestClient:
    settings = make_settings(database_url)
    client = TestClient(create_app(settings, masters=masters), base_url="http://dash.example")
    client.cookies.set("taximeter_session", Keys(settings).session(Viewer("o", "Owner", {EVERY_WORKSPACE: OWNER})))
    client.headers["sec-fetch-site"] = "same-origin"
    return client


def test_contents_are_shown_and_then_said_to_be_erased(conn, database_url, masters):
    usage = make_usage(event_id="e-1", payload=CONTENTS)
    booking.book(conn, [usage], context=BookingContext(payload_crypto=PayloadCrypto(masters)))
    client = browser(database_url, masters)
    assert "what is a taxi?" in client.get("/workspaces/acme").text
    assert "what is a taxi?" in client.get(DETAILS).text
    assert client.get(f"{DETAILS}/contents.json").content == CONTENTS
    assert CONTENTS in client.get("/api/v1/workspaces/acme/usages/e-1").content
    keyless = browser(database_url, None)
    assert "their key is not at hand" in keyless.get(DETAILS).text
    assert keyless.get("/workspaces/acme").status_code == 200
    assert keyless.get(f"{DETAILS}/contents.json").status_code == 404

    erasure.erase(conn, "acme", by="olga")
    page = client.get(DETAILS)
    assert "Contents erased" in page.text
    assert "the cost record stays." in page.text
    assert "taxi?" not in page.text + client.get("/workspaces/acme").text
    assert client.get(f"{DETAILS}/contents.json").status_code == 404
    assert client.get("/api/v1/workspaces/acme/usages/e-1").json()["contents"] is None
    assert "Contents of all events so far erased" in client.get("/workspaces/acme/settings").text
    for one in (client, keyless):
        one.app.state.app_context.close()


def test_a_long_conversation_shows_its_last_message_and_the_answer(conn, owner):
    said = [{"role": "system", "content": "Be terse. " * 800}, {"role": "user", "content": "What is a taxi?"}]
    contents = msgspec.json.encode({"input": said, "output": "A car for hire.", "metadata": {"user": "u-1"}})
    booking.book(
        conn, [make_usage(event_id="e-1", payload=contents)], context=BookingContext(payload_crypto=PayloadCrypto(None))
    )
    page = owner.get("/workspaces/acme").text
    assert '<span class="first" dir="auto">What is a taxi?</span>' in page
    assert '<span class="second" dir="auto">A car for hire.</span>' in page
