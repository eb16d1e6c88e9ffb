"""The connection that keeps the flag cache true: one socket, one thread.

The server pushes an invalidation for every flag that is written (`CLIENT TRACKING ON BCAST`, RESP3). Flags are
fetched over the same connection, so the order of what arrives is the order of what happened: a fetched value that an
invalidation follows is dropped, and one that comes after it is new. Nothing else is needed against stale fetches.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import socket
import threading
import time
from collections import deque
from typing import Any, Final, NamedTuple, Protocol

from taximeter import names

logger = logging.getLogger("taximeter")

FLAGS_PREFIX: Final = "taximeter:flags:"
HEARTBEAT_SECONDS: Final = 0.5
DEAD_AFTER_SECONDS: Final = 1.0
BACK_OFF_FIRST_SECONDS: Final = 0.1
BACK_OFF_MAX_SECONDS: Final = 2.0
_DOUBLINGS_MAX: Final = 5
_CLOSED: Final = -1
_PUSHED: Final = object()
_inherited: list[object] = []


class FlagListener(Protocol):
    """Who wants to know. Every call comes from the link's thread, in the order in which things happened."""

    def on_flag(self, workspace_id: str, flag: dict[bytes, bytes] | None, *, ready: bool) -> None:
        """A requested flag arrived; an empty hash means that there is none, and None that it cannot be read."""

    def on_changed(self, keys: list[bytes] | None) -> None:
        """These keys were written or deleted; None means all of them."""

    def on_lost(self, known_until: float) -> None:
        """Nothing can be trusted that was known; it was true until then (`time.monotonic`)."""


class _Awaited(NamedTuple):
    """A reply that has yet to come."""

    workspace_id: str | None
    """None: a reply that only shows life."""
    sent_at: float


