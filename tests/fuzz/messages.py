"""Inputs for the fuzzers, and the laws that hold for every input, whatever is in it.

`Mutator` spoils valid messages and the corpus of bad ones, byte by byte and member by member, from a seed. `judge` decodes
one message and checks that every byte of it is accounted for, that both ways of decoding agree, and that what was read
is what an independent reader finds in the same bytes.
"""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from decode_events import BATCH, EVENT, NOW, batch, event, inserted, payment, quantity, usage_data, wire
from taximeter_worker.decode import fast_path, strict
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Decoded, EventRejectedError, Limits

CPU_SECONDS_MAX = 20
"""No message of these sizes takes a hundredth of it: whoever takes this long will not end."""
SMALL = Limits(message_bytes_max=6_000, message_events_max=12, event_bytes_max=2_500, depth_max=9, units_max=4)
"""Limits that mutated messages really meet."""
CONTENT_TYPES = [
    *[BATCH] * 10,
    *[EVENT] * 4,
    *[None] * 3,
    "",
    "application/json",
    f"{BATCH}; charset=utf-8",
    BATCH.upper(),
    "application/x-python-serialize",
    "application/x-yaml",
    "text/plain",
    "\0",
    "é\ud800" * 200,
]

TOKENS = [
    *[b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0.0"],
    *[b"1E+999999999", b"1e-999999999", b"9223372036854775808", b"1000000000000001", b"0.0000001", b"1_000", b"-1"],
    *[
        b"\0",
        b"\\u0000",
        b"\\ud800",
        b"\\u0022",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xf0\x9f\x92\xa9",
    ],
    *[
        "١٢".encode(),
        b"\r\n",
        b"\t",
        b" ",
        b"/*",
        b"//",
        b"'",
        b"[[[[[[[[[[[[",
        b"]]]]",
        b"{}" * 9,
        b'{"a":' * 12,
        b"}{",
    ],
    *[b'"id":"x"', b'"subject":"acme"', b'"specversion":"1.0"', b'"data":{}', b'"tool":"t"', b'"quantities":{"a":1}'],
    *[b'"a":1,"a":2', b'"time":"2026-11-22T10:00:00Z"', b"infinity", b"294277-01-01T00:00:00Z", b"1795341600123"],
    *[b"9" * 400, b"x" * 300, b'"input":"' + b"y" * 2600 + b'"', b"\x80\x04N.", b"!!python/object:a", b"\x1f\x8b\x08"],
]

VALUES: list[Any] = [
    *[None, True, False, 0, -1, 1, 10**15, 10**15 + 1, 2**63, 1e300, 0.5, 1e-7, "", " ", "12", "NaN", "x" * 300],
    *["\0", "\ud800", "a\u0085b", "é", "{{7*7}}", "1.0", "acme", "taximeter.usage.v1", "taximeter.payment.v1", "-5"],
    *["2026-11-22T10:00:00Z", "2026-11-22T10:00:00", "2026-11-22 10:00:60+24:00", "0000-01-01T00:00:00Z", [], {}],
    *[[1], {"a": 1}, {"": 0}, [[[[[[[[[1]]]]]]]]], {"input_tokens": 5}, "25.00", "0.0000000000001", 1795341600123],
]


def seeds() -> list[bytes]:
    """Valid messages of all shapes, and the corpus of bad ones."""
    full = event(
        4,
        data=usage_data(
            provider="openai",
            quantities={"input_tokens": 1, "seconds": 1.25, "x:y": 10**15},
            input=[{"role": "user", "content": 'é\u2028 \\ " \0'}],
            output={"a": [1, 2.5, None], "b": "\ud83d\ude00"},
            metadata={"user": "u-17", "deep": {"er": [[]]}},
            team="red",
        ),
        traceparent="00-ab",
    )
    paid = payment(transaction={"provider": "stripe", "reference": "pi_3"}, note="thanks")
    found = [
        *[
            wire(event()),
            wire(full),
            wire(paid),
            batch(event(1), full, payment()),
            batch(*(event(n) for n in range(9))),
        ],
        *[
            b"[]",
            b"{}",
            b"[{}]",
            b" \n[ ] ",
            b"null",
            b"",
            batch(event(1), event(1)),
            json.dumps([full], indent=2).encode(),
        ],
        batch(event(2), quantity("NaN"), event(3)),
        batch(wire(event()).replace(b'"id"', b'"id": "x", "id"'), full),
        batch(event(1), wire(event()).replace(b"chat", b"ch\xff\xfet"), event(2)),
        batch(event(1), inserted("[" * 80 + "]" * 80, data=usage_data(input="@@"))),
        batch(event())[:-20],
        wire(event()).decode().encode("utf-16"),
        b"\xef\xbb\xbf" + batch(event()),
        b'[[1], {}, {"callbacks": null, "chord": null}]',
        b"[" * 300 + b"]" * 300,
        b"[" + b"1," * 40 + b"1]",
    ]
    numbers = ("1E+999999999", "9" * 5000, "0.0000001", "1_000", '"12"', "true", "1e2", "12.50", "1e-7")
    found += [batch(quantity(digits), event(7)) for digits in numbers]
    times = ("2026-11-22T10:00:00", "infinity", 1795341600123, "294277-01-01T00:00:00Z")
    found += [batch(event(time=time), event(8)) for time in times]
    found += [batch(payment(), payment(kind="promo", note="é")), wire(payment(kind="adjustment", amount="-0.5"))]
    amounts = ("0", "-1", "NaN", 25, "0.0000000000001", "9" * 16)
    return found + [batch(payment(amount=amount), event(9)) for amount in amounts]


class Mutator:
    """An endless supply of messages; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._seeds = seeds()

    def next(self) -> tuple[bytes, str | None]:
        """A body and a content type."""
        dice = self._dice
        body = dice.choice(self._seeds)
        if dice.random() < 0.7:  # an id of its own; else one that was used before, for the same or for other content
            body = body.replace(b"8f3c-0000", b"8f3c-%04x" % dice.randrange(1 << 16))
        if dice.random() < 0.4:
            body = self._by_member(body)
        for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 8))):
            body = self._by_byte(body)
        return body, dice.choice(CONTENT_TYPES)

    def _by_byte(self, body: bytes) -> bytes:
        dice = self._dice
        start = dice.randrange(len(body) + 1)
        end = min(len(body), start + dice.choice((0, 0, 1, 1, 2, 5, 60)))
        roll = dice.random()
        if roll < 0.45:
            put = dice.choice(TOKENS)
        elif roll < 0.6:
            put = bytes([dice.randrange(256)])
        elif roll < 0.75:
            put = b""
        elif roll < 0.85:
            put = body[start:end] * dice.randrange(2, 4)
        else:
            other = dice.choice(self._seeds)
            at = dice.randrange(len(other) + 1)
            put = other[at : at + dice.choice((3, 30, 400))]
        return body[:start] + put + body[end:]

    def _by_member(self, body: bytes) -> bytes:
        """Change, drop or rename a member anywhere in the tree, and write it all again in another spelling."""
        dice = self._dice
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return body
        places = list(_places(value))
        if not places:
            return body
        where, name = dice.choice(places)
        roll = dice.random()
        if roll < 0.6:
            where[name] = dice.choice(VALUES)
        elif roll < 0.75:
            del where[name]
        elif isinstance(where, dict):
            where[dice.choice(("id", "subject", "data", "tool", "time", "input", "x", "", "\0", "in put"))] = where.pop(
                name
            )
        else:
            where.insert(name, dice.choice(VALUES))
        try:
            return json.dumps(
                value,
                ensure_ascii=dice.random() < 0.7,
                indent=dice.choice((None, None, 1)),
                separators=dice.choice(((",", ":"), (", ", ": "), (" , ", "\t:\n"))),
            ).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            return body


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        names = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for name in names:
            yield item, name
            waiting.append(item[name])


def judge(body: bytes, content_type: str | None, limits: Limits = SMALL) -> Decoded:
    """Decode a message and hold the result to every law there is; returns it."""
    decoded = decode_message(body, content_type, now=NOW, limits=limits)
    pieces = [
        *(usage.raw for usage in decoded.usages),
        *(paid.raw for paid in decoded.payments),
        *(rejected.event for rejected in decoded.rejected),
    ]
    for rejected in decoded.rejected:
        assert rejected.reason != "internal_error", rejected.detail
        assert rejected.detail
        assert rejected.detail.isprintable()
    _nothing_is_lost(body, pieces)
    expected = _events_in(body, content_type, limits)
    if expected is not None and pieces != [body]:
        assert len(pieces) == expected, f"{expected} events, {len(pieces)} accounted for"
    for usage in decoded.usages:
        _as_an_independent_reader_has_it(usage)
        assert _carefully(usage.raw, limits) == usage, "the two ways of decoding differ"
    for paid in decoded.payments:
        found = json.loads(paid.raw)
        assert (found["id"], found["subject"]) == (paid.payment_id, paid.workspace_id)
        assert Decimal(found["data"]["amount"]).scaleb(12) == paid.amount
    for rejected in decoded.rejected:
        if rejected.reason in {"unsupported_content_type", "too_large"} or "batch is malformed" in rejected.detail:
            continue  # what is around the event was refused, not the event
        assert _quickly(rejected.event, limits) is None, "refused, although the fast path takes it"
    return decoded


def _nothing_is_lost(body: bytes, pieces: list[bytes]) -> None:
    """Whatever is in no piece is punctuation between events."""
    if pieces == [body]:
        return
    kept: Counter[int] = Counter()
    for piece in pieces:
        assert piece in body or piece == b","
        kept.update(piece)
    lost = Counter(body)
    lost.subtract(kept)
    left = {byte for byte, count in lost.items() if count > 0}
    assert left <= set(b"[], \t\r\n"), f"bytes of the message are in no event: {bytes(left)!r}"
    assert not {byte for byte, count in lost.items() if count < 0} - set(b","), "bytes are kept twice"


def _events_in(body: bytes, content_type: str | None, limits: Limits) -> int | None:
    """How many events the standard library finds in a well-formed message; None where it does not read it."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type not in {BATCH, EVENT, "application/json", ""}:
        return 1
    if len(body) > limits.message_bytes_max:
        return 1
    try:
        value = json.loads(body.decode(), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or media_type == EVENT:
        return 1
    if media_type != BATCH and value and not isinstance(value[0], dict) and b'"specversion"' not in body:
        return 1
    return len(value)


def _as_an_independent_reader_has_it(usage: Any) -> None:
    found = json.loads(usage.raw, parse_float=Decimal, parse_int=Decimal)
    data = found["data"]
    assert (found["id"], found["subject"], data["tool"]) == (usage.event_id, usage.workspace_id, usage.tool)
    assert (data.get("provider") or None, data.get("model") or None) == (usage.provider, usage.model)
    assert data["quantities"] == usage.quantities
    for name in ("input", "output", "metadata"):
        if name in data and not (name == "metadata" and data[name] is None):
            stored = json.loads(usage.payload, parse_float=Decimal, parse_int=Decimal)
            assert stored[name] == data[name], f"{name} is stored otherwise than it was sent"


def _carefully(raw: bytes, limits: Limits) -> object:
    try:
        return strict.read(strict.parse_event(raw, limits), raw, NOW, limits)
    except EventRejectedError:
        return None


def _quickly(raw: bytes, limits: Limits) -> object:
    try:
        str(raw, "utf-8")
        return fast_path.usage(raw, NOW + limits.future_seconds_max * 1_000_000, limits)
    except fast_path.DOUBTS:
        return None


@contextmanager
def no_loop() -> Iterator[Callable[[], None]]:
    """Raise in the midst of an input that takes too much CPU time; call what this yields before each input."""

    def stop(*_: object) -> None:
        raise AssertionError(f"one input took more than {CPU_SECONDS_MAX} seconds of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS_MAX) and None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
