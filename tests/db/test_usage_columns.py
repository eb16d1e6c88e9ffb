"""One list of a usage's columns: whoever writes, hashes, reads or shows usages is held to it."""

from __future__ import annotations

import inspect
import itertools
import re

import msgspec
from psycopg import Connection

from taximeter import Meter, labels
from taximeter.events import usage_line
from taximeter_dashboard.api import bodies, documents
from taximeter_db import connect
from taximeter_db.audit import verify_chunks
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking, columns, usage_rows, usages
from taximeter_db.ledger.columns import Labels
from taximeter_db.ledger.events import Usage as Event
from taximeter_db.models import ledger as models
from taximeter_db.queries import copying
from taximeter_db.queries.usages import UsageRow, between
from taximeter_worker.decode import fast_path, result, strict

EVERY = tuple(columns.KINDS)
ABSENT = {
    **dict.fromkeys(("provider", "model", "input", "output", "metadata", "event_id", "occurred_at")),
    "source": "/tests",
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(re.sub(r"^\w\.", "", name.strip()) for name in text.split(","))


def test_every_part_of_the_list_names_columns_of_it():
    for part in (columns.CHAINED, columns.LOG_VIEW, columns.SHOWN, columns.EXPORTED):
        assert set(part) <= set(EVERY)
        assert len(part) == len(set(part))
    assert EVERY[-len(columns.CHAINED) :] == columns.CHAINED, "what is hashed is the end of a row of COPY"
    decided = set(EVERY) - set(columns.CHAINED)
    assert decided == {"seq", "entry", "recorded_at", "link", "balance_after", "workspace_id"}, (
        "what an event says is covered by the hash chain; only what booking itself decides is not"
    )


def test_the_table_has_these_columns_and_no_others(database_url: str):
    with connect.connection(database_url) as conn:
        found = [column.name for column in conn.execute("SELECT * FROM taximeter.usages LIMIT 0").description]
    assert sorted(found) == sorted(EVERY)
    assert sorted(models.Usage.__table__.columns.keys()) == sorted(EVERY)


def test_copy_writes_every_column_in_this_order():
    (written,) = re.findall(r"COPY taximeter\.usages \((.*?)\)", usages._COPY_USAGES, re.DOTALL)
    assert _names(written) == EVERY
    plain = Event("acme", "e", b"0" * 16, b"1" * 16, "chat", "p", "m", {"requests": 1}, 0, None, b"{}")
    assert _values_in_a_row(plain) == len(EVERY)
    for name in columns.LABELS:
        assert _values_in_a_row(msgspec.structs.replace(plain, labels=Labels(**{name: _label(name)}))) == len(EVERY)


def _label(name: str) -> str | dict[str, str]:
    return {"team": "search"} if columns.LABELS[name] == "json" else f"its {name}"


def test_a_label_is_a_label_everywhere():
    """From the argument of record to the row that is booked, on both ways of the decoder."""
    assert Labels.__struct_fields__ == tuple(columns.LABELS)
    assert tuple(result.LABEL_COLUMNS.values()) == tuple(columns.LABELS)
    assert tuple(result.LABEL_COLUMNS) == labels.NAMES
    assert set(labels.TEXTS_MAX) | {"tags"} == set(labels.NAMES)
    arguments = inspect.signature(Meter.record).parameters
    assert [name for name in arguments if name in labels.NAMES] == list(labels.NAMES)
    assert set(inspect.signature(labels.labels).parameters) == set(labels.NAMES)
    now = 2_000_000_000_000_000
    for name, column in result.LABEL_COLUMNS.items():
        event_labels = labels.labels(**{name: _label(column)})
        _, line = usage_line("acme", tool="chat", quantities={"requests": 1}, labels=event_labels, **ABSENT)
        (fast,) = fast_path.usages(b"[" + line + b"]", [line], now, result.Limits())
        strictly = strict.read(strict.parse_event(line, result.Limits()), line, now, result.Limits())
        assert fast is not None
        assert fast == strictly
        assert fast.labels == Labels(**{column: _label(column)})
        assert fast.payload is None


def test_the_chain_covers_a_usage_up_to_the_last_generation_of_its_labels(conn: Connection, usage):
    """What is packed here is what the database's function makes of the stored row, for every set of labels."""
    for count in range(len(columns.LABELS) + 1):
        for names in itertools.combinations(columns.LABELS, count):
            booking.book(conn, [usage("acme", "-".join(("e", *names)), **{name: _label(name) for name in names})])
    found = conn.execute(
        f"SELECT event_id, taximeter.usage_content({columns.listed(columns.CHAINED)}) FROM taximeter.usages"
    ).fetchall()
    assert len(found) == 2 ** len(columns.LABELS)
    fixed, ends = len(columns.CHAINED) - len(columns.LABELS), []
    for generation in columns.LABEL_GENERATIONS:
        ends.append((ends[-1] if ends else 0) + len(generation))
    for event_id, content in found:
        last = max((at for at, name in enumerate(columns.LABELS, 1) if name in event_id.split("-")), default=0)
        hashed = next((end for end in ends if end >= last), 0) if last else 0
        assert int.from_bytes(content[:4], "big") == fixed + hashed, event_id
    assert verify(conn).ok


def _values_in_a_row(event: Event) -> int:
    assert usage_rows.head(1, 1, 1)[:2] == len(EVERY).to_bytes(2, "big")
    values, rest = 0, usage_rows.head(1, 1, 1)[2:] + bytes(4) + bytes(4) + usage_rows.pack([event]).tails[0]
    while rest:
        length = int.from_bytes(rest[:4], "big", signed=True)
        values, rest = values + 1, rest[4 + max(0, length) :]
    return values


def test_the_chain_covers_what_the_event_says(database_url: str):
    with connect.connection(database_url) as conn:
        found = conn.execute(
            "SELECT proargnames FROM pg_proc WHERE proname = 'usage_content' ORDER BY pronargs"
        ).fetchall()
    # the shorter ones serve the releases before
    assert tuple(found[-1][0]) == columns.CHAINED
    assert all(columns.CHAINED[: len(arguments)] == tuple(arguments) for (arguments,) in found)
    assert columns.CHAINED[-len(columns.LABELS) :] == tuple(columns.LABELS)
    for since in (False, True):
        text = verify_chunks.Chunk(entries=0, workspaces=0, since=since).statement()
        unlabelled, whole = re.findall(r"usage_content\((.*?)\)", text, re.DOTALL)
        assert _names(whole) == columns.CHAINED == (*_names(unlabelled), *columns.LABELS)
        assert all(f"u.{name} IS NULL" in text for name in columns.LABELS)


def test_the_public_view_shows_these_columns(database_url: str):
    with connect.connection(database_url) as conn:
        found = conn.execute("SELECT * FROM taximeter.usage_log LIMIT 0").description
    assert tuple(column.name for column in found) == columns.LOG_VIEW


def test_page_api_and_export_show_these_columns(conn, usage):
    booking.book(conn, [usage("acme")])
    (row,) = between(conn, "acme", 1, 1)
    shown = (*columns.SHOWN, *columns.DERIVED)
    assert sorted(field.name for field in msgspec.structs.fields(UsageRow)) == sorted((*shown, "workspace_id"))
    assert tuple(bodies.usage(row)) == shown
    assert tuple(documents.UsageDocument.model_fields) == shown
    labels = [columns.exported_label(name) for name in columns.EXPORTED]
    assert copying.USAGES.header == (*labels, *columns.DERIVED)
