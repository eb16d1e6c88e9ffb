"""The examples of docs/integrations.md, run as they stand: the test adds where the provider answers, and a key.

LiteLLM's is run by test_litellm.py, in a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import re
from pathlib import Path
from typing import Any

import agents
import openai
import pytest
from mcp import Client
from starlette.testclient import TestClient

from adapter_fixtures import FIXTURES, folded, pools
from servers.aws_events import conversed
from servers.provider import as_events, as_json

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()
EXAMPLES = {
    heading: block
    for heading, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
}
REST = {"object": "chat.completion", "created": 1, "choices": []}
CHAT = {
    "object": "chat.completion",
    "created": 1,
    **FIXTURES["oai-chat-cached"]["response"],
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
}
SAID = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
RESPONSE = {
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    **FIXTURES["oai-resp-plain"]["response"],
    "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [SAID]}],
}
KEYS = 'region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="k"'
RUNS: dict[str, tuple[tuple[str, str], Any, str]] = {
    "OpenAI": (
        ("OpenAI()", 'OpenAI(api_key="k", base_url=ADDRESS)'),
        as_json(FIXTURES["oai-chat-cached"]["response"]),
        "oai-chat-cached",
    ),
    "Anthropic": (
        ("Anthropic()", 'Anthropic(api_key="k", base_url=ADDRESS)'),
        as_json(FIXTURES["ant-thinking"]["response"]),
        "ant-thinking",
    ),
    "Google": (
        ("Client()", 'Client(api_key="k", http_options={"base_url": ADDRESS})'),
        as_events(FIXTURES["gem-stream-cumulative"]["events"]),
        "gem-stream-cumulative",
    ),
    "Amazon Bedrock": (
        ('"bedrock-runtime")', f'"bedrock-runtime", endpoint_url=ADDRESS, {KEYS})'),
        conversed(),
        "bed-converse-stream",
    ),
    "Mistral": (
        ("Mistral()", 'Mistral(api_key="k", server_url=ADDRESS)'),
        as_json({**REST, **FIXTURES["mis-cached"]["response"]}),
        "mis-cached",
    ),
    "Cohere": (
        ("ClientV2()", 'ClientV2("k", base_url=ADDRESS)'),
        as_events(FIXTURES["coh-stream"]["events"]),
        "coh-stream",
    ),
    "LangChain": (
        ('"gpt-4o"', '"gpt-4o", api_key="k", base_url=ADDRESS'),
        as_json(CHAT),
        "oai-chat-cached",
    ),
    "pydantic-ai": (("", ""), as_json(CHAT), "oai-chat-cached"),
    "openai-agents": (("", ""), as_json(RESPONSE), "oai-resp-plain"),
    "MCP servers": (("", ""), as_json({}), ""),
    "OpenTelemetry": (("", ""), as_json({}), "otel-legacy"),
    "ASGI: FastAPI and Starlette": (("", ""), as_json(FIXTURES["oai-chat-cached"]["response"]), "oai-chat-cached"),
    "Django": (("", ""), as_json(FIXTURES["oai-chat-cached"]["response"]), "oai-chat-cached"),
}
"""By heading: what is written in place of what, what the provider answers, and the fixture with what it consumes."""


def ask_fastapi(example: dict[str, Any]) -> None:
    with TestClient(example["app"]) as browser:
        assert browser.get("/ask").status_code == 200


def ask_django(example: dict[str, Any]) -> None:
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    example["Metered"](lambda _request: example["client"].chat.completions.create(**asked))(None)


def run_agent(example: dict[str, Any]) -> None:
    agents.set_tracing_disabled(disabled=True)
    asyncio.run(example["ask"]())
    agents.models.openai_provider._http_client = None  # the library keeps it open


def call_tool(example: dict[str, Any]) -> None:
    example["server"].tool()(clip)

    async def call() -> None:
        async with Client(example["server"]) as client:
            await client.call_tool("clip", {})

    asyncio.run(call())


def clip() -> str:
    """Make a clip."""
    return "done"


def trace(example: dict[str, Any]) -> None:
    with example["meter"].attribution("acme", tool="chat", user="u-17"):
        span = example["spans"].get_tracer("example").start_span("chat")
    span.set_attributes(FIXTURES["otel-legacy"]["response"])
    span.end()
    example["spans"].shutdown()


USES = {
    "openai-agents": run_agent,
    "MCP servers": call_tool,
    "OpenTelemetry": trace,
    "ASGI: FastAPI and Starlette": ask_fastapi,
    "Django": ask_django,
}
"""What uses an example that calls nothing by itself."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the examples close no connections
@pytest.mark.parametrize("heading", [heading for heading in EXAMPLES if heading != "LiteLLM"])
def test_an_example_runs(heading: str, provider: Any, meter: Any, recorded: Any, monkeypatch: Any) -> None:
    (before, after), reply, name = RUNS[heading]
    provider.queue(reply)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", provider.address)
    text = EXAMPLES[heading]
    assert before in text
    assert len([line for line in text.splitlines() if line.strip()]) <= 12
    client = openai.OpenAI(api_key="k", base_url=provider.address)
    example = {"meter": meter, "client": meter.wrap(client), "ADDRESS": provider.address, "__name__": "example"}
    exec(text.replace(before, after) if before else text, example)
    if heading in USES:
        USES[heading](example)
    client.close()
    (event,) = recorded()
    assert (event["workspace"], event["tool"], event["user"]) == ("acme", "chat", "u-17")
    expected = pools(name) if name else {"requests": 1}
    assert folded(event["quantities"], expected) == expected
    gc.collect()  # connections that the example left open, while that is tolerated
