from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import require
from taximeter import Meter, SpoolError
from taximeter.spool.segment import Segment
from taximeter.spool.spool import Spool

NOBODY_LISTENS = "amqp://guest:guest@127.0.0.1:1/"
TMPFS_BYTES = 256 * 1024


def make_spool(directory: Path, **settings: Any) -> Spool:
    return Spool(directory, **{"bytes_max": 1 << 30, "segment_bytes": 1 << 20, "fsync": False, **settings})


def leave_behind(directory: Path, lines: list[bytes], *, confirmed: int = 0, tail: bytes = b"") -> Path:
    """A segment of a dead process."""
    directory.mkdir(exist_ok=True)
    segment = Segment.create(directory, "usage")
    for line in lines:
        segment.append(line)
    segment.confirm(confirmed)
    os.write(segment.descriptor, tail)
    os.close(segment.descriptor)
    return segment.path


def waiting(spool: Spool) -> list[int]:
    """Take every event, without confirming any."""
    found = []
    for lane in spool.lanes:
        for segment in lane.segments:
            while (cut := segment.cut(100, 1 << 20)) is not None:
                found += json.loads(cut.body)
    return found


def test_the_spool_is_private(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "spool"
    spool = make_spool(directory)
    spool.append("usage", b"1")
    spool.lanes[0].segments[0].confirm(0)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in directory.iterdir()} == {".ndjson", ".confirmed"}
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    spool.close()


def test_lines_are_cut_by_number_and_by_size(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    for number in range(10):
        spool.append("usage", b"%d" % number)
    segment = spool.lanes[0].segments[0]
    cuts = [segment.cut(3, 1 << 20), segment.cut(100, 5), segment.cut(100, 1), segment.cut(100, 1 << 20)]
    assert [json.loads(cut.body) for cut in cuts if cut] == [[0, 1, 2], [3, 4], [5], [6, 7, 8, 9]]
    assert segment.cut(1, 1) is None
    segment.confirm(cuts[1].end if cuts[1] else 0)
    segment.rewind()
    assert waiting(spool) == [5, 6, 7, 8, 9]
    spool.close()


def test_a_dead_process_is_carried_on_from_what_was_confirmed(tmp_path: Path) -> None:
    path = leave_behind(tmp_path, [b"1", b"2", b"3"], confirmed=2, tail=b'{"torn": "li')
    spool = make_spool(tmp_path)
    assert spool.adopt().segments == 1
    assert (spool.events_waiting, waiting(spool)) == (2, [2, 3])
    assert spool.adopt().segments == 0
    assert make_spool(tmp_path).adopt().segments == 0, "only one adopts it"
    spool.close()
    assert path.exists(), "nothing was confirmed, so the next one carries on"
    assert make_spool(tmp_path).adopt().segments == 1


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    alive, other = make_spool(tmp_path), make_spool(tmp_path)
    alive.append("usage", b"1")
    assert other.adopt().segments == 0
    alive.close()
    assert other.adopt().segments == 1
    other.close()


def test_litter_of_dead_processes_is_swept_up(tmp_path: Path) -> None:
    done = leave_behind(tmp_path, [b"1"], confirmed=2)
    empty = leave_behind(tmp_path, [], tail=b"torn")
    (tmp_path / "usage-a.confirmed").write_text("0")
    fresh, old = tmp_path / "usage-b.new", tmp_path / "usage-c.new"
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    foreign = tmp_path / "notes.ndjson"
    foreign.write_text("1\n")
    spool = make_spool(tmp_path)
    assert spool.adopt().segments == 0
    assert not done.exists()
    assert not empty.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.ndjson", "usage-b.new"]
    spool.close()


@pytest.mark.parametrize("side", [b"", b"garbage", b"9" * 20 + b"\n", b"00000000000000000002"])
def test_a_damaged_note_of_what_was_confirmed_loses_nothing(tmp_path: Path, side: bytes) -> None:
    path = leave_behind(tmp_path, [b"1", b"2"])
    path.with_suffix(".confirmed").write_bytes(side)
    spool = make_spool(tmp_path)
    spool.adopt()
    # A position beyond the end is believed: it can only stem from a segment that was confirmed whole.
    assert waiting(spool) == ([] if side.startswith(b"9") else [1, 2])
    spool.close()


def test_somebody_elses_file_and_links_are_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("1\n")
    directory = tmp_path / "spool"
    directory.mkdir()
    (directory / "usage-link.ndjson").symlink_to(outside)
    if os.geteuid() == 0:
        planted = directory / "usage-planted.ndjson"
        planted.write_text("1\n")
        os.chown(planted, 12345, 12345)
    spool = make_spool(directory)
    assert spool.adopt().segments == 0
    spool.close()


def test_a_grown_segment_is_followed_by_another_and_deleted_when_confirmed(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, segment_bytes=10)
    for number in range(20):
        spool.append("usage", b"%04d" % number)
    lane = spool.lanes[0]
    assert len(lane.segments) == 10
    for segment in tuple(lane.segments)[:4]:
        segment.confirm(segment.end)
    spool.retire(lane)
    assert len(lane.segments) == 6
    assert len(list(tmp_path.glob("*.ndjson"))) == 6
    spool.close()


def test_a_full_spool_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, bytes_max=1000)

    def fill() -> None:
        for _ in range(1000):
            spool.append("usage", b"0123456789")

    with pytest.raises(SpoolError, match="spool_bytes_max"):
        fill()
    accepted = spool.events_waiting
    assert 1000 <= spool.bytes_waiting < 1000 + 1000 / 8
    lane = spool.lanes[0]
    for segment in lane.segments:
        segment.confirm(segment.end)
    lane.confirmed_events = accepted
    spool.retire(lane)
    spool.append("usage", b"0123456789")
    assert spool.events_waiting == 1
    spool.close()


