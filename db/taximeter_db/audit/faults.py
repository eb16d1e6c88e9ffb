"""What verify can find wrong."""

from __future__ import annotations

import msgspec

_SENTENCES = {
    "gap": "an entry of the log is missing, moved or numbered twice at entry {entry}",
    "running": "the balance stored after entry {entry} is not the sum of the log up to there",
    "chain": "entries {entry} to {upto} are not what was booked: the hash chain breaks there",
    "total": "the balance is {stored}, but its log adds up to {computed}, or a counter differs",
    "end": "the last entries of the log are missing or were replaced: the hash chain ends elsewhere",
    "checkpoint": "the log up to entry {entry} is not the one the checkpoint was made of: it was rewritten or cut off",
    "orphan": "the log has entries of a workspace that does not exist",
    "keys": "the {stored} idempotency keys are not those of the {computed} usages: an event could be booked a second time",
    "twice": "event {stored} was booked twice, the second time as entry {entry}",
    "prices": "revision {stored} of the price book is not what was written: a price, an alias or a reason was changed",
    "limits": "the {field} limit is {stored}, but the last that was written down of it is {computed}",
    "rollups": "the totals that the page shows do not add up to the log",
    "budget": "budget {field} counts {stored} from {since} on, but the log says {computed}: `taximeter budget set` with the same"
    " terms counts it again",
    "detached": "the log from {stored} to {computed} is detached: attach its partitions, nothing else was compared",
}


class Fault(msgspec.Struct, frozen=True):
    """Something that does not agree. `workspace_id` is empty where it concerns the whole ledger.

    `entry` counts a workspace's usages and payments together; where a fault can only be narrowed down to what was booked
    at once, `upto` is the last entry of that. `since` is the start of the slice of time in which a counter is wrong.
    """

    workspace_id: str
    kind: str
    entry: int | None = None
    stored: str | None = None
    computed: str | None = None
    upto: int | None = None
    field: str | None = None
    since: str | None = None

    @property
    def sentence(self) -> str:
        """What is wrong, for a person."""
        about = f"{self.workspace_id}: " if self.workspace_id else ""
        text = _SENTENCES[self.kind].format(
            entry=self.entry,
            upto=self.upto,
            stored=self.stored,
            computed=self.computed,
            field=self.field,
            since=self.since,
        )
        return about + text
