from __future__ import annotations

import os
import threading
import time
from uuid import UUID

from taximeter.ids import new_event_id


def test_ids_are_canonical_uuid_version_7_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = UUID(new_event_id())
    # A burst of ids may borrow a few milliseconds from the future.
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1000
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    text = new_event_id()
    assert str(UUID(text)) == text


def test_ids_ascend_and_never_repeat() -> None:
    ids = [new_event_id() for _ in range(50_000)]
    assert ids == sorted(set(ids))


def test_randomness_is_drawn_anew_each_millisecond() -> None:
    drawn: dict[str, set[str]] = {}
    for made in (new_event_id() for _ in range(20_000)):
        assert UUID(made).version == 7
        drawn.setdefault(made[:13], set()).add(made[19:])
    assert len(drawn) > 2
    assert all(len(tails) == 1 for tails in drawn.values())
    assert len(set().union(*drawn.values())) == len(drawn)


def test_threads_share_no_id() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def run(mine: list[str]) -> None:
        mine.extend(new_event_id() for _ in range(5_000))

    threads = [threading.Thread(target=run, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({i for mine in made for i in mine}) == 20_000
    assert all(mine == sorted(mine) for mine in made)


def test_a_forked_child_does_not_repeat_its_parents_ids() -> None:
    new_event_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ",".join(new_event_id() for _ in range(500)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = set(pipe.read().decode().split(","))
    os.waitpid(child, 0)
    assert len(theirs) == 500
    assert not theirs & {new_event_id() for _ in range(500)}
