"""Generated input: nothing makes the decoder raise, nothing is lost, and its two ways agree."""

from __future__ import annotations

import json
from decimal import Decimal

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from decode_events import event, wire
from hypothesis_profile import examples
from taximeter_worker.decode import fast_path, strict
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import EventRejectedError, Limits

BATCH = "application/cloudevents-batch+json"
EVENT = "application/cloudevents+json"
NOW = 1_795_345_200_000_000
LIMITS = Limits()


def mostly(*good, bad):
    """Nearly always one of the good ones, so that whole events are often good."""
    return st.sampled_from([*good] * (30 // len(good)) + [bad])


texts = st.text(max_size=12) | mostly("\0", '":{', "},{", "\\", "é", '"', ":", "]", "\u2028", bad="a\ud800")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
units = mostly("input_tokens", "output_tokens", "seconds", "x:y", bad="x y")
numbers = st.integers(0, 10**6) | st.floats(0, 10**6).map(lambda x: round(x, 6)) | mostly(0.0, 10**15, 2.5, bad=-1)
users = st.none() | mostly("u-17", "é", 'a"b', "\u2028", "\x7f", "/", "a\nb", "u" * 128, bad=" ") | values
tag_texts = mostly("search", "é/", 'a"b', "t" * 64, bad="t" * 65)
tags = st.none() | st.dictionaries(mostly("team", "a.b-c_1", "k" * 32, bad="A"), tag_texts, max_size=9) | values
data = st.fixed_dictionaries(
    {
        "tool": mostly("chat", 'a"b', "é", ":", bad=""),
        "quantities": st.dictionaries(units, numbers, min_size=1, max_size=4),
    },
    optional={
        "provider": st.none() | st.sampled_from(["", "openai"]),
        "model": st.none() | st.sampled_from(["", "gpt-4o"]),
        "input": values,
        "output": values,
        "metadata": st.none() | st.dictionaries(texts, values, max_size=4),
        "team": values,
        "user": users,
        "tags": tags,
        "hold": users,
    },
)
times = mostly(
    "2026-11-22T10:00:00.123Z",
    "2026-11-22t10:00:00.1234567-00:30",
    "2026-11-22 10:00:00+23:59",
    bad="2026-12-31T10:00:00Z",
)
events = st.fixed_dictionaries(
    {
        "specversion": st.just("1.0"),
        "id": mostly("0199c7f2-6d0e-7a55-8f3c-000000000001", "a b", 'x"y', "\\", bad=" "),
        "type": st.just("taximeter.usage.v1"),
        "subject": mostly("acme", ":a:", bad="a b"),
        "time": times,
        "data": data,
    },
    optional={"source": texts, "datacontenttype": st.just("application/json"), "traceparent": texts},
)


@st.composite
def written(draw):
    """An event's JSON in one of the ways in which it can be written."""
    separators = draw(st.sampled_from([(",", ":"), (", ", " : "), (",\n", ":\t")]))
    return json.dumps(
        draw(events), separators=separators, ensure_ascii=draw(st.booleans()), sort_keys=draw(st.booleans())
    ).encode("utf-8", "surrogatepass")


def fast_or_none(raw):
    try:
        return fast_path.usage(raw, NOW, LIMITS)
    except fast_path.DOUBTS:
        return None


def careful_or_none(raw):
    try:
        return strict.read(strict.parse_event(raw, LIMITS), raw, NOW, LIMITS)
    except EventRejectedError:
        return None


def counted(body, content_type=BATCH):
    decoded = decode_message(body, content_type, now=NOW)
    return len(decoded.usages) + len(decoded.payments) + len(decoded.rejected)


@settings(max_examples=examples(200), deadline=None)
@given(written())
def test_the_strict_path_reads_the_same_from_what_the_fast_path_takes(raw):
    try:
        raw.decode()
    except UnicodeDecodeError:
        return  # never offered to the fast path
    read = fast_or_none(raw)
    if read is not None:
        assert read == careful_or_none(raw)
        assert [type(value) for value in read.quantities.values()] == [
            type(value) for value in careful_or_none(raw).quantities.values()
        ]


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_mutated_events_never_raise_and_the_ways_agree(data):
    raw = bytearray(data.draw(written()))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 3)))
        raw[start:end] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b"{", b"]", b",", b"1e9", b"NaN"])
        )
    assert counted(bytes(raw), EVENT) == 1
    assert counted(bytes(raw)) >= 0
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    if (read := fast_or_none(bytes(raw))) is not None:
        assert read == careful_or_none(bytes(raw))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(written() | values.map(lambda value: json.dumps(value).encode()), max_size=6))
def test_every_element_of_a_batch_is_accounted_for(elements):
    assert counted(b"[" + b" , ".join(elements) + b"]") == len(elements)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(written(), min_size=1, max_size=4))
