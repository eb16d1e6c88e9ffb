"""The examples of docs/calls.md run, against a provider on this machine."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from provider_server import FIXTURES, Provider
from taximeter import AIDisabled, Meter
from taximeter.testing import MemoryMeter

PAGE = (Path(__file__).parents[3] / "docs" / "calls.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ANSWERS = {
    "gpt-4o": "oai-chat-cached",
    'model="gpt-5"': "oai-resp-stream-disconnect",
    "claude": "ant-stream-websearch-grows",
}


def run(source: str, meter: MemoryMeter, **names: Any) -> dict[str, Any]:
    space: dict[str, Any] = {"meter": meter, "messages": [{"role": "user", "content": "hi"}], **names}
    exec(compile(source, "docs/calls.md", "exec"), space)
    return space


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, remote: Provider, meter: MemoryMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    source = EXAMPLES[number]
    monkeypatch.setattr(Meter, "from_env", classmethod(lambda _: meter))
    for library in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{library}_BASE_URL", remote.url)
        monkeypatch.setenv(f"{library}_API_KEY", "key")
    remote.answers(FIXTURES[next((fixture for part, fixture in ANSWERS.items() if part in source), "oai-chat-cached")])
    space = run(source, meter, pytest=pytest, AIDisabled=AIDisabled)

    async def asynchronous() -> None:
        if "tell" in space:
            await space["tell"]("why?")
        if "read" in space:
            await space["read"](["one", "two"])
        if isinstance(client := space.get("client"), openai.AsyncOpenAI):
            await client.close()

    asyncio.run(asynchronous())
    if isinstance(client := space.get("client"), openai.OpenAI | anthropic.Anthropic):
        client.close()
    if "test_no_call_is_made_without_credit" in space:

        def answer(meter: MemoryMeter, workspace: str) -> None:
            with meter.track(workspace, tool="chat"):
                pass

        space["answer"] = answer
        space["test_no_call_is_made_without_credit"]()
    else:
        assert meter.usages


def test_the_table_names_the_versions_that_run() -> None:
    table = (Path(__file__).parents[3] / "docs" / "integrations.md").read_text()
    for library in (openai, anthropic):
        assert f"| {library.__name__} | {'.'.join(library.__version__.split('.')[:2])} |" in table
