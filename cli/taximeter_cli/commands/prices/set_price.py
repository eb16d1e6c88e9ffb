"""`taximeter prices set` and `policy`: from words on the command line to one price in the book."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import typer

from taximeter_cli import console, session
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, PriceError, Target, Tier, Window, check, parse_decimal
from taximeter_worker.pricing.price_file import parse_time, price_object

EVER = "ever"
_HOURS = re.compile(r"([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])=(.+)", re.ASCII)
_TIER = re.compile(r"([0-9]{1,18})=(.+)", re.ASCII)


class Words(NamedTuple):
    """A price as the command line has it; `names` are tool, provider, model and workspace."""

    names: tuple[str | None, str | None, str | None, str | None]
    unit: str
    price: str
    per: str
    charge: str
    tiers: Sequence[str]
    hours: Sequence[str]
    until: str | None


def wanted(words: Words) -> Price:
    """The price that the words describe; what cannot be one is a usage error."""
    try:
        price_wanted = Price(
            target=Target(*words.names),
            unit=words.unit,
            amount=parse_decimal(words.price, "--price"),
            per=parse_decimal(words.per, "--per"),
            charge=words.charge,
            tiers=tuple(map(_tier, words.tiers)),
            daily=tuple(
                sorted((window for text in words.hours for window in _windows(text)), key=lambda window: window.start)
            ),
            effective_until=None if words.until is None else parse_time(words.until),
        )
        return check(price_wanted)
    except PriceError as error:
        raise typer.BadParameter(str(error)) from error


def _tier(text: str) -> Tier:
    match = _TIER.fullmatch(text)
    if match is None:
        raise PriceError(f"--tier {text[:40]!r}: write a whole number and the price beyond it, such as 1000=0.8.")
    return Tier(int(match[1]), parse_decimal(match[2], "--tier"))


def _windows(text: str) -> list[Window]:
    match = _HOURS.fullmatch(text)
    if match is None:
        raise PriceError(
            f"--hours {text[:40]!r}: write two times of the day in UTC and the price, such as 01:00-04:00=0.3."
        )
    start, end = (int(match[i]) * 3600 + int(match[i + 1]) * 60 for i in (1, 3))
    amount = parse_decimal(match[5], "--hours")
    spans = [(start, end)] if start < end else [(start, 86_400), (0, end)]
    return [Window(*span, amount) for span in spans if span[0] < span[1]]


def policy(tool: str, rule: str, provider: str | None, model: str | None) -> Price:
    """The policy for a tool's missing prices, as the book keeps it."""
    if (provider is None) != (model is None):
        raise typer.BadParameter("an estimate needs both --provider and --model", param_hint="--model")
    fallback = None if provider is None or model is None else (provider, model)
    try:
        return check(
            Price(target=Target(tool, None, None), unit="@missing", amount=Decimal(0), charge=rule, fallback=fallback)
        )
    except PriceError as error:
        raise typer.BadParameter(str(error)) from error


def store(price: Price, start: str | None, backdated: bool, correct: bool, data_dir: Path | None, json: bool) -> None:
    """Put a price into the book and say what was done."""
    try:
        moment = None if start is None or start == EVER else parse_time(start)
    except PriceError as error:
        raise typer.BadParameter(str(error)) from error
    with session.database(data_dir) as conn:
        done = set_price(conn, price, start=moment, ever=start == EVER, backdated=backdated, correct=correct)
    name = f"{price.target}, {price.unit}"
    if json:
        previous = None if done.previous is None else price_object(done.previous)
        console.emit(
            {
                "changed": done.changed,
                "price": price_object(done.price),
                "previous": previous,
                "revision": done.revision,
            }
        )
    elif not done.changed:
        console.say(f"Nothing to do: {name} already costs {done.price}.")
    else:
        console.say(f"{name}: {done.price}. The book is now at revision {done.revision}.")
        if done.previous is not None:
            console.say(f"{'In its place' if correct else 'Until then'}: {done.previous}.")
