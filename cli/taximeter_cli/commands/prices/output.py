"""How prices, imports and receipts look to a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from taximeter_cli import console
from taximeter_db.money import exact_text
from taximeter_db.prices.changes import ImportPlan
from taximeter_db.prices.store import Entry, grouped, since, utc_text, value_text
from taximeter_worker.pricing.price_file import price_object
from taximeter_worker.pricing.receipt import Receipt, ReceiptLine

SHOWN_MAX = 20
"""Lines of each kind that an import shows; --json has all of them."""


def entry_rows(entries: Sequence[Entry]) -> Iterator[list[object]]:
    """Rows for the list of prices."""
    for entry in entries:
        start = since(entry.effective_from).removeprefix("from ")
        until = "" if entry.effective_until is None else f" until {utc_text(entry.effective_until)}"
        yield [*entry.target, entry.unit, value_text(entry), start + until, entry.revision, entry.source]


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
            "taximeter: nothing was imported, because a part was refused. Correct the file, or give --backdated if"
            " it is meant to change times for which prices were already in force."
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
    """A receipt with all that a reader needs to check it."""
    who = " · ".join(part for part in (receipt.tool, receipt.provider, receipt.model) if part)
    console.say(f"{who} · {receipt.occurred_at} · price book revision {receipt.price_version}")
    rows = [_receipt_row(line) for line in receipt.lines]
    console.table(
        ("Unit", "Quantity", "Price in USD", "Cost in USD", "Priced by"), rows, right=["Quantity", "Cost in USD"]
    )
    facts = [("Sum", receipt.subtotal)]
    for step in receipt.steps:
        origin = f"{step.target}, {_since(step.effective_from)}, revision {step.revision}, {step.source}"
        facts.append((step.rule.capitalize(), f"{step.amount} → {with_decimal(step.exact)}   ({origin})"))
    facts += [("Rounding", f"{receipt.rounding} ({receipt.rule})"), ("Cost", receipt.cost)]
    console.facts(facts)
    if receipt.estimated:
        console.say("An estimate: the tool's policy prices what has no price by another model's prices.")


def _receipt_row(line: ReceiptLine) -> list[str]:
    if line.amount is None:
        return [line.unit, line.quantity, "free by policy" if line.policy else "no price needed", line.cost, ""]
    of = "input tokens" if line.charge == "flat" else line.unit
    tier = "" if line.above is None else f" (above {line.above:,} {of})"
    hours = "" if line.hours is None else f" ({line.hours})"
    blocks = "" if line.blocks is None else f" started ({line.blocks:,} of them)"
    inherited = "" if line.priced_as == line.unit else f" as {line.priced_as}"
    policy = "" if line.policy is None else f"{line.policy} by "
    price = f"{line.amount} per {grouped(Decimal(line.per or 1))}{blocks}{tier}{hours}"
    origin = f"{policy}{line.target}{inherited}, {_since(line.effective_from)}, revision {line.revision}, {line.source}"
    return [line.unit, line.quantity, price, with_decimal(line.cost), origin]


def _since(start: str | None) -> str:
    return "from the beginning" if start is None else f"from {start}"
