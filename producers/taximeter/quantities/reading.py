"""Whole responses and streams: which dialect they speak, which models were billed, and what is not known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from taximeter.quantities.dialects import anthropic, bedrock, google, libraries, openai, others
from taximeter.quantities.dialects.anthropic import ModelPools
from taximeter.quantities.streams import Answer
from taximeter.quantities.usage import Context, Pools, Usage, members, rejected


class Part(NamedTuple):
    """What one model of a response consumed. `suffix` makes the part's event id unlike those of the others."""

    model: str | None
    pools: Pools
    suffix: str = ""


class Reading(NamedTuple):
    """What a whole response or stream consumed, by model, the response's own first.

    `flags`: ``usage_missing`` (nothing was reported; its pools are empty, and it is not free), ``stream_incomplete`` (the
    stream broke off) with ``output_lower_bound`` (so what is known is the least), ``multi_model``, ``server_tool_use``,
    ``service_tier:…``, ``overlap_resolved``, ``exclusive_cached_detected``. `request_id` is the provider's own id, for
    ``metadata``; some servers count theirs from 0 again, so it is not an event id.
    """

    parts: tuple[Part, ...]
    flags: tuple[str, ...]
    request_id: str | None


class Dialect(NamedTuple):
    """How a kind of response is read."""

    usages: Callable[[Usage], list[ModelPools]]
    provider: str | None = None
    asked_model_first: bool = False
    """The model that was asked for counts before the one that the response names."""
    without_usage: Callable[[Answer, Mapping[str, Any]], Pools] | None = None
    attributes: bool = False
    """The response is its own usage."""


def _single(pools_of: Callable[[Usage], Pools]) -> Callable[[Usage], list[ModelPools]]:
    return lambda usage: [ModelPools(None, pools_of(usage))]


def _images(answer: Answer, _request: Mapping[str, Any]) -> Pools:
    return {"images": answer.images} if answer.images else {}


def _characters(_answer: Answer, request: Mapping[str, Any]) -> Pools:
    text = request.get("input")
    length = len(text) if isinstance(text, str) else request.get("input_len")
    return {"characters": length} if isinstance(length, int) else {}


_CHAT: Final = _single(openai.chat)
_RESPONSES: Final = _single(openai.responses)
DIALECTS: Final[dict[str, Dialect]] = {
    "openai.chat": Dialect(_CHAT),
    "openai.responses": Dialect(_RESPONSES),
    "openai.realtime": Dialect(_RESPONSES),
    "openai.embeddings": Dialect(_single(openai.embeddings)),
    "openai.images": Dialect(_RESPONSES, without_usage=_images),
    "openai.audio.transcription": Dialect(_single(openai.transcription)),
    "openai.audio.speech": Dialect(_single(openai.speech), without_usage=_characters),
    "openai.live": Dialect(_single(openai.transcription)),
    "openai.agents": Dialect(_RESPONSES),
    "azure.chat": Dialect(_CHAT),
    "azure.responses": Dialect(_RESPONSES),
    "deepseek.chat": Dialect(_CHAT, "deepseek"),
    "openrouter.chat": Dialect(_CHAT, "openrouter"),
    "xai.chat": Dialect(_CHAT, "x-ai"),
    "xai.responses": Dialect(_RESPONSES, "x-ai"),
    "xai.sdk": Dialect(_CHAT, "x-ai"),
    "perplexity.chat": Dialect(_single(others.perplexity), "perplexity"),
    "mistral.chat": Dialect(_single(others.mistral), "mistral"),
    "mistral.ocr": Dialect(_single(others.mistral), "mistral"),
    "cohere.chat": Dialect(_single(others.cohere), "cohere"),
    "cohere.embed": Dialect(_single(others.cohere), "cohere"),
    "cohere.rerank": Dialect(_single(others.cohere), "cohere"),
    "anthropic.messages": Dialect(anthropic.messages),
    "google.generate_content": Dialect(_single(google.generate_content)),
    "google.embed_content": Dialect(_single(google.generate_content)),
    "google.live": Dialect(_single(google.generate_content)),
    "bedrock.converse": Dialect(_single(bedrock.converse), asked_model_first=True),
    "bedrock.invoke": Dialect(_single(bedrock.converse), asked_model_first=True),
    "bedrock.invoke.anthropic": Dialect(anthropic.messages, asked_model_first=True),
    "litellm.usage": Dialect(libraries.litellm),
    "langchain.usage_metadata": Dialect(_single(libraries.langchain)),
    "pydantic_ai.usage": Dialect(_single(libraries.pydantic_ai)),
    "otel.gen_ai": Dialect(_single(libraries.otel), attributes=True),
}
"""The kinds of responses that `read` knows; each takes a whole response or, as a list, the events of its stream."""


