"""How one format's totals become disjoint pools: what includes what, decided by the total where it is ambiguous."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from taximeter.quantities.usage import Context, Count, Pools, rejected, rest, without_zeros

NOTHING: Final = Count("", 0)
REASONING_BESIDE: Final = frozenset({"x-ai", "xai"})
"""Who counts reasoning beside the output, where no total says so."""
UNNAMED_REASONING: Final = frozenset({"google", "gemini", "vertex_ai", "google-vertex", "vertex"})
"""Whose OpenAI-compatible total includes thoughts that no other count names."""


class Modality(NamedTuple):
    """Tokens of one kind of input: all of them, and those that were cached (None: the provider does not tell)."""

    tokens: Count = NOTHING
    cached: Count | None = None


class Counts(NamedTuple):
    """What a response reports, by role. `beside` are further input tokens outside of the prompt."""

    prompt: Count
    answer: Count
    total: Count | None = None
    cached: Count = NOTHING
    written: Count = NOTHING
    written_1h: Count = NOTHING
    reasoning: Count = NOTHING
    audio: Modality = Modality()
    image: Modality = Modality()
    spoken: Count = NOTHING
    drawn: Count = NOTHING
    beside: Count = NOTHING


class _Arrangement(NamedTuple):
    """Whether cached and written tokens stand beside the prompt, and reasoning beside the answer."""

    cache_beside: bool
    reasoning_beside: bool


def pools_of(counts: Counts, context: Context) -> Pools:
    """The disjoint pools of one response."""
    counts, arrangement = _arranged(counts, context)
    if arrangement.cache_beside:
        context.note("exclusive_cached_detected")
        prompt = Count(counts.prompt.name, counts.prompt.amount + counts.cached.amount + counts.written.amount)
        counts = counts._replace(prompt=prompt)
    if arrangement.reasoning_beside:
        counts = counts._replace(answer=Count(counts.answer.name, counts.answer.amount + counts.reasoning.amount))
    return without_zeros(_input(counts, context) | _output(counts))


def _arranged(counts: Counts, context: Context) -> tuple[Counts, _Arrangement]:
    """Find the one reading under which the parts add up to the total.

    Raises:
        InvalidEventError: There is none.
    """
    prompt, answer, reasoning = counts.prompt.amount, counts.answer.amount, counts.reasoning.amount
    cache = counts.cached.amount + counts.written.amount
    fits_in_prompt, fits_in_answer = cache <= prompt, reasoning <= answer
    if counts.total is None:
        return counts, _Arrangement(
            cache_beside=False, reasoning_beside=context.provider in REASONING_BESIDE and not fits_in_answer
        )
    gap = counts.total.amount - prompt - answer - counts.beside.amount
    for cache_beside, reasoning_beside in ((False, False), (False, True), (True, False), (True, True)):
        plausible = (cache_beside or fits_in_prompt) and (reasoning_beside or fits_in_answer)
        if plausible and gap == cache * cache_beside + reasoning * reasoning_beside:
            return counts, _Arrangement(cache_beside, reasoning_beside)
    if context.provider in UNNAMED_REASONING and gap > 0 and not reasoning and fits_in_prompt:
        thoughts = Count(f"{counts.total.name} beyond its parts", gap)
        return counts._replace(reasoning=thoughts), _Arrangement(cache_beside=False, reasoning_beside=True)
    rest(counts.prompt, counts.cached, counts.written)
    rest(counts.answer, counts.reasoning)
    raise rejected(
        counts.total.name,
        f"is {counts.total.amount}, which is not the sum of {' and '.join(_named(counts))}; "
        "pass one response's usage unchanged, and use the function for its provider",
    )


def _named(counts: Counts) -> Iterator[str]:
    for count in (counts.prompt, counts.answer, counts.beside, counts.cached, counts.written, counts.reasoning):
        if count.amount:
            yield f"{count.name} ({count.amount})"


def _input(counts: Counts, context: Context) -> dict[str, int]:
    """Split a prompt. A cached image is cached input. Where nobody says what was cached, text was, then audio."""
    audio, image = counts.audio, counts.image
    new_audio, new_image = (
        rest(modality.tokens, modality.cached or NOTHING) if modality.tokens.amount or modality.cached else 0
        for modality in (audio, image)
    )
    written = rest(counts.written, counts.written_1h)
    left = rest(counts.prompt, counts.cached, counts.written) - new_audio - new_image
    if -counts.cached.amount <= left < 0 and audio.cached is None and image.cached is None:
        context.note("overlap_resolved")
        of_audio = min(-left, new_audio)
        new_audio, new_image, left = new_audio - of_audio, new_image + left + of_audio, 0
    if left < 0 or new_image < 0:
        uncached = Count(f"uncached {audio.tokens.name}", new_audio), Count(f"uncached {image.tokens.name}", new_image)
        rest(counts.prompt, counts.cached, counts.written, *uncached)
    cached_audio, cached_image = audio.cached or NOTHING, image.cached or NOTHING
    return {
        "input_tokens": left + counts.beside.amount,
        "cached_input_tokens": rest(counts.cached, cached_audio, cached_image) + cached_image.amount,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": counts.written_1h.amount,
        "input_audio_tokens": new_audio,
        "cached_input_audio_tokens": cached_audio.amount,
        "input_image_tokens": new_image,
    }


def _output(counts: Counts) -> dict[str, int]:
    return {
        "output_tokens": rest(counts.answer, counts.reasoning, counts.spoken, counts.drawn),
        "reasoning_tokens": counts.reasoning.amount,
        "output_audio_tokens": counts.spoken.amount,
        "output_image_tokens": counts.drawn.amount,
    }
