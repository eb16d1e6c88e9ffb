"""How this project's processes connect to Redis or Valkey: without redis-py's own repetitions.

redis-py tries ten times by default, which makes ten seconds of a timeout of one. Who may try again, and when, is decided by
the caller, which knows what waits for the answer. Imports redis late: it is half of what ``import taximeter`` costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taximeter.addresses import redis_url
from taximeter.errors import ConfigurationError

if TYPE_CHECKING:
    from redis import ConnectionPool
    from redis.retry import Retry


def no_retry() -> Retry:
    """The value of redis-py's ``retry`` that means: one attempt."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Retry(NoBackoff(), 0)


def connection_pool(url: str, variable: str, *, timeout_seconds: float, protocol: int) -> ConnectionPool:
    """A pool for a client, which keeps using its connections; it connects to nothing yet.

    Raises:
        ConfigurationError: A parameter of the address cannot be understood; the sentence names the variable.
    """
    import redis

    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": no_retry(),
        "protocol": protocol,
        "decode_responses": False,
    }
    try:
        return redis.ConnectionPool.from_url(redis_url(url), **options)
    except (ValueError, TypeError):  # their texts may quote the address
        raise ConfigurationError(
            f"{variable} cannot be understood: redis-py refuses one of the parameters behind its question mark"
        ) from None


def new_connection(url: str, variable: str, *, timeout_seconds: float, protocol: int) -> Any:
    """A single connection; it connects to nothing yet. Raises like `connection_pool`.

    Each comes from a pool of its own: a pool makes a hundred connections in its life and no more, closed ones included, which
    a process that connects again and again reaches within minutes of an outage.
    """
    return connection_pool(url, variable, timeout_seconds=timeout_seconds, protocol=protocol).make_connection()
