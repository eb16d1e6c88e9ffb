"""Django, sync and async: who pays for a request, and 402 where AI is off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from taximeter.calls.attribution import Attribution
from taximeter.calls.call import Recorder
from taximeter.errors import CallRefusedError
from taximeter.integrations import problems

_END: Final = object()


class TaximeterMiddleware:
    """Runs each request inside of its attribution, and answers 402 with a problem where AI is off.

    Subclass it, name your meter and who pays, and list the class in ``MIDDLEWARE``, after the authentication::

        class Metered(TaximeterMiddleware):
            meter = meter

            def attribution(self, request):
                return self.meter.attribution(request.user.workspace, tool="site")

    Attributes:
        meter: What checks.
        check: Refuse the request itself where AI is off. False: only a call to AI within it is refused, and becomes a
            402 if the view lets the error through.
    """

    sync_capable = True
    async_capable = True
    meter: Recorder
    check = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def attribution(self, request: Any) -> Attribution | None:
        """Who pays for a request; None where nobody needs to."""
        raise NotImplementedError

    def __call__(self, request: Any) -> Any:
        """Answer a request; a coroutine where the application is async."""
        if self._is_async:
            return self._call_async(request)
        payer = self.attribution(request)
        if payer is None:
            return self._get_response(request)
        try:
            self._checked(payer)
            with payer:
                return _attributed(self._get_response(request), payer)
        except CallRefusedError as error:
            return _refusal(error)

    async def _call_async(self, request: Any) -> Any:
        payer = self.attribution(request)
        if payer is None:
            return await self._get_response(request)
        try:
            self._checked(payer)
            with payer:
                return _attributed(await self._get_response(request), payer)
        except CallRefusedError as error:
            return _refusal(error)

    def process_exception(self, _request: Any, exception: Exception) -> Any:
        """Answer for a view that let a refusal through; Django asks before it makes a 500 of it."""
        return _refusal(exception) if isinstance(exception, CallRefusedError) else None

    def _checked(self, payer: Attribution) -> None:
        if self.check:
            self.meter.check_call(payer)


def _refusal(error: CallRefusedError) -> Any:
    from django.http import HttpResponse

    return HttpResponse(problems.body(error), content_type=problems.CONTENT_TYPE, status=problems.STATUS)


def _attributed(response: Any, payer: Attribution) -> Any:
    """A response whose stream is attributed too: Django reads it after the middleware is done."""
    if getattr(response, "streaming", False):
        pieces = response.streaming_content
        response.streaming_content = _pieces_async(pieces, payer) if response.is_async else _pieces(pieces, payer)
    return response


def _pieces(pieces: Iterator[Any], payer: Attribution) -> Iterator[Any]:
    while True:
        with payer:
            piece = next(pieces, _END)
        if piece is _END:
            return
        yield piece


async def _pieces_async(pieces: AsyncIterator[Any], payer: Attribution) -> AsyncIterator[Any]:
    while True:
        with payer:
            piece = await anext(pieces, _END)
        if piece is _END:
            return
        yield piece
