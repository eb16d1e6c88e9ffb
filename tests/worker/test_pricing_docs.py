"""Runs the worked examples of docs/prices.md: the commands build a book, and each event costs what the page says."""

import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from taximeter.errors import PriceMissingError
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, microseconds
from taximeter_cli import main
from taximeter_db.connect import connection
from taximeter_worker.pricing.loading import load_book, seed
from taximeter_worker.pricing.price_file import parse_time
from taximeter_worker.pricing.receipt import ReceiptLine, explain

PAGE = Path(__file__).parents[2] / "docs" / "prices.md"
EXAMPLES = re.findall(r"^```prices\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def apply(conn: Connection[Any], command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    if words[:3] == ["taximeter", "prices", "import"]:
        seed(conn)
        return
    assert words[:2] == ["taximeter", "prices"], command
    monkeypatch.setattr("sys.argv", words)
    assert main.run() == 0, command


def receipt_lines(book: PriceBook, header: str) -> list[str]:
    """The lines that the page may show under an event."""
    found = re.fullmatch(r"(.+)Z(?:, for (\S+))?: (.+)", header)
    assert found, header
    names, workspace, quantities = found.groups()
    tool, *model, moment = names.split(", ")
    provider, name = model[0].split(" ") if model else (None, None)
    parts = [part.split(" ") for part in quantities.split(", ")]
    event = {unit: Decimal(number) if "." in number else int(number) for number, unit in parts}
    try:
        receipt = explain(
            book, PriceTerms(tool, provider, name, event, microseconds(parse_time(moment + "Z")), workspace)
        )
    except PriceMissingError as error:
        return [f"missing: {error}"]
    return [
        *(shown(line) for line in receipt.lines if line.amount is not None),
        *(f"{step.rule} {step.amount}: {step.exact}" for step in receipt.steps),
        *(["estimated"] if receipt.estimated else []),
        f"sum {receipt.exact}",
        f"rounding {receipt.rounding}",
        f"cost {receipt.cost}",
    ]


def shown(line: ReceiptLine) -> str:
    inherited = "" if line.priced_as == line.unit else f", as {line.priced_as}"
    tier = "" if line.above is None else f", above {line.above}"
    if line.blocks is not None:
        return f"{line.unit}: {line.blocks} blocks · {line.amount} = {line.cost}"
    tier += "" if line.hours is None else f", {line.hours}"
    return f"{line.unit}{inherited}{tier}: {line.quantity} · {line.amount} / {line.per} = {line.cost}"


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 16


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_is_true(example: str, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0
    url = new_database()
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", url)
    with connection(url) as conn:
        for block in example.strip().split("\n\n"):
            lines = block.splitlines()
            if lines[0].startswith("$ "):
                for line in lines:
                    apply(conn, line.removeprefix("$ "), monkeypatch)
                continue
            got = receipt_lines(load_book(conn), lines[0])
            wanted = [line.strip() for line in lines[1:]]
            if any(" = " in line for line in wanted):  # pools are shown all or not at all
                got = [line for line in got if " = " in line or line in wanted]
            else:
                got = [line for line in got if line in wanted]
            assert got == wanted
            assert wanted[-1].startswith(("cost ", "missing: "))
            checked += 1
    assert checked
