"""What the producers of a benchmark send: how many events, for whom, with what in them. The same seed, the same load."""

from __future__ import annotations

import itertools
import json
import random
import sys
import uuid
from typing import Literal

import msgspec

TEXTS = 256
"""Different texts in a load: enough that no two neighbours are alike, few enough to make at once."""
_WORDS = 4_000


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A load. `payload_bytes` are those of input and output together, `ids` what the event ids are.

    `slice_events`: after this number of events the producer waits until it is told to continue; 0: never.
    `spread`: ``zipf`` (the workspace of rank n has 1/n of the first one's events), ``uniform`` or ``hot`` (all one's).
    """

    events: int
    workspaces: int = 1_000
    spread: Literal["zipf", "uniform", "hot"] = "zipf"
    payload_bytes: int = 0
    ids: Literal["uuid7", "random"] = "uuid7"
    seed: int = 1
    slice_events: int = 0

    def share(self, part: int, parts: int) -> Load:
        """The load of one of several producers."""
        events = self.events // parts + (part < self.events % parts)
        return msgspec.structs.replace(self, events=events, seed=self.seed * 1_000 + part)

    def workspace_ids(self) -> list[str]:
        """Whose the events are, in order."""
        rng = random.Random(self.seed)
        if self.spread == "hot":
            return [workspace_id(0)] * self.events
        weights = None if self.spread == "uniform" else zipf(self.workspaces)
        names = [workspace_id(number) for number in range(self.workspaces)]
        return rng.choices(names, cum_weights=weights, k=self.events)

    def texts(self) -> list[tuple[str | None, str | None]]:
        """Inputs and outputs to take in turn: words as frequent as in prose, so that they compress like it."""
        if not self.payload_bytes:
            return [(None, None)]
        rng = random.Random(self.seed)
        letters = "eeeeeeeetttttaaaaooooiiiinnnnsssshhhrrrdddlllcumwfgypbvk"
        words = ["".join(rng.choices(letters, k=rng.randrange(1, 11))) for _ in range(_WORDS)]
        weights = zipf(_WORDS)

        def text() -> str:
            drawn = " ".join(rng.choices(words, cum_weights=weights, k=self.payload_bytes // 4))
            return drawn[: self.payload_bytes // 2]

        return [(text(), text()) for _ in range(TEXTS)]

    def event_ids(self) -> list[str | None]:
        """Ids to give; None where the SDK makes its own."""
        if self.ids == "uuid7":
            return [None] * self.events
        rng = random.Random(f"{self.seed} ids {uuid.uuid4()}")
        return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(self.events)]


def workspace_id(number: int) -> str:
    """Id of the workspace of this number; those of `benchmarks.generate` by default."""
    return f"ws-{number:06d}"


def zipf(count: int) -> list[float]:
    """Cumulated weights 1, 1/2, 1/3 …"""
    return list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))


def from_command_line() -> Load:
    """The load given as this program's argument."""
    return msgspec.json.decode(sys.argv[1], type=Load)


def wait_for_go() -> None:
    """Say that everything is ready, and begin when told to."""
    print("ready", flush=True)
    sys.stdin.readline()


def report(**values: float) -> None:
    """Hand the measurements to the benchmark."""
    print(json.dumps(values), flush=True)
