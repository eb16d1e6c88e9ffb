"""How prices, imports and receipts look to a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from taximeter_cli import console
from taximeter_db.prices import Entry, Price, grouped, plain, since
from taximeter_db.prices_change import ImportPlan
from taximeter_worker.pricing.book_file import price_object
from taximeter_worker.pricing.receipt import Receipt, exact_text

SHOWN_MAX = 20
"""Lines of each kind that an import shows; --json has all of them."""


def price_text(price: Price) -> str:
    """``2.50 per 1,000,000``, with the tiers."""
    tiers = "".join(f"; above {tier.above:,} input tokens {plain(tier.amount)}" for tier in price.tiers)
    return f"{plain(price.amount)} per {grouped(price.per)}{tiers}"


def entry_rows(entries: Sequence[Entry]) -> Iterator[list[object]]:
    """Rows for the list of prices."""
    for entry in entries:
        start = since(entry.effective_from).removeprefix("from ")
        yield [*entry.target, entry.unit, price_text(entry), start, entry.revision, entry.source]


def show_plan(plan: ImportPlan, notes: Sequence[str], *, dry_run: bool, blocked: bool, json: bool) -> None:
    """What an import did, would do, or refused to do."""
    if json:
        console.emit(_plan_object(plan, notes, written=not (dry_run or blocked or plan.empty)))
        return
    for old, new in plan.changed[:SHOWN_MAX]:
        console.say(f"changed  {new.target}, {new.unit}: {old} → {new}")
    for refusal in plan.refused[:SHOWN_MAX]:
        console.say(f"refused  {refusal.price.target}, {refusal.price.unit}: {refusal.why} (book: {refusal.existing})")
    hidden = max(0, len(plan.changed) - SHOWN_MAX) + max(0, len(plan.refused) - SHOWN_MAX)
    if hidden:
        console.say(f"… and {hidden:,} more lines, in full with --json")
    for note in notes:
        console.say(f"note     {note}")
    console.say(
        f"{len(plan.added):,} added, {len(plan.changed):,} changed, {plan.unchanged:,} as before,"
        f" {len(plan.refused):,} refused{', aliases changed' if plan.aliases_changed else ''}."
    )
    if dry_run:
        console.say("A dry run: nothing was written.")
    elif blocked:
        console.note(
            "taximeter: nothing was imported, because a part was refused. Mend the file, or say --backdated if it means"
            " to change times for which prices were already in force."
        )
    else:
        console.say(f"The book is at revision {plan.revision}.")


def _plan_object(plan: ImportPlan, notes: Sequence[str], *, written: bool) -> dict[str, Any]:
    return {
        "written": written,
        "revision": plan.revision,
        "added": [price_object(price) for price in plan.added],
        "changed": [{"old": price_object(old), "new": price_object(new)} for old, new in plan.changed],
        "unchanged": plan.unchanged,
        "refused": [
            {"price": price_object(refusal.price), "existing": price_object(refusal.existing), "why": refusal.why}
            for refusal in plan.refused
        ],
        "aliases_changed": plan.aliases_changed,
        "notes": list(notes),
    }


def with_decimal(exact: str) -> str:
    """Put a decimal beside a fraction, for people: ``17/15000 ≈ 0.001133333333333``."""
    if "/" not in exact:
        return exact
    scale = 10**15
    return f"{exact} ≈ {exact_text(Fraction(round(Fraction(exact) * scale), scale))}"


def show_receipt(receipt: Receipt) -> None:
    """A receipt that can be computed again by hand."""
    who = " · ".join(part for part in (receipt.tool, receipt.provider, receipt.model) if part)
    console.say(f"{who} · {receipt.occurred_at} · price book revision {receipt.price_version}")
    rows = []
    for line in receipt.lines:
        if line.amount is None:
            rows.append([line.unit, line.quantity, "no price needed", line.cost, ""])
            continue
        tier = "" if line.above is None else f" (above {line.above:,} input tokens)"
        inherited = "" if line.priced_as == line.unit else f" as {line.priced_as}"
        start = "since ever" if line.effective_from is None else f"from {line.effective_from}"
        origin = f"{line.target}{inherited}, {start}, revision {line.revision}, {line.source}"
        price = f"{line.amount} per {grouped(Decimal(line.per or 1))}{tier}"
        rows.append([line.unit, line.quantity, price, with_decimal(line.cost), origin])
    console.table(
        ("Unit", "Quantity", "Price in USD", "Cost in USD", "Priced by"), rows, right=["Quantity", "Cost in USD"]
    )
    console.facts(
        (("Sum", receipt.exact), ("Rounding", f"{receipt.rounding} ({receipt.rule})"), ("Cost", receipt.cost))
    )
