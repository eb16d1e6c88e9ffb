"""A log for a machine: each line an object, secrets masked, whatever was said."""

from __future__ import annotations

import json
import logging
import os
import sys
from decimal import Decimal
from importlib.metadata import version

import pytest

from taximeter_db.json_logs import FIELDS, JsonLines
from taximeter_db.secret import Secret


def line(message: str, /, *args: object, level: int = logging.INFO, fault: bool = False, **fields: object) -> dict:
    record = logging.LogRecord("taximeter", level, __file__, 1, message, args, sys.exc_info() if fault else None)
    setattr(record, FIELDS, fields)
    text = JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_says_when_how_grave_who_and_what():
    found = line("booked", events=3, took=0.5, cost=Decimal("0.1"), ids=["a", {"b": None}])
    assert found.pop("time").endswith("+00:00")
    assert found.pop("version") == version("taximeter")
    assert found.pop("instance").endswith(f":{os.getpid()}")
    assert found == {
        "level": "info",
        "logger": "taximeter",
        "message": "booked",
        "events": 3,
        "took": 0.5,
        "cost": "0.1",
        "ids": ["a", {"b": None}],
    }


@pytest.mark.parametrize("text", ["two\nlines", "\ud800", "\0", '"}', "é"])
def test_any_text_stays_one_line(text: str):
    assert line("%s", text, what=text)["message"] == line("x", what=text)["what"] == text


def test_a_field_takes_no_other_ones_place():
    assert line("said", level_=1, logger="mine", message="other")["message"] == "said"


def test_secrets_are_masked_wherever_they_stand():
    secret = Secret('pass"word-of-somebody')
    url = f"redis://worker:{secret.reveal()}@h/0"
    try:
        int(url)
    except ValueError:
        found = line("at %s", url, fault=True, url=url, nested=[{"url": url}], itself=secret)
    assert "word-of-somebody" not in json.dumps(found)
    assert found["url"] == "redis://worker:***@h/0"
    assert found["traceback"].endswith("'redis://worker:***@h/0'")
