"""Cohere, Mistral and Perplexity: providers with counts of their own beside a familiar format."""

from __future__ import annotations

from taximeter.quantities.dialects.openai import chat, chat_counts
from taximeter.quantities.split import NOTHING, pools_of
from taximeter.quantities.usage import Count, Pools, Usage, rejected, rest, without_zeros


def cohere(usage: Usage) -> Pools:
    """Pools of what Cohere bills, from ``usage`` or from the ``meta`` of an embedding or a reranking.

    ``tokens`` are the model's, with a template that nobody pays for. Source: ``Usage`` and ``ApiMeta`` in Cohere's SDK.
    """
    usage.context.provider = "cohere"
    billed, raw = usage.inside("billed_units"), usage.inside("tokens")
    raw.ignore("input_tokens", "output_tokens")
    source = billed if usage.is_given("billed_units") else raw
    text, image = source.part("text_tokens"), source.part("image_tokens")
    read = source.find("input_tokens") or Count(text.name, text.amount + image.amount)
    if image.amount and read.amount != text.amount + image.amount:
        read = Count(read.name, read.amount + image.amount)
    cached = usage.part("cached_tokens")
    cached = cached if cached.amount <= rest(read, image) else NOTHING
    return without_zeros(
        {
            "input_tokens": rest(read, image, cached),
            "cached_input_tokens": cached.amount,
            "input_image_tokens": image.amount,
            "output_tokens": source.part("output_tokens").amount,
            "requests": source.part("search_units").amount,
            "classifications": source.part("classifications").amount,
            "images": source.part("images").amount,
            "pages": source.part("pages").amount,
        }
    )


def mistral(usage: Usage) -> Pools:
    """Pools of Mistral's chat, conversations and OCR. Source: ``UsageInfo`` and ``OCRUsageInfo`` in Mistral's SDK."""
    usage.context.provider = "mistral"
    if usage.is_given("pages_processed"):
        return without_zeros({"pages": usage.part("pages_processed").amount})
    seconds = usage.seconds("prompt_audio_seconds")
    pools = chat(usage)
    return {**pools, "seconds": seconds} if seconds else pools


def perplexity(usage: Usage) -> Pools:
    """Pools of Perplexity's Sonar: reasoning and citations stand beside the completion, whatever the total counts.

    Citations have the catalogue's unit ``output_citation_tokens``. Source: Perplexity's API reference and pricing.
    """
    usage.must_not_have("completion_tokens_details", "is OpenAI's; use openai_chat()")
    citations = usage.part("citation_tokens")
    counts = chat_counts(usage)
    reasoning, parts = counts.reasoning.amount, counts.prompt.amount + counts.answer.amount
    sums = {parts, parts + reasoning, parts + citations.amount, parts + reasoning + citations.amount}
    if counts.total is not None and counts.total.amount not in sums:
        raise rejected(
            counts.total.name, f"is {counts.total.amount}, which is not a sum of the other counts; pass it unchanged"
        )
    answer = Count(counts.answer.name, counts.answer.amount + reasoning)
    pools = pools_of(counts._replace(answer=answer, total=None), usage.context)
    return without_zeros({**pools, "output_citation_tokens": citations.amount})
