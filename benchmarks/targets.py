"""What the benchmarks are held to: a must and an aim for each figure, in the order of the final table."""

from __future__ import annotations

from typing import Literal

import msgspec

Unit = Literal["x", "/s", "ms", "us", "%"]


class Target(msgspec.Struct, frozen=True):
    """A figure's name, unit and bounds. `better` says in which direction it is good."""

    title: str
    unit: Unit
    must: float
    aim: float
    better: Literal["more", "less"] = "more"

    def reached(self, value: float) -> Literal["aim", "must", "missed"]:
        """How far a value comes."""
        sign = 1 if self.better == "more" else -1
        if sign * value >= sign * self.aim:
            return "aim"
        return "must" if sign * value >= sign * self.must else "missed"


TARGETS: dict[str, Target] = {
    "narrow/floor": Target("end to end, narrow, Zipf over 1,000: against one task an event", "x", 150, 250),
    "narrow/copy": Target("the same, against COPY straight to the table + debit", "x", 0.45, 0.65),
    "narrow/dramatiq": Target("the same, against dramatiq actors on the same messages and SQL", "x", 1.0, 1.2),
    "wide/narrow": Target("wide events (2 KB) against narrow", "x", 0.35, 0.5),
    "hot/zipf": Target("one hot workspace against Zipf", "x", 1.0, 1.3),
    "uniform/zipf": Target("100,000 uniform workspaces against Zipf", "x", 0.5, 0.65),
    "foreign/floor": Target("one event a message, several producers: against one task an event", "x", 10, 18),
    "large/empty": Target("a large log against an empty one: rate", "x", 0.9, 1.0),
    "large/empty WAL": Target("the same: write-ahead log an event", "x", 1.2, 1.05, "less"),
    "random/uuid7": Target("random foreign ids against UUIDv7 on a large log", "x", 0.4, 0.6),
    "flip 500/s": Target("publish to enabled() false elsewhere, 500/s: p99", "ms", 40, 15, "less"),
    "flip 2,000/s": Target("the same at 2,000/s: p99", "ms", 80, 40, "less"),
    "enabled/get": Target("enabled() in process against a Redis GET", "x", 100, 300),
    "record up p50": Target("record(), broker up: p50", "us", 10, 6, "less"),
    "record up p99": Target("record(), broker up: p99", "us", 500, 150, "less"),
    "record down p50": Target("record(), broker down: p50", "us", 10, 6, "less"),
    "record down p99": Target("record(), broker down: p99", "us", 500, 150, "less"),
    "confirmed": Target("record() to the last confirm, one process", "/s", 60_000, 90_000),
    "page 1": Target("page 1 of a large workspace, in the database", "ms", 10, 2, "less"),
    "page deep": Target("the page in the middle of it", "ms", 10, 2, "less"),
    "page filtered": Target("a filtered page", "ms", 10, 2, "less"),
    "summary": Target("the summary", "ms", 10, 2, "less"),
    "verify": Target("verify", "/s", 500_000, 1_000_000),
    "rebuild": Target("flags rebuild, workspaces", "/s", 50_000, 100_000),
    "memory": Target("worker memory: growth after the warm-up", "%", 5, 2, "less"),
}
