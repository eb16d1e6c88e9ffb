"""Who may publish what: the producer keys as the database has them, at most a second old.

A thread of its own reads them whenever their version changes, looks twice a second, and at once where somebody comes with a
key that is not known yet. While the database is away the keys that are known go on to count, for as long as an answer about a
flag would: nobody can revoke one there meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Final

import psycopg

from taximeter_db import connect, producer_keys
from taximeter_db.connect import LedgerConnection, Profile
from taximeter_db.errors import TaximeterDbError
from taximeter_db.producer_keys import Producer
from taximeter_db.secret import redact
from taximeter_gateway.errors import BusyError, KeyNeededError, TooFastError

LOOK_SECONDS: Final = 0.5
LOOK_SECONDS_MIN: Final = 0.05
"""However many unknown keys come, the database is asked no more often."""
GRACE_SECONDS: Final = 60.0
ANSWER_SECONDS_MAX: Final = 3.0
"""How long somebody with an unknown key waits for the database."""
_PROFILE: Final = Profile(
    "taximeter gateway", {"statement_timeout": "5s", "idle_in_transaction_session_timeout": "60s"}
)
log = logging.getLogger("taximeter_gateway")


@dataclass(slots=True)
class Caller:
    """The holder of a key: what it may do, and how much of its rate is left."""

    producer: Producer
    _left: float = 0.0
    _at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._left = float(self.producer.events_per_second or 0)

    def may_use(self, workspace_id: str) -> bool:
        """Whether the key is for this workspace."""
        allowed = self.producer.workspaces
        return allowed is None or workspace_id in allowed

    def may_name(self, tool: str) -> bool:
        """Whether the key is for this tool."""
        allowed = self.producer.tools
        return allowed is None or tool in allowed

    def spend(self, events: int) -> None:
        """Count events against the rate. A batch may exceed it, which is paid back by waiting afterwards.

        Raises:
            TooFastError: There is nothing left.
        """
        rate = self.producer.events_per_second
        if rate is None:
            return
        now = time.monotonic()
        self._left = min(float(rate), self._left + (now - self._at) * rate)
        self._at = now
        if self._left <= 0:
            raise TooFastError(rate, 1 + int(-self._left / rate))
        self._left -= events


class KeyRing:
    """The keys that count. `caller` belongs to the event loop, the rest is the thread's.

    Args:
        database_url: Where the keys are.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._callers: dict[bytes, Caller] = {}
        self._version: tuple[int, int] | None = None
        self._read_at = -GRACE_SECONDS
        self._connection: LedgerConnection | None = None
        self._wake = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._looks: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._thread = threading.Thread(target=self._run, name="taximeter-gateway-keys", daemon=True)

    def start(self) -> None:
        """Start to look for keys."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closed = True
        self._wake.set()
        self._thread.join(ANSWER_SECONDS_MAX)

    async def caller(self, authorization: str | None) -> Caller:
        """The holder of the key in an ``Authorization`` header.

        Raises:
            KeyNeededError: There is none that counts.
            BusyError: The keys are not known, because the database is away.
        """
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key.startswith(producer_keys.PREFIX):
            raise KeyNeededError
        digest = producer_keys.digest(key)
        found = self._callers.get(digest)
        if found is None:
            await self._look_again()
            found = self._callers.get(digest)
        if time.monotonic() - self._read_at > GRACE_SECONDS:
            raise BusyError("The database with the producer keys cannot be reached.")
        if found is None:
            raise KeyNeededError
        return found

    async def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        looked: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._looks.append((loop, looked))
        self._wake.set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await looked
        except TimeoutError:
            raise BusyError("The database with the producer keys does not answer.") from None

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            with self._lock:
                looks, self._looks = self._looks, []
            self._look()
            for loop, looked in looks:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(_settle, looked)
            time.sleep(LOOK_SECONDS_MIN)
            self._wake.wait(LOOK_SECONDS - LOOK_SECONDS_MIN)
        self._let_go()

    def _look(self) -> None:
        try:
            if self._connection is None:
                self._connection = connect.connect(self._database_url, profile=_PROFILE)
            version = producer_keys.version(self._connection)
            if version != self._version:
                known, self._version = producer_keys.valid(self._connection), version
                # What is left of a rate stays with its key.
                self._callers = {digest: self._callers.get(digest) or Caller(one) for digest, one in known.items()}
            self._read_at = time.monotonic()
        except (TaximeterDbError, psycopg.Error, OSError) as error:
            if self._connection is not None or self._read_at < 0:
                log.warning("the producer keys cannot be read: %s", redact(str(error).partition("\n")[0]))
            self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
