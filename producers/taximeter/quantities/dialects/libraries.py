"""Libraries between a tool and its providers, which count in a format of their own: inclusive, all of them."""

from __future__ import annotations

import re
from typing import Final

from taximeter.quantities.dialects.anthropic import ModelPools, by_model
from taximeter.quantities.dialects.openai import chat, same
from taximeter.quantities.split import Counts, Modality, pools_of
from taximeter.quantities.usage import Count, Pools, Usage, rejected, without_zeros

_TIERED: Final = re.compile(r"(?P<tier>[a-z]+)_(?:cache_read|cache_creation|reasoning)")
_OTEL: Final = re.compile(r"gen_ai\.usage\.(?P<name>.+)")


def litellm(usage: Usage) -> list[ModelPools]:
    """Pools of LiteLLM's ``Usage`` by model. It adds an advisor's tokens to the totals; its iterations tell them apart."""
    pools = chat(usage)
    _, others = by_model(Usage({"iterations": usage.value("iterations")}, usage.path, usage.context))
    for part in others:
        for unit, tokens in part.pools.items():
            pools[unit] = pools.get(unit, 0) - tokens
    if any(tokens < 0 for tokens in pools.values()):
        raise rejected(f"{usage.path}.iterations", "count more tokens of other models than the totals hold")
    return [ModelPools(None, without_zeros(pools)), *others]


def langchain(usage: Usage) -> Pools:
    """Pools of LangChain's ``UsageMetadata``. A service tier stands as a prefix before the names of the details."""
    read, said = usage.inside("input_token_details"), usage.inside("output_token_details")
    matches = (_TIERED.fullmatch(name) for details in (read, said) for name in details.names())
    tiers = {"", *(f"{match['tier']}_" for match in matches if match)}
    for tier in tiers - {""}:
        usage.context.note(f"service_tier:{tier[:-1]}")
        read.ignore(tier[:-1])
        said.ignore(tier[:-1])
    for details in (read, said):
        details.ignore("text", "image", "video", "document")
    minutes, hour = read.part("ephemeral_5m_input_tokens"), read.part("ephemeral_1h_input_tokens")
    whole = read.part(*(f"{tier}cache_creation" for tier in sorted(tiers)))
    lifetimes = minutes.amount + hour.amount
    # With lifetimes it sets the whole to 0; whoever sets it to the sum means the same tokens.
    written = whole.amount if whole.amount >= lifetimes else whole.amount + lifetimes
    counts = Counts(
        prompt=usage.total("input_tokens"),
        answer=usage.total("output_tokens"),
        total=usage.find("total_tokens"),
        cached=read.part(*(f"{tier}cache_read" for tier in sorted(tiers))),
        written=Count(whole.name, written),
        written_1h=hour,
        reasoning=said.part(*(f"{tier}reasoning" for tier in sorted(tiers))),
        audio=Modality(read.part("audio")),
        spoken=said.part("audio"),
    )
    return pools_of(counts, usage.context)


def pydantic_ai(usage: Usage) -> Pools:
    """Pools of pydantic-ai's ``RequestUsage`` or ``RunUsage``; ``details`` repeat what the provider said."""
    for name in ("input_tokens_details", "input_token_details"):
        usage.must_not_have(name, "is OpenAI's or LangChain's; use openai_responses() or langchain()")
    details = Usage(usage.value("details"), f"{usage.path}.details", usage.context)
    answer = usage.total("output_tokens")
    reasoning = details.part("reasoning_tokens", "thoughts_tokens", "thinking_tokens")
    again = usage.find("cache_audio_read_tokens")
    counts = Counts(
        prompt=usage.total("input_tokens"),
        answer=answer,
        cached=usage.part("cache_read_tokens"),
        written=usage.part("cache_write_tokens"),
        reasoning=reasoning if reasoning.amount <= answer.amount else Count("", 0),
        audio=Modality(usage.part("input_audio_tokens"), again if again is not None and again.amount else None),
        spoken=usage.part("output_audio_tokens"),
    )
    return pools_of(counts, usage.context)


def otel(attributes: Usage) -> Pools:
    """Pools of the ``gen_ai.usage.…`` attributes of OpenTelemetry's conventions, their former names included.

    A span is good for a picture, not for a bill: spans are sampled, and who writes them does not agree on caches.
    """
    matches = [match for name in attributes.names() if (match := _OTEL.fullmatch(name))]
    counts_by_name = {match["name"].replace(".", "_"): attributes.value(match[0]) for match in matches}
    attributes.ignore(*attributes.names())  # others name tokens too, such as gen_ai.request.max_tokens
    usage = Usage(counts_by_name, "gen_ai.usage", attributes.context)
    usage.ignore(*(f"{kind}_{way}_tokens" for kind in ("text", "video") for way in ("input", "output")))
    usage.ignore("text_cache_read_input_tokens", "total_tokens")
    prompt = same(usage.find("input_tokens"), usage.find("prompt_tokens"))
    if not (usage.is_given("input_tokens") or usage.is_given("prompt_tokens")):
        prompt = usage.total("input_tokens")
    cached = usage.part("cache_read_input_tokens", "cache_read_tokens")
    written = usage.part("cache_write_input_tokens", "cache_creation_input_tokens", "cache_write_tokens")
    if cached.amount + written.amount > prompt.amount:
        usage.context.note("exclusive_cached_detected")
        prompt = Count(prompt.name, prompt.amount + cached.amount + written.amount)
    counts = Counts(
        prompt=prompt,
        answer=same(usage.find("output_tokens"), usage.find("completion_tokens")),
        cached=cached,
        written=written,
        reasoning=usage.part("reasoning_output_tokens", "reasoning_tokens"),
        audio=Modality(usage.part("audio_input_tokens"), usage.find("audio_cache_read_input_tokens")),
        image=Modality(usage.part("image_input_tokens"), usage.find("image_cache_read_input_tokens")),
        spoken=usage.part("audio_output_tokens"),
        drawn=usage.part("image_output_tokens"),
    )
    pools = pools_of(counts, usage.context)
    usage.all_read()
    return pools
