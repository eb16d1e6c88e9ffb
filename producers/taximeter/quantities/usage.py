"""Reading what a provider reports: counts by any of their names, and none of a standard unit left unread.

A usage is an object of the provider's SDK, a protobuf message or decoded JSON, in snake case or camel case. Whoever
takes pools from it reads or ignores each of its counts; `Usage.all_read` then rejects what nobody knew, because a count
that is passed over is given away.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from taximeter.errors import InvalidEventError
from taximeter.names import STANDARD_UNITS

Pools = dict[str, "int | Decimal"]
"""Standard units, disjoint."""

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
CALLS_UNIT: Final = "requests"
"""Not refused where nobody reads it: libraries count their own calls under this name, and no provider bills by it."""
_OTHER_UNITS: Final = "|".join(unit for unit in STANDARD_UNITS if "token" not in unit and unit != CALLS_UNIT)
_COUNT: Final = re.compile(rf"token|audio_seconds|(?:^|\.)(?:{_OTHER_UNITS})$")
"""What a count is called that must not be passed over: tokens of any kind, and every other standard unit."""
_NO_COUNT: Final = re.compile(r"cost|price|per_sec|limit|max_|speed|time_")
_UNSET: Final = frozenset({"Unset", "NotGiven", "Omit"})
"""Types whose instances some SDKs put in the place of a value that is not there."""
SECONDS_DECIMALS: Final = 6


class Count(NamedTuple):
    """A count of tokens, images or whatever else, and where it stands."""

    name: str
    amount: int


class Context:
    """What holds for a whole usage: who reported it, whether it may be incomplete, and what was noticed in it."""

    def __init__(self, provider: str | None = None, model: str | None = None, *, partial: bool = False) -> None:
        self.provider = (provider or "").lower()
        self.model = (model or "").lower()
        self.partial = partial
        self.flags: list[str] = []

    def note(self, flag: str) -> None:
        """Keep a flag, once."""
        if flag not in self.flags:
            self.flags.append(flag)


class Usage:
    """What a provider reports, or a part of it, and where it stands. None holds nothing."""

    def __init__(self, given: object, path: str = "usage", context: Context | None = None) -> None:
        if isinstance(given, str | bytes | int | float | list | tuple):
            raise rejected(path, f"must be an object or a mapping, not {type(given).__name__}")
        self.context = context or Context()
        self.path = path
        self._members = {_snake(name): (name, value) for name, value in members(given)}
        self._read: set[str] = set()
        self._parts: list[Usage] = []

    def value(self, name: str) -> Any:
        """A member as it is; None where it is missing."""
        self._read.add(name)
        return self._members.get(name, (name, None))[1]

    def find(self, *names: str) -> Count | None:
        """The count under any of these names. Where several are given they are one number, and must agree."""
        count: Count | None = None
        for name in names:
            value = self.value(name)
            if value is None:
                continue
            another = Count(self._place(name), self._whole(name, value))
            if count is None or not count.amount:
                count = another
            elif another.amount and another.amount != count.amount:
                raise rejected(
                    another.name, f"is {another.amount}, and {count.name} is {count.amount}; they mean the same"
                )
        return count

    def part(self, *names: str) -> Count:
        """A count that is 0 where it is not given."""
        return self.find(*names) or Count(f"{self.path}.{names[0]}", 0)

    def total(self, *names: str) -> Count:
        """A count that must be given, unless the usage is that of a stream that broke off."""
        count = self.find(*names)
        if count is not None or self.context.partial:
            return count or Count(f"{self.path}.{names[0]}", 0)
        raise rejected(f"{self.path}.{names[0]}", "is missing; pass one response's usage (a stream sends it last)")

    def seconds(self, name: str) -> int | Decimal | None:
        """A duration, to the microsecond."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise rejected(self._place(name), f"must be a number of seconds, not {type(value).__name__}")
        exact = Decimal(str(value))
        if not exact.is_finite() or exact < 0:
            raise rejected(self._place(name), f"is {value}, which is not a duration")
        rounded = round(exact, SECONDS_DECIMALS).normalize()
        return int(rounded) if rounded == rounded.to_integral_value() else rounded

    def inside(self, *names: str) -> Usage:
        """The details under the first of these names that is given."""
        name = next((name for name in names if self._members.get(name, (name, None))[1] is not None), names[0])
        self._read.update(names)
        part = Usage(self.value(name), self._place(name), self.context)
        self._parts.append(part)
        return part

    def each(self, name: str) -> list[Usage]:
        """The members of a list."""
        value = self.value(name)
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable | None):
            raise rejected(self._place(name), f"must be a list, not {type(value).__name__}")
        parts = [Usage(item, f"{self._place(name)}[{index}]", self.context) for index, item in enumerate(value or ())]
        self._parts += parts
        return parts

    def ignore(self, *names: str) -> None:
        """These counts are parts of others, without a pool of their own."""
        self._read.update(names)

    def is_given(self, name: str) -> bool:
        """Whether a member is there; does not count as reading it."""
        return self._members.get(name, (name, None))[1] is not None

    def names(self) -> list[str]:
        """The names of all members."""
        return [*self._members]

    def must_not_have(self, name: str, sentence: str) -> None:
        """Reject a usage of another format, in which the same names mean other counts."""
        if self.is_given(name):
            raise rejected(self._place(name), sentence)

    def all_read(self) -> None:
        """Reject a count of tokens or of another standard unit that was not read."""
        for name, (spelled, value) in self._members.items():
            if name not in self._read:
                _reject_counts(value, f"{self.path}.{spelled}")
        for part in self._parts:
            part.all_read()

    def _place(self, name: str) -> str:
        return f"{self.path}.{self._members.get(name, (name, None))[0]}"

    def _whole(self, name: str, value: Any) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and self.context.provider in {"x-ai", "xai"}:
            value = int(value)  # protobuf's JSON writes 64 bits as text
        if type(value) is float and value.is_integer() and self.context.provider == "cohere":
            value = int(value)
        if type(value) is not int:  # a bool is not a count
            raise rejected(
                self._place(name), f"must be an int, not {type(value).__name__}; pass the usage as the provider sent it"
            )
        if value < 0:
            raise rejected(self._place(name), f"is {value}, below 0; pass the usage as the provider sent it")
        return value


