"""OpenAI's formats, and those of the many others who speak them.

Sources: ``CompletionUsage``, ``ResponseUsage``, ``RealtimeResponseUsage``, ``ImagesResponse`` and the transcription types
of OpenAI's API reference and SDK, and its guide to prompt caching. Azure, DeepSeek (``prompt_cache_hit_tokens``),
Moonshot's Kimi (``cached_tokens``), OpenRouter, vLLM, xAI and LiteLLM add names to the chat format, read here too.
"""

from __future__ import annotations

from typing import Final

from taximeter.quantities.split import NOTHING, Counts, Modality, pools_of
from taximeter.quantities.usage import Count, Pools, Usage, rejected, without_zeros

INSIDE: Final = ("text_tokens", "video_tokens", "document_tokens", "file_tokens", "tool_use_tokens")
"""Parts of the input or output that have no pool: they stay among the text."""


def chat(usage: Usage) -> Pools:
    """Pools of a chat completion."""
    return pools_of(chat_counts(usage), usage.context)


def chat_counts(usage: Usage) -> Counts:
    """A chat completion's counts. Images stay in the prompt: whoever counts them does not say how many were cached."""
    read, said = usage.inside("prompt_tokens_details"), usage.inside("completion_tokens_details")
    split = read.inside("cached_tokens_details")
    for details in (read, said, split):
        details.ignore(*INSIDE)
    for details in (read, split):
        details.ignore("image_tokens")
    said.ignore("accepted_prediction_tokens", "rejected_prediction_tokens")
    usage.ignore("prompt_cache_miss_tokens", "prompt_text_tokens", "prompt_image_tokens")
    written, hour = _written(usage, read)
    return Counts(
        prompt=usage.total("prompt_tokens"),
        answer=usage.total("completion_tokens"),
        total=_given(usage),
        cached=same(
            read.find("cached_tokens", "cache_read_tokens", "cache_read_input_tokens"),
            usage.find(
                "cached_tokens",
                "prompt_cache_hit_tokens",
                "cache_read_input_tokens",
                "num_cached_tokens",
                "cached_prompt_text_tokens",
            ),
        ),
        written=written,
        written_1h=hour,
        reasoning=same(said.find("reasoning_tokens"), usage.find("reasoning_tokens")),
        audio=Modality(read.part("audio_tokens"), split.find("audio_tokens")),
        spoken=said.part("audio_tokens"),
        drawn=said.part("image_tokens"),
        beside=usage.part("connector_tokens"),
    )


def responses(usage: Usage) -> Pools:
    """Pools of a response of the Responses, Realtime or Images API, and of a transcription that is billed by tokens."""
    for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):
        usage.must_not_have(name, "is Anthropic's; use anthropic()")
    for name in ("cache_read_tokens", "cache_write_tokens"):
        usage.must_not_have(name, "is pydantic-ai's; use pydantic_ai()")
    read = usage.inside("input_tokens_details", "input_token_details")
    said = usage.inside("output_tokens_details", "output_token_details")
    split = (
        read.inside("cached_tokens_details")
        if read.is_given("cached_tokens_details")
        else usage.inside("cached_tokens_details")
    )
    for details in (read, said, split):
        details.ignore(*INSIDE)
    usage.ignore("request_usage_entries")  # openai-agents repeats each request here
    written, hour = _written(usage, read)
    counts = Counts(
        prompt=usage.total("input_tokens"),
        answer=usage.total("output_tokens"),
        total=_given(usage),
        cached=same(read.find("cached_tokens"), usage.find("cached_tokens")),
        written=written,
        written_1h=hour,
        reasoning=same(said.find("reasoning_tokens"), usage.find("reasoning_tokens")),
        audio=Modality(read.part("audio_tokens"), split.find("audio_tokens")),
        image=Modality(read.part("image_tokens"), split.find("image_tokens")),
        spoken=said.part("audio_tokens"),
        drawn=said.part("image_tokens"),
    )
    return pools_of(counts, usage.context)


def embeddings(usage: Usage) -> Pools:
    """Pools of an embedding: there is no output."""
    prompt, answer = usage.total("prompt_tokens", "input_tokens"), usage.part("completion_tokens")
    return pools_of(Counts(prompt, answer, _given(usage)), usage.context)


def transcription(usage: Usage) -> Pools:
    """Pools of a transcription, which is billed by tokens or by duration."""
    seconds = usage.seconds("seconds")
    if usage.value("type") == "duration" or (seconds is not None and not usage.is_given("input_tokens")):
        if seconds is None:
            raise rejected("usage.seconds", "is missing from a usage of the type duration")
        return {"seconds": seconds}
    return responses(usage)


def speech(usage: Usage) -> Pools:
    """Pools of speech: what comes out is audio."""
    counts = Counts(usage.total("input_tokens"), usage.total("output_tokens"), _given(usage))
    return pools_of(counts._replace(spoken=counts.answer), usage.context)


def same(*counts: Count | None) -> Count:
    """One number that is reported in several places: the one that is not 0."""
    number = NOTHING
    for count in counts:
        if count is None or not count.amount:
            continue
        if number.amount and number.amount != count.amount:
            raise rejected(count.name, f"is {count.amount}, and {number.name} is {number.amount}; they mean the same")
        number = count
    return number


def _given(usage: Usage) -> Count | None:
    """The total, where there is one. Mistral's SDK fills in 0."""
    total = usage.find("total_tokens")
    return total if total is not None and (total.amount or usage.context.provider != "mistral") else None


def _written(usage: Usage, read: Usage) -> tuple[Count, Count]:
    """Tokens written to the cache, and those of them that are kept for an hour. A lifetime of 12 hours has no pool."""
    written = same(
        read.find("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
        usage.find("cache_creation_input_tokens", "cache_write_input_tokens", "cache_write_tokens"),
    )
    read.inside("cache_write_tokens_details").ignore("ttl_30m_tokens", "ttl_12h_tokens")
    lifetimes = read.inside("cache_creation_token_details", "cache_creation")
    minutes, hour = lifetimes.part("ephemeral_5m_input_tokens"), lifetimes.part("ephemeral_1h_input_tokens")
    return written if written.amount else Count(minutes.name, minutes.amount + hour.amount), hour


def without_tokens(images: int) -> Pools:
    """Pools of an image that is billed by number."""
    return without_zeros({"images": images})
