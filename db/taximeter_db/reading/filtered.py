"""Usages that match a filter, and their totals, by way of the rollups and of the sorted ids."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import money, rollups
from taximeter_db.reading.usages import UsageRow, pick
from taximeter_db.sql import statement

_ORDERS: Final = ("ASC", "DESC")
_MATCH = {order: statement("match_usages").replace("{order}", order) for order in _ORDERS}
_RUNS = {
    "ASC": "generate_series(%(first_run)s::bigint, %(last_run)s::bigint)",
    "DESC": "generate_series(%(last_run)s::bigint, %(first_run)s::bigint, -1)",
}
_IDS = {order: statement("match_ids").replace("{runs}", _RUNS[order]).replace("{order}", order) for order in _ORDERS}
# The newest usages, whose run is not whole yet.
_NEWEST_IDS = """
SELECT seq FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s AND seq > %(after)s AND seq < %(before)s
  AND event_id COLLATE "C" >= %(low)s AND event_id COLLATE "C" < %(high)s
"""
_ALSO = """
SELECT seq, cost::text FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s AND seq = ANY(%(seqs)s)
  AND recorded_at >= %(since)s AND recorded_at < %(until)s
  AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR coalesce(model, '') = %(model)s)
  AND (%(cost_min)s::numeric IS NULL OR cost >= %(cost_min)s)
"""
# Running totals: what fell into a period is the difference of two rows of each tool, model and band.
_TOTALS = """
SELECT coalesce(sum(u.usages_total - coalesce(s.usages_total, 0)), 0)::bigint,
       coalesce(sum(u.cost_total - coalesce(s.cost_total, 0)), 0)::numeric(27,12)::text
FROM taximeter.usage_names AS k
CROSS JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.usage_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
      AND r.slot < %(until)s
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS u
LEFT JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.usage_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
      AND r.slot < %(since)s
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS s ON true
WHERE k.workspace_id = %(workspace_id)s AND k.band >= %(band)s
  AND (%(tool)s::text IS NULL OR k.tool = %(tool)s) AND (%(model)s::text IS NULL OR k.model = %(model)s)
"""
_NAMES = """
SELECT DISTINCT tool, model FROM taximeter.usage_names WHERE workspace_id = %s ORDER BY tool, model LIMIT 500
"""
_EVER: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NEVER: Final = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)
_LAST: Final = 2**62
_CANDIDATES: Final = 500
"""Ids that are looked at in one step where something else must match, too."""
_STEPS_MAX: Final = 20
COUNT_MAX: Final = 10_000
"""Up to so many matches of an id's start are counted unasked."""
COSTED_MAX: Final = 1_000
"""Up to so many of them are added up unasked."""
LEAST: Final = {money.parse_usd(text): place for place, text in enumerate(rollups.BANDS, start=1)}
"""The least costs that can be asked for, in picodollars, and the band at which each begins."""


class Filter(msgspec.Struct, frozen=True):
    """What to look for; None: anything. `since` and `until` (excluded) at quarter-hours; `cost_min` one of `LEAST`.

    `id_start` is of printable ASCII, as ids are.
    """

    tool: str | None = None
    model: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    cost_min: int | None = None
    id_start: str | None = None

    @property
    def empty(self) -> bool:
        """Whether everything matches."""
        return self == Filter()

    def parameters(self, workspace_id: str) -> dict[str, Any]:
        """For the statements. Raises KeyError for a least cost that has no band."""
        return {
            "workspace_id": workspace_id,
            "tool": self.tool,
            "model": self.model,
            "since": self.since or _EVER,
            "until": self.until or _NEVER,
            "band": 0 if self.cost_min is None else LEAST[self.cost_min],
            "cost_min": None if self.cost_min is None else money.numeric_text(self.cost_min),
            "low": self.id_start,
            "high": None if self.id_start is None else self.id_start + "\x7f",
        }


class Totals(msgspec.Struct, frozen=True):
    """How many match and what they cost in picodollars; `cost` is None where it was not added up.

    `more` says that there are more than `usages`: counting stopped there.
    """

    usages: int
    cost: int | None
    more: bool = False


class Page(msgspec.Struct, frozen=True):
    """Matches in order. `place` is where the search stopped before the page was full and before everything was seen."""

    rows: list[UsageRow]
    place: int | None = None


def matches(
    conn: Connection[Any],
    workspace_id: str,
    wanted: Filter,
    *,
    after: int = 0,
    before: int = _LAST,
    newest: bool = True,
    limit: int = 21,
) -> list[UsageRow]:
    """The next matches with a number between `after` and `before`, from one end or the other."""
    return search(conn, workspace_id, wanted, after=after, before=before, newest=newest, limit=limit).rows


