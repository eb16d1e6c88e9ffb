"""What arrives through the broker: rows 1 to 42 of the list of bad input, each with its code and what its sentence must say.

A `Case` is one event among good neighbours in one message, or a whole message of its own. Each has a workspace of its own, so
that its neighbours can be counted, and `MARK` in whatever is sensitive.
"""

from __future__ import annotations

import base64
import gzip
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cloud_events import payment_event, usage_event
from taximeter import names

MARK = "confidential-4711"
"""Stands in every input, output and metadata, and may stand in no log and no sentence."""
BATCH, EVENT = names.CONTENT_TYPE_BATCH, names.CONTENT_TYPE_EVENT
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Case:
    """One thing that must not be booked.

    Attributes:
        row: its number in the list.
        name: what it is.
        bad: makes the bytes, for the workspace.
        reason: the code it gets.
        says: what its sentence must contain.
        content_type: of a whole message; None: an event in a batch, between two good ones.
        whole: the message is kept as it is.
    """

    row: int
    name: str
    bad: Callable[[str], bytes]
    reason: str
    says: str
    content_type: str | None = None
    whole: bool = False
    headers: tuple[tuple[str, Any], ...] = ()

    @property
    def workspace(self) -> str:
        return f"row-{self.row}-" + "".join(letter if letter.isalnum() else "-" for letter in self.name)

    @property
    def kept(self) -> bytes:
        """What must be in quarantine: the event, or the message."""
        made = self.bad(self.workspace)
        if self.whole or self.content_type is None:
            return made
        return made.removeprefix(b"[").removesuffix(b"]")

    @property
    def is_payment(self) -> bool:
        return self.row in {41, 42}


def good(workspace: str, number: int | str, **data: Any) -> dict[str, Any]:
    """A usage that is booked: 1,000 tokens of model m."""
    said = {"input": f"{MARK} in", "output": f"{MARK} out", "metadata": {"user": f"{MARK} user"}}
    usage = {"tool": "chat", "provider": "p", "model": "m", "quantities": {"input_tokens": 1000}, **said, **data}
    return usage_event(workspace, f"{workspace}-{number}", time=NOW.isoformat(), **usage)


def paid(workspace: str, number: int | str, amount: Any = "1.00", **data: Any) -> dict[str, Any]:
    """A payment that is booked."""
    data = {"note": f"{MARK} note", **data}
    return payment_event(workspace, amount, f"{workspace}-{number}", time=NOW.isoformat(), **data)


def dump(event: Any) -> bytes:
    return json.dumps(event).encode()


def changed(**attributes: Any) -> Callable[[str], bytes]:
    """An event with other attributes; None leaves one out."""

    def bad(workspace: str) -> bytes:
        event = {**good(workspace, "bad"), **attributes}
        return dump({name: value for name, value in event.items() if value is not None})

    return bad


def data(**members: Any) -> Callable[[str], bytes]:
    return lambda workspace: dump(good(workspace, "bad", **members))


def quantity(digits: str) -> Callable[[str], bytes]:
    """The quantity exactly as written."""
    return lambda workspace: dump(good(workspace, "bad")).replace(b" 1000}", b" " + digits.encode() + b"}")


def spelled(old: bytes, new: bytes) -> Callable[[str], bytes]:
    return lambda workspace: dump(good(workspace, "bad")).replace(old, new)


def payment(amount: Any, **members: Any) -> Callable[[str], bytes]:
    return lambda workspace: dump(paid(workspace, "bad", amount, **members))


def message(body: Callable[[str], bytes] | bytes) -> Callable[[str], bytes]:
    return body if callable(body) else lambda _: body


def _batch(workspace: str) -> bytes:
    return dump([good(workspace, "bad")])


def _celery_task(workspace: str) -> bytes:
    return dump([[1, MARK, workspace], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])


_TASK_HEADERS = (
    ("lang", "py"),
    ("task", "taximeter.rebuild_flags"),
    ("id", "4711"),
    ("root_id", "4711"),
    ("argsrepr", "()"),
)
_DEEP = '{"a":' * 200_000 + "1" + "}" * 200_000

