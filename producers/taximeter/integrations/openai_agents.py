"""openai-agents: a provider of models around a provider, ``RunConfig(model_provider=TaximeterProvider(meter))``.

`TaximeterModel` is the same around a single model, for ``Agent(model=…)``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agents import Model, ModelProvider, MultiProvider

from taximeter.calls import seams
from taximeter.calls.attribution import Attribution
from taximeter.calls.call import Recorder, begin
from taximeter.calls.seams import Seam
from taximeter.integrations.following import Followed, Method

_METHOD = Method("openai.agents")


class TaximeterModel(Model):
    """Checks each request to a model before it is made, and records it after it.

    A client below the model may be wrapped too: the request is recorded once, here.

    Args:
        wrapped: The model.
        meter: What checks and records.
        attribution: Who pays where the code around says nothing.
        provider: Who runs the model, as the price book calls it.
    """

    def __init__(
        self, wrapped: Model, meter: Recorder, attribution: Attribution | None = None, *, provider: str = "openai"
    ) -> None:
        self.wrapped = wrapped
        self._taximeter = (meter, attribution, provider)

    async def get_response(self, *arguments: Any, **named: Any) -> Any:
        """Make a metered request."""
        followed = self._begin()
        if followed is None:
            return await self.wrapped.get_response(*arguments, **named)
        with Seam():
            response = await self.wrapped.get_response(*arguments, **named)
        usage = response.usage
        # Where the provider said nothing, the library puts zeros.
        followed.event({"usage": usage if usage.total_tokens else None, "id": response.response_id})
        followed.end(complete=True)
        return response

    async def stream_response(self, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        """Make a metered request whose answer is streamed."""
        followed = self._begin()
        stream: Any = self.wrapped.stream_response(*arguments, **named)
        if followed is None:
            async for event in stream:
                yield event
            return
        is_begun = False
        try:
            while True:
                with Seam():  # closed between the events: what the caller calls in between belongs to other requests
                    event = await anext(stream, None)
                if event is None:
                    return
                is_begun = True
                followed.event(event)
                yield event
        except Exception:
            if not is_begun:
                followed.call.abandon()
            raise
        finally:
            followed.end()
            await stream.aclose()

    def get_retry_advice(self, request: Any) -> Any:
        """What the model says of a request that failed."""
        return self.wrapped.get_retry_advice(request)

    async def close(self) -> None:
        """Close the model."""
        await self.wrapped.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def _begin(self) -> Followed | None:
        if seams.is_inside():
            return None
        meter, attribution, provider = self._taximeter
        model = getattr(self.wrapped, "model", None)
        call = begin(meter, attribution=attribution, provider=provider, model=str(model) if model is not None else None)
        seams.note_metered()
        return Followed(call, _METHOD, {})


class TaximeterProvider(ModelProvider):
    """Makes each model of a provider a `TaximeterModel`.

    Args:
        meter: What checks and records.
        attribution: Who pays where the code around says nothing.
        wrapped: The provider of models. Default: that of openai-agents itself.
        provider: Who runs its models, as the price book calls it.
    """

    def __init__(
        self,
        meter: Recorder,
        attribution: Attribution | None = None,
        *,
        wrapped: ModelProvider | None = None,
        provider: str = "openai",
    ) -> None:
        self.wrapped = wrapped if wrapped is not None else MultiProvider()
        self._taximeter = (meter, attribution, provider)

    def get_model(self, model_name: str | None) -> Model:
        """A model by its name, metered."""
        meter, attribution, provider = self._taximeter
        return TaximeterModel(self.wrapped.get_model(model_name), meter, attribution, provider=provider)

    async def aclose(self) -> None:
        """Close the provider."""
        await self.wrapped.aclose()
