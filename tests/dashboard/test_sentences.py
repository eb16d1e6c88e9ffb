"""The sentence under the balance, in each of its cases."""

from __future__ import annotations

import datetime as dt

import pytest

from taximeter_dashboard.formatting import sentences, times
from taximeter_dashboard.formatting.amounts import MINUS
from taximeter_db.queries.summary import Summary
from taximeter_db.status_changes import StatusRow

CENT = 10**10
NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
RIGA = times.zone("Europe/Riga")


def _summary(balance: int, **other: int) -> Summary:
    values = {"usage_count": 20, "minimum": -12 * CENT, "low": 0, **other}
    return Summary("acme", balance=balance, known=True, **values)


def _said(balance: int, pace: sentences.Pace | None = None, cause: StatusRow | None = None, **other: int) -> str:
    found = sentences.sentence(_summary(balance, **other), pace, cause, NOW, RIGA)
    return "".join(piece.text for piece in found)


def _change(cause: str, seq: int | None, cause_id: str, amount: int | None, tool: str | None = None) -> StatusRow:
    at = dt.datetime(2026, 11, 22, 10, 32, 7, tzinfo=dt.UTC)
    limits = (-13 * CENT, -12 * CENT, 0)
    return StatusRow(1, at, "low", "insufficient", *limits, 21, cause, seq, cause_id, tool, amount)


def test_sufficient_says_until_when_it_lasts_and_what_a_top_up_would_buy():
    week = sentences.Pace(7 * 100 * CENT, 7 * 86400, "the last 7 days")
    assert _said(2688 * CENT, week) == (
        "AI is on. At the pace of the last 7 days this lasts until about 19 December (27 days)."
        " Adding $25 would last until about 13 January 2027."
    )


def test_a_forecast_ends_where_ai_stops_not_at_nothing():
    assert "(1 day)" in _said(88 * CENT, sentences.Pace(100 * CENT, 86400, "the last 7 days"))


def test_low():
    today = sentences.Pace(71 * CENT, 86400, "today")
    assert _said(-312 * CENT // 100, today) == (
        "AI is on, with a warning. $0.0888 left until it stops, about 3 hours at today's pace."
    )
    assert _said(-CENT) == ("AI is on, with a warning. $0.11 left until it stops. Not enough history for a forecast.")


def test_exactly_at_the_minimum():
    assert _said(-12 * CENT) == "AI is on. Nothing is left: the next cost switches it off."


def test_thin_history_and_a_new_workspace():
    assert _said(CENT) == "AI is on. Not enough history for a forecast."
    assert _said(0, usage_count=0) == "AI is on. Usages appear here about a second after the first call."


def test_insufficient_names_the_usage_and_rounds_what_is_needed_up_to_a_cent():
    change = _change("usage", 20, "0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11", -21 * CENT // 100, "chat")
    assert _said(-12 * CENT - 1, cause=change) == (
        "AI is off since 12:32:07. Usage 0199…9a11 (chat, $0.0021) switched it off."
        " $0.01 or more switches it on; $0.13 ends the warning."
    )
    pieces = sentences.sentence(_summary(-13 * CENT), None, change, NOW, RIGA)
    assert [piece.path for piece in pieces] == ["", "usages/20", ""]


@pytest.mark.parametrize(
    ("change", "text", "path"),
    [
        (_change("payment", 3, "p-1", -500 * CENT), f"Adjustment p-1 ({MINUS}$5.00)", "payments/3"),
        (_change("settings", None, "Ada (u-1)", None), "A change of the limits by Ada (u-1)", ""),
    ],
)
def test_an_adjustment_or_a_setting_may_switch_it_off(change: StatusRow, text: str, path: str):
    assert sentences.culprit(change) == sentences.Piece(text, path)
    assert f". {text} switched it off. $0.01 or more" in _said(-13 * CENT, cause=change)


def test_without_a_known_cause_it_still_says_what_to_do():
    assert _said(-20 * CENT, low=-12 * CENT) == "AI is off. $0.08 or more switches it on."