class StreamReader:
    """Reads a response event by event, so that what is known is there whenever the stream ends.

    Args:
        dialect: One of `DIALECTS`.
        model: The model that was asked for, where the response names none.
        provider: Who answered, where that decides what a count includes.
        request: What was asked, where it says what is billed (the text of speech).
    """

    def __init__(
        self,
        dialect: str,
        *,
        model: str | None = None,
        provider: str | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        known = DIALECTS.get(dialect.removesuffix(".stream"))
        if known is None:
            raise rejected("dialect", f"{dialect!r} is not known; use one of {', '.join(DIALECTS)}")
        self._dialect = known
        self._model = model
        self._provider = provider or known.provider
        self._request = request or {}
        self._answer = Answer()

    def add(self, event: object) -> None:
        """Take an event of the stream, as the SDK gives it or as decoded JSON."""
        self._answer.add(event)

    def reading(self, *, complete: bool | None = None) -> Reading:
        """What was consumed, as far as is known.

        Args:
            complete: Whether the response is whole. None: whether an event said so.

        Raises:
            InvalidEventError: The usage cannot be right.
        """
        answer = self._answer
        partial = not (answer.ended if complete is None else complete)
        models = (self._model, answer.model) if self._dialect.asked_model_first else (answer.model, self._model)
        model = models[0] or models[1]
        context = Context(self._provider, model, partial=partial)
        parts: list[Part] = []
        if answer.usage:
            parts = self._parts(answer.usage, model, context)
            parts += _tools(answer, context)
        elif self._dialect.without_usage is not None:
            parts = [Part(model, self._dialect.without_usage(answer, self._request))]
        if not parts or not parts[0].pools:
            parts = [Part(model, {})]
            context.note("usage_missing")
            partial = partial or complete is None  # a stream that says nothing of its usage was not read to its end
        if partial:
            context.note("stream_incomplete")
            if parts[0].pools:
                context.note("output_lower_bound")
        if len(parts) > 1:
            context.note("multi_model")
        return Reading(tuple(parts), tuple(context.flags), answer.request_id)

    def _parts(self, given: Mapping[str, Any], model: str | None, context: Context) -> list[Part]:
        usage = Usage(given, "usage", context)
        parts = [Part(part.model or model, part.pools, part.suffix) for part in self._dialect.usages(usage)]
        usage.ignore("server_tool_use", "server_tool_use_details")
        if any(number for _, number in members(usage.value("server_tool_use")) if isinstance(number, int)):
            context.note("server_tool_use")
        usage.all_read()
        return parts

    def add_attributes(self, attributes: object) -> None:
        """Take a span's attributes."""
        given = dict(members(attributes))
        self._answer.usage = given if any(name.startswith("gen_ai.usage.") for name in given) else {}
        named = (given.get(f"gen_ai.{which}.model") for which in ("response", "request"))
        self._answer.model = next((name for name in named if isinstance(name, str) and name), None)
        identity = given.get("gen_ai.response.id")
        self._answer.request_id = identity if isinstance(identity, str) else None


def read(
    dialect: str,
    answer: object,
    *,
    model: str | None = None,
    provider: str | None = None,
    request: Mapping[str, Any] | None = None,
) -> Reading:
    """What a response consumed, by model. The arguments are those of `StreamReader`, and so are the errors.

    Args:
        dialect: One of `DIALECTS`.
        answer: The whole response, as an object or as decoded JSON; or the events of its stream, as a list.
        model: The model that was asked for.
        provider: Who answered.
        request: What was asked.
    """
    reader = StreamReader(dialect, model=model, provider=provider, request=request)
    if isinstance(answer, list | tuple):
        for event in answer:
            reader.add(event)
        return reader.reading()
    if DIALECTS[dialect.removesuffix(".stream")].attributes:
        reader.add_attributes(answer)
    else:
        reader.add(answer)
    return reader.reading(complete=True)


def _tools(answer: Answer, context: Context) -> list[Part]:
    """What tools of a response were billed for by themselves: a model that draws, or one that writes SVG."""
    parts = []
    used = answer.extras.get("tool_usage")
    drawing = used.get("image_gen") if isinstance(used, Mapping) else None
    if isinstance(drawing, Mapping) and any(isinstance(count, int) and count for count in drawing.values()):
        tools: Iterable[Any] = answer.extras.get("tools") or ()
        drawer = next((tool for tool in tools if isinstance(tool, dict) and tool.get("type") == "image_generation"), {})
        parts.append(Part(drawer.get("model"), _tool_pools(drawing, "tool_usage.image_gen", context), ":image_gen"))
    svg = answer.usage.get("svg_usage") or answer.extras.get("svg_usage")
    if isinstance(svg, Mapping):
        counts = {name: value for name, value in svg.items() if name != "model"}
        parts.append(Part(svg.get("model"), _tool_pools(counts, "svg_usage", context), ":svg"))
    return parts


def _tool_pools(given: Mapping[str, Any], path: str, context: Context) -> Pools:
    usage = Usage(given, path, Context(context.provider, partial=context.partial))
    pools = openai.responses(usage)
    usage.all_read()
    return pools
