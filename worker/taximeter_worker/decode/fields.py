"""The rules of the single fields, each with its code and its sentence.

A reader takes a value as parsed, returns it in its stored form or raises `EventRejectedError`. Sentences name the field
and never quote what a user typed or a model answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from taximeter import limits, names
from taximeter.labels import TEXTS_MAX
from taximeter_db import money
from taximeter_db.errors import AmountError
from taximeter_db.ledger import grants
from taximeter_db.ledger.columns import Labels
from taximeter_worker.decode import clock
from taximeter_worker.decode.numbers import Literal
from taximeter_worker.decode.result import LABEL_COLUMNS, NOTE_MAX, TRANSACTION_TEXT_MAX, EventRejectedError

_WORKSPACE = re.compile(limits.WORKSPACE_ID_PATTERN, re.ASCII)
_UNIT = re.compile(limits.UNIT_PATTERN, re.ASCII)
_TAG_KEY = re.compile(limits.TAG_KEY_PATTERN, re.ASCII)
_PLAIN_AMOUNT = re.compile(r"([+-]?)([0-9]++)(?:\.([0-9]++))?", re.ASCII)
_PRIORITY = re.compile(r"[0-9]{1,4}", re.ASCII)
_AMOUNT_HINT: Final = 'Write it as a text of plain digits with a point, such as "25.00".'
_AMOUNT_DECIMALS_MAX: Final = 12


def is_workspace_id(text: str) -> bool:
    """Whether a text can name a workspace."""
    return _WORKSPACE.fullmatch(text) is not None


def is_event_id(text: str) -> bool:
    """Whether a text can be an event's id: printable ASCII and not blank."""
    return 0 < len(text) <= limits.EVENT_ID_MAX and text.isascii() and text.isprintable() and not text.isspace()


def is_unit(text: str) -> bool:
    """Whether a text can name a unit."""
    return _UNIT.fullmatch(text) is not None


def is_tag_key(text: str) -> bool:
    """Whether a text can be the key of a tag."""
    return _TAG_KEY.fullmatch(text) is not None


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold a text: no NUL, no lone surrogate."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, Literal):
        return "a number"
    words = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return words.get(type(value), "an object")


def shown(name: str) -> str:
    """A field's name for a sentence: short and plain ASCII, whatever the event called it."""
    return ascii(name[:64])[1:-1]


def event_id(value: object) -> str:
    """The ``id``: 1 to 255 printable ASCII characters, not blank.

    Raises:
        EventRejectedError: ``id_required``, ``bad_type``, ``id_too_long`` or ``id_charset``.
    """
    if value is None or (type(value) is str and (not value or value.isspace())):
        raise EventRejectedError(
            "id_required", "id is missing or blank; give every event an id of its own, best a UUIDv7."
        )
    if type(value) is not str:
        raise EventRejectedError("bad_type", f"id must be a text, not {kind_of(value)}; put it in quotes.")
    if len(value) > limits.EVENT_ID_MAX:
        raise EventRejectedError(
            "id_too_long", f"id has {len(value)} characters; at most {limits.EVENT_ID_MAX} are allowed."
        )
    if not is_event_id(value):
        raise EventRejectedError(
            "id_charset", "id holds control or non-ASCII characters; use printable ASCII, best a UUIDv7."
        )
    return value


def workspace_id(value: object) -> str:
    """The ``subject``: the workspace.

    Raises:
        EventRejectedError: ``workspace_required``, ``bad_type`` or ``workspace_charset``.
    """
    if value is None or (type(value) is str and (not value or value.isspace())):
        raise EventRejectedError("workspace_required", "subject is missing or blank; it names the workspace to charge.")
    if type(value) is not str:
        raise EventRejectedError("bad_type", f"subject must be a text, not {kind_of(value)}; put it in quotes.")
    if not is_workspace_id(value):
        raise EventRejectedError(
            "workspace_charset",
            f"subject must be 1 to {limits.WORKSPACE_ID_MAX} characters of A-Z a-z 0-9 . _ : - to name a workspace.",
        )
    return value


