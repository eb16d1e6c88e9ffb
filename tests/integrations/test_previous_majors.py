"""Previous major versions of the libraries, each in an environment of its own with the SDK: ``make soak``.

The versions are those of the table in docs/integrations.md. They come from the package registry.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapter_fixtures import FIXTURES, folded, pools
from servers.provider import Replay, Reply, as_events, as_json, serving

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("major_calls.py")
SDK = ("kombu", "msgspec", "packaging", "redis")
CHAT: dict[str, Any] = {
    "object": "chat.completion",
    "created": 1,
    **FIXTURES["oai-chat-cached"]["response"],
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
}
PIECE: dict[str, Any] = {**CHAT, "object": "chat.completion.chunk", "usage": None}
CHUNKS = [
    {**PIECE, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}]},
    {**PIECE, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {**PIECE, "choices": [], "usage": CHAT["usage"]},
]
MISTRAL: dict[str, Any] = {"object": "chat.completion", "created": 1, "choices": []}
SPOKEN = "oai-chat-cached", "oai-chat-cached", as_json(CHAT), as_events(CHUNKS, end="data: [DONE]\n\n")
ANTHROPIC = (
    "ant-thinking",
    "ant-stream-websearch-grows",
    as_json(FIXTURES["ant-thinking"]["response"]),
    as_events(FIXTURES["ant-stream-websearch-grows"]["events"], named=True),
)
GOOGLE = (
    "gem-plain",
    "gem-stream-cumulative",
    as_json(FIXTURES["gem-plain"]["response"]),
    as_events(FIXTURES["gem-stream-cumulative"]["events"]),
)
MISTRALAI = (
    "mis-cached",
    "mis-stream",
    as_json({**MISTRAL, **FIXTURES["mis-cached"]["response"]}),
    as_events([event["data"] for event in FIXTURES["mis-stream"]["events"]], end="data: [DONE]\n\n"),
)
COHERE = (
    "coh-billed",
    "coh-stream",
    as_json(FIXTURES["coh-billed"]["response"]),
    as_events(FIXTURES["coh-stream"]["events"]),
)
MAJORS: list[tuple[str, str, tuple[str, ...], tuple[str, str, Reply, Reply]]] = [
    ("openai", "openai 2", ("openai>=2,<3",), SPOKEN),
    ("openai", "openai 1", ("openai>=1,<2",), SPOKEN),
    ("anthropic", "anthropic 1", ("anthropic>=1,<2",), ANTHROPIC),
    ("anthropic", "anthropic 0", ("anthropic<1",), ANTHROPIC),
    ("google", "google-genai 2", ("google-genai>=2,<3",), GOOGLE),
    ("mistral", "mistralai 2", ("mistralai>=2,<3",), MISTRALAI),
    ("cohere", "cohere 6", ("cohere>=6,<7",), COHERE),
    ("langchain", "langchain-core 0", ("langchain-core<1", "langchain-openai<1"), SPOKEN),
    ("pydantic_ai", "pydantic-ai 1", ("pydantic-ai-slim[openai]>=1,<2",), SPOKEN),
]
LLAMA_INDEX = "llama_index", "", ("llama-index-llms-openai>=0.8",), SPOKEN
"""Needs an openai of before, so it is not with the other tests."""


def test_the_table_names_the_majors_that_are_run() -> None:
    page = (ROOT / "docs" / "integrations.md").read_text()
    named = {
        f"{library} {major}"
        for library, majors in re.findall(r"^\| ([\w-]+) \| ([\d, ]+) \|$", page, re.MULTILINE)
        for major in majors.split(", ")
    }
    assert named == {name for _, name, _, _ in MAJORS}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("library", "requirements", "told"),
    [(one[0], *one[2:]) for one in (*MAJORS, LLAMA_INDEX)],
    ids=[*(one[1] for one in MAJORS), "llama-index"],
)
def test_a_previous_major_is_recorded(
    library: str, requirements: tuple[str, ...], told: tuple[str, str, Reply, Reply], tmp_path: Path
) -> None:
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *SDK, *requirements], check=True)
    whole, streamed, answer, stream = told
    count = 1 if library == "pydantic_ai" else 2
    with serving(Replay()) as provider:
        provider.queue(*[answer, stream] * count)
        done = subprocess.run(
            [python, SCRIPT, library, provider.address],
            env={**os.environ, "PYTHONPATH": str(ROOT / "producers")},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    recorded = json.loads(done.stdout.splitlines()[-1])
    for way, quantities in recorded.items():
        expected = pools(streamed if "stream" in way else whole)
        assert folded(quantities, expected) == expected, way
