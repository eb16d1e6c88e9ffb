"""The connection that keeps the flag cache true: one socket, one thread.

The server pushes an invalidation for every flag that is written (`CLIENT TRACKING ON BCAST`, RESP3). Flags are
fetched over the same connection, so the order of what arrives is the order of what happened: a fetched value that an
invalidation follows is dropped, and one that comes after it is new. Nothing else is needed against stale fetches.

A server that refuses to push (by its ACL, by its age, or a proxy in between) is polled: every answer expires after
`POLL_SECONDS` and is fetched again when somebody asks.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import deque
from typing import Any, Final, NamedTuple, Protocol

from taximeter import names
from taximeter.addresses import REDIS_URL_VARIABLE
from taximeter.backoff import BackOff
from taximeter.errors import ConfigurationError
from taximeter.outage import Outage
from taximeter.redis_connection import new_connection

HEARTBEAT_SECONDS: Final = 0.5
DEAD_AFTER_SECONDS: Final = 1.0
POLL_SECONDS: Final = 1.0
TRY_TRACKING_AGAIN_SECONDS: Final = 30.0
BACK_OFF_FIRST_SECONDS: Final = 0.1
BACK_OFF_MAX_SECONDS: Final = 2.0
_TRACKING: Final = (
    *("CLIENT", "TRACKING", "ON", "BCAST"),
    *("PREFIX", names.FLAG_PREFIX, "PREFIX", names.FLAGS_PREFIX),
)
_CLUSTER: Final = (
    f"{REDIS_URL_VARIABLE} leads to a Redis Cluster, which the SDK does not follow: a flag's change would reach it from"
    " one node only. Give it a Redis or Valkey that is not a cluster, and let the workers write the flags there"
)
_CLOSED: Final = -1
_PUSHED: Final = object()
_inherited: list[object] = []


class FlagListener(Protocol):
    """Who wants to know. Every call comes from the tracking thread, in the order in which things happened."""

    def on_flag(self, workspace_id: str, flag: dict[bytes, bytes] | None, *, ready: bool) -> None:
        """A requested flag arrived; an empty hash means that there is none, and None that it cannot be read."""

    def on_changed(self, keys: list[bytes] | None) -> None:
        """These keys were written or deleted; None means all of them."""

    def on_expired(self) -> None:
        """Redis is polled: every answer must be fetched again before it counts as certain."""

    def on_lost(self, known_until: float) -> None:
        """Nothing can be trusted that was known; it was true until then (`time.monotonic`)."""


class _Awaited(NamedTuple):
    """A reply that has yet to come."""

    workspace_id: str | None
    """None: a reply that only shows life."""
    sent_at: float
    tracking: bool = False
    """The reply to another attempt at tracking, which may be an error."""


class FlagTracking:
    """Fetches flags and hears of their changes.

    Args:
        url: Redis address.
        listener: Hears what arrives.
        stalled_after_seconds: A reply that is late by so much means that asking is useless for now.

    Raises:
        ConfigurationError: The address cannot be understood.
    """

    def __init__(self, url: str, listener: FlagListener, *, stalled_after_seconds: float) -> None:
        self._url = url
        self._new_connection()  # an address that cannot be understood shows here, not in the thread
        self._listener = listener
        self._stalled_after_seconds = stalled_after_seconds
        self._connection: Any = None
        self._connected_at = 0.0
        self._up = False
        self._stopping = threading.Event()
        self._tried = threading.Event()
        self._requests: deque[str] = deque()
        self._awaited: deque[_Awaited] = deque()
        self._proof_at = 0.0
        self._sent_at = 0.0
        self._polling = False
        self._can_push = True
        self._expire_at = 0.0
        self._try_tracking_at = 0.0
        self.back_off = BackOff(BACK_OFF_FIRST_SECONDS, BACK_OFF_MAX_SECONDS)
        self._outage = Outage("flags cannot be read", "flags can be read again")
        self._refused_pushes = Outage(
            "Redis refuses to push the changes of flags, so they are read again every second instead; allow this user"
            " CLIENT TRACKING and HELLO on a Redis 6 or newer",
            "Redis pushes the changes of flags",
        )
        self.rejected: str | None = None
        """Why this server can never be followed, or None."""
        self._pipe_lock = threading.RLock()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(target=self._run, name="taximeter-flags", daemon=True)

    def _new_connection(self, *, protocol: int = 3) -> Any:
        return new_connection(self._url, REDIS_URL_VARIABLE, timeout_seconds=DEAD_AFTER_SECONDS, protocol=protocol)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def proof_at(self) -> float:
        """`time.monotonic` at which all that had arrived was certainly the whole truth; 0 where Redis is polled."""
        return 0.0 if self._polling else self._proof_at

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

    def close(self, *, wait: bool = True) -> None:
        """Stop the thread, which drops the connection; wait for that, unless told otherwise."""
        self._stopping.set()
        self._wake()
        if wait and self._thread is not threading.current_thread():
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
                self._serve_until_stopped()
            except Exception as error:  # noqa: BLE001 - whatever the client library raises, the thread lives on
                self._outage.failed(f"{type(error).__name__}: {_reason(error)}")
            self._disconnect()
            self._stopping.wait(self.back_off.next_delay())
        with self._pipe_lock:
            self._close_pipe()

    def _connect(self) -> None:
        from redis.exceptions import AuthenticationError, ResponseError

        connection = self._new_connection()
        refusal = None
        try:
            connection.connect()
        except (
            ResponseError,
            AuthenticationError,
        ) as error:  # of HELLO: an old server, or a proxy that knows RESP2 only
            refusal = _reason(error)
            connection = self._new_connection(protocol=2)
            connection.connect()
        self._connection = connection
        self._reject_cluster(connection.handshake_metadata)
        self._proof_at = self._connected_at = time.monotonic()
        self._can_push = refusal is None
        self._set_polling(self._track(connection) if refusal is None else refusal)
        self._up = True
        self._tried.set()

    def _reject_cluster(self, greeting: dict[Any, Any] | None) -> None:
        mode = (greeting or {}).get(b"mode") or (greeting or {}).get("mode")
        if mode in {b"cluster", "cluster"}:
            self.rejected = _CLUSTER
            raise ConfigurationError(_CLUSTER)

    def _track(self, connection: Any) -> str | None:
        """Ask for invalidations. Returns the server's refusal, or None."""
        from redis.exceptions import ResponseError

        parser = connection._parser  # noqa: SLF001 - redis-py has no public way to hear invalidations
        parser.set_invalidation_push_handler(self._on_push)
        parser.set_pubsub_push_handler(lambda _: _PUSHED)
        connection.send_command(*_TRACKING)
        try:
            connection.read_response()
        except ResponseError as error:
            return _reason(error)
        return None

    def _set_polling(self, refusal: str | None) -> None:
        self._polling = refusal is not None
        now = time.monotonic()
        if refusal is None:
            self._refused_pushes.ended()
        else:
            self._refused_pushes.failed(refusal)
            self._expire_at = now + POLL_SECONDS
            self._try_tracking_at = now + TRY_TRACKING_AGAIN_SECONDS

    def _disconnect(self) -> None:
        self._up = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()
        self._requests.clear()
        self._awaited.clear()
        if self._polling:
            self._listener.on_expired()
        self._listener.on_lost(self._proof_at)
        self._tried.set()

    def _serve_until_stopped(self) -> None:
        connection = self._connection
        # Not select(), which cannot watch a descriptor above 1,023 and so fails in a process with many open files.
        with selectors.DefaultSelector() as selector:
            selector.register(connection._sock, selectors.EVENT_READ)  # noqa: SLF001 - redis-py's only way
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while not self._stopping.is_set():
                self._serve(connection, selector)

    def _serve(self, connection: Any, selector: selectors.BaseSelector) -> None:
        """Wait for something to do, and do it."""
        now = time.monotonic()
        until = self._awaited[0].sent_at + DEAD_AFTER_SECONDS if self._awaited else self._sent_at + HEARTBEAT_SECONDS
        ready = selector.select(max(0.0, until - now))
        if any(key.fd == self._wake_reader for key, _ in ready):
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, 65536)
        while connection.can_read(0):
            self._receive(connection)
        now = time.monotonic()
        if self._polling and now >= self._expire_at:
            self._expire_at = now + POLL_SECONDS
            self._listener.on_expired()
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
            if self._polling and self._can_push and now >= self._try_tracking_at:
                commands.append(_TRACKING)
            else:
                commands.append(("PING",))
            self._awaited.append(_Awaited(None, now, tracking=commands[0] is _TRACKING))
        if commands:
            self._sent_at = now
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    def _receive(self, connection: Any) -> None:
        from redis.exceptions import ResponseError

        try:
            response = connection.read_response(push_request=True)
        except ResponseError as error:
            if self._awaited and self._awaited[0].tracking:
                self._awaited.popleft()
                self._set_polling(_reason(error))
                return
            raise
        if response is _PUSHED:
            return
        awaited = self._awaited.popleft()
        if awaited.tracking:
            self._set_polling(None)
            self._listener.on_expired()  # what was fetched before is not followed yet
        self._proof_at = max(self._proof_at, awaited.sent_at)
        if awaited.workspace_id is not None:
            exists, flag = response
            if isinstance(flag, list):  # RESP2
                flag = dict(zip(flag[::2], flag[1::2], strict=True))
            # An error in the place of a reply: the key is not a hash. That concerns this workspace alone.
            self._listener.on_flag(awaited.workspace_id, flag if isinstance(flag, dict) else None, ready=bool(exists))
        if awaited.workspace_id is not None or awaited.sent_at - self._connected_at > BACK_OFF_MAX_SECONDS:
            # Served, or connected for long: a server that accepts connections and answers nothing gets no storm of them.
            self.back_off.reset()
            self._outage.ended()

    def _on_push(self, message: list[Any]) -> object:
        self._listener.on_changed(message[1])
        return _PUSHED


def _reason(error: Exception) -> str:
    """What the server said, without the arguments that it may repeat: HELLO's hold the password."""
    return str(error).partition(", with args")[0]
