"""Where budgets stand: what is decided from what was spent, logged, and told to the flags."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from psycopg import Connection

from taximeter_db import flag_debts
from taximeter_db.budgets.announcing import announce
from taximeter_db.money import format_usd, from_numeric_text, numeric_text
from taximeter_db.sql import statements

WARNED: Final = "warned"
EXCEEDED: Final = "exceeded"
RESTORED: Final = "restored"
BY_USAGE, BY_PERIOD, BY_SETTINGS, BY_REPRICING = "usage", "period", "settings", "repricing"
_SQL = statements("budgets")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Key = tuple[str, str]
"""Workspace and name of a budget."""


class Standing(NamedTuple):
    """What is known of a budget at a moment. Amounts in picodollars; the stored ones speak of the period `stored_start`."""

    workspace_id: str
    name: str
    limit: int
    hard: bool
    thresholds: Sequence[int]
    stored_start: dt.datetime
    stored_reached: int
    stored_exceeded: bool
    stored_due: dt.datetime | None
    rolling: bool
    window_start: dt.datetime
    spent: int
    usages: int
    ends_at: dt.datetime | None
    has_later: bool

    @property
    def key(self) -> Key:
        """Workspace and name."""
        return self.workspace_id, self.name

    @property
    def reached(self) -> int:
        """The highest threshold that is reached, in percent; 0: none is."""
        return max((percent for percent in self.thresholds if self.reaches(percent)), default=0)

    @property
    def exceeded(self) -> bool:
        """Whether the limit is used up."""
        return self.spent >= self.limit

    def reaches(self, percent: int) -> bool:
        """Whether so much of the limit is spent."""
        return self.spent * 100 >= self.limit * percent

    @property
    def due_at(self) -> dt.datetime | None:
        """When the period's end must be looked at; None while it could neither lift nor reach anything."""
        return self.ends_at if self.reached or self.exceeded or self.has_later else None


def time_of(moment: int) -> dt.datetime:
    """A moment in microseconds as a time."""
    return _EPOCH + dt.timedelta(microseconds=moment)


def sum_texts(*costs: str) -> str:
    """The sum of amounts as PostgreSQL writes them, written likewise."""
    return numeric_text(sum(map(from_numeric_text, costs)))


class Crossing(NamedTuple):
    """A budget crossed a threshold, upwards or downwards. Amounts in picodollars, `moment` in microseconds.

    `kind` is ``warned``, ``exceeded`` or ``restored``; `cause` ``usage``, ``period``, ``settings`` or ``repricing``; `cause_id` the
    event id of the usage, or who changed the settings.
    """

    workspace_id: str
    moment: int
    name: str
    kind: str
    percent: int
    spent: int
    limit: int
    hard: bool
    cause: str
    cause_id: str | None


class Cause(NamedTuple):
    """Why budgets are looked at: ``usage``, ``period``, ``settings`` or ``repricing``.

    `find` names the usage that made one reach an amount, or whoever changed something.
    """

    kind: str
    find: Callable[[Standing, int], str | None] = lambda _standing, _amount: None


def read(conn: Connection[Any], keys: Iterable[Key], moments: Mapping[str, int]) -> list[Standing]:
    """Where these budgets stand at their workspaces' moments (microseconds), sorted; unknown ones are left out."""
    keys = sorted(set(keys))
    rows = conn.execute(
        _SQL["standings"],
        {
            "workspace_ids": [workspace_id for workspace_id, _ in keys],
            "names": [name for _, name in keys],
            "moments": [moments[workspace_id] for workspace_id, _ in keys],
        },
    )
    return [_standing(row) for row in rows]


def _standing(row: Sequence[Any]) -> Standing:
    workspace_id, name, limit, *others, spent, usages, ends_at, has_later = row
    return Standing._make(
        [workspace_id, name, from_numeric_text(limit), *others, from_numeric_text(spent), usages, ends_at, has_later]
    )


def settle(conn: Connection[Any], keys: Iterable[Key], moments: Mapping[str, int], cause: Cause) -> dict[str, str]:
    """Note where these budgets stand now, and log what they crossed; within the transaction that moved them.

    Args:
        conn: holds the rows of the workspaces.
        keys: the budgets.
        moments: by workspace, the moment of the change in microseconds.
        cause: why.

    Returns:
        By workspace what its flag must say of budgets, where that changed; the debts of these flags are noted.
    """
    standings = read(conn, keys, moments)
    crossings = [crossing for standing in standings for crossing in crossed(standing, moments, cause)]
    _note(conn, [standing for standing in standings if _moved(standing)])
    _log(conn, crossings)
    flipped = {
        standing.workspace_id
        for standing in standings
        if standing.hard and standing.exceeded != standing.stored_exceeded
    }
    return tell(conn, flipped)


