"""Settings: one declarative reading of the environment for worker, page and command line.

A part declares its settings as the fields of a dataclass that inherits `EnvironmentSettings`; the field ``x`` is the
variable ``TAXIMETER_X``. docs/settings.md describes every variable, and a test holds it to the declarations.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from taximeter_db import json_logs, money
from taximeter_db.addresses import POSTGRES_SCHEMES, address
from taximeter_db.errors import AmountError, ConfigurationError
from taximeter_db.secret import Secret

if TYPE_CHECKING:
    from taximeter_db.crypto.master_keys import MasterKeys

PREFIX: Final = "TAXIMETER_"
BALANCE_MAX: Final = 10**12 * money.PICO_PER_USD
"""Limits of a new workspace lie within this many picodollars of zero: what a balance is promised to hold."""


_QUOTE: Final = "In a file that a shell reads, a value that holds & or ; or # must stand in quotation marks."


def variable_of(name: str) -> str:
    """The variable of a setting: ``TAXIMETER_DATABASE_URL`` of ``database_url``."""
    return PREFIX + name.upper()


def setting(default: Any = MISSING, *, parse: Callable[[str], Any] = str, secret: bool = False) -> Any:
    """Declare a setting. Without a default it is required; the value of a secret one is never shown.

    Args:
        default: The value where the variable is not set.
        parse: Reads the text; raises ValueError with what the text must be, such as "must be a whole number".
        secret: Whether the value must not be shown.
    """
    return field(default=default, repr=not secret, metadata={"parse": parse})


def nonempty(text: str) -> str:
    """Any text that is not blank."""
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text[:20]) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def amount(text: str) -> Decimal:
    """An amount in USD that a balance can hold."""
    try:
        pico = money.parse_usd(text)
    except AmountError:
        pico = BALANCE_MAX + 1
    if abs(pico) > BALANCE_MAX:
        raise ValueError("must be an amount in USD such as -0.12, with at most 12 decimals")
    return Decimal(money.format_usd(pico))


def choice(*options: str) -> Callable[[str], str]:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return text

    return parse


def words(text: str) -> tuple[str, ...]:
    """Words, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _master_keys(text: str) -> MasterKeys:
    from taximeter_db.crypto import master_keys  # loads a cipher: only who has a key needs it

    return master_keys.parse(text)


def _master_key_file(text: str) -> MasterKeys:
    from taximeter_db.crypto import master_keys

    return master_keys.read_file(text)


@dataclass(frozen=True, kw_only=True)
class EnvironmentSettings:
    """Settings that are read from environment variables."""

    HELP: ClassVar[str] = "docs/settings.md describes all variables."
    """What to do where a required variable is not set."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, without: Collection[str] = ()) -> Self:
        """Read the settings; those in ``without`` are not needed, and are empty where they are not set.

        Raises:
            ConfigurationError: A variable is missing, has a value that makes no sense, or contradicts another. The
                sentence names it and shows no secret.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for declared in fields(cls):
            text = environ.get(variable_of(declared.name), "")
            if text:
                values[declared.name] = _parse(declared.name, declared.metadata["parse"], text, shown=declared.repr)
            elif declared.name in without:
                values[declared.name] = ""
            elif declared.default is MISSING:
                raise ConfigurationError(_missing(declared.name, environ, cls.HELP))
        settings = cls(**values)
        settings.check()
        return settings

    @classmethod
    def checked(cls, variable: str, text: str) -> str:
        """The text of one variable, if it can be read.

        Raises:
            ConfigurationError: It makes no sense; the sentence names the variable and shows no secret.
        """
        for declared in fields(cls):
            if variable_of(declared.name) == variable:
                _parse(declared.name, declared.metadata["parse"], text, shown=declared.repr)
        return text

    @classmethod
    def variables(cls) -> frozenset[str]:
        """The variables that these settings are read from."""
        return frozenset(variable_of(declared.name) for declared in fields(cls))

    def check(self) -> None:
        """Reject settings that contradict one another.

        Raises:
            ConfigurationError: The sentence names them.
        """

    def __post_init__(self) -> None:
        for declared in fields(self):
            value = getattr(self, declared.name)
            if not declared.repr and isinstance(value, str):
                object.__setattr__(self, declared.name, Secret(value))


@dataclass(frozen=True, kw_only=True)
class LedgerSettings(EnvironmentSettings):
    """The settings that worker and page share: both must read them alike."""

    database_url: str = setting(parse=address(*POSTGRES_SCHEMES), secret=True)
    minimum_balance: Decimal = setting(Decimal(money.format_usd(money.MINIMUM_BALANCE_DEFAULT)), parse=amount)  # noqa: RUF009 -- it returns a field()
    low_balance: Decimal = setting(Decimal(money.format_usd(money.LOW_BALANCE_DEFAULT)), parse=amount)  # noqa: RUF009 -- as above
    log_format: str = setting(json_logs.TEXT, parse=choice(json_logs.TEXT, json_logs.JSON))
    master_key: MasterKeys | None = setting(None, parse=_master_keys, secret=True)  # noqa: RUF009 -- as above
    master_key_file: MasterKeys | None = setting(None, parse=_master_key_file, secret=True)  # noqa: RUF009 -- as above

    def check(self) -> None:
        """Reject settings that contradict one another."""
        super().check()
        if self.minimum_balance > self.low_balance:
            raise ConfigurationError(
                f"{variable_of('minimum_balance')} ({self.minimum_balance}) must not be above"
                f" {variable_of('low_balance')} ({self.low_balance})."
            )
        exclusive(self, "master_key", "master_key_file")

    @property
    def masters(self) -> MasterKeys | None:
        """The master keys that payloads are encrypted under, if there are any."""
        return self.master_key or self.master_key_file


def exclusive(settings: EnvironmentSettings, *names: str) -> None:
    """Reject more than one of some settings that say the same thing in different ways.

    Raises:
        ConfigurationError: The sentence names those that are set.
    """
    given = [variable_of(name) for name in names if getattr(settings, name)]
    if len(given) > 1:
        raise ConfigurationError(f"Set {' or '.join(given)}, not both.")


def odd(environ: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """A sentence for each variable that begins like ours and means nothing, with the nearest name that does, or is empty."""
    names = sorted(variable.removeprefix(PREFIX) for variable in known)
    sentences = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if variable != name and name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            advice = f"Did you mean {PREFIX}{near[0]}?" if near else "docs/settings.md lists all that there are."
            sentences.append(f"{variable} is set and means nothing. {advice}")
        elif variable != name and not environ[variable]:
            sentences.append(f"{variable} is empty and counts as not set. {_QUOTE}")
    return sentences


def _parse(name: str, parse: Callable[[str], Any], text: str, *, shown: bool) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        given = f", not {text[:80]!r}" if shown else ""
        raise ConfigurationError(f"{variable_of(name)} {error}{given}.") from None


def _missing(name: str, environ: Mapping[str, str], advice: str) -> str:
    variable = variable_of(name)
    if variable in environ:
        return f"{variable} is empty. {_QUOTE} {advice}"
    return f"{variable} is not set. {advice}"
