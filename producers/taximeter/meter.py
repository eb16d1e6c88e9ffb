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
from typing import Any, Final, Literal, NamedTuple, Self

from taximeter import names
from taximeter.envelope import check_event
from taximeter.errors import ClosedError, ConfigurationError, FlushTimeoutError, InvalidEventError
from taximeter.events import check_source, check_workspace_id, usage_line
from taximeter.flags import FlagCache, FlagStatus
from taximeter.publisher import Publisher, logger
from taximeter.spool import Spool
from taximeter.transports import open_transport, redis_url

BROKER_URL_VARIABLE: Final = "TAXIMETER_BROKER_URL"
REDIS_URL_VARIABLE: Final = "TAXIMETER_REDIS_URL"
SPOOL_VARIABLE: Final = "TAXIMETER_SPOOL"
EXIT_FLUSH_SECONDS: Final = 5.0


SEGMENT_BYTES: Final = 8 * 1024 * 1024


class MeterStats(NamedTuple):
    """What a meter has done in this process, and what waits."""

    spooled_events: int
    """Events in the spool that the broker has not confirmed."""
    spooled_bytes: int
    oldest_unpublished_seconds: float | None
    """Age of the oldest of them, or None if nothing waits. For events adopted from a dead process: at least this."""
    recorded: int
    """Events accepted by this meter in this process."""
    published: int
    """Events handed to the broker, repetitions included."""
    confirmed: int
    """Events that the broker has confirmed, adopted ones included."""
    failures: int
    """Failed connections and messages that the broker did not take."""
    last_error: str | None
    """Why publishing does not get on at present, or None."""


