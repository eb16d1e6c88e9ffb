"""`Meter`: what an AI tool uses to record usage and to ask whether a workspace may use AI."""

from __future__ import annotations

import atexit
import os
import socket
import threading
import weakref
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from taximeter import names
from taximeter.envelope import check_event
from taximeter.errors import ClosedError, ConfigurationError
from taximeter.events import check_source, check_workspace_id, usage_line
from taximeter.flags import FlagCache, FlagStatus
from taximeter.outbox import MeterStats, Outbox, OutboxSettings
from taximeter.transports import redis_url

BROKER_URL_VARIABLE: Final = "TAXIMETER_BROKER_URL"
REDIS_URL_VARIABLE: Final = "TAXIMETER_REDIS_URL"
PRODUCER_KEY_VARIABLE: Final = "TAXIMETER_PRODUCER_KEY"
SPOOL_VARIABLE: Final = "TAXIMETER_SPOOL"
SHARDS_VARIABLE: Final = "TAXIMETER_SHARDS"
EXIT_FLUSH_SECONDS: Final = 5.0


class Meter:
    """Records usage durably and answers whether AI is enabled for a workspace.

    Safe to use from several threads, from asyncio code and after ``fork``. Make one for a process and keep it.

    Args:
        broker_url: ``amqp://``, ``amqps://`` (RabbitMQ) or ``redis://``, ``rediss://``, ``unix://`` (Redis or
            Valkey). None: this meter cannot record.
        redis_url: Address of the Redis or Valkey that holds the flags. None: this meter cannot check flags.
        producer_key: ``id:secret``, signs what goes to a Redis or Valkey broker that asks for it.
        spool: Directory of the spool, shared by any number of processes that publish to the same broker. Default:
            ``$XDG_STATE_HOME/taximeter/spool`` or ``~/.local/state/taximeter/spool``.
        source: CloudEvents source of the events. Default: ``/python/<host name>``.
        timeout_seconds: Longest time that `enabled` and `status` wait for Redis.
        grace_seconds: How long the last known answer stands in when Redis cannot answer.
        on_unknown: The answer after that, and for a workspace nothing is known of: ``"closed"`` or ``"open"``.
        spool_bytes_max: Most bytes of unpublished events in this process.
        fsync: Wait for the disk itself on every event. Off, an accepted event survives the death of the process
            but not the loss of power.
        event_bytes_max: Most bytes of one event as JSON.
        batch_events_max: Most events in a message.
        batch_bytes_max: Most bytes in a message, unless a single event is larger.
        linger_seconds: How long an event waits for company before it is sent.
        shards: How many queues usages are split over by workspace; the workers must know as many or more.

    Raises:
        ConfigurationError: An address or ``on_unknown`` cannot be understood.
        SpoolError: The spool directory cannot be made.
    """

    def __init__(
        self,
        *,
        broker_url: str | None = None,
        redis_url: str | None = None,
        producer_key: str | None = None,
        spool: str | os.PathLike[str] | None = None,
        source: str | None = None,
        timeout_seconds: float = 0.05,
        grace_seconds: float = 60.0,
        on_unknown: Literal["closed", "open"] = "closed",
        spool_bytes_max: int = 1024 * 1024 * 1024,
        fsync: bool = False,
        event_bytes_max: int = names.EVENT_BYTES_MAX,
        batch_events_max: int = 500,
        batch_bytes_max: int = 256 * 1024,
        linger_seconds: float = 0.005,
        shards: int = 1,
    ) -> None:
        if on_unknown not in {"closed", "open"}:
            raise ConfigurationError(f'on_unknown must be "closed" or "open", not {on_unknown!r}')
        if not isinstance(shards, int) or not 1 <= shards <= names.SHARDS_MAX:
            raise ConfigurationError(f"shards must be a whole number from 1 to {names.SHARDS_MAX}, not {shards!r}")
        self._shards = shards
        self._source = check_source(source) if source is not None else f"/python/{socket.gethostname()}"
        self._redis_url = redis_url
        self._timeout_seconds = timeout_seconds
        self._grace_seconds = grace_seconds
        self._on_unknown_enabled = on_unknown == "open"
        self._closed = False
        self._lock = threading.RLock()
        self._flags: FlagCache | None = None
        self._answers: dict[str, bool] = {}
        self._outbox: Outbox | None = None
        try:
            if broker_url is not None:
                self._outbox = Outbox(
                    OutboxSettings(
                        broker_url=broker_url,
                        producer_key=producer_key,
                        directory=Path(spool) if spool is not None else default_spool(),
                        spool_bytes_max=spool_bytes_max,
                        fsync=fsync,
                        event_bytes_max=event_bytes_max,
                        batch_events_max=batch_events_max,
                        batch_bytes_max=batch_bytes_max,
                        linger_seconds=linger_seconds,
                        shards=shards,
                    )
                )
            if redis_url is not None:
                # Bounded, and here rather than in the first check, whose timeout may be shorter than a handshake.
                self._start_flags().wait_for_first_connection()
        except BaseException:
            self.close(timeout=0)
            raise
        _meters.add(self)
        atexit.register(self.close)

    @classmethod
    def from_env(cls, **settings: Any) -> Self:
        """Make a meter from the environment: ``TAXIMETER_`` and BROKER_URL, REDIS_URL, SPOOL, SHARDS, PRODUCER_KEY.

        Either address may be missing: then only the other half works, and the error for the missing half says so.
        Keyword arguments are those of `Meter` and win over the environment.
        """
        environment = {
            "broker_url": os.environ.get(BROKER_URL_VARIABLE) or None,
            "redis_url": os.environ.get(REDIS_URL_VARIABLE) or None,
            "producer_key": os.environ.get(PRODUCER_KEY_VARIABLE) or None,
            "spool": os.environ.get(SPOOL_VARIABLE) or None,
            "shards": _shards_of(os.environ.get(SHARDS_VARIABLE) or "1"),
        }
        return cls(**{**environment, **settings})

    def record(
        self,
        workspace_id: str,
        *,
        tool: str,
        quantities: Mapping[str, int | float | Decimal],
        provider: str | None = None,
        model: str | None = None,
        input: Any = None,  # noqa: A002 - the contract's name
        output: Any = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the contract's name
        time: datetime | None = None,
        source: str | None = None,
    ) -> str:
        """Record that a tool consumed something. Does not wait for the broker.

        When this returns, the event is in the local spool and will be published, also if this process is killed.

        Args:
            workspace_id: Whose balance pays.
            tool: The AI feature, for example ``"chat"``.
            quantities: Unit name to amount, non-negative, at most 10^15 and 6 decimals; the pools are disjoint. A
                float counts as the shortest text that means it: 0.1 is 0.1, and 0.1 + 0.2 has too many decimals.
            provider: Who runs the model, for example ``"openai"``.
            model: The model's name.
            input: What went in, any JSON value; kept exactly.
            output: What came out, any JSON value; kept exactly.
            metadata: Any further JSON values by name.
            id: Idempotency key within the workspace, for ever. Default: a new UUIDv7. Pass your own, and repeat it
                in a retry, when the call to ``record`` itself may be repeated.
            time: When it happened, with a time zone. Default: now.
            source: CloudEvents source, if it differs from the meter's.

        Returns:
            The event id.

        Raises:
            InvalidEventError: The event could never be booked; ``code`` and ``field`` say why.
            SpoolError: The spool could not take it: it was not accepted.
            ConfigurationError: The meter has no broker address.
            ClosedError: The meter is closed.
        """
        event_id, line = usage_line(
            workspace_id,
            tool=tool,
            quantities=quantities,
            provider=provider,
            model=model,
            input=input,
            output=output,
            metadata=metadata,
            event_id=id,
            occurred_at=time,
            source=self._source if source is None else check_source(source),
        )
        key = names.USAGE_ROUTING_KEY if self._shards == 1 else names.usage_routing_key(workspace_id, self._shards)
        (self._outbox or self._no_broker()).put(key, line)
        return event_id

    def publish_event(self, event: Mapping[str, Any] | bytes | str) -> str:
        """Put an event that is already built as the wire format says, usage or payment, into the spool.

        Only the envelope is checked. What the worker cannot book, it quarantines.

        Args:
            event: The whole CloudEvent, as a dict or as JSON.

        Returns:
            The event id.

        Raises:
            InvalidEventError: The envelope is not that of a usage or payment event.
            SpoolError: The spool could not take it: it was not accepted.
            ConfigurationError: The meter has no broker address.
            ClosedError: The meter is closed.
        """
        event_id, routing_key, line = check_event(event, self._shards)
        (self._outbox or self._no_broker()).put(routing_key, line)
        return event_id

    def enabled(self, workspace_id: str) -> bool:
        """Say whether AI is enabled for the workspace.

        Usually answered from memory, which Redis keeps true. Waits at most ``timeout_seconds``; when Redis cannot
        answer, the last known answer stands in for ``grace_seconds``, then ``on_unknown``.

        Raises:
            InvalidEventError: The workspace id is malformed.
            ConfigurationError: The meter has no Redis address.
            ClosedError: The meter is closed.
        """
        try:
            return self._answers[workspace_id]
        except (KeyError, TypeError):
            pass
        return self._flag_cache().enabled(check_workspace_id(workspace_id))

    def status(self, workspace_id: str) -> FlagStatus:
        """Give status, enabled, since when, and how stale the answer can be. Waits and raises like `enabled`."""
        return self._flag_cache().status(check_workspace_id(workspace_id))

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until the broker has confirmed everything that was recorded before this call.

        From asyncio code: ``await asyncio.to_thread(meter.flush)``.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            FlushTimeoutError: Time is over; says how many events are still spooled. They will be published later.
            ConfigurationError: The meter has no broker address.
            ClosedError: The meter is closed.
        """
        (self._outbox or self._no_broker()).flush(timeout)

    def stats(self) -> MeterStats:
        """Count what was recorded and published, and what waits."""
        return self._outbox.stats() if self._outbox is not None else MeterStats(0, 0, None, 0, 0, 0, 0, None)

    def close(self, timeout: float = EXIT_FLUSH_SECONDS) -> None:
        """Publish what waits, for at most ``timeout`` seconds, and let go of everything.

        Never raises for events that could not be published in time: they stay in the spool, and the next meter that
        uses the directory publishes them. Also runs by itself when the interpreter exits.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            flags, self._answers = self._flags, {}
        atexit.unregister(self.close)
        if flags is not None:
            flags.close()
        if self._outbox is not None:
            self._outbox.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _no_broker(self) -> Outbox:
        raise ConfigurationError(
            f"this meter cannot record: it has no broker address. Set {BROKER_URL_VARIABLE} or pass broker_url"
        )

    def _flag_cache(self) -> FlagCache:
        flags = self._flags
        return flags if flags is not None and not self._closed else self._start_flags()

    def _start_flags(self) -> FlagCache:
        with self._lock:
            if self._closed:
                raise ClosedError("the meter is closed; make a new one")
            if self._flags is not None:
                return self._flags
            if self._redis_url is None:
                raise ConfigurationError(
                    f"this meter cannot check flags: it has no Redis address. Set {REDIS_URL_VARIABLE} or pass redis_url"
                )
            try:
                flags = FlagCache(
                    redis_url(self._redis_url),
                    timeout_seconds=self._timeout_seconds,
                    grace_seconds=self._grace_seconds,
                    on_unknown=self._on_unknown_enabled,
                )
            except ValueError as error:
                raise ConfigurationError(f"{REDIS_URL_VARIABLE} cannot be understood: {error}") from error
            flags.start()
            self._answers = flags.answers
            self._flags = flags
            return flags

    def _after_fork_in_child(self) -> None:
        # Threads do not survive a fork, and segments and connections stay the parent's: the child gets its own.
        flags, self._flags, self._answers = self._flags, None, {}
        self._lock = threading.RLock()
        if self._outbox is not None:
            self._outbox.after_fork_in_child()
        if flags is not None:
            flags.abandon()


_meters: weakref.WeakSet[Meter] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for meter in tuple(_meters):
        meter._after_fork_in_child()  # noqa: SLF001 - same module


os.register_at_fork(after_in_child=_after_fork_in_child)


def _shards_of(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"{SHARDS_VARIABLE} must be a whole number from 1 to {names.SHARDS_MAX}")
    return int(text[:9])


def default_spool() -> Path:
    """Where the spool lives when nobody says."""
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base / "taximeter" / "spool"