def test_an_unusable_directory_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="TAXIMETER_SPOOL"):
        make_spool(tmp_path / "file" / "spool")
    gone = make_spool(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SpoolError, match="No such file"):
        gone.append("usage", b"1")
    assert gone.events_waiting == 0


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    require("A small file system", os.geteuid() == 0 and shutil.which("mount"), "only root can mount one")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    require("A small file system", mounted.returncode == 0, "this machine lets nobody mount one")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("fsync", [False, True])
def test_a_full_disk_refuses_the_event_whole(
    tiny_disk: Path, make_meter: Callable[..., Meter], broker: Any, fsync: bool
) -> None:
    something_else = tiny_disk / "something-else"
    something_else.write_bytes(bytes(64 * 1024))
    meter = make_meter(broker_url=NOBODY_LISTENS, spool=tiny_disk / "spool", fsync=fsync)
    accepted = []

    def fill() -> None:
        for number in range(1000):
            event_id = f"e-{number}"
            meter.record("acme", tool="chat", quantities={"requests": 1}, input="x" * 5000, id=event_id)
            accepted.append(event_id)

    with pytest.raises(SpoolError, match=r"No space left on device.*free some space"):
        fill()
    assert len(accepted) > 10
    with pytest.raises(SpoolError):
        meter.record("acme", tool="chat", quantities={"requests": 1}, input="x" * 5000)
    # Once there is room, the same segment goes on: nothing of the refused may stand before what comes next.
    something_else.unlink()
    accepted.append(meter.record("acme", tool="chat", quantities={"requests": 1}, input="x" * 5000))
    meter.close(timeout=0)
    # The same spool, a broker that listens: exactly what was accepted arrives, and then there is room again.
    after = make_meter(broker_url=broker.url, spool=tiny_disk / "spool")
    after.flush(20)
    accepted.append(after.record("acme", tool="chat", quantities={"requests": 1}, input="x" * 5000))
    after.flush(20)
    assert [event["id"] for event in broker.events()] == accepted


def test_an_exception_out_of_a_signal_handler_tears_nothing(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError

    spool = make_spool(tmp_path)
    accepted: list[int] = []

    def record_until_stopped() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        while True:
            number = len(accepted)
            spool.append("usage", b"%d" % number)
            accepted.append(number)

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(100):
            with pytest.raises(StopError):
                record_until_stopped()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    found = waiting(spool)
    # A number twice: its first record had not returned, but was kept. None is missing or torn.
    assert sorted(set(found)) == list(range(len(accepted) + 1))[: max(found) + 1]
    assert set(accepted) <= set(found)
    spool.close()
