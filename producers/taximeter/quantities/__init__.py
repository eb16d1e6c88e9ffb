"""From what a provider reports of a call to the quantities of an event: pools that do not overlap.

from taximeter import quantities

meter.record("acme", tool="chat", model="gpt-4o", quantities=quantities.openai_chat(response.usage))

Providers count a token twice (``prompt_tokens`` includes the cached ones), an event counts it once. Each function takes
one response's usage, as an object or as decoded JSON, and returns standard units. Pools of 0 are left out, so that it is
the same content whether a provider reports a 0 or nothing; if all are 0, ``input_tokens`` stays, because an event needs a
quantity. Only what the usage counts is counted: add searches or images by their own units.

`read` and `StreamReader` take whole responses and streams instead, of which some bill several models.

`InvalidEventError` with ``bad_quantities`` is raised where a count is missing, not an int, negative, or less than its
parts, where a total is not the sum of its parts, and where a count of tokens or of another
standard unit is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taximeter.quantities.dialects import anthropic as _anthropic
from taximeter.quantities.dialects import bedrock as _bedrock
from taximeter.quantities.dialects import google as _google
from taximeter.quantities.dialects import libraries as _libraries
from taximeter.quantities.dialects import openai as _openai
from taximeter.quantities.dialects import others as _others
from taximeter.quantities.dialects.anthropic import ModelPools
from taximeter.quantities.reading import DIALECTS, Part, Reading, StreamReader, read
from taximeter.quantities.usage import Context, Pools, Usage, rejected

__all__ = [
    "DIALECTS",
    "Part",
    "Reading",
    "StreamReader",
    "anthropic",
    "bedrock",
    "cohere",
    "gemini",
    "langchain",
    "litellm",
    "mistral",
    "openai_chat",
    "openai_embeddings",
    "openai_responses",
    "openai_speech",
    "openai_transcription",
    "otel",
    "perplexity",
    "pydantic_ai",
    "read",
]


def openai_chat(usage: object, provider: str | None = None) -> dict[str, Any]:
    """Quantities of a chat completion: OpenAI's, or of the many others who speak this format.

    Azure, DeepSeek, Kimi, OpenRouter, Groq, vLLM, xAI and others are told apart by the names that they add and by their
    totals. Name the `provider` where neither tells: Google's totals hold thoughts that nothing else counts.
    """
    return _pools(_openai.chat, usage, provider)


def openai_responses(usage: object, provider: str | None = None) -> dict[str, Any]:
    """Quantities of a response of OpenAI's Responses, Realtime or Images API, or of one who speaks these formats."""
    return _pools(_openai.responses, usage, provider)


def openai_embeddings(usage: object) -> dict[str, Any]:
    """Quantities of an embedding."""
    return _pools(_openai.embeddings, usage)


def openai_transcription(usage: object) -> dict[str, Any]:
    """Quantities of a transcription: tokens, or ``seconds``."""
    return _pools(_openai.transcription, usage)


def openai_speech(usage: object) -> dict[str, Any]:
    """Quantities of speech that is billed by tokens."""
    return _pools(_openai.speech, usage)


def anthropic(usage: object) -> dict[str, Any]:
    """Quantities of a message of Anthropic's API, with all of its iterations; `read` where another model advised."""
    return _pools(_anthropic.message, usage)


def gemini(usage: object) -> dict[str, Any]:
    """Quantities of Google's ``usage_metadata``, in snake case or in REST's camel case, also of the Live API."""
    return _pools(_google.generate_content, usage)


def bedrock(usage: object, model: str | None = None) -> dict[str, Any]:
    """Quantities of a response of Amazon Bedrock's Converse; `model` is the id that it was asked by."""
    return _pools(_bedrock.converse, usage, model=model)


def cohere(usage: object) -> dict[str, Any]:
    """Quantities of what Cohere bills: a chat's ``usage``, or the ``meta`` of an embedding or a reranking."""
    return _pools(_others.cohere, usage)


def mistral(usage: object) -> dict[str, Any]:
    """Quantities of Mistral's chat (``seconds`` of audio included), conversations and OCR (``pages``)."""
    return _pools(_others.mistral, usage)


def perplexity(usage: object) -> dict[str, Any]:
    """Quantities of Perplexity's Sonar, whose reasoning and citations stand beside the completion."""
    return _pools(_others.perplexity, usage)


def litellm(usage: object) -> dict[str, Any]:
    """Quantities of LiteLLM's ``Usage``; `read` where another model advised."""
    return _pools(_only(_libraries.litellm), usage)


def langchain(usage: object) -> dict[str, Any]:
    """Quantities of LangChain's ``usage_metadata``."""
    return _pools(_libraries.langchain, usage)


def pydantic_ai(usage: object) -> dict[str, Any]:
    """Quantities of pydantic-ai's ``RequestUsage`` or ``RunUsage``."""
    return _pools(_libraries.pydantic_ai, usage)


def otel(attributes: object) -> dict[str, Any]:
    """Quantities of a span's ``gen_ai.usage.…`` attributes. Spans are good for pictures, not for bills."""
    return _pools(_libraries.otel, attributes)


def _only(usages: Callable[[Usage], list[ModelPools]]) -> Callable[[Usage], Pools]:
    def only(usage: Usage) -> Pools:
        first, *others = usages(usage)
        if others:
            raise rejected(f"{usage.path}.iterations", f"{others[0].model} was billed too; use read()")
        return first.pools

    return only


def _pools(
    pools_of: Callable[[Usage], Pools], given: object, provider: str | None = None, model: str | None = None
) -> dict[str, Any]:
    usage = Usage(given, "usage", Context(provider, model))
    pools = pools_of(usage)
    usage.ignore("server_tool_use", "server_tool_use_details")
    usage.all_read()
    return pools
