from __future__ import annotations

import json
from collections import UserDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from cloud_events import usage_event
from taximeter import InvalidEventError
from taximeter.envelope import check_event
from taximeter.events import usage_line
from taximeter.labels import labels

ENVELOPE = usage_event(event_id="e-1")


def line(workspace_id: Any = "acme", **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "tool": "chat",
        "quantities": {"requests": 1},
        "provider": None,
        "model": None,
        "input": None,
        "output": None,
        "metadata": None,
        "event_id": None,
        "occurred_at": None,
        "source": "/tools/chat",
        **changes,
    }
    if "labels" in changes:
        arguments["labels"] = labels(**changes["labels"])
    return usage_line(workspace_id, **arguments)[1]


def event(**changes: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(line(**changes), parse_float=Decimal)
    return decoded


def test_a_usage_is_a_cloud_event_of_the_contract() -> None:
    made = event(
        provider="openai",
        model="gpt-4o",
        quantities={"input_tokens": 1200, "output_tokens": 300},
        input="…",
        output={"text": "…"},
        metadata={"user": "u-17"},
        occurred_at=datetime(2026, 11, 22, 12, 0, 0, 123000, tzinfo=timezone(timedelta(hours=2))),
    )
    assert UUID(made.pop("id")).version == 7
    assert made == {
        "specversion": "1.0",
        "source": "/tools/chat",
        "type": "taximeter.usage.v1",
        "subject": "acme",
        "time": "2026-11-22T10:00:00.123000Z",
        "data": {
            "tool": "chat",
            "provider": "openai",
            "model": "gpt-4o",
            "quantities": {"input_tokens": 1200, "output_tokens": 300},
            "input": "…",
            "output": {"text": "…"},
            "metadata": {"user": "u-17"},
        },
    }


def test_what_was_not_given_is_left_out() -> None:
    assert event()["data"] == {"tool": "chat", "quantities": {"requests": 1}}


def test_now_is_written_in_utc() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert before <= datetime.fromisoformat(event()["time"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (0, "0"),
        (10**15, "1000000000000000"),
        (0.1, "0.1"),
        (1.5, "1.5"),
        (2.0, "2"),
        (-0.0, "0"),
        (1e-06, "0.000001"),
        (1e15, "1000000000000000"),
        (Decimal("1.500000"), "1.5"),
        (Decimal("2.5000000000000"), "2.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("999999999999999.999999"), "999999999999999.999999"),
        (True + 1, "2"),
    ],
)
def test_quantities_are_written_exactly(given: Any, written: str) -> None:
    assert f'"quantities":{{"seconds":{written}}}'.encode() in line(quantities={"seconds": given})


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("nan"), "bad_number"),
        (float("inf"), "bad_number"),
        (Decimal("NaN"), "bad_number"),
        (Decimal("sNaN"), "bad_number"),
        (Decimal("-Infinity"), "bad_number"),
        (-1, "negative_quantity"),
        (-0.5, "negative_quantity"),
        ("12", "bad_type"),
        (True, "bad_type"),
        (b"1", "bad_type"),
        (None, "quantity_required"),
        (10**15 + 1, "out_of_range"),
        (2**63, "out_of_range"),
        pytest.param(10**5000, "out_of_range", id="5000 digits"),
        (1e300, "out_of_range"),
        (Decimal("1E+999999999"), "out_of_range"),
        (0.1 + 0.2, "too_precise"),
        (1e-07, "too_precise"),
        (Decimal("0.0000001"), "too_precise"),
        (Decimal("1E-999999999"), "too_precise"),
    ],
)
def test_a_bad_quantity_is_refused_with_its_code(value: Any, code: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        line(quantities={"input_tokens": 1, "seconds": value})
    assert (refused.value.code, refused.value.field) == (code, "quantities.seconds")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"workspace_id": ""}, "workspace_required", "workspace_id"),
        ({"workspace_id": None}, "workspace_required", "workspace_id"),
        ({"workspace_id": 7}, "bad_type", "workspace_id"),
        ({"workspace_id": "a b"}, "workspace_charset", "workspace_id"),
        ({"workspace_id": "a\n"}, "workspace_charset", "workspace_id"),
        ({"workspace_id": "ä"}, "workspace_charset", "workspace_id"),
        ({"workspace_id": "a" * 129}, "workspace_charset", "workspace_id"),
        ({"event_id": ""}, "id_required", "id"),
        ({"event_id": "  "}, "id_required", "id"),
        ({"event_id": 5}, "bad_type", "id"),
        ({"event_id": "x" * 256}, "id_too_long", "id"),
        ({"event_id": "a\tb"}, "id_charset", "id"),
        ({"event_id": "é"}, "id_charset", "id"),
        ({"tool": ""}, "tool_required", "tool"),
        ({"tool": None}, "tool_required", "tool"),
        ({"tool": 3}, "bad_type", "tool"),
        ({"tool": "t" * 129}, "bad_text", "tool"),
        ({"tool": "a\0b"}, "bad_text", "tool"),
        ({"model": "\ud800"}, "bad_text", "model"),
        ({"provider": 1}, "bad_type", "provider"),
        ({"quantities": {}}, "quantity_required", "quantities"),
        ({"quantities": None}, "quantity_required", "quantities"),
        ({"quantities": [1]}, "bad_type", "quantities"),
        ({"quantities": {"": 1}}, "bad_quantities", "quantities"),
        ({"labels": {"user": ""}}, "bad_text", "user"),
        ({"labels": {"user": " "}}, "bad_text", "user"),
        ({"labels": {"user": "u" * 129}}, "bad_text", "user"),
        ({"labels": {"user": "a\0"}}, "bad_text", "user"),
        ({"labels": {"user": 17}}, "bad_type", "user"),
        ({"labels": {"tags": ["team"]}}, "bad_type", "tags"),
        ({"labels": {"tags": {f"k{n}": "x" for n in range(9)}}}, "bad_tags", "tags"),
        ({"labels": {"tags": {"Team": "x"}}}, "bad_tags", "tags"),
        ({"labels": {"tags": {7: "x"}}}, "bad_tags", "tags"),
        ({"labels": {"tags": {"k" * 33: "x"}}}, "bad_tags", "tags"),
        ({"labels": {"tags": {"team": "x" * 65}}}, "bad_text", "tags.team"),
        ({"labels": {"tags": {"team": ""}}}, "bad_text", "tags.team"),
        ({"labels": {"tags": {"team": None}}}, "bad_type", "tags.team"),
        ({"labels": {"hold": "h" * 129}}, "bad_text", "hold"),
        ({"labels": {"hold": 5}}, "bad_type", "hold"),
        ({"quantities": {"a b": 1}}, "bad_quantities", "quantities"),
        ({"quantities": {3: 1}}, "bad_quantities", "quantities"),
        ({"quantities": {f"u{n}": 1 for n in range(65)}}, "bad_quantities", "quantities"),
        ({"metadata": [1]}, "bad_type", "metadata"),
        ({"occurred_at": datetime(2026, 1, 1)}, "timezone_required", "time"),  # noqa: DTZ001 - the point
        ({"occurred_at": "2026-01-01T00:00:00Z"}, "bad_time", "time"),
        ({"occurred_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, "bad_time", "time"),
    ],
)
def test_what_the_worker_would_refuse_is_refused_at_once(changes: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        line(**changes)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert str(refused.value).startswith(f"{field}: ")
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfff y \ud83d", "é…\U0001f600", "line\nfeed\r\u2028", '"\\'])
def test_payload_text_is_kept_exactly(text: str) -> None:
    written = line(input=text, output=[{"deep": text}], metadata={"k": text, text: 1})
    assert b"\n" not in written
    data = json.loads(written)["data"]
    assert (data["input"], data["output"], data["metadata"]) == (text, [{"deep": text}], {"k": text, text: 1})


def test_a_half_surrogate_does_not_change_its_neighbours() -> None:
    given = {"big": 2**70, "float": 0.1, "no": None, "yes": True, "list": [1, ["\ud800"]], "text": "é"}
    assert json.loads(line(input=given))["data"]["input"] == given


def test_payloads_may_hold_mappings_and_decimals() -> None:
    made = event(input=Decimal("0.10"), metadata=MappingProxyType({"a": 1}))
    assert made["data"]["input"] == "0.10"
    assert made["data"]["metadata"] == {"a": 1}
    assert event(quantities=UserDict(requests=1))["data"]["quantities"] == {"requests": 1}


def test_what_json_cannot_express_is_refused() -> None:
    with pytest.raises(InvalidEventError, match="bad_type"):
        line(input=object())
    with pytest.raises(InvalidEventError, match="bad_type"):
        line(input="\ud800", output=object())
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidEventError, match="too_deep"):
        line(output=nested)


