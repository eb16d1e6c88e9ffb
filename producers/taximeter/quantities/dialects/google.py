"""Google's ``usage_metadata``, in snake case or in REST's camel case, also of the Live API and of embeddings.

Thoughts and the prompts of tools stand beside the other counts where the total says so. Video and documents remain
among the text. Source: ``GenerateContentResponseUsageMetadata`` and ``UsageMetadata`` in Google's Gen AI SDK.
"""

from __future__ import annotations

from taximeter.quantities.split import NOTHING, Counts, Modality, pools_of
from taximeter.quantities.usage import Count, Pools, Usage, rejected, rest


def generate_content(usage: Usage) -> Pools:
    """Pools of generated content."""
    prompt, tools = usage.total("prompt_token_count"), usage.part("tool_use_prompt_token_count")
    cached, thoughts = usage.part("cached_content_token_count"), usage.part("thoughts_token_count")
    total = usage.find("total_token_count")
    # JSON leaves out a 0 here: all tokens may have gone into thoughts, or the answer was blocked.
    answer = usage.find("candidates_token_count", "response_token_count") or Count("usage.candidates_token_count", 0)
    (heard, heard_again, spoken), (seen, seen_again, drawn) = _modalities(usage)
    rest(prompt, cached)
    tools, thoughts_beside = _arranged(prompt, tools, answer, thoughts, total)
    counts = Counts(
        prompt=Count(f"{prompt.name} with {tools.name}", prompt.amount + tools.amount) if tools.amount else prompt,
        answer=Count(answer.name, answer.amount + thoughts.amount) if thoughts_beside else answer,
        cached=cached,
        reasoning=thoughts,
        audio=Modality(heard, heard_again if usage.is_given("cache_tokens_details") else None),
        image=Modality(seen, seen_again if usage.is_given("cache_tokens_details") else None),
        spoken=spoken,
        drawn=drawn,
    )
    return pools_of(counts, usage.context)


def _arranged(prompt: Count, tools: Count, answer: Count, thoughts: Count, total: Count | None) -> tuple[Count, bool]:
    """The tools' tokens beside the prompt, and whether thoughts stand beside the answer, as the total says."""
    if total is None or not total.amount:
        return tools, True
    gap = total.amount - prompt.amount - answer.amount
    for tools_beside, thoughts_beside in ((True, True), (True, False), (False, True), (False, False)):
        plausible = (tools_beside or tools.amount <= prompt.amount) and (
            thoughts_beside or thoughts.amount <= answer.amount
        )
        if plausible and gap == tools.amount * tools_beside + thoughts.amount * thoughts_beside:
            return (tools if tools_beside else NOTHING), thoughts_beside
    named = " and ".join(
        f"{count.name} ({count.amount})" for count in (prompt, tools, answer, thoughts) if count.amount
    )
    raise rejected(
        total.name, f"is {total.amount}, which is not the sum of {named}; pass one response's usage unchanged"
    )


def _modalities(usage: Usage) -> list[tuple[Count, Count, Count]]:
    """Of audio and of images: tokens in the prompt, those of them that were cached, and tokens in the answer."""
    lists = (
        [*usage.each("prompt_tokens_details"), *usage.each("tool_use_prompt_tokens_details")],
        usage.each("cache_tokens_details"),
        [*usage.each("candidates_tokens_details"), *usage.each("response_tokens_details")],
    )
    names = ("prompt_tokens_details", "cache_tokens_details", "candidates_tokens_details")
    modalities: list[tuple[Count, Count, Count]] = []
    for kind in ("AUDIO", "IMAGE"):
        read, again, said = (
            Count(f"usage.{name} {kind}", sum(part.part("token_count").amount for part in parts if _kind(part) == kind))
            for name, parts in zip(names, lists, strict=True)
        )
        modalities.append((read, again, said))
    for part in (part for parts in lists for part in parts):
        part.ignore("token_count")
    return modalities


def _kind(part: Usage) -> str:
    modality = part.value("modality")
    return str(getattr(modality, "name", modality)).rpartition(".")[2].upper()