def search(
    conn: Connection[Any],
    workspace_id: str,
    wanted: Filter,
    *,
    after: int = 0,
    before: int = _LAST,
    newest: bool = True,
    limit: int = 21,
    known: list[int] | None = None,
) -> Page:
    """As `matches`, saying where the search stopped if it did not see everything (ids that match, of which few else do).

    `known` is what `ids` found.
    """
    if wanted.id_start is None:
        values = {**wanted.parameters(workspace_id), "after": after, "before": before, "limit": limit}
        found = conn.execute(_MATCH["DESC" if newest else "ASC"], values)
        return Page(pick(conn, workspace_id, [row[0] for row in found]))
    seqs: list[int] = []
    others = msgspec.structs.replace(wanted, id_start=None)
    if known is not None and len(known) > COUNT_MAX:
        known = None  # not all of them, and where so many match, a page is found soon
    for _ in range(_STEPS_MAX):
        step = limit if others.empty else _CANDIDATES
        span: dict[str, Any] = {"after": after, "before": before, "newest": newest, "limit": step}
        candidates = _by_id(conn, workspace_id, wanted, **span) if known is None else _among(known, **span)
        if others.empty:
            seqs = candidates
            break
        seqs += [seq for seq, _ in _also(conn, workspace_id, wanted, candidates, newest=newest)]
        if len(candidates) < step or len(seqs) >= limit:
            break
        after, before = (after, candidates[-1]) if newest else (candidates[-1], before)
    else:
        return Page(pick(conn, workspace_id, seqs[:limit]), before if newest else after)
    return Page(pick(conn, workspace_id, seqs[:limit]))


def ids(conn: Connection[Any], workspace_id: str, wanted: Filter) -> list[int] | None:
    """The numbers of the usages whose id begins as wanted, newest first, for `totals` and `search`: looked up once for both.

    One more than `COUNT_MAX` at most: so many say that there are more. None where no id is asked for.
    """
    if wanted.id_start is None:
        return None
    return _by_id(conn, workspace_id, wanted, after=0, before=_LAST, newest=True, limit=COUNT_MAX + 1)


def _among(known: list[int], *, after: int, before: int, newest: bool, limit: int) -> list[int]:
    """The next of some numbers that run downwards."""
    within = [seq for seq in known if after < seq < before]
    return within[:limit] if newest else within[::-1][:limit]


def _by_id(
    conn: Connection[Any], workspace_id: str, wanted: Filter, *, after: int, before: int, newest: bool, limit: int
) -> list[int]:
    """The next numbers of usages whose id begins as wanted, as far as the rollups reach."""
    reached, _ = rollups.progress(conn, workspace_id)
    whole = reached // rollups.ID_RUN_USAGES * rollups.ID_RUN_USAGES
    values = {**wanted.parameters(workspace_id), "limit": limit}

    def in_tail() -> list[int]:
        span = {"after": max(after, whole), "before": min(before, reached + 1)}
        if span["after"] + 1 >= span["before"]:
            return []
        found = [row[0] for row in conn.execute(_NEWEST_IDS, {**values, **span})]
        return sorted(found, reverse=newest)

    def in_runs(rest: int) -> list[int]:
        first, last = max(after, 0) // rollups.ID_RUN_USAGES, (min(before - 1, whole) - 1) // rollups.ID_RUN_USAGES
        if rest <= 0 or last < first:
            return []
        span = {"after": after, "before": before, "first_run": first, "last_run": last, "limit": rest}
        return [row[0] for row in conn.execute(_IDS["DESC" if newest else "ASC"], {**values, **span})]

    if newest:
        tail = in_tail()[:limit]
        return tail + in_runs(limit - len(tail))
    runs = in_runs(limit)
    return runs + in_tail()[: limit - len(runs)] if len(runs) < limit else runs


def _also(
    conn: Connection[Any], workspace_id: str, wanted: Filter, seqs: list[int], *, newest: bool
) -> list[tuple[int, int]]:
    """Those of some usages that match the rest of a filter, with their costs, in order."""
    found = conn.execute(_ALSO, {**wanted.parameters(workspace_id), "seqs": seqs})
    return sorted(((seq, money.from_numeric_text(cost)) for seq, cost in found), reverse=newest)


def totals(
    conn: Connection[Any], workspace_id: str, wanted: Filter, *, exactly: bool = False, known: list[int] | None = None
) -> Totals:
    """How many match and what they cost.

    Maintained, but for the start of an id: those are counted up to `COUNT_MAX`, or, if `exactly` is wanted, all of them,
    however long it takes. `known` is what `ids` found.
    """
    if wanted.id_start is None:
        row = conn.execute(_TOTALS, wanted.parameters(workspace_id)).fetchone()
        return Totals(row[0], money.from_numeric_text(row[1])) if row else Totals(0, 0)
    seqs = known if known is not None else ids(conn, workspace_id, wanted) or []
    if not exactly and msgspec.structs.replace(wanted, id_start=None).empty:
        if len(seqs) > COSTED_MAX:
            return Totals(min(len(seqs), COUNT_MAX), None, more=len(seqs) > COUNT_MAX)
        return Totals(len(seqs), sum(cost for _, cost in _also(conn, workspace_id, wanted, seqs, newest=True)))
    usages, cost, seqs = 0, 0, seqs[:COUNT_MAX]
    while True:
        found = _also(conn, workspace_id, wanted, seqs[: None if exactly else COSTED_MAX], newest=True)
        usages, cost = usages + len(found), cost + sum(one for _, one in found)
        if not exactly:
            whole = len(seqs) <= COSTED_MAX
            return Totals(usages, cost if whole else None, more=not whole)
        if len(seqs) < COUNT_MAX:
            return Totals(usages, cost)
        seqs = _by_id(conn, workspace_id, wanted, after=0, before=seqs[-1], newest=True, limit=COUNT_MAX)


def names(conn: Connection[Any], workspace_id: str) -> tuple[list[str], list[str]]:
    """Tools and models that were ever used; the first 500 pairs."""
    found = conn.execute(_NAMES, [workspace_id]).fetchall()
    return sorted({row[0] for row in found}), sorted({row[1] for row in found if row[1]})
