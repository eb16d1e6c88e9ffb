"""Which events are the same content, which payload is stored, and which moment a time names."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypothesis_profile import examples
from taximeter import names
from taximeter_db.ledger import events
from taximeter_db.ledger.columns import Labels
from taximeter_worker.decode import content
from taximeter_worker.decode.clock import event_time, micros
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import EventRejectedError

EVENT = "application/cloudevents+json"
NOW = 1_795_345_200_000_000

HEAD = '"specversion":"1.0","id":"e-1","subject":"acme"'
USAGE = f'{{{HEAD},"type":"taximeter.usage.v1","time":"2026-11-22T10:00:00Z","data":DATA}}'
PAYMENT = f'{{{HEAD},"type":"taximeter.payment.v1","time":"2026-11-22T10:00:00Z","data":DATA}}'


def fingerprint(text, data=None):
    text = text if data is None else text.replace("DATA", data)
    decoded = decode_message(text.encode(), EVENT, now=NOW)
    assert not decoded.rejected, decoded.rejected[0].detail
    return (decoded.usages or decoded.payments)[0].fingerprint


BASE = '{"tool":"é","model":"m","quantities":{"a":12,"b":0.5},"input":"é\\n/","metadata":{"x":1.50,"y":[{}]}}'


@pytest.mark.parametrize(
    "same",
    [
        '{"metadata":{"y":[{}],"x":1.50},"input":"é\\n/","quantities":{"b":0.5,"a":12},"model":"m","tool":"é"}',
        '{ "tool" : "é","model":"m",\n"quantities":{"a":12,"b":0.5},"input":"é\\n/","metadata":{"x":1.50, "y":[ { } ]}}',
        BASE.replace("12", "12.0").replace("0.5,", "5e-1,"),
        BASE.replace("12", "1.2e1").replace("0.5}", "0.500}"),
        BASE.replace("é", "\\u00e9").replace("/", "\\/"),
        BASE.replace('"tool"', '"t\\u006fol"').replace('"input"', '"\\u0069nput"').replace('"x"', '"\\u0078"'),
        BASE.replace('"model"', '"provider":null,"model"'),
        BASE.replace('"model"', '"provider":"","model"'),
    ],
)
def test_the_same_content_however_written(same):
    assert fingerprint(USAGE, same) == fingerprint(USAGE, BASE)


def test_time_source_and_extensions_are_not_content():
    other = USAGE.replace("10:00:00Z", "10:00:01.5+01:00").replace('"type"', '"source":"/x","traceparent":"00","type"')
    assert fingerprint(other, BASE) == fingerprint(USAGE, BASE)


DIFFERENT = [
    BASE,
    BASE.replace('"é",', '"chat",'),
    BASE.replace('"m"', '"n"'),
    BASE.replace('"model"', '"provider"'),
    BASE.replace("12", "13"),
    BASE.replace("0.5", "0.500001"),
    BASE.replace('"a"', '"c"'),
    BASE.replace('"input"', '"output"'),
    BASE.replace("\\n/", "\\n"),
    BASE.replace("1.50", "1.51"),
    BASE.replace("1.50", '"1.50"'),
    BASE.replace("[{}]", "[[]]"),
    BASE.replace('"metadata"', '"other"'),
    BASE.replace('"input"', '"extra":1,"input"'),
    BASE.replace('"é\\n/"', '"\\ud800"'),
    BASE.replace('"é\\n/"', '"\\ud801"'),
    BASE.replace('"é\\n/"', "null"),
    BASE.replace('"input":"é\\n/",', ""),
    BASE.replace(',"metadata":{"x":1.50,"y":[{}]}', ""),
]


def test_different_content_differs():
    assert len({fingerprint(USAGE, data) for data in DIFFERENT}) == len(DIFFERENT)


def test_the_id_and_the_type_are_part_of_it():
    data = '{"amount":"1","kind":"promo"}'
    assert fingerprint(USAGE.replace("e-1", "e-2"), BASE) != fingerprint(USAGE, BASE)
    assert fingerprint(PAYMENT.replace("e-1", "e-2"), data) != fingerprint(PAYMENT, data)


def test_fingerprints_of_payments():
    base = '{"amount":"25.00","kind":"top_up","transaction":{"provider":"p","reference":"r"}}'
    for same in (
        '{"kind":"top_up","amount":"25","transaction":{"reference":"r","provider":"p"},"note":null}',
        base.replace("25.00", "+025.0"),
    ):
        assert fingerprint(PAYMENT, same) == fingerprint(PAYMENT, base)
    different = [
        base,
        base.replace("25", "26"),
        base.replace("top_up", "promo"),
        base.replace('"r"', '"s"'),
        base.replace("}}", '},"note":"n"}'),
    ]
    assert len({fingerprint(PAYMENT, data) for data in different}) == len(different)


def test_fingerprints_are_for_ever():
    """Stored fingerprints meet new ones for as long as the ledger lives: these values must never change."""
    assert fingerprint(USAGE, BASE).hex() == "c4e45f5e225bb602e9a744030131d1a7"
    assert (
        fingerprint(USAGE, '{"tool":"chat","quantities":{"b":0.000001,"a":3}}').hex()
        == "e89f107388cf1035fea40a8e976c170c"
    )
    assert fingerprint(PAYMENT, '{"amount":"25.00","kind":"top_up"}').hex() == "9a7b189f155452eddf201384dad50c34"


@pytest.mark.parametrize(
    ("labels", "before"),
    [
        ('"user":"u-17","tags":{"team":"search","b":"é"},"hold":"h-1"', "e0f7899704dcdd28586bb0997599a9d6"),
        ('"user":null,"tags":{},"hold":null', "4c03986b41bda4327d625da30eabb601"),
    ],
)
def test_user_tags_and_hold_are_the_content_that_they_were_before_they_meant_something(labels, before):
    """The values are those that the last version gave that took the three for members nobody knows."""
    plain = '{"tool":"chat","quantities":{"requests":1},"input":"x",%s}'
    assert fingerprint(USAGE, plain % labels).hex() == before
    backwards = ",".join(reversed(re.findall(r'"(?:user|tags|hold)":(?:\{.*?\}|[^,]+)', labels)))
    assert fingerprint(USAGE, plain % backwards).hex() == before
    assert fingerprint(USAGE, (plain % labels).replace("é", "\\u00e9")).hex() == before


def test_each_of_user_tags_and_hold_is_content():
    data = '{"tool":"chat","quantities":{"requests":1}%s}'
    labels = ["", ',"user":"a"', ',"user":"b"', ',"hold":"a"', ',"tags":{"a":"a"}', ',"tags":{"a":"b"}', ',"user":null']
    assert len({fingerprint(USAGE, data % one) for one in labels}) == len(labels)


def test_user_tags_and_hold_are_read_and_are_no_payload():
    data = '{"user":"u-17","tool":"chat","hold":"h","tags":{"team":"search"},"quantities":{"requests":1}%s}'
    for more, payload in (("", None), (',"team":7', b'{"team":7}'), (',"input":1', b'{"input":1}')):
        [usage] = decode_message(USAGE.replace("DATA", data % more).encode(), EVENT, now=NOW).usages
        assert usage.labels == Labels(user_id="u-17", tags={"team": "search"}, hold_id="h")
        assert usage.payload == payload


@pytest.mark.parametrize("none", ["", ',"user":null', ',"tags":null,"hold":null', ',"tags":{}'])
def test_no_user_tags_or_hold(none):
    data = '{"tool":"chat","quantities":{"requests":1}' + none + "}"
    [usage] = decode_message(USAGE.replace("DATA", data).encode(), EVENT, now=NOW).usages
    assert usage.labels is None
    assert usage.payload is None


@settings(max_examples=examples(300), deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_a_text_has_one_canonical_form(text, ensure_ascii):
    assert content.canonical(json.dumps(text, ensure_ascii=ensure_ascii).encode()) == content.canonical(
        json.dumps(text, ensure_ascii=False).encode()
    )


def payload(data):
    [usage] = decode_message(USAGE.replace("DATA", data).encode(), EVENT, now=NOW).usages
    return usage.payload


@pytest.mark.parametrize(
    "value",
    [
        '"NUL \\u0000, a lone \\ud800 surrogate"',
        '{"b" : 1e400,\n "a":[1.00, 18446744073709551616], "a":2}',
        "null",
        '""',
        "-0.0",
        '"<img src=x onerror=alert(1)> =HYPERLINK(1)"',
    ],
)
def test_payload_is_byte_exact(value):
    data = '{"tool":"chat","quantities":{"requests":1}, "metadata":{"m":%s},"output":%s , "input" : %s}'
    assert payload(data % (value, value, value)).decode() == '{"input":%s,"output":%s,"metadata":{"m":%s}}' % (
        (value,) * 3
    )


def test_no_payload_costs_none():
    assert payload('{"tool":"chat","quantities":{"requests":1}}') is None


def test_members_nobody_knows_are_kept_under_their_names():
    data = '{"tool":"chat","team":"bl\\u00fce","quantities":{"requests":1},"input":1}'
    assert payload(data) == b'{"input":1,"team":"bl\\u00fce"}'


def at(*parts):
    return int(dt.datetime(*parts, tzinfo=dt.UTC).timestamp()) * 10**6


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T10:00:00Z", at(2026, 11, 22, 10)),
        ("2026-11-22t10:00:00z", at(2026, 11, 22, 10)),
        ("2026-11-22 10:00:00.5Z", at(2026, 11, 22, 10) + 500_000),
        ("2026-11-22T10:00:00.123456789Z", at(2026, 11, 22, 10) + 123_456),
        ("2026-11-22T10:00:00.9999999Z", at(2026, 11, 22, 10) + 999_999),
        ("2026-11-22T10:00:00+05:30", at(2026, 11, 22, 4, 30)),
        ("2026-11-22T10:00:00.25-23:59", at(2026, 11, 23, 9, 59) + 250_000),
        ("2026-11-22T10:00:00-00:00", at(2026, 11, 22, 10)),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ("2016-12-31T23:59:60Z", at(2017, 1, 1) - 1),
        ("2016-12-31T23:59:60.7Z", at(2017, 1, 1) - 1),
        ("2017-01-01T00:59:60+01:00", at(2017, 1, 1) - 1),
    ],
)
def test_times_to_the_microsecond(text, moment):
    assert micros(text) == moment
    assert micros(text) == moment  # from what it remembers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-22",
        "20261122T100000Z",
        "2026-W47-7T10:00:00Z",
        "2026-11-22T10:00Z",
        "2026-11-22T10:00:00,5Z",
        "2026-11-22T10:00:00.Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T10:60:00Z",
        "2026-11-22T10:00:60Z",
        "2026-11-22T10:00:61Z",
        "2026-11-22T10:00:00+24:00",
        "2026-11-22T10:00:00+0100",
        "2026-11-22T10:00:00 Z",
        "2026-11-22T10:00:00Z\n",
        "٢٠٢٦-11-22T10:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "2026-11-22T10:00:00." + "1" * 100 + "Z",
    ],
)
def test_no_times(text):
    with pytest.raises(EventRejectedError) as caught:
        event_time(text)
    assert caught.value.reason == "bad_time"


@pytest.mark.parametrize("text", ["2026-11-22T10:00:00", "2026-11-22 10:00", "2026-11-22T10:00:00.5"])
def test_times_without_a_zone(text):
    with pytest.raises(EventRejectedError) as caught:
        event_time(text)
    assert caught.value.reason == "timezone_required"


@settings(max_examples=examples(300), deadline=None)
@given(st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-9, minutes=-30))])))
def test_times_agree_with_the_calendar(moment):
    expected = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    if not at(1, 1, 2) < expected < at(9999, 12, 31):
        return
    assert micros(moment.isoformat()) == expected


@pytest.mark.parametrize(
    ("value", "hint"), [("infinity", "infinity"), ("1795341600123", "milliseconds"), ("-0044-03-15T10:00:00Z", "years")]
)
def test_hints_at_what_was_meant(value, hint):
    with pytest.raises(EventRejectedError, match=hint):
        event_time(value)


def test_both_sides_call_a_single_event_the_same():
    assert events.EVENT_CONTENT_TYPE == names.CONTENT_TYPE_EVENT
