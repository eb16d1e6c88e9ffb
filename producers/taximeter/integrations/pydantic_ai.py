"""pydantic-ai: a model around a model, ``Agent(TaximeterModel("openai:gpt-4o", meter))``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from pydantic_ai.models.wrapper import WrapperModel

from taximeter import quantities
from taximeter.calls import seams
from taximeter.calls.attribution import Attribution
from taximeter.calls.call import Call, Recorder, begin
from taximeter.calls.seams import Seam
from taximeter.errors import NotMeteredError


class TaximeterModel(WrapperModel):
    """Checks each request of an agent's model before it is made, and records it after it.

    A client below the model may be wrapped too: the request is recorded once, here.

    Args:
        wrapped: The model, or its name.
        meter: What checks and records.
        attribution: Who pays where the code around says nothing.
    """

    def __init__(self, wrapped: Any, meter: Recorder, attribution: Attribution | None = None) -> None:
        super().__init__(wrapped)
        self._taximeter = (meter, attribution)

    async def request(self, *arguments: Any, **named: Any) -> Any:
        """Make a metered request."""
        call = self._begin()
        if call is None:
            return await self.wrapped.request(*arguments, **named)
        with Seam():
            response = await self.wrapped.request(*arguments, **named)
        _end(call, response, is_whole=True)
        return response

    @asynccontextmanager
    async def request_stream(self, *arguments: Any, **named: Any) -> AsyncGenerator[Any]:
        """Make a metered request whose answer is streamed."""
        call = self._begin()
        if call is None:
            async with self.wrapped.request_stream(*arguments, **named) as stream:
                yield stream
            return
        manager = self.wrapped.request_stream(*arguments, **named)
        with Seam():
            stream = await manager.__aenter__()
        error: BaseException | None = None
        try:
            yield stream
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                await manager.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
            finally:
                response = stream.get()
                _end(call, response, is_whole=response.state == "complete")

    async def batch_create(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Refuse: a batch answers elsewhere."""
        raise NotMeteredError("a batch was not made: what it consumes cannot be followed; make it on the wrapped model")

    def _begin(self) -> Call | None:
        if seams.is_inside():
            return None
        meter, attribution = self._taximeter
        return begin(meter, attribution=attribution, provider=self.wrapped.system, model=self.wrapped.model_name)


def _end(call: Call, response: Any, *, is_whole: bool) -> None:
    reader = quantities.StreamReader("pydantic_ai.usage", model=call.model, provider=call.provider)
    reader.add({"usage": response.usage if response.usage.has_values() else None, "model": response.model_name})
    reading = reader.reading(complete=is_whole)
    call.end(reading._replace(request_id=response.provider_response_id))
