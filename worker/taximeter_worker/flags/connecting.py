"""The one place that connects to the flag Redis, and that tells which server answers.

A connection is good only while its server is the primary. A server that says READONLY, LOADING or MASTERDOWN will not take
flags on this connection, yet behind the same address another one may: so whoever meets an error connects again.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import redis

from taximeter.brokers.tls import explained
from taximeter.redis_connection import no_retry
from taximeter_worker.errors import FlagsUnavailableError

SPARSE_ABOVE = 0.9
"""Part of the memory above which no flags are added for new workspaces that are enabled anyway."""

Client = Any
"""A redis-py client, of a single node or of a cluster."""


class ServerState(msgspec.Struct, frozen=True):
    """What a flag server (of a cluster: all primaries together) says of itself."""

    run: str
    """Another one after each start of the server, and after each promotion of a replica."""
    keys: int
    """Keys in the flags' database."""
    memory_bytes: int = 0
    memory_bytes_max: int = 0
    """0: without limit."""

    @property
    def memory_used(self) -> float:
        """The part of the allowed memory that is used, from 0; 0 where there is no limit."""
        return self.memory_bytes / self.memory_bytes_max if self.memory_bytes_max else 0.0

    @property
    def nearly_full(self) -> bool:
        """Whether the rest of the memory is kept for workspaces that must be disabled."""
        return self.memory_used >= SPARSE_ABOVE


def connect_flags(url: str, timeout_seconds: float = 1.0) -> Client:
    """A client for the flag Redis, of the kind that the server is (single node or cluster).

    Raises:
        FlagsUnavailableError: the server does not answer within the timeout, refuses this user, or is a replica.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "protocol": 2,
        "decode_responses": True,
        "retry": no_retry(),
    }
    try:
        client = redis.Redis.from_url(url, **options)
    except (ValueError, TypeError):  # their texts may quote the address
        raise FlagsUnavailableError("redis-py cannot read the address in TAXIMETER_REDIS_URL") from None
    try:
        clustered = client.info("cluster").get("cluster_enabled")
        if not clustered:
            _require_primary(client.info("replication")["role"])
            return client
        client.close()
        return redis.RedisCluster.from_url(url, **options)
    except (redis.RedisError, OSError) as error:
        client.close()
        told = explained(error) if url.startswith("rediss://") else error
        what = "refuses us" if isinstance(error, redis.ResponseError | redis.AuthenticationError) else "does not answer"
        raise FlagsUnavailableError(f"Redis {what}: {type(error).__name__}: {told}") from error


def server_state(client: Client) -> ServerState:
    """What the server is now.

    Raises:
        FlagsUnavailableError: it is a replica now; connect again.
        redis.RedisError, OSError: it does not answer.
    """
    if isinstance(client, redis.RedisCluster):
        return _cluster_state(client)
    pipeline = client.pipeline(transaction=False)
    for section in ("server", "replication", "memory"):
        pipeline.info(section)
    pipeline.dbsize()
    server, replication, memory, keys = pipeline.execute()
    _require_primary(replication["role"])
    limit = memory.get("maxmemory", 0)
    return ServerState(server["run_id"], keys=keys, memory_bytes=memory["used_memory"], memory_bytes_max=limit)


def _cluster_state(client: Client) -> ServerState:
    nodes = client.get_primaries()
    runs = sorted(client.info("server", target_nodes=node)["run_id"] for node in nodes)
    # The fullest node decides: a workspace's flag can live nowhere else.
    memory = max(
        (client.info("memory", target_nodes=node) for node in nodes),
        key=lambda info: info["used_memory"] / info["maxmemory"] if info.get("maxmemory") else 0.0,
    )
    return ServerState(
        hashlib.sha256(" ".join(runs).encode()).hexdigest()[:40],
        keys=sum(client.dbsize(target_nodes=node) for node in nodes),
        memory_bytes=memory["used_memory"],
        memory_bytes_max=memory.get("maxmemory", 0),
    )


def _require_primary(role: str) -> None:
    if role != "master":
        raise FlagsUnavailableError(
            "Redis is a replica here, which takes no flags. TAXIMETER_REDIS_URL must lead to the primary."
        )
