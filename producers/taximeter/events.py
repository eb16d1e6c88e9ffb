"""Building and checking one event: from the arguments of ``Meter.record`` to a line of JSON.

What is checked here is what the worker would surely refuse, so that a mistake shows where it was made. The codes
are those of the quarantine.
"""

from __future__ import annotations

import functools
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, Final

import msgspec

from taximeter import limits, names
from taximeter.bounded import BoundedCache
from taximeter.errors import InvalidEventError
from taximeter.ids import new_event_id
from taximeter.labels import NAMES as LABEL_NAMES
from taximeter.labels import NO_LABELS, Labels, check_text

QUANTITY_MAX: Final = limits.QUANTITY_MAX
_QUANTUM: Final = Decimal(1).scaleb(-limits.QUANTITY_DECIMALS_MAX)
_CONTEXT: Final = Context(prec=40)
_NANOSECONDS_PER_MILLISECOND: Final = 1_000_000

_workspace_fits = re.compile(limits.WORKSPACE_ID_PATTERN).fullmatch
_id_fits = re.compile(rf"[\x20-\x7e]{{1,{limits.EVENT_ID_MAX}}}").fullmatch
_unit_fits = re.compile(limits.UNIT_PATTERN).fullmatch
_STANDARD_UNITS: Final = frozenset(names.STANDARD_UNITS)
_encode = msgspec.json.Encoder().encode
_encode_with_numbers = msgspec.json.Encoder(decimal_format="number").encode

ROUTING_KEYS: Final[dict[str, str]] = {
    names.USAGE_TYPE: names.USAGE_ROUTING_KEY,
    names.PAYMENT_TYPE: names.PAYMENT_ROUTING_KEY,
}
"""The routing key of each event type."""
_USAGE_TYPE: Final = names.USAGE_TYPE  # at hand: it is read for every event


class _Data(msgspec.Struct, gc=False, omit_defaults=True):
    tool: str
    quantities: dict[str, int] | msgspec.Raw
    provider: str | None = None
    model: str | None = None
    input: Any = None
    output: Any = None
    metadata: Any = None


_OPTIONAL: Final = ("provider", "model", *LABEL_NAMES, "input", "output", "metadata")
_LabelledData: Final = msgspec.defstruct(
    "_LabelledData", ["tool", "quantities", *((name, Any, None) for name in _OPTIONAL)], gc=False, omit_defaults=True
)
"""The same with labels, in the order in which they are written."""


class _Event(msgspec.Struct, gc=False):
    specversion: str
    type: str
    id: str
    source: str
    subject: str
    time: str
    data: msgspec.Struct


def check_workspace_id(workspace_id: object) -> str:
    """Return the workspace id, or raise `InvalidEventError` when it is missing or holds other characters."""
    if isinstance(workspace_id, str):
        if _workspace_fits(workspace_id):
            return workspace_id
        if not workspace_id.strip():
            raise InvalidEventError("workspace_required", "workspace_id", "is blank; it says whose balance pays")
        raise InvalidEventError(
            "workspace_charset",
            "workspace_id",
            f"must be 1 to {limits.WORKSPACE_ID_MAX} characters of A-Z a-z 0-9 . _ : -",
        )
    if workspace_id is None:
        raise InvalidEventError("workspace_required", "workspace_id", "is None; it says whose balance pays")
    raise InvalidEventError("bad_type", "workspace_id", f"must be a str, not {type(workspace_id).__name__}")


def check_event_id(event_id: object) -> str:
    """Return the event id, or raise `InvalidEventError` when it cannot serve as an idempotency key."""
    if event_id is None or (isinstance(event_id, str) and not event_id.strip()):
        raise InvalidEventError("id_required", "id", "is missing or blank")
    if not isinstance(event_id, str):
        raise InvalidEventError("bad_type", "id", f"must be a str, not {type(event_id).__name__}")
    if len(event_id) > limits.EVENT_ID_MAX:
        raise InvalidEventError("id_too_long", "id", f"has {len(event_id)} characters, at most {limits.EVENT_ID_MAX}")
    if not _id_fits(event_id):
        raise InvalidEventError("id_charset", "id", "must be printable ASCII")
    return event_id