def text(value: object, path: str, length_max: int) -> str | None:
    """A text that goes into a column of its own; None when it is missing, null or empty.

    Raises:
        EventRejectedError: ``bad_type`` or ``bad_text``.
    """
    if value is None or value == "":
        return None
    if type(value) is not str:
        raise EventRejectedError("bad_type", f"{path} must be a text, not {kind_of(value)}.")
    if not is_storable(value):
        raise EventRejectedError("bad_text", f"{path} holds a NUL or a lone surrogate; remove it.")
    if len(value) > length_max:
        raise EventRejectedError("bad_text", f"{path} has {len(value)} characters; at most {length_max} are allowed.")
    return value


def tool(value: object) -> str:
    """The ``data.tool``, which is required.

    Raises:
        EventRejectedError: ``tool_required``, or as `text`.
    """
    name = text(value, "data.tool", limits.TOOL_MAX)
    if name is None or name.isspace():
        raise EventRejectedError("tool_required", "data.tool is missing or blank; name the feature that was used.")
    return name


def labels(data: Mapping[str, object]) -> Labels | None:
    """The labels in ``data``; None where there is none. The keys of tags are known to differ.

    Raises:
        EventRejectedError: ``bad_type``, ``bad_tags`` or ``bad_text``.
    """
    found: dict[str, Any] = {
        column: _tags(data.get(name)) if name == "tags" else _not_blank(data.get(name), f"data.{name}", TEXTS_MAX[name])
        for name, column in LABEL_COLUMNS.items()
    }
    return Labels(**found) if any(found.values()) else None