def test_a_bad_neighbour_changes_nothing(elements):
    alone = [decode_message(raw, EVENT, now=NOW) for raw in elements]
    together = decode_message(b"[" + b",".join([*elements, b"[NaN]"]) + b"]", BATCH, now=NOW)
    assert together.usages == [usage for decoded in alone for usage in decoded.usages]
    assert [one.reason for one in together.rejected[:-1]] == [
        one.reason for decoded in alone for one in decoded.rejected
    ]


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(written(), min_size=1, max_size=4))
def test_a_batch_read_at_once_holds_what_its_events_are_alone(elements):
    alone = [decode_message(raw, EVENT, now=NOW) for raw in elements]
    twice = decode_message(b"[" + b",".join(elements * 2) + b"]", BATCH, now=NOW)  # the second time, all is known
    assert twice.usages == [usage for decoded in alone for usage in decoded.usages] * 2
    assert [(one.reason, one.event) for one in twice.rejected] == [
        (one.reason, one.event) for decoded in alone for one in decoded.rejected
    ] * 2


def plain(number, **other):
    data = {"tool": "chat", "provider": None, "model": "gpt-4o", "quantities": {"input_tokens": number}}
    return wire(event(number, **{"data": data, **other}))


def test_one_odd_event_leaves_its_neighbours_to_the_quick_way():
    """A name given twice, an unknown one, a bad value, a time ahead: each is noticed among events that are all alike."""
    good = [plain(number) for number in range(20)]
    for odd, reasons in (
        (plain(99).replace(b'"tool"', b'"tool": "x", "tool"'), ["duplicate_key"]),
        (plain(99).replace(b'"tool"', b'"team": "x", "tool"'), []),
        (plain(99).replace(b'"tool"', b'"team": 7, "tool"'), []),
        (plain(99, traceparent="x"), []),
        (plain(99, time="2036-11-22T10:00:00Z"), ["future_event"]),
        (plain(99, subject="a b"), ["workspace_charset"]),
        (plain(99, id=""), ["id_required"]),
        (plain(99, id="0199C7F2-6d0e-7a55-8f3c-000000000063"), []),
        (plain(99, data={"tool": "chat", "quantities": {"input_tokens": -1}}), ["negative_quantity"]),
        (plain(99, data={"tool": "chat", "quantities": {"input_tokens": True}}), ["bad_type"]),
        (plain(99, data={"tool": "chat", "quantities": {"input_tokens": 1.50}}), []),
    ):
        decode_message(b"[" + b",".join(good) + b"]", BATCH, now=NOW)
        decoded = decode_message(b"[" + b",".join([*good[:10], odd, *good[10:]]) + b"]", BATCH, now=NOW)
        assert [one.reason for one in decoded.rejected] == reasons, odd
        alone = [usage for raw in (*good[:10], odd, *good[10:]) for usage in decode_message(raw, EVENT, now=NOW).usages]
        assert decoded.usages == alone
        assert [usage.raw for usage in decoded.usages] == [usage.raw for usage in alone]


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=200), st.none() | st.sampled_from([BATCH, EVENT, "", "application/json", "text/plain", "\0"]))
@example(b"[", None)
@example(b"[{", None)
@example(b"[}", BATCH)
@example(b"]", BATCH)
@example(b'["\\', BATCH)
@example(b"{", EVENT)
@example(b'"', EVENT)
@example(b"\0", BATCH)
def test_no_bytes_raise(body, content_type):
    decoded = decode_message(body, content_type, now=NOW)
    assert all(rejected.reason != "internal_error" for rejected in decoded.rejected)
    assert decoded.rejected or not body.strip(b" \t\n\r[]{}")


@settings(max_examples=examples(150), deadline=None)
@given(st.text(alphabet='{}[]",:\\ 1a', max_size=40))
def test_no_soup_of_brackets_raises(soup):
    for content_type in (BATCH, EVENT, None):
        decoded = decode_message(soup.encode(), content_type, now=NOW)
        assert all(rejected.reason != "internal_error" for rejected in decoded.rejected)


@settings(max_examples=examples(150), deadline=None)
@given(values)
def test_payload_values_are_kept_byte_for_byte(value):
    for ensure_ascii in (True, False):
        try:
            text = json.dumps(value, ensure_ascii=ensure_ascii, indent=1).encode()
        except UnicodeEncodeError:
            continue
        raw = (
            b'{"specversion":"1.0","id":"1","type":"taximeter.usage.v1","subject":"acme","time":"2026-11-22T10:00:00Z",'
            b'"data":{"tool":"chat","quantities":{"requests":1},"output": %b ,"input":%b}}' % (text, text)
        )
        [usage] = decode_message(raw, EVENT, now=NOW).usages
        assert usage.payload == b'{"input":%b,"output":%b}' % (text, text)


@settings(max_examples=examples(150), deadline=None)
@given(st.decimals(min_value=0, max_value=10**15, allow_nan=False), st.integers(-30, 30))
def test_quantities_keep_their_exact_value(value, shift):
    digits = f"{value.scaleb(-shift)}E{shift}" if "E" not in str(value.scaleb(-shift)) else str(value)
    raw = (
        b'{"specversion":"1.0","id":"1","type":"taximeter.usage.v1","subject":"acme","time":"2026-11-22T10:00:00Z",'
        b'"data":{"tool":"chat","quantities":{"requests":%b}}}' % digits.encode()
    )
    decoded = decode_message(raw, EVENT, now=NOW)
    for usage in decoded.usages:
        assert Decimal(usage.quantities["requests"]) == Decimal(digits)
    assert {rejected.reason for rejected in decoded.rejected} <= {"too_precise"}
    assert fast_or_none(raw) == careful_or_none(raw)
