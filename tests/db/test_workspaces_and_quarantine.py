from __future__ import annotations

import pytest

from taximeter_db import flag_debts, quarantine, workspaces
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Rejected

USD = 10**12


def test_settings_create_change_and_keep_what_is_not_named(conn):
    state = workspaces.set_limits(conn, "a", minimum=-USD)
    assert (state.minimum, state.low, state.version) == (-USD, 0, 0)
    state = workspaces.set_limits(conn, "a", low=USD)
    assert (state.minimum, state.low, state.version) == (-USD, USD, 1)
    assert state.status == "low"


def test_a_minimum_above_the_threshold_is_refused_whole(conn):
    workspaces.set_limits(conn, "a", minimum=-USD, low=USD)
    with pytest.raises(SettingsError, match="above its low-balance threshold"):
        workspaces.set_limits(conn, "a", minimum=2 * USD)
    assert workspaces.get(conn, "a").minimum == -USD


def test_a_new_workspace_with_a_high_minimum_warns_from_there(conn):
    state = workspaces.set_limits(conn, "a", minimum=5 * USD)
    assert (state.minimum, state.low, state.enabled) == (5 * USD, 5 * USD, False)


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "naïve", "a\n"])
def test_malformed_ids_are_refused(conn, name: str):
    with pytest.raises(SettingsError, match="is not a workspace id"):
        workspaces.set_limits(conn, name)


def test_an_unknown_workspace_is_said_so(conn):
    with pytest.raises(NotFoundError, match="Its balance is 0 and AI is enabled"):
        workspaces.get(conn, "nobody")


def test_quarantine_lists_counts_and_resolves_once(conn):
    entries = [Rejected("bad_json", "Broken.", f"{{{n}".encode()) for n in range(3)]
    entries.append(Rejected("price_missing", "No price.", b"{}", workspace_id="a", event_id="e", kind="usage"))
    booking.book(conn, [], rejected=entries)
    assert quarantine.open_counts(conn) == {"bad_json": 3, "price_missing": 1}
    (mine,) = quarantine.find(conn, workspace_id="a")
    assert (mine.event, mine.reason, mine.event_id, mine.resolved_at) == (b"{}", "price_missing", "e", None)
    page = quarantine.find(conn, reason="bad_json", limit=2)
    assert len(page) == 2
    assert len(quarantine.find(conn, reason="bad_json", after=page[-1].id)) == 1

    with pytest.raises(ValueError, match="Say why"):
        quarantine.dismiss(conn, mine.id, by="ann", note=" ")
    done = quarantine.dismiss(conn, mine.id, by="ann", note="a test event")
    assert (done.resolution, done.resolved_by, done.resolution_note) == ("dismissed", "ann", "a test event")
    with pytest.raises(NotFoundError, match="resolved before"):
        quarantine.dismiss(conn, mine.id, by="bob", note="again")
    with pytest.raises(NotFoundError, match="There is no quarantine entry"):
        quarantine.get(conn, 10**9)
    assert quarantine.find(conn, workspace_id="a") == []
    assert len(quarantine.find(conn, workspace_id="a", resolved=True)) == 1


def test_epochs_only_grow(conn):
    first = flag_debts.epoch(conn)
    assert flag_debts.next_epoch(conn) == first + 1
    assert flag_debts.next_epoch(conn, above=40) == 41
    assert flag_debts.epoch(conn) == 41


def test_states_of_all_workspaces_come_in_chunks(conn, usage):
    booking.book(conn, [usage(f"w{n:03d}") for n in range(25)])
    chunks = list(flag_debts.all_states(conn, chunk=10))
    assert [len(chunk) for chunk in chunks] == [10, 10, 5]
    assert [state.workspace_id for chunk in chunks for state in chunk] == [f"w{n:03d}" for n in range(25)]


def test_a_debt_renewed_while_it_was_paid_stays(conn):
    flag_debts.note(conn, ["a", "b", "a"])
    debts = flag_debts.owed(conn)
    assert [name for name, _ in debts] == ["a", "b"]
    flag_debts.note(conn, ["a"])
    flag_debts.settle(conn, debts)
    assert [name for name, _ in flag_debts.owed(conn)] == ["a"]
