"""Usages that match a filter, and their totals, by way of the rollups and of the sorted ids."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, select

from taximeter_db import money
from taximeter_db.core import Statement
from taximeter_db.ledger import rollups
from taximeter_db.models.page import UsageName
from taximeter_db.queries import labels
from taximeter_db.queries.usages import UsageRow, pick
from taximeter_db.sql import statement, statements

_ORDERS: Final = ("ASC", "DESC")
_MATCH = {order: statement("match_usages").replace("{order}", order) for order in _ORDERS}
_RUNS = {
    "ASC": "generate_series(%(first_run)s::bigint, %(last_run)s::bigint)",
    "DESC": "generate_series(%(last_run)s::bigint, %(first_run)s::bigint, -1)",
}
_IDS = {order: statement("match_ids").replace("{runs}", _RUNS[order]).replace("{order}", order) for order in _ORDERS}
_NEWEST = statements("match_newest_usages")
_TOTALS = statements("rolled_up_totals")["filtered"]
_NAMES = Statement(
    select(UsageName.tool, UsageName.model)
    .distinct()
    .where(UsageName.workspace_id == bindparam("workspace_id"))
    .order_by(UsageName.tool, UsageName.model)
    .limit(2 * rollups.NAMES_MAX + 1)
)
_EVER: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NEVER: Final = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)
LAST: Final = 2**62
"""Larger than any number of a usage."""
_CANDIDATES: Final = 500
"""Ids that are looked at in one step where something else must match, too."""
_STEPS_MAX: Final = 20
COUNT_MAX: Final = 10_000
"""How many matches of an id's start are counted unless all are asked for."""
COSTED_MAX: Final = 1_000
"""How many of them are added up, likewise."""
LEAST: Final = {money.parse_usd(text): place for place, text in enumerate(rollups.BANDS, start=1)}
"""The least costs that can be asked for, in picodollars, and the band at which each begins."""


class Filter(msgspec.Struct, frozen=True):
    """What to look for; None: anything. `since` and `until` (excluded) at quarter-hours; `cost_min` one of `LEAST`.

    `id_start` is of printable ASCII, as ids are. `tag` is a key with its text.
    """

    tool: str | None = None
    model: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    cost_min: int | None = None
    id_start: str | None = None
    user: str | None = None
    tag: tuple[str, str] | None = None

    @property
    def label(self) -> tuple[str, str] | None:
        """The label and value that lead a search, if a user or a tag is wanted."""
        if self.user is not None:
            return rollups.USER, self.user
        return None if self.tag is None else (rollups.TAG + self.tag[0], self.tag[1])

    @property
    def label_alone(self) -> bool:
        """Whether nothing but one label, or a label and a period, is wanted: what the rollups of labels total."""
        return self.label is not None and self in (
            Filter(user=self.user, since=self.since, until=self.until),
            Filter(tag=self.tag, since=self.since, until=self.until),
        )

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
            "user_id": self.user,
            "tag_key": None if self.tag is None else self.tag[0],
            "tag_value": None if self.tag is None else self.tag[1],
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


class Window(msgspec.Struct, frozen=True):
    """Which matches: the next `limit` with a number between `after` and `before`, from the newest or the oldest on."""

    after: int = 0
    before: int = LAST
    newest: bool = True
    limit: int = 21


def matches(
    conn: Connection[Any],
    workspace_id: str,
    wanted: Filter,
    window: Window = Window(),  # noqa: B008 -- frozen
) -> list[UsageRow]:
    """The matches of a window."""
    return search(conn, workspace_id, wanted, window).rows


def search(
    conn: Connection[Any],
    workspace_id: str,
    wanted: Filter,
    window: Window = Window(),  # noqa: B008 -- frozen
    known: list[int] | None = None,
) -> Page:
    """As `matches`, saying where the search stopped if it did not see everything (ids that match, of which few else do).

    `known` is what `ids` found.
    """
    if wanted.label is not None:
        span: dict[str, Any] = {**wanted.parameters(workspace_id), "after": window.after, "before": window.before}
        return _by_label(conn, workspace_id, wanted, span, newest=window.newest, limit=window.limit)
    if wanted.id_start is None:
        values = {
            **wanted.parameters(workspace_id),
            "after": window.after,
            "before": window.before,
            "limit": window.limit,
        }
        found = conn.execute(_MATCH["DESC" if window.newest else "ASC"], values)
        return Page(pick(conn, workspace_id, [row[0] for row in found]))
    seqs: list[int] = []
    others = msgspec.structs.replace(wanted, id_start=None)
    if known is not None and len(known) > COUNT_MAX:
        known = None  # not all of them, and where that many match, a page is found soon
    step = window.limit if others.empty else _CANDIDATES
    rest = msgspec.structs.replace(window, limit=step)
    for _ in range(_STEPS_MAX):
        candidates = _by_id(conn, workspace_id, wanted, rest) if known is None else _among(known, rest)
        if others.empty:
            seqs = candidates
            break
        seqs += [seq for seq, _ in _also(conn, workspace_id, wanted, candidates, newest=window.newest)]
        if len(candidates) < step or len(seqs) >= window.limit:
            break
        end = {"before" if window.newest else "after": candidates[-1]}
        rest = msgspec.structs.replace(rest, **end)
    else:
        return Page(pick(conn, workspace_id, seqs[: window.limit]), rest.before if window.newest else rest.after)
    return Page(pick(conn, workspace_id, seqs[: window.limit]))