def usage_line(
    workspace_id: str,
    tool: str,
    quantities: Mapping[str, int | float | Decimal],
    provider: str | None,
    model: str | None,
    input: Any,  # noqa: A002 - the contract's name
    output: Any,
    metadata: Mapping[str, Any] | None,
    event_id: str | None,
    occurred_at: datetime | None,
    source: str,
    labels: Labels = NO_LABELS,
) -> tuple[str, bytes]:
    """Check a usage and encode it as one line of JSON without the line feed.

    Returns:
        The event id and the line.

    Raises:
        InvalidEventError: The worker would refuse the event.
    """
    try:
        # as `check_names` does, without the call: most events bear names that are known
        known = workspace_id in _good_workspaces and (tool, provider, model) in _good_names
    except TypeError:
        known = False
    if not known:
        check_names(workspace_id, tool, provider, model)
    if event_id is None:
        event_id = new_event_id()
    else:
        check_event_id(event_id)
    if metadata is not None and type(metadata) is not dict:
        metadata = _plain_mapping(metadata)
    counted = _check_quantities(quantities)
    if labels is NO_LABELS:
        data: msgspec.Struct = _Data(tool, counted, provider, model, input, output, metadata)
    else:
        given = msgspec.structs.astuple(labels)
        data = _LabelledData(tool, counted, provider, model, *given, input, output, metadata)
    stamp = _now() if occurred_at is None else _rfc3339(occurred_at)
    event = _Event("1.0", _USAGE_TYPE, event_id, source, workspace_id, stamp, data)
    try:
        return event_id, _encode(event)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return event_id, encode_json(event, "input, output or metadata")  # knows a way, or why there is none


# Names that passed the checks: a process uses few, again and again.
# Some 30 MB of workspaces at the very most; to check the ids of 100,000 workspaces again costs more than the events.
_good_workspaces: BoundedCache[str, bool] = BoundedCache(200_000)
_good_names: BoundedCache[tuple[str, str | None, str | None], bool] = BoundedCache(10_000)


def check_names(workspace_id: str, tool: str, provider: str | None, model: str | None) -> None:
    """Raise `InvalidEventError` unless an event can bear these names."""
    try:
        known = workspace_id in _good_workspaces and (tool, provider, model) in _good_names
    except TypeError:  # unhashable, so surely wrong
        known = False
    if not known:
        _check_names(workspace_id, tool, provider, model)


def _check_names(workspace_id: str, tool: str, provider: str | None, model: str | None) -> None:
    check_workspace_id(workspace_id)
    _check_tool(tool)
    if provider is not None:
        check_text("provider", provider, limits.PROVIDER_MAX)
    if model is not None:
        check_text("model", model, limits.MODEL_MAX)
    _good_workspaces.remember(workspace_id, True)
    _good_names.remember((tool, provider, model), True)


def check_source(source: object) -> str:
    """Return the CloudEvents source, or raise `InvalidEventError` when it is not a plain non-empty text."""
    if isinstance(source, str) and source and source.isprintable():
        return source
    raise InvalidEventError("bad_text", "source", "must be a non-empty str of printable characters")


def _check_tool(tool: object) -> None:
    if tool is None or (isinstance(tool, str) and not tool.strip()):
        raise InvalidEventError("tool_required", "tool", "name the feature that consumed something")
    check_text("tool", tool, limits.TOOL_MAX)


def _check_quantities(quantities: object) -> dict[str, int] | msgspec.Raw:
    if type(quantities) is dict and quantities:
        for unit, value in quantities.items():
            if unit not in _STANDARD_UNITS or type(value) is not int or not 0 <= value <= QUANTITY_MAX:
                break
        else:
            return quantities  # nothing to copy: it is encoded before anyone could change it
    checked = exact_quantities(quantities)
    fractional = any(not isinstance(value, int) for value in checked.values())
    return msgspec.Raw(_encode_with_numbers(checked)) if fractional else checked  # type: ignore[return-value]


def exact_quantities(quantities: object) -> dict[str, int | Decimal]:
    """Quantities as they are booked, or `InvalidEventError` where they could not be."""
    if type(quantities) is not dict and not isinstance(quantities, Mapping):
        if quantities is None:
            raise InvalidEventError("quantity_required", "quantities", "say what was consumed")
        raise InvalidEventError("bad_type", "quantities", f"must be a dict, not {type(quantities).__name__}")
    if not quantities:
        raise InvalidEventError(
            "quantity_required", "quantities", "say what was consumed; an empty dict is not a usage"
        )
    if len(quantities) > limits.UNITS_MAX:
        raise InvalidEventError(
            "bad_quantities", "quantities", f"has {len(quantities)} units, at most {limits.UNITS_MAX}"
        )
    whole: dict[str, int] = {}
    fractions: dict[str, Decimal] = {}
    for unit, value in quantities.items():
        if unit not in _STANDARD_UNITS and not (isinstance(unit, str) and _unit_fits(unit)):
            raise InvalidEventError(
                "bad_quantities", "quantities", "a unit's name has 1 to 64 characters of A-Z a-z 0-9 _ . : -"
            )
        if type(value) is int and 0 <= value <= QUANTITY_MAX:
            whole[unit] = value
            continue
        checked = _check_quantity(f"quantities.{unit}", value)
        if isinstance(checked, int):
            whole[unit] = checked
        else:
            fractions[unit] = checked
    return {**whole, **fractions}


