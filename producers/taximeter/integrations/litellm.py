"""LiteLLM: a callback, ``litellm.callbacks = [TaximeterCallback(meter)]``, for models of any provider.

LiteLLM lets a callback refuse a call in one place only, which its async functions pass. A sync call is recorded likewise,
and not checked.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any, Final

import litellm
from litellm.integrations.custom_logger import CustomLogger

from taximeter.calls import seams
from taximeter.calls.attribution import Attribution, required
from taximeter.calls.call import Call, Recorder, begin
from taximeter.errors import NotMeteredError, TaximeterError
from taximeter.integrations.following import Followed, Method
from taximeter.integrations.proxy import Proxy
from taximeter.quantities.usage import member

_log = logging.getLogger(__name__)

_ASYNC: Final = {
    "acompletion": Method("litellm.usage"),
    "aembedding": Method("litellm.usage"),
    "aresponses": Method("openai.responses"),
}
_SYNC: Final = {name.removeprefix("a"): method for name, method in _ASYNC.items()}
_FREE: Final = ("amoderation", "aretrieve", "aget", "alist", "adelete", "afile", "acreate_file", "acancel")
"""How the kinds of calls begin that consume nothing."""
_KEPT_AS: Final = "taximeter"
"""Where LiteLLM's notes on a sync call keep ours, as long as the call lives."""
LEFT: Final = "the end of a stream of LiteLLM was not recorded: %s"


class TaximeterCallback(CustomLogger):
    """Checks each async call before it is made, and records each call, sync or async, when it ends.

    Args:
        meter: What checks and records. Keep it open until LiteLLM's own threads have ended.
        attribution: Who pays where the code around says nothing.
    """

    def __init__(self, meter: Recorder, attribution: Attribution | None = None) -> None:
        super().__init__()
        self._meter = meter
        self._attribution = attribution
        self._running: dict[str, Followed] = {}

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any] | None:
        """Check a call, and begin it; a stream of chat is asked for its usage.

        Raises:
            NotMeteredError: Calls of this kind cannot be followed.
            NoAttributionError: Nobody says who pays.
            AIDisabled: The workspace may not use AI.
        """
        kind = str(getattr(call_type, "value", call_type))
        if kind.startswith(_FREE) or seams.is_inside():
            return None
        if type(kwargs.get("client")) is Proxy:
            raise NotMeteredError(
                "LiteLLM was given a wrapped client, which it calls past its methods; give it the client itself"
            )
        method = _ASYNC.get(kind) or _SYNC.get(kind)
        if method is None:
            raise NotMeteredError(
                f"LiteLLM's {kind} was not called: what it consumes cannot be followed; meter it by meter.track"
            )
        model, provider = _asked_of(kwargs)
        call = begin(self._meter, attribution=self._attribution, provider=provider, model=model)
        followed = Followed(call, method, {})
        seams.note_metered()
        call_id = kwargs.get("litellm_call_id")
        notes = kwargs.get("litellm_logging_obj")
        if not isinstance(call_id, str) or notes is None:
            raise NotMeteredError("this version of LiteLLM does not say which of its calls it makes")
        self._running[call_id] = followed  # a retry takes the place of the attempt that failed
        is_stream = bool(kwargs.get("stream"))
        weakref.finalize(notes, self._dropped, call_id, followed, is_stream=is_stream)
        return _with_usage(kwargs, model, provider) if is_stream and kind == "acompletion" else None

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, _: Any
    ) -> None:
        """Record a whole answer, before the caller has it."""
        notes = getattr(request_data.get("litellm_logging_obj"), "model_call_details", None)
        followed = self._running.pop(request_data.get("litellm_call_id") or "", None)
        if followed is not None:
            _record(followed, notes or request_data, response)

    async def async_log_success_event(self, kwargs: dict[str, Any], response_obj: Any, *_: Any, **__: Any) -> None:
        """Record a stream that has ended, and forget what LiteLLM's cache has answered."""
        followed = self._running.pop(kwargs.get("litellm_call_id") or "", None)
        if followed is not None:
            _record(followed, kwargs, response_obj)

    async def async_log_failure_event(self, kwargs: dict[str, Any], *_: Any, **__: Any) -> None:
        """Record what came before a stream broke."""
        followed = self._running.pop(kwargs.get("litellm_call_id") or "", None)
        if followed is not None:
            _break_off(followed, kwargs)

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        """Begin a sync call."""
        del model, messages
        method = _SYNC.get(str(kwargs.get("call_type")))
        if method is None or seams.is_inside() or kwargs.get("litellm_call_id") in self._running:
            return
        try:
            payer = required(self._attribution)
        except TaximeterError as error:  # LiteLLM would make the call all the same
            _log.error("a call of LiteLLM is not metered: %s", error)
            return
        seams.note_metered()
        followed = Followed(Call(self._meter, payer), method, {})
        _name(followed, kwargs)
        kept = kwargs[_KEPT_AS] = _Kept(followed)
        weakref.finalize(kept, _left, followed, is_stream=bool(kwargs.get("stream")))

    def log_success_event(self, kwargs: dict[str, Any], response_obj: Any, *_: Any, **__: Any) -> None:
        """Record a sync call that has ended."""
        kept = kwargs.get(_KEPT_AS)
        if kept is not None:
            _record(kept.followed, kwargs, response_obj)

    def log_failure_event(self, kwargs: dict[str, Any], *_: Any, **__: Any) -> None:
        """Record what came before a sync call failed."""
        kept = kwargs.get(_KEPT_AS)
        if kept is not None:
            _break_off(kept.followed, kwargs)

    def _dropped(self, call_id: str, followed: Followed, *, is_stream: bool) -> None:
        if self._running.get(call_id) is followed:
            del self._running[call_id]
            _left(followed, is_stream=is_stream)


