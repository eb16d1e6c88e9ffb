"""What the flag writers note in Redis about the flags as a whole: whether they are all there, and how far the database was.

Keys:
    taximeter:flags:ready   string, present while the cache is warm. For flags the SDK reads only whether it is there. Its
                            value, JSON: ``epoch`` of the rebuild that wrote it, ``flags`` it wrote, and the ``run`` of the
                            server then. The workers believe it only as long as the server's run, the number of its keys
                            and the database's epoch bear it out; else they delete it and rebuild.
                            And for holds (``holds.lua`` of the SDK, which grants none without all of these):
                            ``holds_from``, the server's time in milliseconds from which they are granted,
                            ``hold_ms_max``, the longest they live without being renewed, and ``minimum``, the
                            minimum balance of a workspace that has no balance here yet.
    taximeter:place         string: system id, timeline and WAL position of the database when its flags were last looked
                            after. It changes every second, so its name is not among those whose changes are pushed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import redis

from taximeter import names
from taximeter_db.flag_debts import ClusterPosition
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.money import MINIMUM_BALANCE_DEFAULT, format_usd
from taximeter_worker.flags.connecting import Client, ServerState
from taximeter_worker.flags.scripts import read_lua, run_even_when_full

_SET_LUA = read_lua("set.lua")
KEYS_PER_FLAG = 2
"""Flag and balance."""


HOLD_SECONDS_MAX = 60


class HoldTerms(msgspec.Struct, frozen=True):
    """On what terms holds are granted: how long one lives unless it is renewed, and a new workspace's minimum balance."""

    seconds_max: int = HOLD_SECONDS_MAX
    minimum: int = MINIMUM_BALANCE_DEFAULT


class ReadyMark(msgspec.Struct, frozen=True):
    """What a rebuild says of the flags it wrote, and of holds."""

    epoch: int
    flags: int
    run: str
    holds_from: int | None = None
    """None: written by a version that knew no holds. It cannot say whether a newer version's had been lost before."""
    hold_ms_max: int = 0
    minimum: str = ""

    def under(self, terms: HoldTerms) -> ReadyMark:
        """The same with these terms."""
        return msgspec.structs.replace(self, hold_ms_max=terms.seconds_max * 1000, minimum=format_usd(terms.minimum))


def read_ready(client: Client) -> ReadyMark | None:
    """The mark; None where there is none, or one that this version did not write."""
    try:
        return msgspec.json.decode(client.get(names.FLAGS_READY) or "", type=ReadyMark)
    except (msgspec.DecodeError, redis.ResponseError):
        return None


def note_ready(client: Client, mark: ReadyMark) -> None:
    """Declare the cache warm."""
    run_even_when_full(client, _SET_LUA, [names.FLAGS_READY], [msgspec.json.encode(mark)])


def forget_ready(client: Client) -> None:
    """Declare the cache cold; the next flag watch rebuilds it."""
    client.delete(names.FLAGS_READY)


def why_cold(mark: ReadyMark | None, server: ServerState, epoch: int) -> str | None:
    """Why the flags are not to be believed, as a short sentence; None while the cache is warm.

    Args:
        mark: as Redis has it.
        server: the state of the server, read after the mark.
        epoch: the database's.
    """
    if mark is None:
        return "no rebuild has marked the flags as complete"
    if mark.run != server.run:
        return "the server is not the one that was filled: it was restarted, or a replica was promoted"
    if server.keys < KEYS_PER_FLAG * mark.flags + 1:
        return f"of {mark.flags} flags some are gone: the server has {server.keys} keys"
    if mark.epoch != epoch:
        return f"the flags are of epoch {mark.epoch}, the database is in epoch {epoch}"
    if mark.holds_from is None:
        return "the rebuild that marked them knew nothing of holds"
    return None


def holds_from(client: Client, mark: ReadyMark | None, server: ServerState, terms: HoldTerms, *, first: bool) -> int:
    """From which time of the server on holds may be granted again, in milliseconds; 0: at once.

    Holds that a server has lost were placed or renewed before now, so the last of them would have expired after the longest
    time that a hold lives. Until then nobody can know what is held.

    Args:
        client: the server.
        mark: as it was before this rebuild.
        server: its state.
        terms: under which the lost holds were granted.
        first: no rebuild ever marked the flags of this ledger as complete, so no hold was ever granted.
    """
    is_filled = mark is not None and mark.run == server.run and server.keys >= KEYS_PER_FLAG * mark.flags + 1
    if mark is not None and mark.holds_from is not None and is_filled:
        return mark.holds_from
    if first:
        return 0
    seconds, microseconds = client.time()
    longest_ms = max(terms.seconds_max * 1000, mark.hold_ms_max if mark is not None else 0)
    return int(seconds) * 1000 + int(microseconds) // 1000 + longest_ms


class Position(msgspec.Struct):
    """What Redis has of a workspace: (epoch, version) orders its states, and one version has one balance."""

    order: tuple[int, int] = (0, 0)
    balance: str | None = None

    def ahead_of(self, state: WorkspaceState) -> bool:
        """Whether this cannot have come from a database that now says `state`."""
        current = (state.epoch, state.version)
        return self.order > current or (
            self.order == current and self.balance is not None and self.balance != format_usd(state.balance)
        )


def read_positions(client: Client, workspace_ids: Iterable[str]) -> dict[str, Position]:
    """What Redis has of each workspace; an empty ``Position`` where it has nothing."""
    positions = {}
    for workspace_id in workspace_ids:
        newest = Position()
        for key in (names.balance_key(workspace_id), names.flag_key(workspace_id)):
            try:
                epoch, version, balance = client.hmget(key, "epoch", "version", "balance")
            except redis.ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                continue  # not written by us: the next write replaces it
            order = (count(epoch), count(version))
            if epoch and version and order > newest.order:
                newest = Position(order, balance)
        positions[workspace_id] = newest
    return positions


def note_cluster_position(client: Client, position: ClusterPosition) -> None:
    """Note how far the database was when its flags were last looked after."""
    run_even_when_full(client, _SET_LUA, [names.CLUSTER_POSITION], [" ".join(map(str, position))])


def read_cluster_position(client: Client) -> ClusterPosition | None:
    """How far it was then; None where nobody has noted it."""
    try:
        system, timeline, position = (client.get(names.CLUSTER_POSITION) or "").split(" ")
        return ClusterPosition(int(system), timeline, int(position))
    except (ValueError, redis.ResponseError):
        return None


def count(text: object) -> int:
    """An epoch or version as Redis has it; 0 for what our writers cannot have left, as in ``flags.lua``."""
    return int(text) if isinstance(text, str) and len(text) < 19 and text.isascii() and text.isdigit() else 0