def _check_quantity(field: str, value: object) -> int | Decimal:
    if value is None:
        raise InvalidEventError("quantity_required", field, "is None; leave out what was not consumed")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidEventError("bad_type", field, f"must be an int, Decimal or float, not {type(value).__name__}")
    finite = value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or math.isfinite(value)
    if not finite:
        raise InvalidEventError("bad_number", field, "must be a finite number")
    if value < 0:
        raise InvalidEventError("negative_quantity", field, "must not be negative; corrections are payments")
    if value > QUANTITY_MAX:
        raise InvalidEventError("out_of_range", field, "must be at most 10^15")
    if isinstance(value, int):
        return int(value)
    # float.__repr__ is the shortest text that means this float: 0.1 travels as 0.1.
    exact = Decimal(float.__repr__(value)) if isinstance(value, float) else value
    rounded = exact.quantize(_QUANTUM, context=_CONTEXT)
    if rounded != exact:
        raise InvalidEventError("too_precise", field, "has more than 6 decimals; round it, for example round(x, 6)")
    whole = int(rounded)
    return whole if whole == rounded else rounded.normalize(_CONTEXT)


def _plain_mapping(metadata: object) -> dict[str, Any]:
    if isinstance(metadata, Mapping):
        return dict(metadata)
    raise InvalidEventError("bad_type", "metadata", f"must be a dict, not {type(metadata).__name__}")


def check_moment(occurred_at: object) -> datetime:
    """Return a time in UTC, or raise `InvalidEventError` when it has no zone or lies outside the years 1 to 9999."""
    if not isinstance(occurred_at, datetime):
        raise InvalidEventError("bad_time", "time", f"must be a datetime, not {type(occurred_at).__name__}")
    if occurred_at.tzinfo is None or occurred_at.utcoffset() is None:
        raise InvalidEventError("timezone_required", "time", "has no time zone; use datetime.now(timezone.utc)")
    try:
        return occurred_at.astimezone(UTC)
    except OverflowError:
        raise InvalidEventError("bad_time", "time", "lies outside the years 1 to 9999 in UTC") from None


def _rfc3339(occurred_at: object) -> str:
    return check_moment(occurred_at).replace(tzinfo=None).isoformat() + "Z"


_stamp: tuple[int, str] = (0, "")


def _now() -> str:
    # Formatting a date costs more than the rest of the envelope, and a burst shares its milliseconds.
    global _stamp  # noqa: PLW0603 - a cache of one immutable pair, replaced whole
    milliseconds = time.time_ns() // _NANOSECONDS_PER_MILLISECOND
    known, text = _stamp
    if known != milliseconds:
        seconds, rest = divmod(milliseconds, 1000)
        text = f"{_second(seconds)}.{rest:03d}Z"
        _stamp = (milliseconds, text)
    return text


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def encode_json(value: object, field: str, *, decimals_as_numbers: bool = False) -> bytes:
    """Write a value as one line of JSON, text exactly as it is. Decimals become texts unless asked otherwise.

    Raises:
        InvalidEventError: JSON cannot express the value; ``field`` says where it was given.
    """
    encode = _encode_with_numbers if decimals_as_numbers else _encode
    try:
        try:
            return encode(value)
        except UnicodeEncodeError:
            # UTF-8 has no half surrogate pairs, JSON's escapes do.
            return _escape(msgspec.to_builtins(value, builtin_types=(Decimal, msgspec.Raw)), encode).encode()
    except RecursionError:
        raise InvalidEventError("too_deep", field, "is nested too deeply") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEventError("bad_type", field, f"cannot be written as JSON: {error}") from None


def _escape(value: object, encode: Callable[[object], bytes]) -> str:
    """Write any JSON value in ASCII, with half surrogate pairs kept as escapes."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        members = (f"{json.dumps(str(key))}:{_escape(item, encode)}" for key, item in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_escape(item, encode) for item in value) + "]"
    return encode(value).decode()