def _tags(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise EventRejectedError("bad_type", f"data.tags must be an object of texts, not {kind_of(value)}.")
    if len(value) > limits.TAGS_MAX:
        raise EventRejectedError("bad_tags", f"data.tags has {len(value)} tags; at most {limits.TAGS_MAX} are allowed.")
    checked: dict[str, str] = {}
    for key, tag in value.items():
        path = f"data.tags.{shown(key)}"
        if not is_tag_key(key):
            raise EventRejectedError(
                "bad_tags", f"{path} cannot be a tag: a key has 1 to 32 characters of a-z 0-9 _ . -"
            )
        named = _not_blank(tag, path, limits.TAG_TEXT_MAX)
        if named is None:
            raise EventRejectedError("bad_type", f"{path} is null; leave the tag out, or give it a text.")
        checked[key] = named
    return checked or None


def _not_blank(value: object, path: str, length_max: int) -> str | None:
    if type(value) is str and (not value or value.isspace()):
        raise EventRejectedError("bad_text", f"{path} is blank; leave it out where there is nothing to say.")
    return text(value, path, length_max)


def payment_kind(value: object) -> str:
    """The ``data.kind`` of a payment.

    Raises:
        EventRejectedError: ``bad_kind``.
    """
    if type(value) is str and value in names.PAYMENT_KINDS:
        return value
    raise EventRejectedError("bad_kind", f"data.kind must be one of {', '.join(names.PAYMENT_KINDS)}.")


def amount(value: object, kind: str) -> int:
    """The ``data.amount`` of a payment in picodollars, signed.

    Raises:
        EventRejectedError: ``amount_required``, ``bad_type``, ``bad_number``, ``too_precise``, ``out_of_range``,
            ``zero_amount``, ``negative_amount`` or ``positive_amount``.
    """
    if value is None:
        raise EventRejectedError("amount_required", f"data.amount is missing. {_AMOUNT_HINT}")
    if type(value) is not str:
        reason = "bad_number" if value in ("NaN", "Infinity", "-Infinity") else "bad_type"
        raise EventRejectedError(reason, f"data.amount must be a text, not {kind_of(value)}: {_AMOUNT_HINT}")
    parts = _PLAIN_AMOUNT.fullmatch(value)
    if parts is None:
        raise EventRejectedError("bad_number", f"data.amount is not a plain decimal. {_AMOUNT_HINT}")
    sign, whole, fraction = parts[1], parts[2].lstrip("0") or "0", (parts[3] or "").rstrip("0")
    if len(fraction) > _AMOUNT_DECIMALS_MAX:
        raise EventRejectedError("too_precise", f"data.amount has more than {_AMOUNT_DECIMALS_MAX} decimals; round it.")
    try:
        pico = money.parse_usd(f"{sign}{whole}.{fraction or '0'}")
    except AmountError:
        raise EventRejectedError("out_of_range", "data.amount must lie within 10^15 USD either way.") from None
    if pico == 0:
        raise EventRejectedError("zero_amount", "data.amount is 0; a payment must change the balance.")
    if pico < 0 and kind not in {*names.NEGATIVE_PAYMENT_KINDS, "adjustment"}:
        raise EventRejectedError(
            "negative_amount",
            f"data.amount is negative; only an adjustment may be, or a {' or '.join(names.NEGATIVE_PAYMENT_KINDS)}, not a {kind}.",
        )
    if pico > 0 and kind in names.NEGATIVE_PAYMENT_KINDS:
        raise EventRejectedError(
            "positive_amount", f"data.amount is positive; a {kind} takes from the balance, so its amount is negative."
        )
    return pico


def transaction(value: object, kind: str) -> dict[str, str] | None:
    """The ``data.transaction`` of a payment: an object of texts, or None.

    Raises:
        EventRejectedError: ``bad_type``, ``bad_text`` or ``payment_id_required``.
    """
    members = None if value is None else _texts(value)
    if kind in names.FOLLOWING_PAYMENT_KINDS and not (members or {}).get("payment_id", "").strip():
        raise EventRejectedError(
            "payment_id_required",
            f"data.transaction.payment_id is missing; a {kind} names the payment that it concerns.",
        )
    return members


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise EventRejectedError("bad_type", f"data.transaction must be an object of texts, not {kind_of(value)}.")
    for name, member in value.items():
        path = f"data.transaction.{shown(name)}"
        text(name, "a name in data.transaction", TRANSACTION_TEXT_MAX)
        if type(member) is not str:
            raise EventRejectedError("bad_type", f"{path} must be a text, not {kind_of(member)}; put it in quotes.")
        text(member, path, TRANSACTION_TEXT_MAX)
    return dict(value)


def grant(expires: object, priority: object, kind: str, members: dict[str, str] | None) -> dict[str, str] | None:
    """The transaction of a payment with ``data.expires`` and ``data.priority`` in it, which make a promo a grant.

    Raises:
        EventRejectedError: ``bad_time``, ``timezone_required``, ``bad_type``, ``bad_kind`` or ``out_of_range``.
    """
    for name in (grants.EXPIRES, grants.PRIORITY):
        if name in (members or {}):
            raise EventRejectedError(
                "bad_type", f"data.transaction.{name} is kept for a grant's terms; give data.expires and data.priority."
            )
    if expires is None:
        if priority is not None:
            raise EventRejectedError("bad_type", "data.priority goes with data.expires: it orders credit that expires.")
        return members
    if kind != grants.KIND:
        raise EventRejectedError("bad_kind", f"data.expires goes with the kind {grants.KIND} alone: only that expires.")
    moment = clock.moment(expires, "data.expires")
    order = Literal("0") if priority is None else priority
    if not isinstance(order, Literal):
        raise EventRejectedError("bad_type", f"data.priority must be a number, not {kind_of(priority)}.")
    if not _PRIORITY.fullmatch(order) or int(order) > grants.PRIORITY_MAX:
        raise EventRejectedError(
            "out_of_range", f"data.priority must be a whole number from 0 to {grants.PRIORITY_MAX}."
        )
    return {**(members or {}), grants.EXPIRES: moment, grants.PRIORITY: str(int(order))}


def note(value: object) -> str | None:
    """The ``data.note`` of a payment, or None."""
    return text(value, "data.note", NOTE_MAX)
