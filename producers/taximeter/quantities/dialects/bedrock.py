"""Amazon Bedrock: Converse's ``TokenUsage``, and the metrics that close a stream of InvokeModel.

Cached and written tokens stand beside the input, except for the models of OpenAI, which count them within; the total
tells. Source: the service's model in botocore, and its guide to prompt caching.
"""

from __future__ import annotations

from taximeter.quantities.split import Counts, pools_of
from taximeter.quantities.usage import Count, Pools, Usage, rejected


def converse(usage: Usage) -> Pools:
    """Pools of a response, or of the metrics of one."""
    prompt = usage.total("input_tokens", "input_token_count")
    answer = usage.total("output_tokens", "output_token_count")
    cached = usage.part("cache_read_input_tokens", "cache_read_input_token_count", "cache_read_input_tokens_count")
    written = usage.part("cache_write_input_tokens", "cache_write_input_token_count", "cache_write_input_tokens_count")
    total = usage.find("total_tokens", "total_token_count")
    hour = _hour(usage, written)
    cache = cached.amount + written.amount
    within = "openai." in usage.context.model
    if cache and total is not None:
        gap = total.amount - prompt.amount - answer.amount
        if gap not in {0, cache}:
            raise rejected(
                total.name,
                f"is {total.amount}, which is not the sum of {prompt.name} ({prompt.amount}), {answer.name}"
                f" ({answer.amount}), {cached.name} ({cached.amount}) and {written.name} ({written.amount})",
            )
        # A total that leaves the cache out says nothing where the cache does not fit into the input.
        within = gap == 0 and cache <= prompt.amount
    if cache and not within:
        prompt = Count(prompt.name, prompt.amount + cache)
        total = None
    counts = Counts(prompt, answer, total, cached=cached, written=written, written_1h=hour)
    return pools_of(counts, usage.context)


def _hour(usage: Usage, written: Count) -> Count:
    hour = 0
    for detail in usage.each("cache_details"):
        lifetime, tokens = detail.value("ttl"), detail.part("input_tokens")
        if lifetime == "1h":
            hour += tokens.amount
        elif lifetime != "5m" and tokens.amount:
            raise rejected(tokens.name, f"is kept for {lifetime!r}, a lifetime that is not known here")
    return Count(f"{usage.path}.cacheDetails 1h", min(hour, written.amount) if usage.context.partial else hour)
