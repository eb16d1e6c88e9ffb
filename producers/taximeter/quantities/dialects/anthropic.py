"""Anthropic's messages, whose counts are disjoint but for the lifetimes of cache writes and the thinking in the output.

Sources: ``Usage``, ``CacheCreation`` and ``BetaIterationsUsage`` in Anthropic's API reference and SDK, and its guides to
prompt caching, compaction and the advisor tool. The top-level counts hold neither compactions nor other models' calls.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from taximeter.quantities.usage import Count, Pools, Usage, rejected, rest, without_zeros

SUFFIXES: Final = {"advisor_message": "advisor", "compaction": "compaction"}


class ModelPools(NamedTuple):
    """What one model of a response consumed; `model` None: the response's own."""

    model: str | None
    pools: Pools
    suffix: str = ""


def message(usage: Usage) -> Pools:
    """Pools of a message that one model made."""
    first, *others = messages(usage)
    if others:
        raise rejected(
            "usage.iterations", f"{others[0].model} was billed too; use read(), which gives one part for each model"
        )
    return first.pools


def messages(usage: Usage) -> list[ModelPools]:
    """Pools of a message by the model that is billed, the response's own first."""
    for name in ("input_tokens_details", "input_token_details"):
        usage.must_not_have(name, "is OpenAI's or LangChain's; use openai_responses() or langchain()")
    main = _counts(usage)
    own, others = by_model(usage)
    if own:
        main = _added(main, _beyond(usage, own))
    return [ModelPools(None, without_zeros(main)), *others]


def by_model(usage: Usage) -> tuple[list[Usage], list[ModelPools]]:
    """The iterations of the response's own model, and the pools of each other one's."""
    own: list[Usage] = []
    others: dict[str, list[Usage]] = {}
    for iteration in usage.each("iterations"):
        model = iteration.value("model")
        # Where the response's own model is not known, a model by name is another one's only for an advisor.
        another = bool(usage.context.model) or iteration.value("type") == "advisor_message"
        if isinstance(model, str) and another and model.lower() != usage.context.model:
            others.setdefault(model, []).append(iteration)
        else:
            own.append(iteration)
    parts = []
    for number, (model, iterations) in enumerate(others.items(), 1):
        kind = SUFFIXES.get(str(iterations[0].value("type")), "fallback")
        pools = without_zeros(_sum([_counts(iteration) for iteration in iterations]))
        parts.append(ModelPools(model, pools, f":{kind}:{number}"))
    return own, parts


def _beyond(usage: Usage, own: list[Usage]) -> dict[str, int]:
    """What the model's own iterations consumed beyond the top-level counts: compactions."""
    top = _size(_counts(usage))
    sizes = [(iteration.value("type"), _counts(iteration)) for iteration in own]
    answers = [counts for kind, counts in sizes if kind != "compaction"]
    compactions = [counts for kind, counts in sizes if kind == "compaction"]
    if _size(_sum([counts for _, counts in sizes])) == top:
        return {}
    if top in {_size(_sum(answers)), _size(answers[-1] if answers else {})} or usage.context.partial:
        return _sum(compactions)
    raise rejected(
        "usage.iterations",
        f"add up to {_size(_sum(answers))} tokens, and the counts beside them to {top}; pass it whole",
    )


def _counts(usage: Usage) -> dict[str, int]:
    lifetimes = usage.inside("cache_creation")
    minutes, hour = lifetimes.part("ephemeral_5m_input_tokens"), lifetimes.part("ephemeral_1h_input_tokens")
    written = usage.find("cache_creation_input_tokens") or Count("", minutes.amount + hour.amount)
    output, thinking = usage.total("output_tokens"), usage.inside("output_tokens_details").part("thinking_tokens")
    return {
        "input_tokens": usage.total("input_tokens").amount,
        "cached_input_tokens": usage.part("cache_read_input_tokens").amount,
        "cache_write_tokens": rest(written, minutes, hour) + minutes.amount,
        "cache_write_1h_tokens": hour.amount,
        "output_tokens": rest(output, thinking),
        "reasoning_tokens": thinking.amount,
    }


def _sum(counts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for iteration in counts:
        total = _added(total, iteration)
    return total


def _added(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {unit: counts.get(unit, 0) + more.get(unit, 0) for unit in (*counts, *(more.keys() - counts.keys()))}


def _size(counts: dict[str, int]) -> int:
    return sum(counts.values())
