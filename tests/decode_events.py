"""Events for the tests of the decoder, good ones and ways to spoil them."""

from __future__ import annotations

import json

from cloud_events import cloud_event
from taximeter import names
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits

BATCH = "application/cloudevents-batch+json"
EVENT = "application/cloudevents+json"
NOW = 1_795_345_200_000_000  # 2026-11-22T11:00:00Z


def event(number=1, *, data=None, without=(), **attributes):
    """A good usage event as a dict, with the changes asked for."""
    given = {
        "event_id": f"0199c7f2-6d0e-7a55-8f3c-{number:012x}",
        "source": "/tools/chat",
        "time": "2026-11-22T10:00:00.123Z",
    }
    made = {**cloud_event(names.USAGE_TYPE, usage_data() if data is None else data, **given), **attributes}
    return {name: value for name, value in made.items() if name not in without}


def usage_data(**changes):
    return {"tool": "chat", "model": "gpt-4o", "quantities": {"input_tokens": 1200}, **changes}


def payment(**changes):
    data = {"amount": "25.00", "kind": "top_up", **changes}
    return event(type=names.PAYMENT_TYPE, data={name: value for name, value in data.items() if value is not ...})


def wire(value):
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def quantity(digits):
    """An event with the quantity as written."""
    return wire(event()).replace(b"1200", digits.encode())


def inserted(text, **changes):
    """An event with raw text put at the mark @@ of its JSON."""
    return wire(event(**changes)).replace(b'"@@"', text.encode())


def batch(*events):
    return b"[" + b",".join(wire(one) for one in events) + b"]"


def decode(body, content_type=BATCH, **limits):
    return decode_message(body, content_type, now=NOW, limits=Limits(**limits))
