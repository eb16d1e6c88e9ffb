"""boto3's client of Amazon Bedrock behind a meter, its HTTP answered by a local server."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.eventstream import EventStream
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from adapter_fixtures import FIXTURES, pools
from servers.aws_events import CONVERSED, INVOKED, conversed, invoked
from servers.provider import as_json
from taximeter import AIDisabled, ConfigurationError, NoAttributionError, NotMeteredError

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-pro-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "Hi"}]}]
ABOUT = {"x-amzn-requestid": "rid_abc"}


@pytest.fixture
def plain(provider: Any) -> Any:
    made = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=provider.address,
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"max_attempts": 3, "mode": "standard"}),
    )
    yield made
    made.close()


@pytest.fixture
def client(plain: Any, meter: Any) -> Any:
    return meter.wrap(plain)


@pytest.mark.parametrize("name", ["bed-nova-plain", "bed-claude-cache-ttl"])
def test_converse_is_recorded(name: str, client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    answer = {"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}, "stopReason": "end_turn"}
    provider.queue(as_json({**answer, **FIXTURES[name]["response"]}, headers=ABOUT))
    with meter.attribution("acme", tool="chat", user="u-17"):
        answer = client.converse(modelId=FIXTURES[name]["model"], messages=MESSAGES)
    assert answer["output"]["message"]["content"] == [{"text": "Hi"}]
    (event,) = recorded()
    assert event["quantities"] == pools(name)
    assert (event["provider"], event["model"], event["user"]) == ("aws-bedrock", FIXTURES[name]["model"], "u-17")
    assert event["metadata"] == {"request_id": "rid_abc"}


@pytest.mark.parametrize("size", [None, 1, 100])
def test_a_stream_is_recorded_whole(size: int | None, client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    provider.queue(conversed(size=size))
    with meter.attribution("acme", tool="chat"):
        answer = client.converse_stream(modelId=NOVA, messages=MESSAGES)
    assert isinstance(answer["stream"], EventStream)
    assert [next(iter(event)) for event in answer["stream"]] == [next(iter(event)) for event in CONVERSED]
    (event,) = recorded()
    assert event["quantities"] == pools("bed-converse-stream")
    assert event["metadata"] == {"request_id": "rid_abc"}


def test_whoever_stops_at_the_end_of_the_message_pays_what_follows_it(
    client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    provider.queue(conversed())
    with meter.attribution("acme", tool="chat"):
        for event in client.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"]:
            if "messageStop" in event:
                break  # the connection is read to its end by now
    (event,) = recorded()
    assert event["quantities"] == pools("bed-converse-stream")
    assert event["metadata"] == {"request_id": "rid_abc"}


def test_a_stream_that_is_left_closed_or_dies_is_flagged(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    with meter.attribution("acme", tool="chat"):
        provider.queue(conversed(CONVERSED[:2]).hanging())
        stream = client.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"]
        next(iter(stream))
        stream.close()
        provider.queue(conversed(CONVERSED[:2]).dying())
        with pytest.raises(Exception, match=r"(?i)broken|prematurely|incomplete"):
            list(client.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"])
        provider.queue(conversed())
        unread = client.converse_stream(modelId=NOVA, messages=MESSAGES)["stream"]._raw_stream
        unread.close()
    events = recorded()
    assert [event["quantities"] for event in events] == [{"requests": 1}] * 3
    assert {tuple(event["metadata"]["flags"]) for event in events} == {("usage_missing", "stream_incomplete")}


@pytest.mark.parametrize("size", [None, 5])
def test_a_stream_of_invoke_is_recorded(
    size: int | None, client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    nova = [
        {"contentBlockDelta": {}},
        {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 7, "outputTokenCount": 9}},
    ]
    provider.queue(invoked(size=size), invoked(nova, size))
    with meter.attribution("acme", tool="chat"):
        for model in (CLAUDE, NOVA):
            answer = client.invoke_model_with_response_stream(modelId=model, body=b"{}")
            assert all("chunk" in event for event in answer["body"])
        provider.queue(invoked(INVOKED[:2]))
        left = client.invoke_model_with_response_stream(modelId=CLAUDE, body=b"{}")["body"]
        next(iter(left))
        left.close()
    claude, other, partly = recorded()
    assert claude["quantities"] == pools("bedrock-ant-invoke-stream")
    assert other["quantities"] == {"input_tokens": 7, "output_tokens": 9}
    assert (claude["metadata"], other["metadata"]) == ({"request_id": "rid_abc"}, {"request_id": "rid_abc"})
    assert partly["quantities"] == {"input_tokens": 25, "cached_input_tokens": 1490, "output_tokens": 1}
    assert partly["metadata"]["flags"] == ["stream_incomplete", "output_lower_bound"]


def test_the_body_of_invoke_is_read_and_given_on(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    claude = {"usage": {"input_tokens": 5, "output_tokens": 6, "cache_creation_input_tokens": 3}}
    counts = {"x-amzn-bedrock-input-token-count": "8", "x-amzn-bedrock-output-token-count": "9"}
    provider.queue(as_json(claude, headers=counts), as_json(claude), as_json({"results": []}, headers=counts))
    provider.queue(as_json({"images": ["…"]}))
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31"})
    with meter.attribution("acme", tool="chat"):
        answer = client.invoke_model(modelId=CLAUDE, body=b"{}")
        assert isinstance(answer["body"], StreamingBody)
        assert json.loads(answer["body"].read()) == claude
        client.invoke_model(modelId="arn:aws:bedrock:us-east-1:1:application-inference-profile/x", body=body)
        client.invoke_model(modelId="amazon.titan-text", body=b"{}")
        client.invoke_model(modelId="amazon.nova-canvas", body=b"{}")
    of_claude = {"input_tokens": 5, "cache_write_tokens": 3, "output_tokens": 6}
    assert [event["quantities"] for event in recorded()] == [
        of_claude,
        of_claude,
        {"input_tokens": 8, "output_tokens": 9},
        {"requests": 1},
    ]


def test_a_call_is_checked_before_and_counts_once(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    with pytest.raises(NoAttributionError):
        client.converse(modelId=NOVA, messages=MESSAGES)
    with meter.attribution("broke", tool="chat"), pytest.raises(AIDisabled):
        client.converse_stream(modelId=NOVA, messages=MESSAGES)
    with meter.attribution("acme", tool="chat"):
        for method in (client.start_async_invoke, client.apply_guardrail, client.generate_presigned_url):
            with pytest.raises(NotMeteredError):
                method()
        assert provider.requests == []
        error = as_json(
            {"message": "slow down"}, status=503, headers={"x-amzn-errortype": "ServiceUnavailableException"}
        )
        provider.queue(error, as_json(FIXTURES["bed-nova-plain"]["response"]), *[error] * 4)
        client.converse(modelId=NOVA, messages=MESSAGES)
        with pytest.raises(ClientError, match="slow down"):
            client.converse(modelId=NOVA, messages=MESSAGES)
    assert [event["quantities"] for event in recorded()] == [pools("bed-nova-plain")]


def test_it_is_the_client_of_the_right_service(client: Any, plain: Any, meter: Any) -> None:
    assert isinstance(client, type(plain))
    assert client.meta.region_name == "us-east-1"
    other = boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with pytest.raises(ConfigurationError, match="s3"):
        meter.wrap(other)
    other.close()
