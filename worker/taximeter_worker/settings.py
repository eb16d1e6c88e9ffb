"""The worker's settings. docs/settings.md describes each; `taximeter_db.settings` reads them."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from taximeter import limits, names
from taximeter.addresses import BROKER_SCHEMES, BrokerKind, broker_kind, redis_url
from taximeter.brokers.tls import split_tls
from taximeter_db.addresses import POSTGRES_SCHEMES, REDIS_SCHEMES, address
from taximeter_db.errors import ConfigurationError
from taximeter_db.notices.addresses import Network
from taximeter_db.secret import Secret
from taximeter_db.settings import (
    PREFIX,
    LedgerSettings,
    choice,
    integer,
    nonempty,
    setting,
    words,
)
from taximeter_worker.consume.signatures import ProducerKeys


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A number of seconds within bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return number

    return parse


def shard_numbers(text: str) -> tuple[int, ...] | None:
    """`all`, or numbers and ranges such as `0,4-7`."""
    if text == "all":
        return None
    parse = integer(0, names.SHARDS_MAX - 1)
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            chosen.update(range(parse(first), parse(last if dash else first) + 1))
        except ValueError:
            raise ValueError("must be `all` or shards such as 0,4-7") from None
    return tuple(sorted(chosen))


def networks(text: str) -> tuple[Network, ...]:
    """Networks such as `10.0.0.0/8,fd00::/8`."""
    try:
        return tuple(ipaddress.ip_network(word) for word in words(text))
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8,fd00::/8") from None


def _server(*schemes: str) -> Callable[[str], str]:
    """A parser of addresses that also lets redis-py read those of Redis: it knows its parameters."""
    check = address(*schemes)

    def parse(text: str) -> str:
        check(text)
        if text.startswith(REDIS_SCHEMES):
            import redis

            try:
                redis.ConnectionPool.from_url(_as_redis(text)).make_connection()
            except (ValueError, TypeError, redis.RedisError):  # their texts may quote the address
                raise ValueError("has a parameter after its question mark that redis-py does not know") from None
        return text

    return parse


@dataclass(frozen=True, kw_only=True)
class Settings(LedgerSettings):
    """What a worker needs to know. Each field ``x`` is the variable ``TAXIMETER_X``."""

    HELP: ClassVar[str] = (
        "Set it, or run against an embedded instance:"
        ' eval "$(taximeter env)" sets the addresses of one started by `taximeter up`.'
    )

    broker_url: str = setting(parse=_server(*BROKER_SCHEMES), secret=True)
    redis_url: str = setting(parse=_server(*REDIS_SCHEMES), secret=True)
    metrics_database_url: str = setting("", parse=address(*POSTGRES_SCHEMES), secret=True)

    producer_keys: ProducerKeys = setting(ProducerKeys({}), parse=ProducerKeys.parse, secret=True)  # noqa: RUF009 -- it returns a field()

    batch_events_max: int = setting(5000, parse=integer(1, 50_000))
    batch_bytes_max: int = setting(8 * 1024 * 1024, parse=integer(1024, 2**30))
    batches_in_flight_max: int = setting(1, parse=integer(1, 16))
    held_bytes_max: int = setting(64 * 1024 * 1024, parse=integer(1024, 2**34))
    shards: int = setting(1, parse=integer(1, names.SHARDS_MAX))
    consume_shards: tuple[int, ...] | None = setting(None, parse=shard_numbers)
    drain_seconds: float = setting(20.0, parse=seconds(0, 600))

    unknown_workspace: str = setting("create", parse=choice("create", "quarantine"))
    quarantine_days: int = setting(90, parse=integer(0, 100_000))
    future_seconds_max: int = setting(300, parse=integer(0, 10**9))
    event_bytes_max: int = setting(limits.EVENT_BYTES_MAX, parse=integer(256, 2**30))
    message_bytes_max: int = setting(limits.MESSAGE_BYTES_MAX, parse=integer(256, 2**30))

    redis_timeout_seconds: float = setting(1.0, parse=seconds(0.01, 60))

    hold_seconds_max: int = setting(60, parse=integer(1, 3600))

    notice_networks: tuple[Network, ...] = setting((), parse=networks)

    canary_seconds: float = setting(10.0, parse=seconds(0, 3600))

    metrics_host: str = setting("127.0.0.1", parse=nonempty)
    metrics_port: int = setting(9464, parse=integer(0, 65535))
    metrics_workspaces: tuple[str, ...] = setting((), parse=words)

    def check(self) -> None:
        """Reject settings that contradict one another."""
        super().check()
        if self.producer_keys and self.broker_url and self.broker_kind is not BrokerKind.REDIS:
            raise ConfigurationError(
                f"{PREFIX}PRODUCER_KEYS is for a Redis or Valkey broker; RabbitMQ knows its users by itself. Unset it."
            )
        if self.consume_shards is not None and not (self.consume_shards and self.consume_shards[-1] < self.shards):
            raise ConfigurationError(
                f"{PREFIX}CONSUME_SHARDS must name shards from 0 to {self.shards - 1}: {PREFIX}SHARDS is {self.shards}."
            )
        for smaller, larger in (("event_bytes_max", "message_bytes_max"), ("batch_bytes_max", "held_bytes_max")):
            if getattr(self, smaller) > getattr(self, larger):
                raise ConfigurationError(
                    f"{PREFIX}{smaller.upper()} ({getattr(self, smaller)}) must not be above"
                    f" {PREFIX}{larger.upper()} ({getattr(self, larger)})."
                )

    @property
    def usage_queues(self) -> tuple[str, ...]:
        """The usage queues that this worker consumes: its shards', and the one that is served whatever the shards."""
        keys = names.usage_routing_keys(self.shards)
        if self.consume_shards is not None and self.shards > 1:
            keys = tuple(keys[shard] for shard in self.consume_shards)
        return tuple(dict.fromkeys(names.queue_of(key) for key in (*keys, names.USAGE_ROUTING_KEY)))

    @property
    def broker_kind(self) -> BrokerKind:
        """Which kind of broker usage arrives through."""
        return broker_kind(self.broker_url)

    @property
    def broker_sdk_url(self) -> str:
        """The broker's address as the SDK takes it: in any spelling."""
        return Secret(self.broker_url).reveal()

    @property
    def broker_kombu_url(self) -> str:
        """The broker's address in the spelling that kombu knows."""
        url = _as_redis(self.broker_url)
        if url.startswith("unix://"):
            return "redis+socket" + url.removeprefix("unix").replace("db=", "virtual_host=")
        return url

    @property
    def broker_kombu_tls(self) -> dict[str, Any] | None:
        """Options of kombu for an encrypted broker: by itself it would verify nothing on Redis, and no name on RabbitMQ."""
        url = self.broker_kombu_url
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
    return redis_url(Secret(url).reveal())