class _Kept:
    """Lives in LiteLLM's notes on a call, and goes with them."""

    __slots__ = ("__weakref__", "followed")

    def __init__(self, followed: Followed) -> None:
        self.followed = followed

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of the notes is not the call."""


def _asked_of(kwargs: dict[str, Any]) -> tuple[str | None, str | None]:
    """Which model is asked for, and who runs it."""
    try:
        model, provider, *_ = litellm.get_llm_provider(
            kwargs.get("model"), custom_llm_provider=kwargs.get("custom_llm_provider"), api_base=kwargs.get("api_base")
        )
    except Exception:  # noqa: BLE001 - LiteLLM's own error for it follows, from the call
        return None, None
    return model, provider


def _with_usage(kwargs: dict[str, Any], model: str | None, provider: str | None) -> dict[str, Any] | None:
    """The same call, asked for its usage where the provider takes that. Elsewhere a stream of LiteLLM reports it anyway."""
    options = kwargs.get("stream_options") or {}
    known = litellm.get_supported_openai_params(model or "", custom_llm_provider=provider)
    if options.get("include_usage") or "stream_options" not in (known or ()):
        return None
    return {**kwargs, "stream_options": {**options, "include_usage": True}}


def _record(followed: Followed, notes: dict[str, Any], answer: Any) -> None:
    if notes.get("cache_hit"):
        followed.call.abandon()
        return
    _name(followed, notes)
    has_estimate = notes.get("stream") and followed.dialect == "litellm.usage" and not _asked_for_usage(notes)
    if has_estimate:
        followed.call.metadata["usage_source"] = "litellm, which counts tokens itself where a stream reports none"
    told = getattr(answer, "response", None) or answer
    usage = member(told, "usage")
    if (
        usage is not None and member(usage, "prompt_tokens") is not None
    ):  # a stream of responses too: it counts in its own way there
        followed.read_as("litellm.usage")
    followed.whole(told)


def _break_off(followed: Followed, notes: dict[str, Any]) -> None:
    _left(followed, is_stream=bool(notes.get("completion_start_time")))


def _left(followed: Followed, *, is_stream: bool) -> None:
    """Record a stream of which nothing more comes. A call without an answer consumed nothing."""
    if not is_stream:
        followed.call.abandon()
        return
    try:
        followed.end(complete=False)
    except TaximeterError as error:
        _log.error(LEFT, error)  # nobody could catch it here


def _name(followed: Followed, notes: dict[str, Any]) -> None:
    for attribute, name in (("provider", "custom_llm_provider"), ("model", "model")):
        if isinstance(value := notes.get(name), str) and value:
            setattr(followed.call, attribute, value)


def _asked_for_usage(notes: dict[str, Any]) -> bool:
    options = (notes.get("optional_params") or {}).get("stream_options") or {}
    return bool(options.get("include_usage"))
