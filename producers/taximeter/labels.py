"""Who within a workspace consumed something, under which tags, and against which hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from taximeter import limits
from taximeter.bounded import BoundedCache
from taximeter.errors import InvalidEventError

_key_fits = re.compile(limits.TAG_KEY_PATTERN, re.ASCII).fullmatch
_good_keys: BoundedCache[str, bool] = BoundedCache(10_000)


class Labels(msgspec.Struct, frozen=True, gc=False):
    """The labels of a usage as an event bears them, in this order; None where it has none.

    A label is in the log beside what is priced. SDK, gateway and worker read the names here, `NAMES`.
    """

    user: str | None = None
    tags: dict[str, str] | None = None
    hold: str | None = None


NO_LABELS: Final = Labels()
NAMES: Final = Labels.__struct_fields__
TEXTS_MAX: Final = {"user": 128, "hold": limits.HOLD_ID_MAX}
"""The labels that are one text, with the most characters of each. Only ``tags`` are more than one."""


def labels(*, user: object = None, tags: object = None, hold: object = None) -> Labels:
    """Labels of an event.

    Args:
        user: A text or None.
        tags: A mapping of texts or None.
        hold: A hold's id, or what has one as its ``id``, or None.

    Raises:
        InvalidEventError: The worker would refuse an event with these.
    """
    return Labels(
        user=_checked_label("user", user),
        tags=None if tags is None else _checked_tags(tags),
        hold=_checked_label("hold", getattr(hold, "id", hold)),
    )


def _checked_label(name: str, value: object) -> str | None:
    return None if value is None else _checked(name, value, TEXTS_MAX[name])


def _checked_tags(tags: Any) -> dict[str, str] | None:
    if not isinstance(tags, Mapping):
        raise InvalidEventError("bad_type", "tags", f"must be a dict of str, not {type(tags).__name__}")
    if len(tags) > limits.TAGS_MAX:
        raise InvalidEventError("bad_tags", "tags", f"has {len(tags)} tags, at most {limits.TAGS_MAX}")
    checked = {}
    for key, text in tags.items():
        if key not in _good_keys:
            if not isinstance(key, str) or not _key_fits(key):
                raise InvalidEventError("bad_tags", "tags", "a tag's key has 1 to 32 characters of a-z 0-9 _ . -")
            _good_keys.remember(key, True)
        checked[key] = _checked(f"tags.{key}", text, limits.TAG_TEXT_MAX)
    return checked or None


def _checked(field: str, value: Any, characters_max: int) -> str:
    if not isinstance(value, str):
        raise InvalidEventError("bad_type", field, f"must be a str, not {type(value).__name__}")
    if not value or value.isspace():
        raise InvalidEventError("bad_text", field, "is blank; leave it out where there is nothing to say")
    check_text(field, value, characters_max)
    return value


def check_text(field: str, value: object, characters_max: int) -> None:
    """Raise `InvalidEventError` unless a value is a text that a column of the log can hold."""
    if not isinstance(value, str):
        raise InvalidEventError("bad_type", field, f"must be a str, not {type(value).__name__}")
    if len(value) > characters_max:
        raise InvalidEventError("bad_text", field, f"has {len(value)} characters, at most {characters_max}")
    if "\0" in value or not (value.isascii() or _is_unicode(value)):
        raise InvalidEventError("bad_text", field, "must not hold NUL or half a surrogate pair")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
