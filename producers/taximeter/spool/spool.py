"""The durable local spool: what ``record`` accepted and the broker has not confirmed yet.

A directory that any number of processes share. Each appends to segments of its own and publishes those; the
segments of dead processes are adopted by whoever finds them first. See `taximeter.spool.segment` for the files.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from taximeter import names
from taximeter.errors import ClosedError, SpoolError
from taximeter.spool.lanes import Lane, Stretch
from taximeter.spool.segment import CONFIRMED_SUFFIX, NEW_SUFFIX, SUFFIX, Segment, sync_directory

ADOPTED_SEGMENTS_MAX: Final = 16
"""Segments of dead processes that are open at a time, in all lanes: each takes a descriptor of the host process."""
ADOPTED_SEGMENTS_PER_LANE_MAX: Final = 4
ADOPTED_BYTES_PER_LANE_MAX: Final = 64 * 1024 * 1024
_ABANDONED_AFTER_SECONDS: Final = 60.0
_SEGMENTS_MIN: Final = 8
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Adoption(NamedTuple):
    """What a look through the directory has brought."""

    segments: int
    """Segments that were taken over."""
    complete: bool
    """Nothing was left for later."""


class Spool:
    """The segments of one `Meter` in one process.

    Args:
        directory: Where the segments live; made private (0700) if it does not exist.
        bytes_max: Most bytes of the unconfirmed events that this process itself has accepted.
        segment_bytes: A segment that has grown to this size is followed by a new one.
        fsync: Flush each event, and the name of its segment, to the disk itself before ``append`` returns.
        shards: How many queues usages are split over.

    Raises:
        SpoolError: The directory cannot be made, or others may write to it.
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
            _prepare_directory(directory, fsync=fsync)
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

    def append_all(self, events: Iterable[tuple[str, bytes]]) -> list[Stretch]:
        """Append events, each a routing key and a line, with nobody else's between those of one lane.

        Returns:
            Where they are in their lanes.

        Raises:
            SpoolError: As `append`. What came before the event that could not be appended stays in the spool.
            ClosedError: As `append`.
        """
        with self._lock:
            before = {key: lane.accepted_events for key, lane in self._own.items()}
            for routing_key, line in events:
                self.append(routing_key, line)
            return [
                Stretch(lane, before[key] + 1, lane.accepted_events)
                for key, lane in self._own.items()
                if lane.accepted_events > before[key]
            ]

    def _grow(self, lane: Lane) -> Segment:
        # Checked once a segment only: a limit to the byte is not worth its time on every event.
        waiting_bytes = sum(lane.waiting_bytes for lane in self._own.values())
        if waiting_bytes >= self._bytes_max:
            raise SpoolError(
                f"the spool in {self.directory} holds {waiting_bytes} unpublished bytes of this process, its limit is "
                f"{self._bytes_max}; the event was not accepted. Find out why the broker does not take events "
                "(Meter.stats() names the last error), or raise spool_bytes_max"
            )
        segment = Segment.create(self.directory, lane.routing_key, fsync=self._fsync)
        if lane.segments:
            lane.segments[-1].sealed = True
        lane.segments.append(segment)
        return segment

    def adopt(self) -> Adoption:
        """Take over some segments of dead processes, as many as may be open at a time, and sweep up what they left."""
        adopted, complete = 0, True
        for path in sorted(self.directory.iterdir()):
            if path.suffix == SUFFIX:
                lane = self._adopting_lane(path.name.partition("-")[0])
                if lane is None:
                    continue
                if not self._has_room(lane):
                    complete = False
                    continue
                adopted += self._adopt_segment(lane, path)
            elif _is_litter(path):
                path.unlink(missing_ok=True)
        return Adoption(adopted, complete)

    @property
    def adopted_segments(self) -> int:
        """Segments of dead processes that are open now."""
        return sum(len(lane.segments) for lane in self._adopted.values())

    def _has_room(self, lane: Lane) -> bool:
        if not lane.segments:
            return True
        return (
            len(lane.segments) < ADOPTED_SEGMENTS_PER_LANE_MAX
            and self.adopted_segments < ADOPTED_SEGMENTS_MAX
            and lane.waiting_bytes < ADOPTED_BYTES_PER_LANE_MAX
        )

    def _adopt_segment(self, lane: Lane, path: Path) -> int:
        segment = Segment.adopt(path)
        if segment is None:
            return 0
        events = segment.count_unconfirmed()
        if events == 0:
            segment.close()
            return 0
        with self._lock:
            lane.accepted_events += events
            lane.segments.append(segment)
        return 1

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
    def recorded_events(self) -> int:
        """Events that this process has accepted."""
        return sum(lane.accepted_events for lane in self._own.values())

    @property
    def events_waiting(self) -> int:
        """Events that the broker has not confirmed, those of adopted segments included."""
        return sum(lane.waiting_events for lane in self.lanes)

    @property
    def bytes_waiting(self) -> int:
        """Bytes of these events."""
        return sum(lane.waiting_bytes for lane in self.lanes)

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


def _prepare_directory(directory: Path, *, fsync: bool) -> None:
    """Make the directory, or see that an existing one is ours alone to write to: it holds prompts, and we open its files."""
    made = not directory.exists()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made and fsync:
        sync_directory(directory.parent)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise SpoolError(
            f"the spool {directory} belongs to another user (uid {status.st_uid}, this process runs as {os.geteuid()});"
            " set TAXIMETER_SPOOL to a directory of this user, for example a new one below it"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SpoolError(f"other users may write to the spool {directory}; run `chmod 700 {directory}`")


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