EVENTS = [
    Case(1, "not UTF-8", spelled(b'"chat"', b'"ch\xff\xfet"'), "bad_encoding", r"not UTF-8 \(byte \d+\)"),
    Case(2, "UTF-16", lambda w: _batch(w).decode().encode("utf-16"), "bad_encoding", "UTF-16", BATCH, True),
    Case(2, "UTF-16 without a mark", lambda w: _batch(w).decode().encode("utf-16-be"), "bad_encoding", "UTF-16", EVENT, True),
    Case(3, "byte-order mark", lambda w: b"\xef\xbb\xbf" + _batch(w), "bad_encoding", "byte-order mark", BATCH, True),
    Case(4, "truncated", lambda w: dump([good(w, "bad")])[:-40], "bad_json", r"truncated.*byte \d+ of \d+", BATCH, True),
    Case(4, "broken", spelled(b'"tool"', b'"tool" "x"'), "bad_json", r"byte \d+ of \d+"),
    Case(4, "an empty body", message(b""), "bad_json", "byte 0 of 0", EVENT, True),
    Case(5, "null", message(b" null "), "not_an_object", "must be a JSON object, not null", EVENT, True),
    Case(5, "a number", message(b"47.11"), "not_an_object", "not a number", EVENT, True),
    Case(5, "an array under the event's type", _batch, "not_an_object", "not an array", EVENT, True),
    Case(5, "an array in a batch", message(b"[[47, 11]]"), "not_an_object", "not an array", BATCH),
    Case(6, "twice in the envelope", spelled(b'"id"', b'"id": "x", "id"'), "duplicate_key", "id is given twice"),
    Case(6, "twice in quantities", spelled(b'"input_tokens"', b'"input_tokens": 1, "input_tokens"'), "duplicate_key", "twice"),
    Case(6, "twice in metadata", spelled(b'"user"', b'"user": 1, "user"'), "duplicate_key", "data.metadata"),
    Case(7, "200,000 levels", spelled(b'"' + MARK.encode() + b' in"', _DEEP.encode()), "too_deep", "more than 64 levels"),
    Case(7, "200,000 brackets", message(b"[" * 200_000), "too_deep", "64 levels", BATCH, True),
    Case(8, "an event over 1 MiB", data(input=MARK * 80_000), "too_large", r"\d+ bytes; at most 1048576"),
    Case(8, "a message over 16 MiB", lambda w: _batch(w).ljust(17 * 2**20), "too_large", "16777216", BATCH, True),
    Case(8, "too many events", message(b"[" + b"1," * 100_001 + b"1]"), "too_large", "more than 100000 events", BATCH, True),
    Case(9, "a pickle", message(pickle.dumps(MARK)), "unsupported_content_type", "must be", "application/x-python-serialize", True),
    Case(9, "YAML", lambda w: f"!!python/object/apply:os.system ['{w}']".encode(), "unsupported_content_type", "must be",
         "application/x-yaml", True),
    Case(9, "no gzip, announced as such", _batch, "bad_encoding", "not gzip", EVENT, True,
         (("content_encoding", "gzip"),)),
    Case(9, "a gzip bomb", message(gzip.compress(b"0" * 10**8, mtime=0)), "too_large", "once it is opened", BATCH, True,
         (("content_encoding", "gzip"),)),
    Case(9, "Base64, announced", lambda w: base64.b64encode(_batch(w)), "bad_json", "byte", EVENT, True,
         (("content_encoding", "base64"),)),
    Case(10, "another specversion", changed(specversion="0.3"), "unsupported_version", 'specversion must be the text "1.0"'),
    Case(10, "another type", changed(type="taximeter.usage.v2"), "unsupported_version", "type must be"),
    Case(13, "a Celery task", _celery_task, "not_an_object", "not an array", "application/json", True, _TASK_HEADERS),
    Case(13, "a Celery task's arguments", lambda w: dump([[w], {}, {}]), "not_an_object", "not an array", EVENT, True, _TASK_HEADERS),
    Case(14, "no id", changed(id=None), "id_required", "id is missing or blank"),
    Case(14, "an empty id", changed(id=""), "id_required", "id is missing or blank"),
    Case(14, "a blank id", changed(id=" \t"), "id_required", "id is missing or blank"),
    Case(15, "an id of 9,000 characters", changed(id="x" * 9000), "id_too_long", "9000 characters; at most 255"),
    Case(16, "a line end in the id", changed(id="a\nforged line"), "id_charset", "printable ASCII"),
    Case(16, "an escape sequence in the id", changed(id="\x1b[31mred"), "id_charset", "printable ASCII"),
    Case(16, "not ASCII in the id", changed(id="café"), "id_charset", "printable ASCII"),
    Case(21, "no subject", changed(subject=None), "workspace_required", "subject is missing or blank"),
    Case(21, "a subject outside its characters", changed(subject="acme corp"), "workspace_charset", "A-Z a-z 0-9"),
    Case(21, "a subject with SQL", changed(subject="a';DROP TABLE x;--"), "workspace_charset", "A-Z a-z 0-9"),
    Case(23, "no price for the model", data(model="nobody-knows"), "price_missing", "nobody-knows"),
    Case(24, "NaN", quantity("NaN"), "bad_number", "data.quantities.input_tokens is NaN or Infinity"),
    Case(24, "Infinity", quantity("-Infinity"), "bad_number", "data.quantities.input_tokens"),
    Case(24, "1e999", quantity("1e999"), "bad_number", "data.quantities.input_tokens overflows"),
    Case(25, "negative", quantity("-1"), "negative_quantity", "data.quantities.input_tokens is negative"),
    Case(26, "a text", quantity('"12"'), "bad_type", "data.quantities.input_tokens must be a number, not a text"),
    Case(26, "an underscore", quantity('"1_000"'), "bad_type", "must be a number, not a text"),
    Case(26, "Arabic digits", quantity('"١٢"'), "bad_type", "must be a number, not a text"),
    Case(26, "true", quantity("true"), "bad_type", "must be a number, not true or false"),
    Case(27, "null", quantity("null"), "quantity_required", "data.quantities.input_tokens is null"),
    Case(27, "no quantities", data(quantities=None), "quantity_required", "data.quantities is missing or empty"),
    Case(27, "empty quantities", data(quantities={}), "quantity_required", "data.quantities is missing or empty"),
    Case(28, "2^63", quantity(str(2**63)), "out_of_range", r"data.quantities.input_tokens is more than 10\^15"),
    Case(28, "5,000 digits", quantity("9" * 5000), "out_of_range", r"10\^15"),
    Case(28, "1E+999999999", quantity("1E+999999999"), "out_of_range", r"10\^15"),
    Case(29, "7 decimals", quantity("0.1234567"), "too_precise", "data.quantities.input_tokens has more than 6 decimals"),
    Case(31, "a cost beyond the column", data(model="dear", quantities={"input_tokens": 10**15}), "out_of_range", "cost"),
    Case(32, "an empty unit", data(quantities={"": 1}), "bad_quantities", "not a unit"),
    Case(32, "65 units", data(quantities={f"u{n}": 1 for n in range(65)}), "bad_quantities", "65 units; at most 64"),
    Case(33, "no time zone", changed(time="2026-11-22T10:00:00"), "timezone_required", "offset|zone"),
    Case(34, "infinity", changed(time="infinity"), "bad_time", "not infinity"),
    Case(34, "BC", changed(time="0044-03-15T10:00:00Z BC"), "bad_time", "years 1 to 9999"),
    Case(34, "year 294277", changed(time="294277-01-01T00:00:00Z"), "bad_time", "years 1 to 9999"),
    Case(34, "epoch milliseconds", changed(time=1795341600123), "bad_time", "milliseconds since 1970"),
    Case(35, "the future", changed(time=(NOW + timedelta(days=1)).isoformat()), "future_event", "300 seconds ahead"),
    Case(37, "NUL in the tool", data(tool="a\0b"), "bad_text", "data.tool holds a NUL"),
    Case(37, "NUL in the model", data(model="a\0b"), "bad_text", "data.model holds a NUL"),
    Case(38, "a lone surrogate in the tool", data(tool="a\ud800"), "bad_text", "data.tool holds a NUL or a lone surrogate"),
    Case(38, "a lone surrogate in the model", data(model="a\udfff"), "bad_text", "data.model"),
    Case(41, "amount 0", payment("0.00"), "zero_amount", "data.amount is 0"),
    Case(41, "amount NaN", payment("NaN"), "bad_number", "data.amount is not a plain decimal"),
    Case(41, "a negative top-up", payment("-5"), "negative_amount", "only an adjustment may be"),
    Case(41, "13 decimals", payment("0.0000000000001"), "too_precise", "data.amount has more than 12 decimals"),
    Case(41, "a number", payment(25), "bad_type", "data.amount must be a text, not a number"),
    Case(41, "in euros", payment("1", currency="EUR"), "unknown_member", "data.currency"),
    Case(42, "the same id, another amount", lambda w: dump(paid(w, 1, "2.00")), "id_conflict", "first stays booked"),
]  # fmt: skip
