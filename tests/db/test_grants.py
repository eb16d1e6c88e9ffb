"""What is left of credit that expires: the rule of decision 0437, held against a model that moves one coin after another."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories import make_payment, make_usage
from taximeter_db.ledger import booking, grants
from taximeter_db.ledger.grants import Movement, Terms, left

NEW_YEAR = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
_numbers = iter(range(10**9))


def terms(days: int = 0, priority: int = 0) -> dict[str, str]:
    at = NEW_YEAR + dt.timedelta(days=days)
    return {grants.EXPIRES: at.isoformat(), grants.PRIORITY: str(priority)}


class Coins:
    """Every picodollar is a coin with an owner: a grant's number, or None; debt is counted apart."""

    def __init__(self) -> None:
        self.coins: list[int | None] = []
        self.debt = 0
        self.order: dict[int, tuple[int, int, int]] = {}

    def pay(self, owner: int | None, amount: int) -> None:
        for _ in range(amount):
            self.coins.append(owner)
        while self.debt and self.coins:
            self.spend()
            self.debt -= 1

    def spend(self, *, named: int | None = None, rest_first: bool = False) -> None:
        def place(owner: int | None) -> tuple[Any, ...]:
            if owner is None:
                return (1 if rest_first else 2,)
            return (0,) if owner == named else (2 if rest_first else 1, *self.order[owner])

        if self.coins:
            self.coins.remove(min(self.coins, key=place))
        else:
            self.debt += 1

    def use(self, amount: int) -> None:
        for _ in range(amount):
            self.spend()

    def take_back(self, amount: int, named: int | None, *, ends: bool) -> None:
        for _ in range(amount):
            self.spend(named=named, rest_first=True)
        if ends:
            self.coins = [None if owner == named else owner for owner in self.coins]

    @property
    def balance(self) -> int:
        return len(self.coins) - self.debt


small = st.integers(1, 9)
usage = st.tuples(st.just("usage"), small, st.just(0), st.just(0))
promo = st.tuples(st.just("promo"), small, st.integers(0, 2), st.integers(0, 2))
other = st.one_of(
    st.tuples(st.sampled_from(("top_up", "adjustment")), small, st.just(0), st.just(0)),
    st.tuples(st.sampled_from(("clawback", "expiry")), small, st.integers(0, 5), st.just(0)),
)
# Two grants and a usage at least: without them there is no order to get wrong.
steps = st.builds(
    lambda first, second, use, more: [first, second, use, *more],
    *(promo, promo, usage),
    st.lists(st.one_of(usage, promo, other), max_size=20),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=steps)
def test_what_is_left_is_what_a_model_of_single_coins_says(conn, log):
    workspace, coins = f"w{next(_numbers)}", Coins()
    booking.book(conn, [], [make_payment(workspace, 3, "first")])
    coins.pay(None, 3)
    for number, (what, amount, one, two) in enumerate(log):
        if what == "usage":
            booking.book(conn, [make_usage(workspace, cost=amount)])
            coins.use(amount)
        elif what == "promo":
            booking.book(
                conn, [], [make_payment(workspace, amount, f"p-{number}", kind=what, transaction=terms(one, two))]
            )
            coins.order[number] = (one, two, number)
            coins.pay(number, amount)
        elif what in {"clawback", "expiry"}:
            named = list(coins.order)[one] if one < len(coins.order) else None
            transaction = {"payment_id": "first" if named is None else f"p-{named}"}
            booking.book(conn, [], [make_payment(workspace, -amount, kind=what, transaction=transaction)])
            coins.take_back(amount, named, ends=named is not None and what == "expiry")
        else:
            booking.book(conn, [], [make_payment(workspace, amount, kind=what)])
            coins.pay(None, amount)
        found = {one.payment_id: one.left for one in grants.standing(conn, workspace)}
        assert found == {f"p-{grant}": coins.coins.count(grant) for grant in coins.order}
        assert sum(found.values()) <= max(0, coins.balance)


def test_the_example_of_the_decision():
    usd = 10**12
    spring, summer = (Terms(NEW_YEAR + dt.timedelta(days=days), 0) for days in (90, 180))
    movements = [
        Movement("top-up", "top_up", 10 * usd, 10 * usd),
        Movement("summer", "promo", 5 * usd, 15 * usd, terms=summer),
        # 2 used
        Movement("spring", "promo", 5 * usd, 18 * usd, terms=spring),
        # 6 used
        Movement("chargeback", "clawback", -10 * usd, 2 * usd),
    ]
    assert left(movements, 2 * usd) == {"summer": 2 * usd, "spring": 0}
    assert left(movements[:3], 12 * usd) == {"summer": 2 * usd, "spring": 0}
    assert left(movements[:3], 15 * usd) == {"summer": 3 * usd, "spring": 2 * usd}


def test_a_grant_pays_what_is_owed_and_no_more_of_it_expires_than_there_is():
    terms_ = Terms(NEW_YEAR, 0)
    assert left([Movement("p", "promo", 10, 7, terms=terms_)], 7) == {"p": 7}
    assert left([Movement("p", "promo", 10, -2, terms=terms_)], -2) == {"p": 0}


def test_of_two_that_expire_at_once_the_lower_number_is_used_first(conn):
    booking.book(conn, [], [make_payment("acme", 5, "a", kind="promo", transaction=terms(0, 7))])
    booking.book(conn, [], [make_payment("acme", 5, "b", kind="promo", transaction=terms(0, 2))])
    booking.book(conn, [make_usage("acme", cost=6)])
    assert [(one.payment_id, one.left) for one in grants.standing(conn, "acme")] == [("b", 0), ("a", 4)]


def test_a_workspace_without_grants_has_none(conn):
    assert grants.standing(conn, "never") == []
    booking.book(conn, [], [make_payment("acme", 5, kind="promo")])
    assert grants.standing(conn, "acme") == []
