"""`Meter`: what an AI tool uses to record usage and to ask whether a workspace may use AI."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from taximeter import limits, names
from taximeter.addresses import REDIS_URL_VARIABLE, check_redis_url
from taximeter.calls.metering import Calls
from taximeter.envelope import check_event
from taximeter.environment import default_spool, settings_from_environment
from taximeter.errors import ClosedError, ConfigurationError
from taximeter.events import check_source, usage_line
from taximeter.flags.cache import FlagCache, FlagSettings
from taximeter.flags.checking import Checks
from taximeter.holds.placing import Holds
from taximeter.labels import NO_LABELS, labels
from taximeter.lifetime import watch
from taximeter.spool.lanes import BatchSettings
from taximeter.spool.pipeline import MeterStats, Pipeline, PipelineSettings

_USAGE_KEY: Final = names.USAGE_ROUTING_KEY

EXIT_FLUSH_SECONDS: Final = 5.0


class Meter(Checks, Holds, Calls):
    """Records usage durably, answers whether AI is enabled for a workspace and what it costs, and holds amounts for calls.

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
        spool_bytes_max: Most bytes of unpublished events that this process has recorded.
        fsync: Wait for the disk itself on every event. Off, an accepted event survives the death of the process
            but not the loss of power.
        event_bytes_max: Most bytes of one event as JSON.
        batch_events_max: Most events in a message.
        batch_bytes_max: Most bytes in a message, unless a single event is larger.
        linger_seconds: How long an event waits for company before it is sent.
        shards: How many queues usages are split over by workspace; the workers must know as many or more.
        top_up_url: Where an owner pays, told to refused callers; ``{workspace}`` in it becomes the workspace's id.

    Raises:
        ConfigurationError: A setting cannot be understood, or the Redis is one that flags cannot be read from.
        SpoolError: The spool directory cannot be made, or others may write to it.
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
        event_bytes_max: int = limits.EVENT_BYTES_MAX,
        batch_events_max: int = 500,
        batch_bytes_max: int = 256 * 1024,
        linger_seconds: float = 0.005,
        shards: int = 1,
        top_up_url: str | None = None,
    ) -> None:
        self._closed = False
        self._top_up_url = top_up_url
        self._lock = threading.RLock()
        self._flags: FlagCache | None = None
        self._answers: dict[str, bool] = {}
        self._pipeline: Pipeline | None = None
        if on_unknown not in {"closed", "open"}:
            raise ConfigurationError(f'on_unknown must be "closed" or "open", not {on_unknown!r}')
        if not isinstance(shards, int) or not 1 <= shards <= names.SHARDS_MAX:
            raise ConfigurationError(f"shards must be a whole number from 1 to {names.SHARDS_MAX}, not {shards!r}")
        self._shards = shards
        self._source = check_source(source) if source is not None else f"/python/{socket.gethostname()}"
        self._flag_settings = None
        if redis_url is not None:
            self._flag_settings = FlagSettings(
                redis_url=check_redis_url(redis_url),
                timeout_seconds=timeout_seconds,
                grace_seconds=grace_seconds,
                enabled_if_unknown=on_unknown == "open",
            )
        try:
            if broker_url is not None:
                self._pipeline = Pipeline(
                    PipelineSettings(
                        broker_url=broker_url,
                        producer_key=producer_key,
                        directory=Path(spool) if spool is not None else default_spool(),
                        spool_bytes_max=spool_bytes_max,
                        fsync=fsync,
                        event_bytes_max=event_bytes_max,
                        batch=BatchSettings(
                            events_max=batch_events_max, bytes_max=batch_bytes_max, linger_seconds=linger_seconds
                        ),
                        shards=shards,
                    )
                )
            if redis_url is not None:
                # Bounded, and here rather than in the first check, whose timeout may be shorter than a handshake.
                self._start_flags().wait_for_first_connection()
        except BaseException:
            self.close(timeout=0)
            raise
        watch(self)

    @classmethod
    def from_env(cls, **settings: Any) -> Self:
        """Make a meter from ``TAXIMETER_`` and BROKER_URL, REDIS_URL, SPOOL, SHARDS, PRODUCER_KEY, TOP_UP_URL.

        Either address may be missing: then only the other half works, and the error for the missing half says so.
        Keyword arguments are those of `Meter` and win over the environment.
        """
        return cls(**{**settings_from_environment(), **settings})

    def record(
        self,
        workspace_id: str,
        *,
        tool: str,
        quantities: Mapping[str, int | float | Decimal],
        provider: str | None = None,
        model: str | None = None,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
        hold: Any = None,
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
            user: Who within the workspace, 1 to 128 characters. Plain in the log: a pseudonym, not a name or an address.
            tags: At most 8 texts of 1 to 64 characters by keys of 1 to 32 of ``a-z 0-9 _ . -``; plain in the log.
            hold: The hold that this usage settles, or its id.
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
        event_id, line = usage_line(  # by position: names take a tenth of a microsecond
            workspace_id,
            tool,
            quantities,
            provider,
            model,
            input,
            output,
            metadata,
            id,
            time,
            self._source if source is None else check_source(source),
            NO_LABELS if user is None and tags is None and hold is None else labels(user=user, tags=tags, hold=hold),
        )
        key = _USAGE_KEY if self._shards == 1 else names.usage_routing_key(workspace_id, self._shards)
        pipeline = self._pipeline or self._no_broker()
        if hold is None:
            pipeline.put(key, line)
        else:
            with self._recording(workspace_id, hold):
                pipeline.put(key, line)
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
        (self._pipeline or self._no_broker()).put(routing_key, line)
        return event_id

    def flush(self, timeout: float = 10.0) -> None:
        """Wait until the broker has confirmed everything that was recorded before this call.

        From asyncio code: ``await asyncio.to_thread(meter.flush)``.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            FlushTimeoutError: Time is over; says how many events are still spooled. They will be published later.
            SetAsideError: Everything else is confirmed, but the broker refuses some events for their size.
            ConfigurationError: The meter has no broker address.
            ClosedError: The meter is closed.
        """
        (self._pipeline or self._no_broker()).flush(timeout)

    def stats(self) -> MeterStats:
        """Count what was recorded and published, and what waits."""
        return self._pipeline.stats() if self._pipeline is not None else MeterStats(0, 0, None, 0, 0, 0, 0, None)

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
        self._close_prices()
        self._close_holds()
        if flags is not None:
            flags.close()
        if self._pipeline is not None:
            self._pipeline.close(timeout)

    def __del__(self) -> None:
        # Whoever drops a meter without closing it must not leak two threads and their descriptors. No lock is taken
        # and nothing is waited for: this may run anywhere, in the middle of anything.
        if getattr(self, "_closed", True):
            return
        self._closed = True
        self._drop_holds()
        flags, pipeline = self._flags, self._pipeline
        if flags is None and (pipeline is None or not pipeline.is_running):
            return
        if flags is not None:
            flags.close(wait=False)
        if pipeline is not None:
            pipeline.release()
        warnings.warn(
            "a Meter was dropped without close(); what it had not published stays in the spool",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _flag_cache(self) -> FlagCache:
        flags = self._flags
        return flags if flags is not None and not self._closed else self._start_flags()

    def _start_flags(self) -> FlagCache:
        with self._lock:
            if self._closed:
                raise ClosedError("the meter is closed; make a new one")
            if self._flags is not None:
                return self._flags
            if self._flag_settings is None:
                raise ConfigurationError(
                    f"this meter cannot check flags: it has no Redis address. Set {REDIS_URL_VARIABLE} or pass redis_url"
                )
            flags = FlagCache(self._flag_settings)
            flags.start()
            self._answers = flags.answers
            self._flags = flags
            return flags

    def after_fork_in_child(self) -> None:
        """Drop what stays the parent's: threads do not survive a fork, and the child gets its own segments and connections."""
        flags, self._flags, self._answers = self._flags, None, {}
        self._lock = threading.RLock()
        self._abandon_holds()
        if self._pipeline is not None:
            self._pipeline.after_fork_in_child()
        if flags is not None:
            flags.abandon()
