"""Credit that expires, on the page and in the API: what is left of each, and until when."""

from __future__ import annotations

from dashboard_factory import bearer, make_usage
from factories import make_payment
from taximeter_db.ledger import grants

PROMO = {
    "kind": "promo",
    "transaction": {grants.EXPIRES: "2099-12-31T22:00:00+00:00", grants.PRIORITY: "0"},
}


def test_what_is_left_and_until_when_is_shown(owner, client, book):
    book(make_payment("acme", "5", "promo-1", **PROMO), make_usage(cost="1.5"))
    found = client.get("/api/v1/workspaces/acme/grants", headers=bearer(workspaces=["acme"])).json()
    assert found == {
        "items": [
            {
                "payment_id": "promo-1",
                "amount": "5",
                "left": "3.5",
                "expires_at": "2099-12-31T22:00:00Z",
                "priority": 0,
            }
        ]
    }
    text = owner.get("/workspaces/acme/payments").text
    for part in ("Credit that expires", "promo-1", "$3.50", "$5.00", "31 December 2099, 22:00:00"):
        assert part in text
    assert client.get("/api/v1/workspaces/acme/grants", headers=bearer(workspaces=["other"])).status_code == 404


def test_without_such_credit_nothing_is_said_of_it(owner, book):
    book(make_payment("acme", "5", kind="promo"))
    assert "Credit that expires" not in owner.get("/workspaces/acme/payments").text
