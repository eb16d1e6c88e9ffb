"""LangChain: a callback handler, for models of any provider, sync and async.

``model.invoke("Hi", config={"callbacks": [TaximeterCallback(meter)]})``, or the same for a chain or a graph. Embeddings have
no callbacks there: wrap the client below them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import LLMResult

from taximeter import quantities
from taximeter.calls import seams
from taximeter.calls.attribution import Attribution
from taximeter.calls.call import Call, Recorder, begin

_PROVIDERS: Final = {
    "amazon_bedrock": "aws-bedrock",
    "google_genai": "google",
    "google_vertexai": "google-vertex",
    "mistralai": "mistral",
    "xai": "x-ai",
}
"""LangChain's names where the price book has others."""


class TaximeterCallback(BaseCallbackHandler):
    """Checks each run of a model before it is made and records it at its end.

    A client below the model may be wrapped too: then the call is recorded once, by the client, which knows it best. Share
    one handler as you like.

    Args:
        meter: What checks and records.
        attribution: Who pays where the code around says nothing.
    """

    raise_error = True  # a refusal must stop the run
    run_inline = True  # in the context of the run, whose attribution holds

    def __init__(self, meter: Recorder, attribution: Attribution | None = None) -> None:
        self._meter = meter
        self._attribution = attribution
        self._runs: dict[UUID, tuple[Call, seams.Watch]] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **_about: Any,
    ) -> None:
        """Check a call, and begin it."""
        del serialized, messages
        if parent_run_id in self._runs or seams.is_inside():
            return
        about = metadata or {}
        provider = about.get("ls_provider")
        call = begin(
            self._meter,
            attribution=self._attribution,
            provider=_PROVIDERS.get(provider, provider) if isinstance(provider, str) else None,
            model=about.get("ls_model_name"),
        )
        self._runs[run_id] = call, seams.Watch()

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **about: Any) -> None:
        """Check a call of a model for text, and begin it."""
        self.on_chat_model_start(serialized, [prompts], run_id=run_id, **about)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_about: Any) -> None:
        """Note that the answer has begun: what follows may be calls of the caller's own."""
        del token
        if run_id in self._runs:
            self._runs[run_id][1].close()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_about: Any) -> None:
        """Record what was consumed."""
        call = self._ended(run_id)
        if call is not None:
            _record(call, response, is_whole=True)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, response: Any = None, **_about: Any) -> None:
        """Record what came before a stream was left, or broke."""
        call = self._ended(run_id)
        if call is None:
            return
        was_left = isinstance(error, GeneratorExit | asyncio.CancelledError)
        if was_left or isinstance(_message(response), AIMessageChunk):  # a message tells of the error
            _record(call, response, is_whole=False)
        else:
            call.abandon()

    def _ended(self, run_id: UUID) -> Call | None:
        call, watch = self._runs.pop(run_id, (None, None))
        if call is None or watch is None:
            return None
        watch.close()
        if watch.has_metered:
            call.abandon()
            return None
        return call


def _message(response: LLMResult | None) -> Any:
    generations = response.generations[0] if response is not None and response.generations else []
    return getattr(generations[0], "message", None) if generations else None


def _record(call: Call, response: LLMResult | None, *, is_whole: bool) -> None:
    message = _message(response)
    usage = getattr(message, "usage_metadata", None)
    if isinstance(usage, dict) and usage.get("total_cost") == 0:
        call.abandon()  # LangChain's own cache has answered
        return
    dialect, answer = "langchain.usage_metadata", message
    if message is None and response is not None:  # a model for text tells in the format of OpenAI
        dialect, answer = "openai.chat", {"usage": (response.llm_output or {}).get("token_usage")}
    reader = quantities.StreamReader(dialect, model=call.model, provider=call.provider)
    reader.add(answer)
    reading = reader.reading(complete=is_whole)
    about = getattr(message, "response_metadata", None) or {}
    call.end(reading._replace(request_id=about.get("id") or _own_id(reading.request_id)))


def _own_id(identity: str | None) -> str | None:
    """The provider's id; LangChain puts one of its own where it knows none."""
    return None if identity is None or identity.startswith(("lc_", "run-", "lc_run-")) else identity
