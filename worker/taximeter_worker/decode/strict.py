"""The path of every event that the fast path did not take: parse in full, then say precisely what is wrong.

The standard library's parser serves here because its hooks see what others hide: duplicate names, NaN, and each
number as it was written. Encoding and depth are checked before it runs.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any, NamedTuple

from taximeter import names
from taximeter.limits import MODEL_MAX, PROVIDER_MAX
from taximeter_db.ledger.events import Payment, Usage, event_key
from taximeter_worker.decode import clock, content, fields, numbers, result, scan
from taximeter_worker.decode.numbers import Literal
from taximeter_worker.decode.result import EventRejectedError, Limits


class _Envelope(NamedTuple):
    """An event's attributes, checked, and all of it as received."""

    workspace_id: str
    event_id: str
    occurred_at: int
    raw: bytes


class Object(dict[str, Any]):
    """A JSON object that remembers which names came twice."""

    duplicates: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> Object:
    made = Object(pairs)
    if len(made) < len(pairs):
        made.duplicates = frozenset(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return made


_json = json.JSONDecoder(object_pairs_hook=_object, parse_int=Literal, parse_float=Literal, parse_constant=Literal)


def check_start(raw: bytes) -> None:
    """Look at the first bytes only.

    Raises:
        EventRejectedError: ``bad_encoding``: a byte-order mark, UTF-16 or UTF-32.
    """
    encoding = json.detect_encoding(raw)
    if encoding == "utf-8-sig":
        raise EventRejectedError("bad_encoding", "The text begins with a byte-order mark; send UTF-8 without one.")
    if encoding != "utf-8":
        raise EventRejectedError("bad_encoding", f"The text looks like {encoding.upper()}; send UTF-8.")


def parse(raw: bytes, limits: Limits) -> Any:
    """Parse JSON with `Object` for objects and `Literal` for numbers.

    Raises:
        EventRejectedError: ``bad_encoding``, ``too_deep`` or ``bad_json``, the last with the offset in bytes.
    """
    check_start(raw)
    _check_depth(raw, limits)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise EventRejectedError("bad_encoding", f"The text is not UTF-8 (byte {error.start}); send UTF-8.") from None
    try:
        return _json.decode(text)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        raise EventRejectedError("bad_json", f"Not JSON at byte {offset} of {len(raw)}: {error.msg}.") from None
    except RecursionError:
        raise _too_deep(limits) from None


def _check_depth(raw: bytes, limits: Limits) -> None:
    if scan.deeper_than(raw, limits.depth_max):
        raise _too_deep(limits)


def _too_deep(limits: Limits) -> EventRejectedError:
    return EventRejectedError("too_deep", f"Arrays and objects are nested more than {limits.depth_max} levels deep.")


def parse_event(raw: bytes, limits: Limits) -> Object:
    """Parse an event as far as being an object.

    Raises:
        EventRejectedError: As `parse`, and ``too_large`` and ``not_an_object``.
    """
    if len(raw) > limits.event_bytes_max:
        _check_depth(raw, limits)  # the better explanation of the two
        raise EventRejectedError(
            "too_large",
            f"The event has {len(raw)} bytes; at most {limits.event_bytes_max} are allowed. Shorten input or output.",
        )
    event = parse(raw, limits)
    if not isinstance(event, Object):
        raise EventRejectedError("not_an_object", f"An event must be a JSON object, not {fields.kind_of(event)}.")
    return event


def read(event: Object, raw: bytes, now: int, limits: Limits) -> Usage | Payment:
    """Turn a parsed event into what can be booked.

    Raises:
        EventRejectedError: With the code of the first thing that is wrong.
    """
    _no_duplicate(event, "the event")
    if event.get("specversion") != "1.0" or type(event["specversion"]) is not str:
        raise EventRejectedError("unsupported_version", 'specversion must be the text "1.0".')
    event_type = event.get("type")
    if event_type not in (names.USAGE_TYPE, names.PAYMENT_TYPE):
        raise EventRejectedError(
            "unsupported_version", f'type must be "{names.USAGE_TYPE}" or "{names.PAYMENT_TYPE}"; this is another.'
        )
    event_id = fields.event_id(event.get("id"))
    workspace_id = fields.workspace_id(event.get("subject"))
    source = event.get("source")
    if source is not None and type(source) is not str:
        raise EventRejectedError("bad_type", f"source must be a text, not {fields.kind_of(source)}.")
    occurred_at = clock.event_time(event.get("time"))
    if occurred_at > now + limits.future_seconds_max * clock.SECOND:
        raise EventRejectedError(
            "future_event",
            f"time is more than {limits.future_seconds_max} seconds ahead of our clock; set the sender's clock.",
        )
    data, data_text = _data(event, limits)
    if not isinstance(data, Object):
        raise EventRejectedError("not_an_object", f"data must be a JSON object, not {fields.kind_of(data)}.")
    _no_duplicate(data, "data")
    booked: Usage | Payment
    if event_type == names.USAGE_TYPE:
        booked = _usage(_Envelope(workspace_id, event_id, occurred_at, raw), data, data_text, limits)
    else:
        booked = _payment(_Envelope(workspace_id, event_id, occurred_at, raw), data)
    if any(name in text for name in (b"NaN", b"Infinity") for text in (raw, data_text or b"")):
        _only_json(data, "data.")
        _only_json(event, "")
    return booked


def _data(event: Object, limits: Limits) -> tuple[Any, bytes | None]:
    """The event's data and, where it came in Base64, its text.

    Raises:
        EventRejectedError: ``duplicate_key``, ``bad_type``, ``bad_encoding``, or as `parse`.
    """
    encoded = event.get("data_base64")
    if encoded is None:
        return event.get("data"), None
    if event.get("data") is not None:
        raise EventRejectedError(
            "duplicate_key", "Both data and data_base64 are given; readers differ on which counts."
        )
    if type(encoded) is not str:
        raise EventRejectedError("bad_type", f"data_base64 must be a text, not {fields.kind_of(encoded)}.")
    try:
        text = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise EventRejectedError("bad_encoding", "data_base64 is not Base64.") from None
    try:
        return parse(text, limits), text
    except EventRejectedError as error:
        raise EventRejectedError(error.reason, f"In data_base64, which must hold JSON: {error.detail}") from None


def _no_duplicate(value: Object, path: str) -> None:
    for name in sorted(value.duplicates):
        raise EventRejectedError(
            "duplicate_key", f"{fields.shown(name)} is given twice in {path}; readers differ on which counts."
        )


def _usage(envelope: _Envelope, data: Object, data_text: bytes | None, limits: Limits) -> Usage:
    tool = fields.tool(data.get("tool"))
    provider = fields.text(data.get("provider"), "data.provider", PROVIDER_MAX)
    model = fields.text(data.get("model"), "data.model", MODEL_MAX)
    quantities = _quantities(data.get("quantities"), limits)
    tags = data.get("tags")
    if isinstance(tags, Object):
        _no_duplicate(tags, "data.tags")
    metadata = data.get("metadata")
    if metadata is not None:
        if not isinstance(metadata, Object):
            raise EventRejectedError("bad_type", f"data.metadata must be an object, not {fields.kind_of(metadata)}.")
        if metadata.duplicates:  # their names may be private
            raise EventRejectedError(
                "duplicate_key", "A name is given twice in data.metadata; readers differ on which counts."
            )
    members, logged = _stored_members(data, envelope.raw, data_text)
    return Usage(
        workspace_id=envelope.workspace_id,
        event_id=envelope.event_id,
        key=event_key(envelope.event_id),
        fingerprint=content.usage_fingerprint(envelope.event_id, tool, provider, model, quantities, members + logged),
        tool=tool,
        provider=provider,
        model=model,
        quantities=quantities,
        occurred_at=envelope.occurred_at,
        payload=content.payload(members),
        raw=envelope.raw,
        labels=fields.labels(data),
    )


def _quantities(value: object, limits: Limits) -> dict[str, Any]:
    """Quantities in their normalised form, as `content.usage_fingerprint` and the price book want them."""
    if value is None or value == {}:
        raise EventRejectedError("quantity_required", "data.quantities is missing or empty; say what was used.")
    if not isinstance(value, Object):
        raise EventRejectedError("bad_type", f"data.quantities must be an object, not {fields.kind_of(value)}.")
    _no_duplicate(value, "data.quantities")
    if len(value) > limits.units_max:
        raise EventRejectedError(
            "bad_quantities", f"data.quantities has {len(value)} units; at most {limits.units_max}."
        )
    read = {}
    for unit, quantity in value.items():
        path = f"data.quantities.{fields.shown(unit)}"
        if not fields.is_unit(unit):
            raise EventRejectedError(
                "bad_quantities", f"{path} is not a unit: a name has 1 to 64 characters of A-Z a-z 0-9 _ . : -"
            )
        if quantity is None:
            raise EventRejectedError("quantity_required", f"{path} is null; send a number or leave the unit out.")
        if not isinstance(quantity, Literal):
            raise EventRejectedError("bad_type", f"{path} must be a number, not {fields.kind_of(quantity)}.")
        read[unit] = numbers.quantity(quantity, path)
    return read


def _only_json(value: Object, path: str) -> None:
    """Refuse NaN and Infinity where any value is welcome: they are not JSON, and no reader could take them back."""
    for name, member in value.items():
        waiting = [member]
        while waiting:
            item = waiting.pop()
            if isinstance(item, Literal) and item in {"NaN", "Infinity", "-Infinity"}:
                raise EventRejectedError(
                    "bad_number",
                    f"{path}{fields.shown(name)} holds NaN or Infinity, which JSON does not have; send null.",
                )
            if isinstance(item, dict):
                waiting.extend(item.values())
            elif isinstance(item, list):
                waiting.extend(item)


def _stored_members(
    data: Object, raw: bytes, data_text: bytes | None
) -> tuple[list[content.Member], list[content.Member]]:
    """Everything in ``data`` that is not priced, as written.

    Returns:
        What is stored as the payload (input, output, metadata, then what we do not know), and what has columns of the log.
    """
    if result.PRICED_NAMES.issuperset(data):
        return [], []
    written = data_text or {json.loads(name): value for name, value in scan.members(raw)}["data"]
    given = {json.loads(name): (name, value) for name, value in scan.members(written)}
    if data.get("metadata") is None:
        given.pop("metadata", None)
    known, logged = (
        [content.member(b'"%b"' % name.encode(), given[name][1]) for name in wanted if name in given]
        for wanted in (result.PAYLOAD_NAMES, result.LABEL_COLUMNS)
    )
    unknown = [content.member(*pair) for name, pair in given.items() if name not in result.USAGE_DATA_NAMES]
    return known + unknown, logged


def _payment(envelope: _Envelope, data: Object) -> Payment:
    unknown = next((name for name in data if name not in result.PAYMENT_DATA_NAMES), None)
    if unknown is not None:
        raise EventRejectedError(
            "unknown_member",
            f"data.{fields.shown(unknown)} is not part of a payment, and money is never booked by half an instruction. "
            "Amounts are in USD; put references into data.transaction.",
        )
    kind = fields.payment_kind(data.get("kind"))
    amount = fields.amount(data.get("amount"), kind)
    given = data.get("transaction")
    if isinstance(given, Object):
        _no_duplicate(given, "data.transaction")
    transaction = fields.grant(data.get("expires"), data.get("priority"), kind, fields.transaction(given, kind))
    note = fields.note(data.get("note"))
    return Payment(
        workspace_id=envelope.workspace_id,
        payment_id=envelope.event_id,
        fingerprint=content.payment_fingerprint(envelope.event_id, amount, kind, transaction, note),
        kind=kind,
        amount=amount,
        transaction=transaction,
        note=note,
        occurred_at=envelope.occurred_at,
        raw=envelope.raw,
    )


def whose(event: Object) -> tuple[str | None, str | None, str]:
    """Workspace and id of a refused event, each if it is well-formed and given once, and the event's kind."""
    workspace_id, event_id, event_type = event.get("subject"), event.get("id"), event.get("type")
    if type(workspace_id) is not str or not fields.is_workspace_id(workspace_id) or "subject" in event.duplicates:
        workspace_id = None
    if type(event_id) is not str or not fields.is_event_id(event_id) or "id" in event.duplicates:
        event_id = None
    if event_type == names.USAGE_TYPE:
        return workspace_id, event_id, "usage"
    return workspace_id, event_id, "payment" if event_type == names.PAYMENT_TYPE else "message"
