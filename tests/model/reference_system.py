"""What the system promises, in a page of plain Python: dictionaries, integers and fractions, and nothing of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

MINIMUM, LOW = -120_000_000_000, 0
PER = 1_000
"""Tokens that a price is for."""


@dataclass
class Workspace:
    """Amounts in picodollars."""

    minimum: int = MINIMUM
    low: int = LOW
    cost: int = 0
    paid: int = 0
    usages: int = 0
    payments: int = 0
    duplicates: int = 0

    @property
    def balance(self) -> int:
        return self.paid - self.cost

    @property
    def status(self) -> str:
        if self.balance >= self.low:
            return "sufficient"
        return "low" if self.balance >= self.minimum else "insufficient"

    @property
    def enabled(self) -> bool:
        return self.balance >= self.minimum


@dataclass
class Prices:
    """Of each model: from when on (a day, or None for ever) it costs what; and the tools whose usage may go without."""

    of_model: dict[str, dict[int | None, int]] = field(default_factory=dict)
    free_tools: set[str] = field(default_factory=set)

    def copy(self) -> Prices:
        return Prices({model: dict(prices) for model, prices in self.of_model.items()}, set(self.free_tools))

    def cost(self, event: dict[str, Any]) -> int | None:
        """Picodollars, rounded half-even once; None where there is no price."""
        data, day = event["data"], int(event["time"][8:10])
        prices = self.of_model.get(data["model"], {})
        starts = [start for start in prices if start is None or start <= day]
        if not starts:
            nothing = data["quantities"]["input_tokens"] == 0  # needs no price
            return 0 if nothing or data["tool"] in self.free_tools else None
        price = prices[max(starts, key=lambda start: -1 if start is None else start)]
        return round(Fraction(data["quantities"]["input_tokens"] * price, PER))


class ReferenceSystem:
    """The whole system in one process."""

    def __init__(self) -> None:
        self.workspaces: dict[str, Workspace] = {}
        self.prices = Prices()
        self.known_prices = Prices()
        """What the worker has read; it books by these."""
        self.usages: dict[tuple[str, str], Any] = {}
        self.payments: dict[tuple[str, str], Any] = {}
        self.open: dict[bytes, str] = {}
        """Open quarantine entries: the event's bytes and the reason, in the order of their numbers."""

    def workspace(self, name: str) -> Workspace:
        return self.workspaces.setdefault(name, Workspace())

    def quarantine(self, raw: bytes, reason: str) -> None:
        self.open.setdefault(raw, reason)

    def receive(self, events: list[bytes]) -> set[str]:
        """One message; returns the workspaces whose flags are written."""
        read = [(raw, json.loads(raw)) for raw in events]
        touched = {
            event["subject"] for raw, event in read if self._is_payment(event) and self.pay(raw, event) != "refused"
        }
        for raw, event in read:
            if not self._is_payment(event):
                result = self.use(raw, event, self.known_prices)
                touched |= {event["subject"]} if result in {"booked", "duplicate"} else set()
        return touched

    @staticmethod
    def _is_payment(event: dict[str, Any]) -> bool:
        return bool(event["type"] == "taximeter.payment.v1")

    def pay(self, raw: bytes, event: dict[str, Any], *, quarantined: bool = True) -> str:
        """``booked``, ``duplicate``, or a reason that begins with ``refused``."""
        key, said = (event["subject"], event["id"]), event["data"]
        if key not in self.payments:
            self.payments[key] = said
            workspace = self.workspace(event["subject"])
            workspace.payments += 1
            workspace.paid += round(Fraction(said["amount"]) * 10**12)
            return "booked"
        if self.payments[key] == said:
            return "duplicate"
        if quarantined:
            self.quarantine(raw, "id_conflict")
        return "refused"

    def use(self, raw: bytes, event: dict[str, Any], prices: Prices, *, quarantined: bool = True) -> str:
        """``booked``, ``duplicate``, or the reason of the rejection."""
        reason = None
        if event["data"]["quantities"]["input_tokens"] < 0:
            reason = "negative_quantity"
        elif (cost := prices.cost(event)) is None:
            reason = "price_missing"
        key = (event["subject"], event["id"])
        if reason is None and self.usages.get(key, event["data"]) != event["data"]:
            reason = "id_conflict"
        if reason is not None:
            if quarantined:
                self.quarantine(raw, reason)
            return reason
        workspace = self.workspace(event["subject"])
        if key in self.usages:
            workspace.duplicates += 1
            return "duplicate"
        self.usages[key] = event["data"]
        workspace.usages += 1
        workspace.cost += cost or 0
        return "booked"

    def replay(self, raw: bytes, instead: bytes | None = None) -> str:
        """One entry: it stays unless it is booked, or was."""
        event = json.loads(instead or raw)
        if self._is_payment(event):
            result = self.pay(raw, event, quarantined=False)
        else:
            result = self.use(raw, event, self.prices, quarantined=False)
        if result not in {"booked", "duplicate"}:
            return "kept"
        del self.open[raw]
        return result

    def learn_prices(self) -> None:
        """The worker reads the price book; what waited for a price is booked."""
        self.known_prices = self.prices.copy()
        waiting = [raw for raw, reason in self.open.items() if reason == "price_missing"]
        ready = [raw for raw in waiting if self.known_prices.cost(json.loads(raw)) is not None]
        for raw in ready:
            del self.open[raw]
        for raw in ready:
            self.use(raw, json.loads(raw), self.known_prices)
