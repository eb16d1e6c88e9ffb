"""One file of the spool: events as lines of JSON, appended by one process and read once.

    usage-<id>.ndjson      the events; locked (flock) for as long as its process lives
    usage-<id>.confirmed   how many of its bytes the broker has confirmed, as text
    usage-<id>.set-aside   events that the broker refuses for their size, one a line; `taximeter publish` reads it

The name begins with the routing key. The id is a UUIDv7, so names sort by age. A file whose lock can be had belongs
to a dead process: whoever gets the lock publishes the rest of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from taximeter.ids import new_event_id

SUFFIX: Final = ".ndjson"
CONFIRMED_SUFFIX: Final = ".confirmed"
NEW_SUFFIX: Final = ".new"
SET_ASIDE_SUFFIX: Final = ".set-aside"
_OFFSET_DIGITS: Final = 20
_MARK_EVERY_SECONDS: Final = 1.0
_COUNT_CHUNK_BYTES: Final = 1024 * 1024


class Cut(NamedTuple):
    """Some whole lines of a segment, ready to send."""

    body: bytes
    """A JSON array of the events."""
    events: int
    start: int
    end: int


class Segment:
    """An open, locked segment file.

    Bytes ``0 … confirmed`` have been confirmed by the broker, ``confirmed … sent`` are in flight, and
    ``sent … end`` wait. Only the thread that publishes moves ``sent`` and ``confirmed``.
    """

    def __init__(self, path: Path, descriptor: int, *, end: int, confirmed: int) -> None:
        self.path = path
        self._confirmed_path = path.with_suffix(CONFIRMED_SUFFIX)
        self.descriptor = descriptor
        self.end = end
        self.sent = self.confirmed = confirmed
        self.sealed = False
        """Nothing will be appended any more."""
        # (offset, wall clock): when the line at the offset was written, noted once a second.
        self._marks: deque[tuple[int, float]] = deque()
        self._marked_at = 0.0

    @classmethod
    def create(cls, directory: Path, routing_key: str, *, fsync: bool = False) -> Segment:
        """Make a new, locked, empty segment; with ``fsync``, its name too survives the loss of power.

        It gets its name only once it is locked, so that nobody takes it for a dead process's.

        Raises:
            OSError: The directory cannot be written.
        """
        path = directory / f"{routing_key}-{new_event_id()}{SUFFIX}"
        unnamed = path.with_suffix(NEW_SUFFIX)
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(path)
            if fsync:
                sync_directory(directory)
        except BaseException:
            os.close(descriptor)
            unnamed.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        return cls(path, descriptor, end=0, confirmed=0)

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """Open a dead process's segment, or return None if its process lives or it is not ours to read.

        An unterminated last line is a ``record`` that never returned: it is left out.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            return None
        segment = None
        with contextlib.suppress(OSError):
            segment = cls._take_over(path, descriptor)
        if segment is None:
            os.close(descriptor)
        return segment

    @classmethod
    def _take_over(cls, path: Path, descriptor: int) -> Segment | None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return None
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.lstat().st_ino != status.st_ino:
            return None
        end = _last_line_end(descriptor, status.st_size)
        segment = cls(path, descriptor, end=end, confirmed=min(_read_confirmed(path), end))
        segment.sealed = True
        segment._marks.append((0, status.st_mtime))
        return segment

    def append(self, line: bytes, *, fsync: bool = False) -> None:
        """Append one line of JSON, and wait for the disk itself if asked to.

        The caller holds the spool's lock.

        Raises:
            OSError: The line could not be written whole, and nothing of it is left in the segment.
        """
        record = line + b"\n"
        start = self.end
        appended = False
        try:
            written = os.write(self.descriptor, record)
            if written != len(record):
                # A disk that fills up writes a part; the next attempt says why.
                os.write(self.descriptor, record[written:])
                raise OSError("the disk took only a part of the event")
            if fsync:
                os.fsync(self.descriptor)
            self.end += len(record)
            appended = True
        finally:
            if not appended:
                self._undo(start)
        now = time.time()
        if now - self._marked_at >= _MARK_EVERY_SECONDS or not self._marks:
            self._marks.append((start, now))
            self._marked_at = now

    def _undo(self, start: int) -> None:
        """Take back a record that failed, be it by the disk or by an exception that a signal handler raised."""
        self.sealed = True  # should this fail too, the rest stays unterminated behind the end, where nobody reads
        with contextlib.suppress(OSError):
            if self.end == start:
                os.ftruncate(self.descriptor, start)
                self.sealed = False
            else:
                # The signal handler itself has recorded behind it: keep both.
                self.end = _last_line_end(self.descriptor, os.fstat(self.descriptor).st_size)

    def cut(self, events_max: int, bytes_max: int) -> Cut | None:
        """Take the next lines, at most ``events_max`` and ``bytes_max`` but at least one, and move ``sent``."""
        start, end = self.sent, self.end
        size = bytes_max
        while start < end:
            chunk = os.pread(self.descriptor, min(size, end - start), start)
            if not chunk:
                raise OSError(f"{self.path} is shorter than it was; something else changed the spool")
            length = chunk.rfind(b"\n") + 1
            if length == 0:
                if len(chunk) == end - start:
                    return None  # the line is still being written
                size *= 2
                continue
            events = chunk.count(b"\n", 0, length)
            if size > bytes_max:
                # An event that is larger than a message should be goes alone, in case the broker does not take it.
                length, events = _line_end(chunk, 1), 1
            elif events > events_max:
                length, events = _line_end(chunk, events_max), events_max
            self.sent = start + length
            body = b"[" + chunk[: length - 1].replace(b"\n", b",") + b"]"
            return Cut(body, events, start, start + length)
        return None

    def confirm(self, end: int) -> None:
        """Note that the broker has everything up to ``end``."""
        self.confirmed = end
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= end:
            marks.popleft()
        # Losing the note only means that a restart publishes some events again, which are then duplicates.
        # Not kept open: a spool may hold hundreds of segments, and the host's descriptors are not ours to use up.
        with contextlib.suppress(OSError):
            side = os.open(self._confirmed_path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.pwrite(side, b"%0*d\n" % (_OFFSET_DIGITS, end), 0)
            finally:
                os.close(side)

    def set_aside(self, cut: Cut) -> Path:
        """Copy the events of a cut into the file beside the segment, onto the disk itself, and return its path.

        Raises:
            OSError: The file could not be written; the events are where they were.
        """
        path = self.path.with_suffix(SET_ASIDE_SUFFIX)
        lines = os.pread(self.descriptor, cut.end - cut.start, cut.start)
        if len(lines) != cut.end - cut.start:
            raise OSError(f"{self.path} is shorter than it was; something else changed the spool")
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        return path

    def rewind(self) -> None:
        """Go back to the last confirmed position: what was in flight is sent again."""
        self.sent = self.confirmed

    @property
    def oldest_at(self) -> float | None:
        """Wall-clock seconds, to the second, at which the oldest unconfirmed event was written."""
        if self.confirmed >= self.end or not self._marks:
            return None
        return self._marks[0][1]

    def count_unconfirmed(self) -> int:
        """Count the unconfirmed events by reading the file."""
        offset, events = self.confirmed, 0
        while offset < self.end:
            chunk = os.pread(self.descriptor, min(_COUNT_CHUNK_BYTES, self.end - offset), offset)
            if not chunk:
                break
            events += chunk.count(b"\n")
            offset += len(chunk)
        return events

    def close(self, *, forked: bool = False) -> None:
        """Give the segment up: delete it if everything in it is confirmed, else leave it for adoption.

        A forked child only closes its copies of the descriptors: file and lock stay the parent's.
        """
        if not forked and self.confirmed >= self.end:
            self.path.unlink(missing_ok=True)
            self._confirmed_path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _line_end(chunk: bytes, lines: int) -> int:
    position = -1
    for _ in range(lines):
        position = chunk.index(b"\n", position + 1)
    return position + 1


def _last_line_end(descriptor: int, size: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - _COUNT_CHUNK_BYTES)
        position = os.pread(descriptor, end - start, start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0


def sync_directory(directory: Path) -> None:
    """Bring a directory's names onto the disk itself.

    Raises:
        OSError: It cannot be opened or synced.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_confirmed(path: Path) -> int:
    try:
        descriptor = os.open(path.with_suffix(CONFIRMED_SUFFIX), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        text = os.read(descriptor, _OFFSET_DIGITS + 2)
    except OSError:  # a directory in its place
        return 0
    finally:
        os.close(descriptor)
    return int(text) if len(text) == _OFFSET_DIGITS + 1 and text[:-1].isdigit() else 0