def crossed(standing: Standing, moments: Mapping[str, int], cause: Cause) -> list[Crossing]:
    """What a budget crossed since it was last noted: the end of its period, and thresholds of the present one.

    Of several thresholds that are reached at once, the highest is told.
    """
    same = standing.rolling or standing.stored_start == standing.window_start
    before, was_exceeded = (standing.stored_reached, standing.stored_exceeded) if same else (0, False)
    moment = moments[standing.workspace_id]

    def crossing(kind: str, percent: int, why: str, why_id: str | None) -> Crossing:
        spent, limit = standing.spent, standing.limit
        return Crossing(
            standing.workspace_id, moment, standing.name, kind, percent, spent, limit, standing.hard, why, why_id
        )

    crossings = []
    if standing.stored_exceeded and not (was_exceeded and standing.exceeded):
        of_period = cause.kind in {BY_USAGE, BY_PERIOD}
        why = BY_PERIOD if of_period else cause.kind
        crossings.append(crossing(RESTORED, standing.reached, why, None if of_period else cause.find(standing, 0)))
    percent, kind = standing.reached, WARNED
    if standing.exceeded and not was_exceeded:
        percent, kind = 100, EXCEEDED
    elif percent <= before or percent == 100:
        return crossings
    amount = -(-standing.limit * percent // 100)
    crossings.append(crossing(kind, percent, cause.kind, cause.find(standing, amount)))
    return crossings


def _moved(standing: Standing) -> bool:
    """Whether what is stored of it is out of date."""
    stored = (standing.stored_reached, standing.stored_exceeded)
    if stored != (standing.reached, standing.exceeded):
        return True
    if standing.rolling:
        # The stored moment is never later than the true one, so whoever comes then notes the next.
        return (standing.stored_due is None) != (standing.due_at is None) or _is_past(standing)
    return standing.stored_due != standing.due_at or (standing.stored_start != standing.window_start and any(stored))


def _is_past(standing: Standing) -> bool:
    due, ends = standing.stored_due, standing.due_at
    return due is not None and ends is not None and due < ends


def _note(conn: Connection[Any], standings: Sequence[Standing]) -> None:
    if not standings:
        return
    conn.execute(
        _SQL["stand"],
        {
            "workspace_ids": [standing.workspace_id for standing in standings],
            "names": [standing.name for standing in standings],
            "window_starts": [standing.window_start for standing in standings],
            "reached": [standing.reached for standing in standings],
            "exceeded": [standing.exceeded for standing in standings],
            "due_at": [standing.due_at for standing in standings],
        },
    )


def _log(conn: Connection[Any], crossings: Sequence[Crossing]) -> None:
    """Log crossings, and put their notices into the outbox."""
    if not crossings:
        return
    conn.execute(
        _SQL["cross"],
        {
            "workspace_ids": [crossing.workspace_id for crossing in crossings],
            "moments": [crossing.moment for crossing in crossings],
            "names": [crossing.name for crossing in crossings],
            "kinds": [crossing.kind for crossing in crossings],
            "percents": [crossing.percent for crossing in crossings],
            "spent": [numeric_text(crossing.spent) for crossing in crossings],
            "amounts": [numeric_text(crossing.limit) for crossing in crossings],
            "hard": [crossing.hard for crossing in crossings],
            "causes": [crossing.cause for crossing in crossings],
            "cause_ids": [crossing.cause_id for crossing in crossings],
        },
    )
    announce(conn, crossings)


def lift(conn: Connection[Any], key: Key, moment: int, by: str) -> None:
    """Log that a budget restricts nothing any more, before it is removed."""
    for standing in read(conn, [key], {key[0]: moment}):
        if standing.stored_exceeded:
            _log(
                conn,
                [
                    Crossing(
                        *(
                            key[0],
                            moment,
                            key[1],
                            RESTORED,
                            standing.reached,
                            standing.spent,
                            standing.limit,
                            standing.hard,
                        ),
                        BY_SETTINGS,
                        by,
                    )
                ],
            )


def forget(conn: Connection[Any], keys: Iterable[Key], moments: Mapping[str, int]) -> None:
    """Delete what these budgets' rolling hours have left behind."""
    rolling = [standing for standing in read(conn, keys, moments) if standing.rolling]
    if rolling:
        conn.execute(
            _SQL["forget"],
            {
                "workspace_ids": [standing.workspace_id for standing in rolling],
                "names": [standing.name for standing in rolling],
                "window_starts": [standing.window_start for standing in rolling],
            },
        )


def tell(conn: Connection[Any], workspace_ids: Iterable[str]) -> dict[str, str]:
    """Note what these workspaces' flags must say of budgets, and that the flags are owed; returns it by workspace."""
    texts = {workspace_id: _used_up(conn, workspace_id) for workspace_id in sorted(workspace_ids)}
    for workspace_id, text in texts.items():
        conn.execute(_SQL["tell"], {"workspace_id": workspace_id, "text": text})
    if texts:
        flag_debts.note(conn, texts)
    return texts


def _used_up(conn: Connection[Any], workspace_id: str) -> str:
    """The field ``budgets`` of a flag: a JSON list of the hard budgets that are used up.

    Each is an object: ``name``, ``limit`` (USD) and ``period``; ``user``, ``tool``, ``model`` and ``tag`` (key and value), those
    that a call must bear to be concerned; and ``until``, when the period ends, where that is known.
    """
    budgets = []
    for name, limit, period, hours, user, tool, model, tag, value, until in conn.execute(
        _SQL["used_up"], {"workspace_id": workspace_id}
    ):
        budget: dict[str, Any] = {
            "name": name,
            "limit": format_usd(from_numeric_text(limit)),
            "period": f"{period}:{hours}" if hours else period,
            "user": user,
            "tool": tool,
            "model": model,
            "tag": None if tag is None else [tag, value],
            "until": None if until is None else until.astimezone(dt.UTC),
        }
        budgets.append({key: given for key, given in budget.items() if given is not None})
    return msgspec.json.encode(budgets).decode()