class Meter:
    """Records usage durably and answers whether AI is enabled for a workspace.

    Safe to use from several threads, from asyncio code and after ``fork``. Make one for a process and keep it.

    Args:
        broker_url: ``amqp://``, ``amqps://`` (RabbitMQ) or ``redis://``, ``rediss://``, ``unix://`` (Redis or
            Valkey). None: this meter cannot record.
        redis_url: Address of the Redis or Valkey that holds the flags. None: this meter cannot check flags.
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

    Raises:
        ConfigurationError: An address or ``on_unknown`` cannot be understood.
        SpoolError: The spool directory cannot be made.
    """

    def __init__(
        self,
        *,
        broker_url: str | None = None,
        redis_url: str | None = None,
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
    ) -> None:
        if on_unknown not in {"closed", "open"}:
            raise ConfigurationError(f'on_unknown must be "closed" or "open", not {on_unknown!r}')
        self._broker_url = broker_url
        self._redis_url = redis_url
        self._directory = Path(spool) if spool is not None else default_spool()
        self._source = check_source(source) if source is not None else f"/python/{socket.gethostname()}"
        self._timeout_seconds = timeout_seconds
        self._grace_seconds = grace_seconds
        self._on_unknown = on_unknown
        self._spool_bytes_max = spool_bytes_max
        self._fsync = fsync
        self._event_bytes_max = event_bytes_max
        self._batch_events_max = batch_events_max
        self._batch_bytes_max = batch_bytes_max
        self._linger_seconds = linger_seconds
        self._closed = False
        self._recorded = 0
        self._start_lock = threading.RLock()
        self._spool: Spool | None = None
        self._publisher: Publisher | None = None
        self._flags: FlagCache | None = None
        self._answers: dict[str, bool] = {}
        if broker_url is not None:
            open_transport(broker_url)  # an address that cannot be understood shows here, not in the background
            self._start_publishing()
        if redis_url is not None:
            self._start_flags()
        _meters.add(self)
        atexit.register(self._at_exit)

    @classmethod
    def from_env(cls, **settings: Any) -> Self:
        """Make a meter from ``TAXIMETER_BROKER_URL``, ``TAXIMETER_REDIS_URL`` and ``TAXIMETER_SPOOL``.

        Either address may be missing: then only the other half works, and the error for the missing half says so.
        Keyword arguments are those of `Meter` and win over the environment.
        """
        environment = {
            "broker_url": os.environ.get(BROKER_URL_VARIABLE) or None,
            "redis_url": os.environ.get(REDIS_URL_VARIABLE) or None,
            "spool": os.environ.get(SPOOL_VARIABLE) or None,
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
        self._put(names.USAGE_ROUTING_KEY, line)
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
        event_id, routing_key, line = check_event(event)
        self._put(routing_key, line)
        return event_id

    def _put(self, routing_key: str, line: bytes) -> None:
        if len(line) > self._event_bytes_max:
            raise InvalidEventError(
                "too_large", "event", f"has {len(line)} bytes as JSON, at most {self._event_bytes_max} are taken"
            )
        spool, publisher = self._spool, self._publisher
        if spool is None or publisher is None:
            spool, publisher = self._start_publishing()
        spool.append(routing_key, line)
        self._recorded += 1
        publisher.wake()

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
        spool, publisher = self._spool, self._publisher
        if spool is None or publisher is None or self._closed:
            spool, publisher = self._start_publishing()
        if not publisher.wait_until_confirmed(timeout):
            raise FlushTimeoutError(spool.events_waiting, timeout, publisher.last_error)

    def stats(self) -> MeterStats:
        """Count what was recorded and published, and what waits."""
        spool, publisher = self._spool, self._publisher
        if spool is None or publisher is None:
            return MeterStats(0, 0, None, self._recorded, 0, 0, 0, None)
        return MeterStats(
            spooled_events=spool.events_waiting,
            spooled_bytes=spool.bytes_waiting,
            oldest_unpublished_seconds=spool.oldest_seconds(),
            recorded=self._recorded,
            published=publisher.published_events,
            confirmed=sum(lane.confirmed_events for lane in spool.lanes),
            failures=publisher.failures,
            last_error=publisher.last_error,
        )

    def close(self, timeout: float = EXIT_FLUSH_SECONDS) -> None:
        """Publish what waits, for at most ``timeout`` seconds, and let go of everything.

        Never raises for events that could not be published in time: they stay in the spool, and the next meter that
        uses the directory publishes them. Also runs by itself when the interpreter exits.
        """
        with self._start_lock:
            if self._closed:
                return
            self._closed = True
            spool, publisher, flags = self._spool, self._publisher, self._flags
            self._answers = {}
        atexit.unregister(self._at_exit)
        if flags is not None:
            flags.close()
        if spool is not None and publisher is not None:
            if not publisher.wait_until_confirmed(timeout):
                logger.warning(
                    "%d events stay in the spool %s; the next meter that uses it publishes them (%s)",
                    spool.events_waiting,
                    self._directory,
                    publisher.last_error or "the broker has not confirmed them in time",
                )
            publisher.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _at_exit(self) -> None:
        self.close()

    def _start_publishing(self) -> tuple[Spool, Publisher]:
        with self._start_lock:
            if self._closed:
                raise ClosedError("the meter is closed; make a new one")
            if self._spool is not None and self._publisher is not None:
                return self._spool, self._publisher
            url = self._broker_url
            if url is None:
                raise ConfigurationError(
                    f"this meter cannot record: it has no broker address. Set {BROKER_URL_VARIABLE} or pass broker_url"
                )
            spool = Spool(
                self._directory,
                bytes_max=self._spool_bytes_max,
                segment_bytes=SEGMENT_BYTES,
                fsync=self._fsync,
            )
            publisher = Publisher(
                spool,
                lambda: open_transport(url),
                batch_events_max=self._batch_events_max,
                batch_bytes_max=self._batch_bytes_max,
                linger_seconds=self._linger_seconds,
            )
            publisher.start()
            self._spool, self._publisher = spool, publisher
            return spool, publisher

    def _flag_cache(self) -> FlagCache:
        flags = self._flags
        return flags if flags is not None and not self._closed else self._start_flags()

    def _start_flags(self) -> FlagCache:
        with self._start_lock:
            if self._closed:
                raise ClosedError("the meter is closed; make a new one")
            if self._flags is not None:
                return self._flags
            if self._redis_url is None:
                raise ConfigurationError(
                    f"this meter cannot check flags: it has no Redis address. Set {REDIS_URL_VARIABLE} or pass redis_url"
                )
            flags = FlagCache(
                redis_url(self._redis_url),
                timeout_seconds=self._timeout_seconds,
                grace_seconds=self._grace_seconds,
                on_unknown=self._on_unknown == "open",
            )
            flags.start()
            self._answers = flags.answers
            self._flags = flags
            return flags

    def _after_fork_in_child(self) -> None:
        # Threads do not survive a fork, and segments and connections stay the parent's: the child gets its own.
        publisher, flags = self._publisher, self._flags
        self._start_lock = threading.RLock()
        self._spool = self._publisher = self._flags = None
        self._answers = {}
        self._recorded = 0
        if publisher is not None:
            publisher.abandon()
        if flags is not None:
            flags.abandon()


_meters: weakref.WeakSet[Meter] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for meter in tuple(_meters):
        meter._after_fork_in_child()  # noqa: SLF001 - same module


os.register_at_fork(after_in_child=_after_fork_in_child)


def default_spool() -> Path:
    """Where the spool lives when nobody says."""
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base / "taximeter" / "spool"
