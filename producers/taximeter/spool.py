"""The durable local spool: what ``record`` accepted and the broker has not confirmed yet.

A directory that any number of processes share. Each appends to segments of its own and publishes those; the
segments of dead processes are adopted by whoever finds them first. See `taximeter.segment` for the files.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from taximeter import names
from taximeter.errors import ClosedError, SpoolError
from taximeter.segment import CONFIRMED_SUFFIX, NEW_SUFFIX, SUFFIX, Segment

_ABANDONED_AFTER_SECONDS: Final = 60.0
_SEGMENTS_MIN: Final = 8
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Lane:
    """Segments that are published in order, all for one routing key.

    A process has one lane a routing key for its own events and one for adopted ones, so that neither an unroutable
    key nor a dead process's backlog holds up the others.
    """

    def __init__(self, routing_key: str) -> None:
        self.routing_key = routing_key
        self.segments: deque[Segment] = deque()
        self.accepted_events = 0
        """Events that ever entered this lane."""
        self.confirmed_events = 0
        """Events of this lane that the broker has confirmed."""

    @property
    def waiting_events(self) -> int:
        """Events not confirmed yet."""
        return self.accepted_events - self.confirmed_events


class Spool:
    """The segments of one `Meter` in one process.

    Args:
        directory: Where the segments live; made private (0700) if it does not exist.
        bytes_max: Most bytes of this process's unconfirmed events.
        segment_bytes: A segment that has grown to this size is followed by a new one.
        fsync: Flush each event to the disk itself before ``append`` returns.
        shards: How many queues usages are split over.
    """

    def __init__(self, directory: Path, *, bytes_max: int, segment_bytes: int, fsync: bool, shards: int = 1) -> None:
        self.directory = directory
        self._bytes_max = bytes_max
        # The limit is checked once a segment, so a small limit needs small segments.
        self._segment_bytes = min(segment_bytes, max(bytes_max // _SEGMENTS_MIN, 1))
        self._fsync = fsync
        # Reentrant, so that a signal handler which records does not lock up its own thread.
        self._lock = threading.RLock()
        self._closed = False
        keys = (*names.usage_routing_keys(shards), names.PAYMENT_ROUTING_KEY)
        self._own = {key: Lane(key) for key in keys}
        # What a process left that knew other shards goes the way that is always served.
        self._adopted = {key: Lane(key) for key in dict.fromkeys((*keys, names.USAGE_ROUTING_KEY))}
        self.lanes: tuple[Lane, ...] = (*self._own.values(), *self._adopted.values())
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(_advice(directory, error)) from error

    def append(self, routing_key: str, line: bytes) -> None:
        """Put one event, a line of JSON without its line feed, where a killed process cannot lose it.

        Raises:
            SpoolError: It was not accepted: the disk or the spool is full, or the directory cannot be written.
            ClosedError: It was not accepted: the spool is closed.
        """
        lane = self._own[routing_key]
        with self._lock:
            if self._closed:
                raise ClosedError("the meter is closed; the event was not accepted")
            try:
                segment = lane.segments[-1] if lane.segments else self._grow(lane)
                if segment.sealed or segment.end >= self._segment_bytes:
                    segment = self._grow(lane)
                segment.append(line, fsync=self._fsync)
                lane.accepted_events += 1
            except OSError as error:
                raise SpoolError(_advice(self.directory, error)) from error

    def _grow(self, lane: Lane) -> Segment:
        # Checked once a segment only: a limit to the byte is not worth its time on every event.
        if self.bytes_waiting >= self._bytes_max:
            raise SpoolError(
                f"the spool in {self.directory} holds {self.bytes_waiting} unpublished bytes, its limit is "
                f"{self._bytes_max}; the event was not accepted. Find out why the broker does not take events "
                "(Meter.stats() names the last error), or raise spool_bytes_max"
            )
        segment = Segment.create(self.directory, lane.routing_key)
        if lane.segments:
            lane.segments[-1].sealed = True
        lane.segments.append(segment)
        return segment

    def adopt(self) -> int:
        """Take over the segments of dead processes and sweep up what they left. Returns how many were taken."""
        adopted = 0
        for path in sorted(self.directory.iterdir()):
            if path.suffix == SUFFIX:
                lane = self._adopting_lane(path.name.partition("-")[0])
                segment = Segment.adopt(path) if lane is not None else None
                if lane is None or segment is None:
                    continue
                events = segment.count_unconfirmed()
                if events == 0:
                    segment.close()
                    continue
                with self._lock:
                    lane.accepted_events += events
                    lane.segments.append(segment)
                adopted += 1
            elif _is_litter(path):
                path.unlink(missing_ok=True)
        return adopted

    def _adopting_lane(self, routing_key: str) -> Lane | None:
        if routing_key.startswith(f"{names.USAGE_ROUTING_KEY}.") and routing_key not in self._adopted:
            routing_key = names.USAGE_ROUTING_KEY
        return self._adopted.get(routing_key)

    def retire(self, lane: Lane) -> None:
        """Delete the segments at the head of the lane that are sealed and confirmed to the end."""
        with self._lock:
            while lane.segments and lane.segments[0].sealed and lane.segments[0].confirmed >= lane.segments[0].end:
                lane.segments.popleft().close()

    @property
    def events_waiting(self) -> int:
        """Events that the broker has not confirmed."""
        return sum(lane.waiting_events for lane in self.lanes)

    @property
    def bytes_waiting(self) -> int:
        """Bytes of events that the broker has not confirmed."""
        return sum(s.end - s.confirmed for lane in self.lanes for s in tuple(lane.segments))

    def oldest_seconds(self) -> float | None:
        """Age of the oldest unconfirmed event (of an adopted one: at least this), or None if there is none."""
        times = [s.oldest_at for lane in self.lanes for s in tuple(lane.segments)]
        known = [at for at in times if at is not None]
        return max(0.0, time.time() - min(known)) if known else None

    def close(self, *, forked: bool = False) -> None:
        """Give every segment up; what is unconfirmed stays on disk for the next meter."""
        if forked:
            self._lock = threading.RLock()
        with self._lock:
            self._closed = True
            for lane in self.lanes:
                while lane.segments:
                    lane.segments.popleft().close(forked=forked)


def _is_litter(path: Path) -> bool:
    """Say whether a process died between two steps on this file."""
    if path.suffix == CONFIRMED_SUFFIX:
        return not path.with_suffix(SUFFIX).exists()
    if path.suffix == NEW_SUFFIX:
        try:
            return time.time() - path.stat().st_mtime > _ABANDONED_AFTER_SECONDS
        except OSError:
            return False
    return False


def _advice(directory: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        advice = "free some space there, or set TAXIMETER_SPOOL to a directory on another disk"
    else:
        advice = "set TAXIMETER_SPOOL to a directory that this process may write"
    return f"the event was not accepted: cannot write to the spool {directory} ({reason}); {advice}"
