"""OpenTelemetry's own SDK with the span processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode, Tracer

from adapter_fixtures import FIXTURES, named, pools
from servers.provider import as_json
from taximeter.integrations.opentelemetry import TaximeterSpanProcessor
from taximeter.testing import MemoryMeter

NAME = "oai-chat-cached"


@pytest.fixture
def meter() -> MemoryMeter:
    return MemoryMeter()


@pytest.fixture
def tracer(meter: MemoryMeter) -> Iterator[Tracer]:
    spans = TracerProvider()
    spans.add_span_processor(TaximeterSpanProcessor(meter))
    yield spans.get_tracer("test")
    spans.shutdown()


def events(meter: MemoryMeter) -> list[dict[str, Any]]:
    return [usage["data"] for usage in meter.usages]


@pytest.mark.parametrize("name", named("otel"))
def test_a_span_is_recorded(name: str, tracer: Tracer, meter: MemoryMeter) -> None:
    attributes = FIXTURES[name]["response"]
    with meter.attribution("acme", tool="chat", user="u-17"):
        span = tracer.start_span("chat")
    span.set_attributes({**attributes, "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"})
    span.end()
    (event,) = events(meter)
    assert event["quantities"] == pools(name)
    assert (event["provider"], event["user"]) == ("openai", "u-17")
    assert "from_span" in event["metadata"]["flags"]


def test_what_consumed_nothing_or_is_a_sum_of_others_is_not_recorded(tracer: Tracer, meter: MemoryMeter) -> None:
    usage = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 5}
    with meter.attribution("acme", tool="chat"):
        tracer.start_span("work").end()
        tracer.start_span("agent", attributes={"gen_ai.operation.name": "invoke_agent", **usage}).end()
        failed = tracer.start_span("chat", attributes={"gen_ai.operation.name": "chat"})
        failed.set_status(Status(StatusCode.ERROR))
        failed.end()
        assert events(meter) == []
        tracer.start_span("chat", attributes={"gen_ai.operation.name": "chat"}).end()
    (event,) = events(meter)
    assert event["quantities"] == {"requests": 1}
    assert event["metadata"]["flags"] == ["usage_missing", "from_span"]


def test_a_span_for_which_nobody_pays_is_left(tracer: Tracer, meter: MemoryMeter) -> None:
    tracer.start_span("chat", attributes={"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 5}).end()
    assert events(meter) == []


def test_a_span_within_a_metered_call_is_recorded_by_that(
    tracer: Tracer, meter: MemoryMeter, provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.queue(as_json(FIXTURES[NAME]["response"]))
    resource = openai.resources.chat.Completions
    create = resource.create

    def traced(*args: Any, **kwargs: Any) -> Any:
        """As instrumentation of openai does."""
        usage = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 5}
        with tracer.start_as_current_span("chat", attributes=usage):
            return create(*args, **kwargs)

    monkeypatch.setattr(resource, "create", traced)
    asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    with meter.attribution("acme", tool="chat"), openai.OpenAI(api_key="k", base_url=provider.address) as client:
        meter.wrap(client).chat.completions.create(**asked)
    assert [event["quantities"] for event in events(meter)] == [pools(NAME)]
