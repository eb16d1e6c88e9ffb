"""Credit that expires: what is left of each grant, from the log of payments alone.

A grant is a payment of the kind ``promo`` with a time until which it can be used. The balance stays one number, and a usage
touches no grant: between two payments the usage is the difference of the balances that they carry, and in which order it
used credit follows from the rule below. So what is left is calculated when somebody asks, or when a grant expires.

The rule (decision 0437): a usage takes from grants first, the earliest expiry first, then the lowest priority number, then the
order of booking; then from the rest of the balance. What takes from the balance otherwise takes from the grant that it names,
then from the rest, then from the other grants. A balance below 0 is paid by grants as by any credit, so what is left of all
grants is never more than the balance. A grant can be used until its expiry is booked.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, insert

from taximeter_db import money
from taximeter_db.core import Statement
from taximeter_db.ledger.events import Payment
from taximeter_db.models.grants import Grant
from taximeter_db.sql import statements

KIND: Final = "promo"
EXPIRY: Final = "expiry"
EXPIRES: Final = "grant_expires"
PRIORITY: Final = "grant_priority"
"""Members of a payment's transaction that keep the terms of a grant, so that the hash chain covers them."""
PRIORITY_MAX: Final = 1_000
_SQL = statements("grants_left")
_INSERT = Statement(
    insert(Grant).values(**{name: bindparam(name) for name in ("workspace_id", "payment_id", "expires_at", "priority")})
)


class Terms(msgspec.Struct, frozen=True):
    """Until when a grant can be used; of two that expire at once, the one with the lower priority number is used first."""

    expires_at: dt.datetime
    priority: int
    settled: bool = False


class Movement(msgspec.Struct, frozen=True):
    """A payment: amount and balance after it in picodollars, which payment it concerns, and its terms if it is a grant."""

    payment_id: str
    kind: str
    amount: int
    balance_after: int
    concerns: str | None = None
    terms: Terms | None = None


class GrantNow(msgspec.Struct, frozen=True):
    """A grant that has not expired, or whose expiry is not booked yet; `amount` and `left` in picodollars."""

    payment_id: str
    amount: int
    left: int
    expires_at: dt.datetime
    priority: int


class _Open(msgspec.Struct):
    order: tuple[dt.datetime, int, int]
    left: int


def left(movements: Sequence[Movement], balance: int) -> dict[str, int]:
    """What is left of each grant, in picodollars.

    Args:
        movements: All payments from the first grant on, or from an earlier one, in the order of booking.
        balance: The balance now, in picodollars.
    """
    pools = _Pools()
    after = pools.rest = movements[0].balance_after - movements[0].amount if movements else balance
    for movement in movements:
        pools.use(after - (movement.balance_after - movement.amount))
        pools.move(movement)
        after = movement.balance_after
    pools.use(after - balance)
    return {payment_id: grant.left for payment_id, grant in pools.grants.items()}


class _Pools:
    """The balance, taken apart: what is left of grants, and the rest, which is below 0 only where no grant has anything left."""

    def __init__(self) -> None:
        self.rest = 0
        self.grants: dict[str, _Open] = {}

    def use(self, cost: int) -> None:
        """Usage: grants first."""
        self.rest -= cost - self._take(cost)

    def move(self, movement: Movement) -> None:
        """A payment."""
        if movement.terms is not None:
            order = (movement.terms.expires_at, movement.terms.priority, len(self.grants))
            self.grants[movement.payment_id] = _Open(order, movement.amount)
        elif movement.amount > 0:
            self.rest += movement.amount
        else:
            self._take_back(movement)
        if self.rest < 0:
            self.rest += self._take(-self.rest)

    def _take_back(self, movement: Movement) -> None:
        """What is named gives first; an expiry ends it, and what it does not take stays as credit that does not expire."""
        named = self.grants.get(movement.concerns or "")
        given = 0 if named is None else min(named.left, -movement.amount)
        self.rest += movement.amount + given
        if named is not None:
            named.left -= given
            if movement.kind == EXPIRY:
                self.rest, named.left = self.rest + named.left, 0

    def _take(self, wanted: int) -> int:
        """Take from the grants in their order; returns how much they gave."""
        given = 0
        for grant in sorted((one for one in self.grants.values() if one.left), key=lambda one: one.order):
            if given >= wanted:
                break
            part = min(grant.left, wanted - given)
            grant.left -= part
            given += part
        return given


def put(conn: Connection[Any], payments: Iterable[Payment]) -> None:
    """Note the terms of those payments that are grants. In the transaction that books them."""
    rows = [
        {
            "workspace_id": payment.workspace_id,
            "payment_id": payment.payment_id,
            "expires_at": dt.datetime.fromisoformat(payment.transaction[EXPIRES]),
            "priority": int(payment.transaction[PRIORITY]),
        }
        for payment in payments
        if payment.kind == KIND and payment.transaction is not None and EXPIRES in payment.transaction
    ]
    if rows:
        _INSERT.run_many(conn, rows)


def standing(conn: Connection[Any], workspace_id: str) -> list[GrantNow]:
    """The grants of a workspace whose expiry is not booked, in the order in which they are used."""
    return _standing(conn, workspace_id, "stands")


def due(conn: Connection[Any], limit: int = 500) -> list[str]:
    """Workspaces with a grant that has expired and is not settled."""
    return [row[0] for row in conn.execute(_SQL["due"], {"limit": limit})]


def lock_due(conn: Connection[Any], workspace_id: str) -> list[GrantNow]:
    """What is left of the grants of a workspace that have expired; its row stays locked until the transaction ends."""
    found = {grant.payment_id: grant for grant in _standing(conn, workspace_id, "lock")}
    rows = conn.execute(_SQL["due_in"], {"workspace_id": workspace_id}).fetchall()
    return [found[payment_id] for (payment_id,) in rows if payment_id in found]


def settle(conn: Connection[Any], workspace_id: str, payment_ids: list[str]) -> None:
    """Note that nothing of these grants is left to expire."""
    conn.execute(_SQL["settle"], {"workspace_id": workspace_id, "payment_ids": payment_ids})


def _standing(conn: Connection[Any], workspace_id: str, how: str) -> list[GrantNow]:
    row = conn.execute(_SQL[how], {"workspace_id": workspace_id}).fetchone()
    if row is None:
        return []
    movements = []
    for payment_id, kind, amount, after, concerns, *terms in conn.execute(
        _SQL["movements"], {"workspace_id": workspace_id, "last": row[1]}
    ):
        movements.append(
            Movement(
                *(payment_id, kind, money.from_numeric_text(amount), money.from_numeric_text(after), concerns),
                None if terms[0] is None else Terms(*terms),
            )
        )
    amounts = left(movements, money.from_numeric_text(row[0]))
    grants = [
        GrantNow(one.payment_id, one.amount, amounts[one.payment_id], one.terms.expires_at, one.terms.priority)
        for one in movements
        if one.terms is not None and not one.terms.settled
    ]
    return sorted(grants, key=lambda one: (one.expires_at, one.priority))
