"""Each row of bad input: its code, alone and next to good neighbours, which are read."""

from __future__ import annotations

import pytest

from decode_events import BATCH, EVENT, batch, decode, event, inserted, payment, quantity, usage_data, wire

REFUSED = {
    "1 not UTF-8": (wire(event()).replace(b"chat", b"ch\xff\xfet"), "bad_encoding"),
    "2 UTF-16": (wire(event()).decode().encode("utf-16-le"), "bad_encoding"),
    "3 byte-order mark": (b"\xef\xbb\xbf" + wire(event()), "bad_encoding"),
    "4 broken JSON": (b'{"id": }', "bad_json"),
    "5 null": (b"null", "not_an_object"),
    "5 number": (b"7", "not_an_object"),
    "5 array": (b"[1]", "not_an_object"),
    "6 twice in the envelope": (wire(event()).replace(b'"id"', b'"id": "x", "id"'), "duplicate_key"),
    "6 twice, once with blanks": (wire(event()).replace(b'"subject"', b'"subject" : "x", "subject"'), "duplicate_key"),
    "6 twice, once escaped": (wire(event()).replace(b'"tool"', b'"t\\u006fol": "x", "tool"'), "duplicate_key"),
    "6 twice in quantities": (
        wire(event()).replace(b'"input_tokens"', b'"input_tokens": 1, "input_tokens"'),
        "duplicate_key",
    ),
    "6 twice in data, as payload": (inserted('"a", "input": "b"', data=usage_data(input="@@")), "duplicate_key"),
    "6 twice in metadata": (inserted('{"a": 1, "a": 2}', data=usage_data(metadata="@@")), "duplicate_key"),
    "6 twice in metadata, hidden by an escape": (
        inserted('{"a": "\\u0022\\u0022", "a": 2}', data=usage_data(metadata="@@")),
        "duplicate_key",
    ),
    "6 twice in metadata, beside what cannot be decoded": (
        inserted('{"a": 1, "a": 2, "n": 1e99999999999999999999}', data=usage_data(metadata="@@")),
        "duplicate_key",
    ),
    "7 nesting": (inserted('{"a":' * 200_000 + "1" + "}" * 200_000, data=usage_data(input="@@")), "too_deep"),
    "7 nesting, a little": (inserted("[" * 63 + "]" * 63, data=usage_data(input="@@")), "too_deep"),
    "8 event size": (event(data=usage_data(input="x" * 2_000_000)), "too_large"),
    "10 specversion": (event(specversion="0.3"), "unsupported_version"),
    "10 specversion as a number": (event(specversion=1.0), "unsupported_version"),
    "10 no specversion": (event(without=["specversion"]), "unsupported_version"),
    "10 type": (event(type="taximeter.usage.v2"), "unsupported_version"),
    "10 type of another type": (event(type={"a": []}), "unsupported_version"),
    "10 no type": (event(without=["type"]), "unsupported_version"),
    "14 no id": (event(without=["id"]), "id_required"),
    "14 id null": (event(id=None), "id_required"),
    "14 id empty": (event(id=""), "id_required"),
    "14 id blank": (event(id="   "), "id_required"),
    "14 id a number": (event(id=17), "bad_type"),
    "15 id long": (event(id="x" * 9000), "id_too_long"),
    "15 id one too long": (event(id="x" * 256), "id_too_long"),
    "16 id with a control character": (event(id="a\nb"), "id_charset"),
    "16 id with NUL": (event(id="a\0b"), "id_charset"),
    "16 id not ASCII": (event(id="café"), "id_charset"),
    "21 no subject": (event(without=["subject"]), "workspace_required"),
    "21 subject empty": (event(subject=""), "workspace_required"),
    "21 subject charset": (event(subject="acme corp"), "workspace_charset"),
    "21 subject with a line end": (event(subject="acme\n"), "workspace_charset"),
    "21 subject too long": (event(subject="a" * 129), "workspace_charset"),
    "24 NaN": (quantity("NaN"), "bad_number"),
    "24 Infinity": (quantity("-Infinity"), "bad_number"),
    "24 1e999": (quantity("1e999"), "bad_number"),
    "24 NaN in the input": (inserted('{"a": [1, NaN]}', data=usage_data(input="@@")), "bad_number"),
    "24 NaN in an extension": (inserted("NaN", weight="@@"), "bad_number"),
    "25 negative": (quantity("-1"), "negative_quantity"),
    "25 negative fraction": (quantity("-0.5"), "negative_quantity"),
    "26 text": (quantity('"12"'), "bad_type"),
    "26 underscore": (quantity('"1_000"'), "bad_type"),
    "26 Arabic digits": (quantity('"١٢"'), "bad_type"),
    "26 true": (quantity("true"), "bad_type"),
    "26 array": (quantity("[1]"), "bad_type"),
    "27 quantity null": (quantity("null"), "quantity_required"),
    "27 quantities null": (event(data=usage_data(quantities=None)), "quantity_required"),
    "27 quantities empty": (event(data=usage_data(quantities={})), "quantity_required"),
    "27 no quantities": (event(data={"tool": "chat"}), "quantity_required"),
    "27 quantities an array": (event(data=usage_data(quantities=[1])), "bad_type"),
    "28 2^63": (quantity(str(2**63)), "out_of_range"),
    "28 just above": (quantity(str(10**15 + 1)), "out_of_range"),
    "28 just above, by a fraction": (quantity("1000000000000000.000001"), "out_of_range"),
    "28 5,000 digits": (quantity("9" * 5000), "out_of_range"),
    "28 1E+999999999": (quantity("1E+999999999"), "out_of_range"),
    "28 1E+(22 digits)": (quantity("1E+" + "9" * 22), "out_of_range"),
    "29 7 decimals": (quantity("0.0000001"), "too_precise"),
    "29 tiny": (quantity("1e-999999999"), "too_precise"),
    "32 empty unit": (event(data=usage_data(quantities={"": 1})), "bad_quantities"),
    "32 unit with a blank": (event(data=usage_data(quantities={"input tokens": 1})), "bad_quantities"),
    "32 unit too long": (event(data=usage_data(quantities={"x" * 65: 1})), "bad_quantities"),
    "user of 129 characters": (event(data=usage_data(user="u" * 129)), "bad_text"),
    "blank user": (event(data=usage_data(user=" ")), "bad_text"),
    "empty user": (event(data=usage_data(user="")), "bad_text"),
    "NUL in the user": (event(data=usage_data(user="a\0b")), "bad_text"),
    "a number as the user": (event(data=usage_data(user=17)), "bad_type"),
    "an object as the user": (event(data=usage_data(user={"id": "u-17"})), "bad_type"),
    "tags as an array": (event(data=usage_data(tags=["search"])), "bad_type"),
    "9 tags": (event(data=usage_data(tags={f"k{n}": "x" for n in range(9)})), "bad_tags"),
    "empty tag key": (event(data=usage_data(tags={"": "x"})), "bad_tags"),
    "tag key of 33": (event(data=usage_data(tags={"k" * 33: "x"})), "bad_tags"),
    "tag key with a capital": (event(data=usage_data(tags={"Team": "x"})), "bad_tags"),
    "tag of 65 characters": (event(data=usage_data(tags={"team": "x" * 65})), "bad_text"),
    "empty tag": (event(data=usage_data(tags={"team": ""})), "bad_text"),
    "null tag": (event(data=usage_data(tags={"team": None})), "bad_type"),
    "a number as a tag": (event(data=usage_data(tags={"team": 1})), "bad_type"),
    "a tag twice": (
        wire(event(data=usage_data(tags={"team": "x"}))).replace(b'"team"', b'"team": "x", "team"'),
        "duplicate_key",
    ),
    "hold of 129 characters": (event(data=usage_data(hold="h" * 129)), "bad_text"),
    "an object as the hold": (event(data=usage_data(hold={"id": "h"})), "bad_type"),
    "32 65 units": (event(data=usage_data(quantities={f"u{n}": 1 for n in range(65)})), "bad_quantities"),
    "33 no time zone": (event(time="2026-11-22T10:00:00"), "timezone_required"),
    "34 no time": (event(without=["time"]), "bad_time"),
    "34 infinity": (event(time="infinity"), "bad_time"),
    "34 BC": (event(time="0044-03-15T10:00:00Z BC"), "bad_time"),
    "34 year 0": (event(time="0000-03-15T10:00:00Z"), "bad_time"),
    "34 year 294277": (event(time="294277-01-01T00:00:00Z"), "bad_time"),
    "34 epoch milliseconds": (event(time=1795341600123), "bad_time"),
    "34 epoch milliseconds as text": (event(time="1795341600123"), "bad_time"),
    "34 30 February": (event(time="2026-02-30T00:00:00Z"), "bad_time"),
    "35 future": (event(time="2026-11-22T11:05:00.000001Z"), "future_event"),
    "37 NUL in tool": (event(data=usage_data(tool="a\0")), "bad_text"),
    "37 NUL in model": (event(data=usage_data(model="a\0")), "bad_text"),
    "38 surrogate in tool": (event(data=usage_data(tool="a\ud800")), "bad_text"),
    "38 surrogate in provider": (event(data=usage_data(provider="a\udc00")), "bad_text"),
    "41 amount 0": (payment(amount="0.00"), "zero_amount"),
    "41 amount NaN": (payment(amount="NaN"), "bad_number"),
    "41 amount NaN as a token": (wire(payment()).replace(b'"25.00"', b"NaN"), "bad_number"),
    "41 amount Arabic": (payment(amount="١٢"), "bad_number"),
    "41 amount with an exponent": (payment(amount="1e3"), "bad_number"),
    "41 amount a number": (payment(amount=25), "bad_type"),
    "41 no amount": (payment(amount=...), "amount_required"),
    "41 negative": (payment(amount="-1"), "negative_amount"),
    "41 13 decimals": (payment(amount="0.0000000000001"), "too_precise"),
    "41 10^15": (payment(amount="1000000000000000"), "out_of_range"),
    "a clawback that adds": (payment(kind="clawback", transaction={"payment_id": "p"}), "positive_amount"),
    "an expiry that adds": (payment(kind="expiry", transaction={"payment_id": "p"}), "positive_amount"),
    "a reinstated that takes": (
        payment(kind="reinstated", amount="-1", transaction={"payment_id": "p"}),
        "negative_amount",
    ),
    "a refund that takes": (payment(kind="refund", amount="-1"), "negative_amount"),
    "a clawback of nothing": (payment(kind="clawback", amount="-1"), "payment_id_required"),
    "a reinstated of nothing": (payment(kind="reinstated", transaction={"reference": "x"}), "payment_id_required"),
    "an expiry of a blank": (
        payment(kind="expiry", amount="-1", transaction={"payment_id": " "}),
        "payment_id_required",
    ),
    "payment kind": (payment(kind="gift"), "bad_kind"),
    "payment transaction": (payment(transaction="pi_3"), "bad_type"),
    "payment transaction of numbers": (payment(transaction={"reference": 3}), "bad_type"),
    "payment transaction with NUL": (payment(transaction={"reference": "a\0"}), "bad_text"),
    "payment transaction twice": (
        wire(payment(transaction={"provider": "x"})).replace(b'"provider"', b'"provider": "y", "provider"'),
        "duplicate_key",
    ),
    "payment note": (payment(note="x" * 2001), "bad_text"),
    "payment in euros": (payment(currency="EUR"), "unknown_member"),
    "no tool": (event(data={"quantities": {"requests": 1}}), "tool_required"),
    "tool blank": (event(data=usage_data(tool=" ")), "tool_required"),
    "tool a number": (event(data=usage_data(tool=1)), "bad_type"),
    "tool long": (event(data=usage_data(tool="x" * 129)), "bad_text"),
    "metadata a text": (event(data=usage_data(metadata="u-17")), "bad_type"),
    "source a number": (event(source=1), "bad_type"),
    "no data": (event(without=["data"]), "not_an_object"),
    "data an array": (event(data=[]), "not_an_object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_event_is_kept_whole_and_its_neighbours_are_read(case):
    bad, reason = REFUSED[case]
    bad = wire(bad)
    decoded = decode(batch(event(1), bad, event(2), payment()))
    assert [usage.event_id[-1] for usage in decoded.usages] == ["1", "2"]
    assert len(decoded.payments) == 1
    [rejected] = decoded.rejected
    assert (rejected.reason, rejected.event, rejected.content_type) == (reason, bad, EVENT)
    assert rejected.detail.endswith((".", ":", "-"))
    assert rejected.detail.isascii()


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_event_alone_gets_the_same_code(case):
    bad, reason = REFUSED[case]
    decoded = decode(wire(bad), f"{EVENT}; charset=utf-8")
    assert [rejected.reason for rejected in decoded.rejected] == [reason]
    assert decoded.rejected[0].content_type == f"{EVENT}; charset=utf-8"
    assert not decoded.usages
    assert not decoded.payments


MESSAGES = {
    "2 UTF-16": (batch(event()).decode().encode("utf-16"), BATCH, "bad_encoding"),
    "3 byte-order mark": (b"\xef\xbb\xbf" + batch(event()), BATCH, "bad_encoding"),
    "4 truncated": (batch(event())[:-20], BATCH, "bad_json"),
    "4 truncated event": (wire(event())[:-20], EVENT, "bad_json"),
    "4 empty": (b"", EVENT, "bad_json"),
    "4 empty batch": (b"", BATCH, "bad_json"),
    "4 no type, empty": (b"", None, "bad_json"),
    "5 null": (b"null", BATCH, "not_an_object"),
    "5 number": (b"12", None, "not_an_object"),
    "5 an array as an event": (batch(event()), EVENT, "not_an_object"),
    "5 an array of arrays as JSON": (b"[[1], {}]", "application/json", "not_an_object"),
    "5 an array of a number": (b"[1]", None, "not_an_object"),
    "7 brackets": (b"[" * 200_000 + b"]" * 200_000, EVENT, "too_deep"),
    "7 open brackets": (b"[" * 200_000, BATCH, "too_deep"),
    "8 message size": (batch(event()).ljust(17 * 2**20), BATCH, "too_large"),
    "8 too many events": (b"[" + b"1," * 100_001 + b"1]", BATCH, "too_large"),
    "9 pickle": (b"\x80\x04N.", "application/x-python-serialize", "unsupported_content_type"),
    "9 YAML": (b"a: 1", "application/x-yaml", "unsupported_content_type"),
    "13 Celery task": (b'[[1], {}, {"callbacks": null, "chord": null}]', "application/json", "not_an_object"),
    "13 Celery task without a type": (b'[[1], {}, {"callbacks": null, "chord": null}]', None, "not_an_object"),
    "13 Celery task without arguments": (b'[[], {}, {"callbacks": null, "chord": null}]', "", "not_an_object"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_refused_message_is_kept_whole(case):
    body, content_type, reason = MESSAGES[case]
    decoded = decode(body, content_type)
    assert not decoded.usages
    assert [rejected.reason for rejected in decoded.rejected] == [reason]
    assert decoded.rejected[0].event == body
    assert decoded.rejected[0].content_type == content_type


def test_rejections_tell_whose_they_are_as_far_as_known():
    def whose(bad):
        [rejected] = decode(wire(bad), EVENT).rejected
        return rejected.kind, rejected.workspace_id, rejected.event_id

    event_id = event()["id"]
    assert whose(event(time=None)) == ("usage", "acme", event_id)
    assert whose(payment(amount="0")) == ("payment", "acme", event_id)
    assert whose(event(id="é")) == ("usage", "acme", None)
    assert whose(event(subject="a b")) == ("usage", None, event_id)
    assert whose(event(type="other")) == ("message", "acme", event_id)
    assert whose(REFUSED["6 twice, once with blanks"][0]) == ("usage", None, event_id)
    assert whose(b"[]") == ("message", None, None)


def test_details_never_quote_the_payload():
    secret = "my secret"
    for bad in (
        inserted(f'{{"{secret}": 1, "{secret}": 2}}', data=usage_data(metadata="@@")),
        inserted(f'{{"{secret}": NaN}}', data=usage_data(input="@@")),
        event(data=usage_data(metadata=secret)),
        event(data=usage_data(input=secret, tool=f"{secret}\0")),
        wire(event(data=usage_data(input=secret)))[:-10],
    ):
        [rejected] = decode(wire(bad), EVENT).rejected
        assert secret not in rejected.detail


def test_content_type_of_a_rejection_can_be_stored():
    [rejected] = decode(b"x", "te\0xt/\ud800" + "x" * 1000).rejected
    assert rejected.content_type.startswith("te?xt/?xx")
    assert len(rejected.content_type) == 255
