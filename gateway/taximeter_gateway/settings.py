"""The gateway's settings. docs/settings.md describes each; `taximeter_db.settings` reads them."""

from __future__ import annotations

from dataclasses import dataclass

from taximeter import limits, names
from taximeter.addresses import BROKER_SCHEMES
from taximeter_db import json_logs
from taximeter_db.addresses import POSTGRES_SCHEMES, REDIS_SCHEMES, address
from taximeter_db.errors import ConfigurationError
from taximeter_db.settings import EnvironmentSettings, choice, integer, nonempty, setting, variable_of

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Settings(EnvironmentSettings):
    """What the gateway needs to know. Each field ``x`` is the variable ``TAXIMETER_X``."""

    database_url: str = setting(parse=address(*POSTGRES_SCHEMES), secret=True)
    broker_url: str = setting(parse=address(*BROKER_SCHEMES), secret=True)
    redis_url: str = setting(parse=address(*REDIS_SCHEMES), secret=True)
    log_format: str = setting(json_logs.TEXT, parse=choice(json_logs.TEXT, json_logs.JSON))
    shards: int = setting(1, parse=integer(1, names.SHARDS_MAX))
    event_bytes_max: int = setting(limits.EVENT_BYTES_MAX, parse=integer(256, 2**30))

    gateway_host: str = setting("127.0.0.1", parse=nonempty)
    gateway_port: int = setting(8090, parse=integer(0, 65535))
    gateway_metrics_host: str = setting("127.0.0.1", parse=nonempty)
    gateway_metrics_port: int = setting(0, parse=integer(0, 65535))
    """0: metrics are not served."""
    gateway_body_bytes_max: int = setting(limits.MESSAGE_BYTES_MAX, parse=integer(1024, 2**30))
    """Most bytes of one request's body, compressed or not."""
    gateway_held_bytes_max: int = setting(64 * MEBIBYTE, parse=integer(1024, 2**34))
    """Most bytes of all bodies that are in memory at a time."""
    gateway_requests_max: int = setting(2_000, parse=integer(1, 100_000))
    """Most requests that are served at a time."""
    gateway_spool_bytes_max: int = setting(256 * MEBIBYTE, parse=integer(1024, 2**40))
    """Most bytes of events that the broker has not confirmed."""
    gateway_confirm_seconds: int = setting(10, parse=integer(1, 300))
    """How long a request waits for the broker's confirm."""

    def check(self) -> None:
        """Reject settings that contradict one another."""
        super().check()
        if self.gateway_body_bytes_max > self.gateway_held_bytes_max:
            raise ConfigurationError(
                f"{variable_of('gateway_body_bytes_max')} ({self.gateway_body_bytes_max}) must not be above"
                f" {variable_of('gateway_held_bytes_max')} ({self.gateway_held_bytes_max})."
            )
