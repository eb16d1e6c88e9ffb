"""The spool beside other processes, other users and the loss of power."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import require
from taximeter import Meter, SpoolError, names
from taximeter.spool.segment import Segment
from taximeter.spool.spool import ADOPTED_SEGMENTS_MAX, ADOPTED_SEGMENTS_PER_LANE_MAX, Spool

SEGMENTS = 400
DESCRIPTORS = 200
"""Files that the process may still open: fewer than there are segments."""


def event(number: int) -> bytes:
    return b'{"specversion":"1.0","type":"taximeter.usage.v1","id":"e-%d","subject":"acme"}' % number


def leave_segments(directory: Path, number: int, *, routing_key: str = "usage", padding: int = 0) -> None:
    """Segments of dead processes, one event in each."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for position in range(number):
        segment = Segment.create(directory, routing_key)
        segment.append(event(position) + b" " * padding)
        os.close(segment.descriptor)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """This process may open a few more files than it has open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = sum(1 for _ in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + DESCRIPTORS, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_backlog_of_many_dead_processes_leaves_the_host_its_descriptors(
    broker: Any, make_meter: Callable[..., Meter], tmp_path: Path, few_descriptors: None
) -> None:
    leave_segments(tmp_path / "spool", SEGMENTS)
    meter = make_meter(broker_url=broker.url)
    own = [os.open("/dev/null", os.O_RDONLY) for _ in range(DESCRIPTORS // 2)]
    meter.flush(60)
    for descriptor in own:
        os.close(descriptor)
    assert {e["id"] for e in broker.events()} == {f"e-{number}" for number in range(SEGMENTS)}
    assert [path for path in (tmp_path / "spool").iterdir() if path.suffix == ".ndjson"] == []


def test_segments_are_adopted_by_number_and_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_segments(tmp_path, 40)
    leave_segments(tmp_path, 3, routing_key="payment", padding=5000)
    monkeypatch.setattr("taximeter.spool.spool.ADOPTED_BYTES_PER_LANE_MAX", 8000)
    spool = Spool(tmp_path, bytes_max=1 << 30, segment_bytes=1 << 20, fsync=False)
    adoption = spool.adopt()
    assert not adoption.complete
    usages, payments = (lane for lane in spool.lanes if lane.segments)
    assert len(usages.segments) == ADOPTED_SEGMENTS_PER_LANE_MAX <= ADOPTED_SEGMENTS_MAX
    assert len(payments.segments) == 2, "the second went beyond the limit of bytes, the third has to wait"
    assert spool.adopt() == (0, False)
    for segment in usages.segments:
        segment.confirm(segment.end)
    usages.confirmed_events = usages.accepted_events
    spool.retire(usages)
    assert spool.adopt().segments == ADOPTED_SEGMENTS_PER_LANE_MAX, "one lane that stands still holds up no other"
    spool.close()


def test_what_others_left_does_not_count_against_this_process(tmp_path: Path) -> None:
    leave_segments(tmp_path, 3, padding=5000)
    spool = Spool(tmp_path, bytes_max=2000, segment_bytes=1 << 20, fsync=False)
    assert spool.adopt().segments == 3
    spool.append("usage", b"1")
    assert spool.bytes_waiting > 15_000
    with pytest.raises(SpoolError, match=r"unpublished bytes of this process, its limit is 2000"):  # noqa: PT012
        for number in range(100):
            spool.append("usage", event(number))
    spool.close()


def test_a_directory_that_others_may_write_to_is_rejected(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    for mode in (0o777, 0o770, 0o1777, 0o722):
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
        with pytest.raises(SpoolError, match=f"chmod 700 {directory}"):
            Spool(directory, bytes_max=1, segment_bytes=1, fsync=False)
    directory.chmod(0o755)
    Spool(directory, bytes_max=1, segment_bytes=1, fsync=False).close()


def test_a_directory_of_another_user_is_rejected(tmp_path: Path) -> None:
    require("Another user", os.geteuid() == 0, "only root can give a directory to another user")
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, 12345)
    with pytest.raises(SpoolError, match=r"belongs to another user.*TAXIMETER_SPOOL"):
        Spool(directory, bytes_max=1, segment_bytes=1, fsync=False)


def test_no_link_is_followed_whatever_it_stands_for(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"00000000000000000099\n")
    directory = tmp_path / "spool"
    spool = Spool(directory, bytes_max=1 << 30, segment_bytes=1 << 20, fsync=False)
    spool.append("usage", event(1))
    segment = spool.lanes[0].segments[0]
    for suffix in (".confirmed", ".set-aside"):
        segment.path.with_suffix(suffix).symlink_to(precious)
    cut = segment.cut(1, 1 << 20)
    assert cut is not None
    segment.confirm(0)
    with pytest.raises(OSError, match="symbolic links"):
        segment.set_aside(cut)
    spool.close()
    assert precious.read_bytes() == b"00000000000000000099\n"
    again = Spool(directory, bytes_max=1 << 30, segment_bytes=1 << 20, fsync=False)
    assert again.adopt().segments == 1, "what a link says to be confirmed is not believed"
    again.close()


def test_a_link_in_the_place_of_a_segment_is_not_adopted(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    leave_segments(directory, 1)
    leave_segments(elsewhere, 1)
    (segment,) = elsewhere.iterdir()
    (directory / segment.name).symlink_to(segment)
    spool = Spool(directory, bytes_max=1 << 30, segment_bytes=1 << 20, fsync=False)
    assert spool.adopt().segments == 1
    spool.close()
    assert segment.exists()


def test_fsync_brings_the_name_of_a_new_segment_to_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        status = os.fstat(descriptor)
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        synced.append(f"{kind} {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    directory = tmp_path / "spool"
    spool = Spool(directory, bytes_max=1 << 30, segment_bytes=1 << 20, fsync=True)
    assert synced == [f"directory {tmp_path.name}"], "the spool's own name"
    synced.clear()
    spool.append("usage", event(1))
    name = spool.lanes[0].segments[0].path.name
    assert synced == ["directory spool", f"file {name}"]
    spool.append(names.USAGE_ROUTING_KEY, event(2))
    assert synced[2:] == [f"file {name}"]
    spool.close()
