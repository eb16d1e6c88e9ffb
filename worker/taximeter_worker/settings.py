"""The worker's settings, read once from environment variables.

Every variable is described in docs/settings.md; a test holds the two together. URLs carry passwords, so they are kept out
of ``repr`` and are never logged.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from taximeter import names
from taximeter.tls import split_tls
from taximeter_db import json_lines, master_keys
from taximeter_db.master_keys import MasterKeys
from taximeter_db.secret import Secret
from taximeter_worker.errors import SettingError
from taximeter_worker.signatures import ProducerKeys

PREFIX = "TAXIMETER_"
AMQP_SCHEMES = ("amqp://", "amqps://", "pyamqp://")
REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+socket://", "valkey://", "valkeys://")


def _setting(default: Any = MISSING, *, parse: Callable[[str], Any], secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse})


def _text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if not value.startswith(schemes):
            raise ValueError(f"must start with one of {', '.join(schemes)}")
        return value

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not (value.isascii() and value.isdigit()) or not low <= int(value[:20]) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return number

    return parse


def _amount(value: str) -> Decimal:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    # 10^12 USD and 12 decimals are what a balance can hold.
    if not amount.is_finite() or abs(amount) > 10**12 or amount != round(amount, 12):
        raise ValueError("must be an amount in USD such as -0.12, with at most 12 decimals")
    return amount


def _choice(*options: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return value

    return parse


def _shards(value: str) -> tuple[int, ...] | None:
    """`all`, or numbers and ranges such as `0,4-7`."""
    if value == "all":
        return None
    shards: set[int] = set()
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        parse = _integer(0, names.SHARDS_MAX - 1)
        try:
            shards.update(range(parse(first), parse(last if dash else first) + 1))
        except ValueError:
            raise ValueError("must be `all` or shards such as 0,4-7") from None
    return tuple(sorted(shards))


def _list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a worker needs to know. Each field ``x`` is the variable ``TAXIMETER_X``."""

    database_url: str = _setting(parse=_url("postgresql://", "postgres://"), secret=True)
    broker_url: str = _setting(parse=_url(*AMQP_SCHEMES, *REDIS_SCHEMES), secret=True)
    redis_url: str = _setting(parse=_url(*REDIS_SCHEMES), secret=True)
    metrics_database_url: str = _setting("", parse=_url("postgresql://", "postgres://"), secret=True)

    producer_keys: ProducerKeys = _setting(ProducerKeys({}), parse=ProducerKeys.parse, secret=True)  # noqa: RUF009 -- as below

    batch_events_max: int = _setting(5000, parse=_integer(1, 50_000))
    batch_bytes_max: int = _setting(8 * 1024 * 1024, parse=_integer(1024, 2**30))
    batches_in_flight_max: int = _setting(1, parse=_integer(1, 16))
    held_bytes_max: int = _setting(64 * 1024 * 1024, parse=_integer(1024, 2**34))
    shards: int = _setting(1, parse=_integer(1, names.SHARDS_MAX))
    consume_shards: tuple[int, ...] | None = _setting(None, parse=_shards)
    drain_seconds: float = _setting(20.0, parse=_seconds(0, 600))
    log_format: str = _setting(json_lines.TEXT, parse=_choice(json_lines.TEXT, json_lines.JSON))

    unknown_workspace: str = _setting("create", parse=_choice("create", "quarantine"))
    minimum_balance: Decimal = _setting(Decimal("-0.12"), parse=_amount)  # noqa: RUF009 -- it returns a field()
    low_balance: Decimal = _setting(Decimal(0), parse=_amount)  # noqa: RUF009 -- as above
    future_seconds_max: int = _setting(300, parse=_integer(0, 10**9))
    event_bytes_max: int = _setting(names.EVENT_BYTES_MAX, parse=_integer(256, 2**30))
    message_bytes_max: int = _setting(names.MESSAGE_BYTES_MAX, parse=_integer(256, 2**30))

    master_key: MasterKeys | None = _setting(None, parse=master_keys.parse, secret=True)  # noqa: RUF009 -- it returns a field()
    master_key_file: MasterKeys | None = _setting(None, parse=master_keys.read_file, secret=True)  # noqa: RUF009 -- as above

    redis_timeout_seconds: float = _setting(1.0, parse=_seconds(0.01, 60))

    canary_seconds: float = _setting(10.0, parse=_seconds(0, 3600))

    metrics_host: str = _setting("127.0.0.1", parse=_text)
    metrics_port: int = _setting(9464, parse=_integer(0, 65535))
    metrics_workspaces: tuple[str, ...] = _setting((), parse=_list)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, without: Collection[str] = ()) -> Self:
        """Read the settings from environment variables; the addresses `without` which the caller can do may be missing.

        Raises:
            SettingError: a variable is missing or its value makes no sense; the text names it and never quotes a URL.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for one in fields(cls):
            variable = PREFIX + one.name.upper()
            text = environ.get(variable, "")
            if not text:
                if one.name in without:
                    values[one.name] = ""
                elif one.default is MISSING:
                    raise SettingError(
                        f"{variable} is not set. Set it, or run against an embedded instance: "
                        'eval "$(taximeter env)" sets the addresses of one started by `taximeter up`.'
                    )
                continue
            try:
                values[one.name] = one.metadata["parse"](text)
            except ValueError as error:
                shown = "its value" if not one.repr else repr(text[:80])
                raise SettingError(f"{variable}: {shown} {error}.") from None
        settings = cls(**values)
        if settings.producer_keys and settings.broker_url and not settings.broker_is_redis:
            raise SettingError(
                f"{PREFIX}PRODUCER_KEYS is for a Redis or Valkey broker; RabbitMQ knows its users by itself. Unset it."
            )
        if settings.minimum_balance > settings.low_balance:
            raise SettingError(
                f"{PREFIX}MINIMUM_BALANCE ({settings.minimum_balance}) must not be above "
                f"{PREFIX}LOW_BALANCE ({settings.low_balance})."
            )
        if settings.consume_shards is not None and not (
            settings.consume_shards and settings.consume_shards[-1] < settings.shards
        ):
            raise SettingError(
                f"{PREFIX}CONSUME_SHARDS must name shards from 0 to {settings.shards - 1}: "
                f"{PREFIX}SHARDS is {settings.shards}."
            )
        return settings

    @property
    def usage_queues(self) -> tuple[str, ...]:
        """The usage queues that this worker consumes: its shards', and the one that is served whatever the shards."""
        keys = names.usage_routing_keys(self.shards)
        if self.consume_shards is not None and self.shards > 1:
            keys = tuple(keys[shard] for shard in self.consume_shards)
        return tuple(dict.fromkeys(names.queue_of(key) for key in (*keys, names.USAGE_ROUTING_KEY)))

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not one.repr and isinstance(value, str):
                object.__setattr__(self, one.name, Secret(value))

    @property
    def masters(self) -> MasterKeys | None:
        """The master keys that payloads are encrypted under, if there are any."""
        return self.master_key or self.master_key_file

    @property
    def broker_is_redis(self) -> bool:
        """Whether usage arrives through Redis/Valkey lists instead of RabbitMQ."""
        return self.broker_url.startswith(REDIS_SCHEMES)

    @property
    def celery_broker_url(self) -> str:
        """The broker's address in the spelling Celery knows."""
        url = _as_redis(self.broker_url)
        if url.startswith("unix://"):
            return "redis+socket" + url.removeprefix("unix").replace("db=", "virtual_host=")
        return url

    @property
    def celery_tls(self) -> dict[str, Any] | None:
        """Celery's options for an encrypted broker: by itself it would verify nothing on Redis, and no name on RabbitMQ."""
        url = self.celery_broker_url
        if url.startswith("rediss://"):
            return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **_redis_files(url)}
        return split_tls(url)[1]

    @property
    def broker_redis_url(self) -> str:
        """The broker's address in the spelling redis-py knows."""
        return _as_redis(self.broker_url)

    @property
    def flags_redis_url(self) -> str:
        """The flag Redis's address in the spelling redis-py knows."""
        return _as_redis(self.redis_url)


def _redis_files(url: str) -> dict[str, str]:
    names_of_files = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    return {name: value for name, value in parse_qsl(urlsplit(url).query) if name in names_of_files}


def _as_redis(url: str) -> str:
    url = Secret(url).reveal()
    for theirs, ours in (("redis+socket://", "unix://"), ("valkeys://", "rediss://"), ("valkey://", "redis://")):
        if url.startswith(theirs):
            url = ours + url.removeprefix(theirs)
    if url.startswith("unix://"):
        # The database's number is virtual_host to Celery and db to redis-py.
        return url.replace("virtual_host=", "db=")
    return url
