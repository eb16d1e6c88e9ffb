"""What the details say where a usage's contents are not there any more."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from taximeter_dashboard.formatting import times
from taximeter_dashboard.pages import panels


class _Payload(msgspec.Struct):
    gone: str | None = None
    erased_at: dt.datetime | None = None


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (None, None),
        (_Payload(), None),
        (
            _Payload("erased", dt.datetime(2026, 11, 2, 23, 30, tzinfo=dt.UTC)),
            "Contents erased 3 Nov; the cost record stays.",
        ),
        (_Payload("erased"), "Contents erased; the cost record stays."),
        (
            _Payload("locked"),
            "The contents are encrypted, and their key is not at hand here; the cost record stays.",
        ),
        (_Payload("damaged"), "The contents cannot be read any more; the cost record stays."),
    ],
)
def test_why_there_are_no_contents(payload: _Payload | None, text: str | None):
    now = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
    assert panels.gone(payload, times.zone("Europe/Riga"), now) == text