@pytest.mark.parametrize("form", [dict, lambda e: json.dumps(e).encode(), lambda e: json.dumps(e, indent=2)])
def test_a_finished_event_goes_onto_one_line_unchanged(form: Any) -> None:
    event_id, routing_key, written = check_event(form(ENVELOPE))
    assert (event_id, routing_key) == ("e-1", "usage")
    assert b"\n" not in written
    assert json.loads(written) == ENVELOPE


def test_a_payment_is_routed_as_one() -> None:
    payment = {**ENVELOPE, "type": "taximeter.payment.v1", "data": {"amount": "25.00", "kind": "top_up"}}
    assert check_event(payment)[1] == "payment"


def test_bytes_are_not_encoded_again() -> None:
    raw = b'{"type":"taximeter.usage.v1", "specversion":"1.0","id":"e","subject":"acme","time":"t","data":{"x":1.50}}'
    assert check_event(raw)[2] == raw
    surrogate = raw.replace(b"1.50", b'"\\ud800"')
    assert check_event(surrogate)[2] == surrogate


def test_numbers_of_a_finished_event_stay_numbers() -> None:
    given = {**ENVELOPE, "data": {"quantities": {"seconds": Decimal("1.50")}}}
    assert b'"seconds":1.50' in check_event(given)[2]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xff\xfe{}", "bad_encoding"),
        (json.dumps(ENVELOPE).encode("utf-16-le"), "bad_encoding"),
        (b"\xef\xbb\xbf{}", "bad_encoding"),
        (b'{"id": ', "bad_json"),
        (b'{"id": NaN}', "bad_json"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b"7", "not_an_object"),
        pytest.param(b'{"data":' + b"[" * 200_000, "too_deep", id="deep"),
        ({**ENVELOPE, "specversion": "2.0"}, "unsupported_version"),
        ({**ENVELOPE, "type": "other"}, "unsupported_version"),
        ({**ENVELOPE, "type": ["taximeter.usage.v1"]}, "unsupported_version"),
        ({**ENVELOPE, "id": None}, "id_required"),
        ({**ENVELOPE, "subject": "a/b"}, "workspace_charset"),
        ({**ENVELOPE, "subject": None}, "workspace_required"),
        ({**ENVELOPE, "time": 1700000000000}, "bad_time"),
        ({**ENVELOPE, "data": {"x": Decimal("NaN")}}, "bad_json"),
    ],
)
def test_a_broken_envelope_is_refused(raw: Any, code: str) -> None:
    with pytest.raises(InvalidEventError) as refused:
        check_event(raw)
    assert refused.value.code == code