def _by_label(
    conn: Connection[Any], workspace_id: str, wanted: Filter, span: dict[str, Any], *, newest: bool, limit: int
) -> Page:
    """The next matches of a filter by user or tag. Where other things must match too, stretches may hold none."""
    label, value = wanted.label or ("", "")
    stretches_max = limit + 1 if wanted.label_alone else labels.STRETCHES_MAX
    found = labels.stretches(conn, label, value, span, newest=newest, limit=stretches_max)
    seqs = [seq for seq, _ in labels.within(conn, found, span, newest=newest, limit=limit)]
    rows = pick(conn, workspace_id, seqs)
    if len(seqs) >= limit or len(found) < stretches_max:
        return Page(rows)
    return Page(rows, found[-1][0] if newest else found[-1][1])


def _label_totals(conn: Connection[Any], workspace_id: str, wanted: Filter, *, exactly: bool) -> Totals:
    label, value = wanted.label or ("", "")
    if wanted.label_alone:
        edges = [wanted.since or _EVER, wanted.until or _NEVER]
        before, upto = labels.at_edges(conn, workspace_id, label, [value], edges)[value]
        return Totals(upto[0] - before[0], upto[1] - before[1])
    span: dict[str, Any] = {**wanted.parameters(workspace_id), "after": 0, "before": LAST}
    usages, cost = 0, 0
    while True:
        found = labels.stretches(conn, label, value, span, newest=True, limit=labels.STRETCHES_MAX)
        matches_of = labels.within(conn, found, span, newest=True, limit=LAST)
        usages, cost = usages + len(matches_of), cost + sum(one for _, one in matches_of)
        if len(found) < labels.STRETCHES_MAX:
            return Totals(usages, cost)
        if not exactly:
            return Totals(usages, None, more=True)
        span["before"] = found[-1][0]


def ids(conn: Connection[Any], workspace_id: str, wanted: Filter) -> list[int] | None:
    """The numbers of the usages whose id begins as wanted, newest first, for `totals` and `search`: looked up once for both.

    One more than `COUNT_MAX` at most: that many say that there are more. None where no id is asked for.
    """
    if wanted.id_start is None or wanted.label is not None:
        return None
    return _by_id(conn, workspace_id, wanted, Window(limit=COUNT_MAX + 1))


def _among(known: list[int], window: Window) -> list[int]:
    """The next of some numbers that run downwards."""
    within = [seq for seq in known if window.after < seq < window.before]
    return within[: window.limit] if window.newest else within[::-1][: window.limit]


def _by_id(conn: Connection[Any], workspace_id: str, wanted: Filter, window: Window) -> list[int]:
    """The next numbers of usages whose id begins as wanted, as far as the rollups reach."""
    after, before, newest, limit = msgspec.structs.astuple(window)
    reached, _ = rollups.progress(conn, workspace_id)
    whole = reached // rollups.ID_RUN_USAGES * rollups.ID_RUN_USAGES
    values = {**wanted.parameters(workspace_id), "limit": limit}

    def in_tail() -> list[int]:
        span = {"after": max(after, whole), "before": min(before, reached + 1)}
        if span["after"] + 1 >= span["before"]:
            return []
        found = [row[0] for row in conn.execute(_NEWEST["ids"], {**values, **span})]
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
    found = conn.execute(_NEWEST["among"], {**wanted.parameters(workspace_id), "seqs": seqs})
    return sorted(((seq, money.from_numeric_text(cost)) for seq, cost in found), reverse=newest)


def totals(
    conn: Connection[Any], workspace_id: str, wanted: Filter, *, exactly: bool = False, known: list[int] | None = None
) -> Totals:
    """How many match and what they cost.

    Maintained, but for the start of an id: those are counted up to `COUNT_MAX`, or, if `exactly` is wanted, all of them,
    however long it takes. `known` is what `ids` found.
    """
    if wanted.label is not None:
        return _label_totals(conn, workspace_id, wanted, exactly=exactly)
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
        seqs = _by_id(conn, workspace_id, wanted, Window(before=seqs[-1], limit=COUNT_MAX))


class Names(msgspec.Struct, frozen=True):
    """The pairs of tool and model that the rollups name; `more` where others are counted under `rollups.OTHER`."""

    pairs: frozenset[tuple[str, str]]
    more: bool

    @property
    def tools(self) -> list[str]:
        """The tools that a filter can offer."""
        return sorted({tool for tool, _ in self.pairs})

    @property
    def models(self) -> list[str]:
        """The models that a filter can offer."""
        return sorted({model for _, model in self.pairs if model})


def names(conn: Connection[Any], workspace_id: str) -> Names:
    """Tools and models that were ever used, as far as the rollups name them."""
    pairs = _NAMES.all(conn, workspace_id=workspace_id)
    named = frozenset((tool, model) for tool, model in pairs if model != rollups.OTHER)
    return Names(named, len(named) < len(pairs))


def unnamed(conn: Connection[Any], workspace_id: str, wanted: Filter) -> str | None:
    """Which of the wanted names may be counted among others, so that not all could be found.

    ``tool``, ``model``, ``user`` or ``tag``. Where a user or tag leads the search, tool and model are read from the log.
    """
    if wanted.label is not None:
        known_labels, (label, value) = labels.of(conn, workspace_id), wanted.label
        unsure = label in known_labels.others or (known_labels.more and wanted.user is None)
        lost = unsure and not labels.named(conn, workspace_id, label, value)
        return ("tag" if wanted.user is None else "user") if lost else None
    if wanted.tool is None and wanted.model is None:
        return None
    known = names(conn, workspace_id)
    if not known.more:
        return None
    if wanted.tool is not None and wanted.tool not in known.tools:
        return "tool"
    # Where a tool has models among the others, a model alone may be one of them.
    complete = wanted.model is None or (wanted.tool, wanted.model) in known.pairs
    return None if complete else "model"