class FlagLink:
    """Fetches flags and hears of their changes.

    Args:
        url: Redis address in redis-py's form.
        listener: Hears what arrives.
        stalled_after_seconds: A reply that is late by so much means that asking is useless for now.
    """

    def __init__(self, url: str, listener: FlagListener, *, stalled_after_seconds: float) -> None:
        # Imported late: half of what `import taximeter` would cost, and a meter without flags does not need it.
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._pool = redis.ConnectionPool.from_url(
            url,
            protocol=3,
            decode_responses=False,
            socket_timeout=DEAD_AFTER_SECONDS,
            socket_connect_timeout=DEAD_AFTER_SECONDS,
            # redis-py would try ten times by default.
            retry=Retry(NoBackoff(), 0),
        )
        self._listener = listener
        self._stalled_after_seconds = stalled_after_seconds
        self._connection: Any = None
        self._up = False
        self._stopping = threading.Event()
        self._tried = threading.Event()
        self._requests: deque[str] = deque()
        self._awaited: deque[_Awaited] = deque()
        self._proof_at = 0.0
        self._sent_at = 0.0
        self._failures = 0
        self._pipe_lock = threading.RLock()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(target=self._run, name="taximeter-flags", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def proof_at(self) -> float:
        """`time.monotonic` at which everything that had arrived was certainly the whole truth."""
        return self._proof_at

    def answers_within(self, timeout_seconds: float) -> bool:
        """Say whether asking makes sense. Waits for the very first connection only."""
        if not self._tried.is_set():
            self._tried.wait(timeout_seconds)
        if not self._up:
            return False
        try:
            oldest = self._awaited[0].sent_at
        except IndexError:
            return True
        return time.monotonic() - oldest <= self._stalled_after_seconds

    def request(self, workspace_id: str) -> None:
        """Ask for a flag; the listener hears the answer, or that everything is lost."""
        self._requests.append(workspace_id)
        self._wake()

    def _wake(self) -> None:
        # A full pipe holds enough to wake the thread; a closed one means that nobody will answer. Under the lock,
        # so that the descriptor is not closed, and its number somebody else's, in between.
        with self._pipe_lock, contextlib.suppress(OSError):
            os.write(self._wake_writer, b"!")

    def close(self) -> None:
        """Stop the thread and drop the connection."""
        self._stopping.set()
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join(DEAD_AFTER_SECONDS)

    def abandon(self) -> None:
        """In a forked child: close the copies of the descriptors and leave the parent's connection alone."""
        sock = getattr(self._connection, "_sock", None)
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.close()
        self._close_pipe()
        _inherited.append(self)

    def _close_pipe(self) -> None:
        # Forgotten before they are closed: the numbers may be somebody else's the moment after.
        descriptors = (self._wake_reader, self._wake_writer)
        self._wake_reader = self._wake_writer = _CLOSED
        for descriptor in descriptors:
            if descriptor != _CLOSED:
                os.close(descriptor)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._connect()
                while not self._stopping.is_set():
                    self._serve()
            except Exception as error:  # noqa: BLE001 - whatever the client library raises, the thread lives on
                if self._failures == 0:
                    logger.warning("flags cannot be read: %s: %s", type(error).__name__, error)
                self._failures += 1
            self._disconnect()
            self._stopping.wait(_back_off_seconds(self._failures))
        with self._pipe_lock:
            self._close_pipe()

    def _connect(self) -> None:
        connection: Any = self._pool.make_connection()
        connection.connect()
        self._connection = connection
        parser = connection._parser  # noqa: SLF001 - redis-py has no public way to hear invalidations
        parser.set_invalidation_push_handler(self._on_push)
        parser.set_pubsub_push_handler(lambda _: _PUSHED)
        prefixes = ("PREFIX", names.FLAG_PREFIX, "PREFIX", FLAGS_PREFIX)
        self._proof_at = time.monotonic()
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
        connection.read_response()
        if self._failures:
            logger.info("flags can be read again")
        self._failures = 0
        self._up = True
        self._tried.set()

    def _disconnect(self) -> None:
        self._up = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()
        self._requests.clear()
        self._awaited.clear()
        self._listener.on_lost(self._proof_at)
        self._tried.set()

    def _serve(self) -> None:
        """Wait for something to do, and do it."""
        connection = self._connection
        now = time.monotonic()
        until = self._awaited[0].sent_at + DEAD_AFTER_SECONDS if self._awaited else self._sent_at + HEARTBEAT_SECONDS
        readable, _, _ = select.select([connection._sock, self._wake_reader], [], [], max(0.0, until - now))  # noqa: SLF001
        if self._wake_reader in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, 65536)
        while connection.can_read(0):
            self._receive(connection)
        now = time.monotonic()
        self._send(connection, now)
        if self._awaited and now - self._awaited[0].sent_at > DEAD_AFTER_SECONDS:
            raise TimeoutError(f"Redis has not answered for {DEAD_AFTER_SECONDS:g} s")

    def _send(self, connection: Any, now: float) -> None:
        commands: list[tuple[str, ...]] = []
        while self._requests:
            workspace_id = self._requests.popleft()
            # Together, so that "no flag" and "the cache is warm" are said of the same moment.
            commands += [
                ("MULTI",),
                ("EXISTS", names.FLAGS_READY),
                ("HGETALL", names.flag_key(workspace_id)),
                ("EXEC",),
            ]
            self._awaited.extend(_Awaited(None, now) for _ in range(3))
            self._awaited.append(_Awaited(workspace_id, now))
        if not commands and now - self._sent_at >= HEARTBEAT_SECONDS and not self._awaited:
            commands.append(("PING",))
            self._awaited.append(_Awaited(None, now))
        if commands:
            self._sent_at = now
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    def _receive(self, connection: Any) -> None:
        response = connection.read_response(push_request=True)
        if response is _PUSHED:
            return
        awaited = self._awaited.popleft()
        self._proof_at = max(self._proof_at, awaited.sent_at)
        if awaited.workspace_id is not None:
            exists, flag = response
            # An error in the place of a reply: the key is no hash. That is this workspace's trouble alone.
            self._listener.on_flag(awaited.workspace_id, flag if isinstance(flag, dict) else None, ready=bool(exists))

    def _on_push(self, message: list[Any]) -> object:
        self._listener.on_changed(message[1])
        return _PUSHED


def _back_off_seconds(failures: int) -> float:
    ceiling: float = min(BACK_OFF_MAX_SECONDS, BACK_OFF_FIRST_SECONDS * (1 << min(failures, _DOUBLINGS_MAX)))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
