"""Keys of many ids at once are those of each alone."""

from __future__ import annotations

import uuid

import pytest

from taximeter_db.ledger.events import event_key, uuid_keys

GOOD = [str(uuid.UUID(int=number * 7919 + (7 << 76))) for number in range(50)]


def test_canonical_uuids_are_their_own_keys():
    assert uuid_keys(GOOD) == [event_key(one) for one in GOOD]
    assert uuid_keys(GOOD[:1]) == [event_key(GOOD[0])]


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "order-1",
        GOOD[0].upper().replace("0", "A", 1),
        GOOD[0][:-1],
        GOOD[0] + "0",
        GOOD[0][:-1] + "g",
        GOOD[0][:-1] + " ",
        GOOD[0][:-1] + "-",
        GOOD[0][:-1] + "é",
        GOOD[0][:14] + "8" + GOOD[0][15:],
        GOOD[0].replace("-", "0"),
    ],
)
def test_any_other_id_sends_all_the_long_way(odd):
    assert uuid_keys([*GOOD, odd]) is None
    assert uuid_keys([odd, *GOOD]) is None


def test_lengths_that_make_up_for_each_other_are_noticed():
    assert uuid_keys([GOOD[0] + GOOD[1][0], GOOD[1][1:]]) is None
