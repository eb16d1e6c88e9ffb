"""Waiting for a list of Redis or Valkey to be filled."""

from __future__ import annotations

from typing import Any

import redis

WAIT_SECONDS = 30


class ListWaiter:
    """Waits on the server for a queue to be filled, without taking anything from it.

    ``BLMOVE q q RIGHT RIGHT`` blocks until there is an element and puts it back where it was. The reply is only a signal.
    """

    def __init__(self, client: redis.Redis, queue: str) -> None:
        self._queue = queue
        # Not by `make_connection`: a pool makes a hundred in its life, and a worker may have more queues than that.
        pool = client.connection_pool
        self._connection: Any = pool.connection_class(**pool.connection_kwargs)
        self._connection.send_command("PING")  # connects
        self._connection.read_response()
        self._armed = False

    def fileno(self) -> int:
        """The connection's descriptor: it can be read when the reply is there."""
        return int(self._connection._sock.fileno())  # noqa: SLF001 -- redis-py hands out no other way to wait for it

    def arm(self) -> None:
        """Begin to wait, unless it waits already."""
        if not self._armed:
            self._connection.send_command("BLMOVE", self._queue, self._queue, "RIGHT", "RIGHT", WAIT_SECONDS)
            self._armed = True

    def disarm(self) -> bool:
        """Take the reply. False: the memory is full, and the command for waiting is one that could need some."""
        self._armed = False
        try:
            self._connection.read_response()
        except redis.OutOfMemoryError:
            return False
        return True

    def close(self) -> None:
        """Disconnect."""
        self._connection.disconnect()