def members(given: object) -> Iterator[tuple[str, Any]]:
    """Names and values of a mapping, an SDK's object or a protobuf message; what is unset counts as None."""
    if given is None:
        return
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(given, Mapping):
        pairs = given.items()
    elif hasattr(given, "ListFields"):
        pairs = ((field.name, value) for field, value in given.ListFields())
    elif hasattr(given, "__struct_fields__"):
        pairs = ((name, getattr(given, name)) for name in given.__struct_fields__)
    else:
        slots = ((name, getattr(given, name, None)) for name in getattr(given, "__slots__", ()))
        attributes = getattr(given, "__dict__", {})
        extra = attributes.get("__pydantic_extra__") or getattr(given, "model_extra", None) or {}
        pairs = ((name, value) for name, value in (*slots, *attributes.items(), *extra.items()) if name[:1] != "_")
    for name, value in pairs:
        if isinstance(name, str):
            yield name, None if type(value).__name__ in _UNSET else value


def member(value: object, name: str) -> Any:
    """A member of an object or mapping by its name in snake case, in whichever case it has there; None if missing."""
    first, *others = name.split("_")
    for spelled in dict.fromkeys((name, first + "".join(map(str.capitalize, others)))):
        found = value.get(spelled) if isinstance(value, Mapping) else getattr(value, spelled, None)
        if found is not None and type(found).__name__ not in _UNSET:
            return found
    return None


def plain(value: object) -> Any:
    """A value of an SDK as dicts, lists and scalars."""
    if value is None or isinstance(value, str | bytes | int | float | Decimal):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Iterable) and not isinstance(value, Mapping) and not hasattr(value, "__dict__"):
        return [plain(item) for item in value]  # a repeated field of protobuf
    return {_snake(name): plain(inner) for name, inner in members(value)}


def rest(total: Count, *parts: Count) -> int:
    """What is left of a total."""
    left = total.amount - sum(part.amount for part in parts)
    if left < 0:
        named = " and ".join(f"{part.name} ({part.amount})" for part in parts if part.amount)
        advice = "pass one response's usage unchanged, or put each token into one pool yourself"
        raise rejected(total.name, f"is {total.amount}, less than {named}, which it should include; {advice}")
    return left


def without_zeros(pools: Mapping[str, int | Decimal]) -> Pools:
    """A 0 is the same as nothing; if there is nothing else, ``input_tokens`` stays, as an event needs a quantity."""
    return {unit: number for unit, number in pools.items() if number} or {"input_tokens": 0}


def rejected(field: str, sentence: str) -> InvalidEventError:
    """The error for a usage that would charge a token twice, or not at all."""
    return InvalidEventError("bad_quantities", field, sentence)


def _snake(name: str) -> str:
    return _CAMEL.sub("_", name).lower() if not name.islower() else name


def _reject_counts(value: object, path: str) -> None:
    if value is None or isinstance(value, str | bytes | bool):
        return
    if isinstance(value, int | float | Decimal):
        name = _snake(path.partition(".")[2])
        if value and _COUNT.search(name) and not _NO_COUNT.search(name):
            raise rejected(path, f"is {value}, a count that is not known here; use the function for its provider")
        return
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _reject_counts(item, f"{path}[{index}]")
        return
    for name, inner in members(value):
        _reject_counts(inner, f"{path}.{name}")
