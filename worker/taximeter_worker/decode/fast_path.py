"""The way nearly every usage takes: typed decoding in C and a handful of checks.

It says yes or nothing at all. Whatever it has the slightest doubt about goes to `strict`, which knows why. Both
must agree on every event that this one takes; tests/worker/test_decode_agreement.py holds them to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from taximeter import names
from taximeter.labels import TEXTS_MAX
from taximeter.limits import (
    EVENT_ID_MAX,
    MODEL_MAX,
    PROVIDER_MAX,
    QUANTITY_MAX,
    TAG_TEXT_MAX,
    TAGS_MAX,
    TOOL_MAX,
)
from taximeter_db.ledger.columns import Labels
from taximeter_db.ledger.events import Usage, event_key, uuid_keys
from taximeter_worker.decode import clock, content, fields, numbers, scan
from taximeter_worker.decode.result import LABEL_COLUMNS, Limits


# In the order in which our SDK writes: msgspec tries the next field first.
class _Data(msgspec.Struct, gc=False, kw_only=True):
    tool: str
    quantities: dict[str, Any]
    provider: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    user: str | UnsetType | None = UNSET
    tags: dict[str, str] | UnsetType | None = UNSET
    hold: str | UnsetType | None = UNSET
    input: Raw | UnsetType = UNSET
    output: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET


class _Event(msgspec.Struct, gc=False, kw_only=True):
    specversion: Literal["1.0"]
    type: Literal["taximeter.usage.v1"]
    id: str
    source: str | UnsetType = UNSET
    subject: str
    time: str
    data: _Data
    datacontenttype: str | UnsetType = UNSET


_labels_of = attrgetter(*LABEL_COLUMNS)
_LABELS: Final = tuple((content.head(name), column, TEXTS_MAX.get(name)) for name, column in LABEL_COLUMNS.items())
"""Each label's name in quotes, its column, and the most characters of its text; ``tags`` alone are more than a text."""

# Decimal as a hook is exact, and however large an exponent it stays a number.
_decode = msgspec.json.Decoder(_Event, float_hook=Decimal).decode
_decode_list = msgspec.json.Decoder(list[_Event], float_hook=Decimal).decode

_QUOTES: Final = 2 * (6 + 5 + 2 + 1)
"""Quotes of the least usage: six names with five texts in the envelope, ``tool`` with its text, ``quantities``."""

DOUBTS: Final = (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError)
"""What the parts raise when an event is not for the fast path."""


def usages(body: bytes, raws: list[bytes], latest: int, limits: Limits) -> list[Usage | None] | None:
    """Read a whole batch, which must be valid UTF-8 and hold the events ``raws``, in one pass.

    Returns:
        A usage for each event, None where there is doubt about it; or None where the batch must be read one by one.
    """
    if len(body) > limits.event_bytes_max and max(map(len, raws)) > limits.event_bytes_max:
        return None
    try:
        events = _decode_list(body)
    except DOUBTS:
        return None
    read: list[Usage | None] = []
    names_of, shapes, workspaces, times = _good_names, _good_shapes, _good_workspaces, _times
    head, new_digest, event_type = content.head, content.EMPTY.copy, names.USAGE_TYPE
    quotes, singly, append = 0, 0, read.append
    for event, raw, (event_id, key) in zip(events, raws, _keys(events), strict=True):
        data = event.data
        quantities = data.quantities
        # The try is free; what it catches is rare.
        try:
            tool, provider, model, names_quotes = names_of[data.tool, data.provider, data.model]
            shape_quotes = shapes[tuple(quantities)]
            for quantity in quantities.values():
                if type(quantity) is not int or not 0 <= quantity <= QUANTITY_MAX:
                    raise KeyError  # noqa: TRY301  (to where the rarer cases are)
            occurred_at, workspace_id = times[event.time], workspaces[event.subject]
            plain = data.input is UNSET and data.output is UNSET and data.metadata is UNSET
            plain = plain and data.user is UNSET and data.tags is UNSET and data.hold is UNSET
            known = plain and event.datacontenttype is UNSET and event.source is not UNSET
        except KeyError:
            known = False
        if not known or occurred_at > latest or key is None:
            # Single events know how to do all that, and teach it to the ones that follow.
            counted = raw.count(b'"')
            singly += counted
            try:
                append(_usage(event, raw, counted, latest, limits))
            except DOUBTS:
                append(None)
            continue
        quotes += names_quotes + shape_quotes
        digest = new_digest()
        digest.update(head((event_type, event_id, tool, provider, model, quantities)))
        append(
            Usage(
                workspace_id,
                event_id,
                key,
                digest.digest(),
                tool,
                provider,
                model,
                quantities,
                occurred_at,
                None,
                raw,
            )
        )
    # No event can have fewer quotes than what was read of it, so the sum is right only where each is.
    return read if not quotes or body.count(b'"') == quotes + singly else None


