"""The way to `holds.lua` on the flag Redis: one round trip for a call, over connections that are kept.

A hold must cost about as much as a GET. So commands are packed here, and a call takes a connection of its own out of those
that are idle, without a lock.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import Final, NamedTuple

from taximeter import names
from taximeter.addresses import REDIS_URL_VARIABLE, check_redis_url
from taximeter.errors import HoldsUnavailableError
from taximeter.flags.cache import FlagSettings
from taximeter.holds import script
from taximeter.redis_connection import new_connection

CONNECT_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.5
"""After a Redis has not answered, nobody waits for it again for this time."""
_SOURCE: Final = script.SOURCE.encode()
_SHA: Final = script.SHA.encode()


_inherited: list[object] = []
"""Kept, so that nothing is finalized in a child that a parent still uses."""


class Answer(NamedTuple):
    """What the script says; amounts in microdollars. See the head of `holds.lua`."""

    granted: bool
    short: bool
    waiting: bool
    """Holds may have been lost, so none is granted for ``wait_ms``."""
    available: int
    held_by_all: int
    held: int
    """By this hold; 0: there is no such hold."""
    live_ms: int
    wait_ms: int


class HoldServer:
    """Calls the script. Safe to use from several threads."""

    def __init__(self, settings: FlagSettings) -> None:
        self._settings = settings
        self._idle: deque[_Connection] = deque()
        self._pause_until = 0.0

    def call(
        self,
        action: bytes,
        workspace_id: str,
        hold_id: str = "",
        *,
        microdollars: int = 0,
        live_ms: int = 0,
        option: bytes = b"",
    ) -> Answer:
        """Run one action of the script. A second try of the same one changes nothing more.

        Raises:
            HoldsUnavailableError: Redis does not answer within the timeout, or refuses; nothing is known of the action.
        """
        from redis.exceptions import ConnectionError as RedisConnectionError
        from redis.exceptions import RedisError
        from redis.exceptions import TimeoutError as RedisTimeoutError

        if time.monotonic() < self._pause_until:
            raise HoldsUnavailableError("Redis did not answer a moment ago")
        given = (action, hold_id.encode(), b"%d" % microdollars, b"%d" % live_ms)
        try:
            connection = self._take()
            try:
                answer = connection.run(workspace_id, given, option)
            except RedisConnectionError as error:
                connection.close()
                if isinstance(error, RedisTimeoutError):
                    raise
                # The server has closed it, as one does that was started again: the others will be closed, too.
                self.close()
                connection = self._take()
                answer = connection.run(workspace_id, given, option)
        except (RedisError, OSError, ValueError) as error:
            self._pause_until = time.monotonic() + PAUSE_SECONDS
            reason = str(error).partition(", with args")[0]  # HELLO's arguments hold the password
            raise HoldsUnavailableError(f"Redis cannot be asked for holds: {type(error).__name__}: {reason}") from None
        self._idle.append(connection)
        return answer

    @classmethod
    def for_reading(cls, redis_url: str, timeout_seconds: float) -> HoldServer:
        """For whoever only reads what is held.

        Raises:
            ConfigurationError: The address cannot be understood.
        """
        url = check_redis_url(redis_url)
        return cls(
            FlagSettings(redis_url=url, timeout_seconds=timeout_seconds, grace_seconds=0, enabled_if_unknown=False)
        )

    def held(self, workspace_id: str) -> int | None:
        """Microdollars that all open holds of a workspace hold, for whoever shows them; None if that is unknown now."""
        try:
            answer = self.call(b"look", workspace_id)
        except HoldsUnavailableError:
            return None
        return answer.held_by_all if answer.granted or answer.waiting else None

    def close(self) -> None:
        """Drop the connections that nobody uses at the moment."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def abandon(self) -> None:
        """In a forked child: close the copies of the descriptors and leave the parent's connections alone."""
        for connection in self._idle:
            connection.abandon()
        _inherited.append(self)

    def _take(self) -> _Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return _Connection(self._settings)


class _Connection:
    """One connection, and the run of the server that it leads to: a server that was started again has another one."""

    def __init__(self, settings: FlagSettings) -> None:
        # A handshake may take longer than one call.
        seconds = max(CONNECT_SECONDS, settings.timeout_seconds)
        self._link = new_connection(settings.redis_url, REDIS_URL_VARIABLE, timeout_seconds=seconds, protocol=2)
        self._link.connect()
        self._link.send_command("INFO", "server")
        info: bytes = self._link.read_response()
        run = info.partition(b"run_id:")[2].partition(b"\r\n")[0]
        if not run:
            raise ValueError("the server does not tell its run id")
        self._link._sock.settimeout(settings.timeout_seconds)  # noqa: SLF001 - redis-py has one timeout for a connection
        self._run = run

    def run(self, workspace_id: str, given: tuple[bytes, ...], option: bytes) -> Answer:
        """One call. A server that does not have the script gets it, if this user may run scripts of its own."""
        from redis.exceptions import NoScriptError

        keys = names.holds_key(workspace_id).encode(), names.holds_due_key(workspace_id).encode()
        rest = (b"2", *keys, *given, self._run, option)
        try:
            line = self._send((b"EVALSHA", _SHA, *rest))
        except NoScriptError:
            line = self._send((b"EVAL", _SOURCE, *rest))
        letter, *numbers = line.split()
        return Answer(letter == b"G", letter == b"S", letter == b"W", *map(int, numbers))

    def _send(self, words: tuple[bytes, ...]) -> bytes:
        head = b"*%d\r\n" % len(words)
        packed = head + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
        self._link.send_packed_command([packed], check_health=False)
        line: bytes = self._link.read_response()
        return line

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._link.disconnect()

    def abandon(self) -> None:
        # shutdown(), which disconnect() calls, would end the parent's connection too.
        with contextlib.suppress(OSError):
            self._link._sock.close()  # noqa: SLF001 - redis-py's only way