def _keys(events: list[_Event]) -> Iterable[tuple[str, bytes | None]]:
    """Each event's id with its key, where the id is a canonical UUID that stands for itself; else None."""
    ids = [event.id for event in events]
    keys = uuid_keys(ids)
    return zip(ids, [None] * len(ids) if keys is None else keys, strict=True)


def usage(raw: bytes, latest: int, limits: Limits) -> Usage | None:
    """Read a usage event from its bytes, which must be valid UTF-8; None when in doubt.

    ``latest`` is the last acceptable time in microseconds.

    Raises:
        msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError: Doubts too; see `DOUBTS`.
    """
    return _usage(_decode(raw), raw, raw.count(b'"'), latest, limits)


def _usage(event: _Event, raw: bytes, counted: int, latest: int, limits: Limits) -> Usage | None:
    """See `usage`; ``counted`` are the quotes in ``raw``."""
    data = event.data
    event_id, workspace_id, quantities = event.id, event.subject, data.quantities
    if not 0 < len(quantities) <= limits.units_max:
        return None
    # Names that came twice vanish in decoding, and so do unknown ones; but every name and text has its two quotes,
    # so that their number tells. An escaped quote counts too: a false alarm, never a missed one.
    quotes = _QUOTES + 2 * len(quantities)
    if event.source is not UNSET:
        quotes += 4
    if event.datacontenttype is not UNSET:
        quotes += 4
    provider, model = data.provider, data.model
    if provider is UNSET:
        provider = None
    else:
        quotes += 2 if provider is None else 4
    if model is UNSET:
        model = None
    else:
        quotes += 2 if model is None else 4
    members: list[content.Member] = []
    if data.input is not UNSET or data.output is not UNSET or data.metadata is not UNSET:
        members = _members(data, limits.depth_max)
        for _, value, _ in members:
            quotes += 2 + content.quotes_of(value)
    logged: list[content.Member] = []
    labels = None
    if data.user is not UNSET or data.tags is not UNSET or data.hold is not UNSET:
        labels, logged = _labels(data)
        for _, value, _ in logged:
            quotes += 2 + content.quotes_of(value)
    tool = data.tool
    if workspace_id not in _good_workspaces:
        _check_workspace(workspace_id)
    if (data.tool, data.provider, data.model) not in _good_names:
        _check_names(tool, provider, model, (data.tool, data.provider, data.model))
    occurred_at = _times.get(event.time)
    if occurred_at is None:
        occurred_at = clock.micros(event.time)
        _remember(_times, event.time, occurred_at)
    if (
        counted != quotes
        or len(raw) > limits.event_bytes_max
        or occurred_at > latest
        or not (0 < len(event_id) <= EVENT_ID_MAX and event_id.isascii() and event_id.isprintable())
        or event_id.isspace()
    ):
        return None
    _normalise(quantities)
    return Usage(
        workspace_id,
        event_id,
        event_key(event_id),
        content.usage_fingerprint(event_id, tool, provider, model, quantities, members + logged if logged else members),
        tool,
        provider,
        model,
        quantities,
        occurred_at,
        content.payload(members) if members else None,
        raw,
        labels=labels,
    )


def _labels(data: _Data) -> tuple[Labels | None, list[content.Member]]:
    """The labels, and those that are given as members; ValueError when in doubt.

    What was decoded is written again in its canonical form, which is what a member is to the fingerprint.
    """
    labels, members = {}, []
    for label, (quoted, column, length_max) in zip(_labels_of(data), _LABELS, strict=True):
        if label is UNSET:
            continue
        if label is not None:
            if length_max is None:
                _check_tags(label)
            else:
                _check_text(label, length_max)
            if label:
                labels[column] = label
        value = content.head(label)
        members.append((quoted, value, value))
    return Labels(**labels) if labels else None, members


def _normalise(quantities: dict[str, Any]) -> None:
    """Bring quantities into their one form, in place; ValueError when in doubt."""
    for unit, quantity in quantities.items():
        if unit not in _good_units:
            _check_unit(unit)
        if type(quantity) is not int:
            if type(quantity) is not Decimal or not 0 <= quantity <= QUANTITY_MAX:
                raise ValueError
            exact = numbers.normalised(quantity)
            if exact is None:
                raise ValueError
            quantities[unit] = exact
        elif not 0 <= quantity <= QUANTITY_MAX:
            raise ValueError
    shape = tuple(quantities)
    if shape not in _good_shapes:
        _remember(_good_shapes, shape, 2 * len(shape))


def _members(data: _Data, depth_max: int) -> list[content.Member]:
    """Input, output and metadata; ValueError when in doubt."""
    members = []
    if data.input is not UNSET:
        members.append(content.member(b'"input"', bytes(data.input)))
    if data.output is not UNSET:
        members.append(content.member(b'"output"', bytes(data.output)))
    if data.metadata is not UNSET:
        members.append(content.object_member(b'"metadata"', bytes(data.metadata)))
    for _, value, _ in members:
        # Event and data are two levels above.
        if value[0] in b"[{" and scan.deeper_than(value, depth_max - 2):
            raise ValueError
    return members


# What passed once passes again. Good ones alone are remembered, so that all are short.
_good_workspaces: dict[str, str] = {}
"""Each leads to itself: one object, so that the batch's look-ups need not compare its letters."""
_good_units: dict[str, bool] = {}
_good_names: dict[tuple[Any, ...], tuple[str, str | None, str | None, int]] = {}
"""By tool, provider and model as decoded: what they are, and the quotes of such an event without its quantities."""
_good_shapes: dict[tuple[str, ...], int] = {}
"""By the units of an event: the quotes of its quantities."""
_good_tags: dict[str, bool] = {}
"""Keys."""
_times: dict[str, int] = {}
"""Microseconds by their text: a burst shares its milliseconds."""
_REMEMBERED_MAX: Final = 10_000
_WORKSPACES_REMEMBERED_MAX: Final = 200_000
"""Some 30 MB at the very most. With fewer, every event of 100,000 workspaces would go the single one's way."""


def _remember(good: dict[Any, Any], key: Any, value: Any = True, most: int = _REMEMBERED_MAX) -> None:
    if len(good) >= most:
        good.clear()
    good[key] = value


def _check_workspace(text: str) -> None:
    if not fields.is_workspace_id(text):
        raise ValueError
    _remember(_good_workspaces, text, text, most=_WORKSPACES_REMEMBERED_MAX)


def _check_text(text: str, length_max: int) -> None:
    if not 0 < len(text) <= length_max or text.isspace() or not fields.is_storable(text):
        raise ValueError


def _check_tags(tags: dict[str, str]) -> None:
    if len(tags) > TAGS_MAX:
        raise ValueError
    for key, text in tags.items():
        if key not in _good_tags:
            if not fields.is_tag_key(key):
                raise ValueError
            _remember(_good_tags, key)
        _check_text(text, TAG_TEXT_MAX)


def _check_unit(text: str) -> None:
    if not fields.is_unit(text):
        raise ValueError
    _remember(_good_units, text)


def _check_names(tool: str, provider: str | None, model: str | None, decoded: tuple[Any, ...]) -> None:
    lengths = ((tool, TOOL_MAX), (provider, PROVIDER_MAX), (model, MODEL_MAX))
    for text, length_max in lengths:
        if text is not None and not (0 < len(text) <= length_max and fields.is_storable(text)):
            raise ValueError
    if tool.isspace():
        raise ValueError
    # Such an event names its source, as nearly all do.
    quotes = _QUOTES + 4 + sum(2 if text is None else 4 for text in decoded[1:] if text is not UNSET)
    _remember(_good_names, decoded, (tool, provider, model, quotes))
