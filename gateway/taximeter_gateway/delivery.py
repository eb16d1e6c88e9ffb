"""From the spool to the broker's confirm: each request waits for its own events alone.

No thread waits for a request. The publisher says when the broker has confirmed something, and the event loop then looks which
requests that settles: the events of a lane are settled in their order, so those that wait for it form a queue.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from taximeter.errors import ClosedError, SpoolError
from taximeter.spool.lanes import Lane, Stretch
from taximeter.spool.pipeline import Pipeline
from taximeter_gateway.errors import BusyError, UnconfirmedError

_FULL: Final = "The broker takes no events, and the spool holds as many as it may."


class _Waiter:
    """A request that waits for some stretches."""

    __slots__ = ("done", "left")

    def __init__(self, done: asyncio.Future[None], stretches: int) -> None:
        self.done = done
        self.left = stretches


class Delivery:
    """Gets the events of requests to the broker. Made and used in the event loop.

    Args:
        pipeline: The SDK's spool and publisher.
        confirm_seconds: How long a request waits at most.
        spool_bytes_max: Beyond this many bytes that the broker has not confirmed, nothing is taken.
    """

    def __init__(self, pipeline: Pipeline, *, confirm_seconds: int, spool_bytes_max: int) -> None:
        self._pipeline = pipeline
        self._confirm_seconds = confirm_seconds
        self._spool_bytes_max = spool_bytes_max
        self._loop = asyncio.get_running_loop()
        self._queues: dict[Lane, OrderedDict[int, _Waiter]] = {}
        pipeline.on_progress(self._progressed)

    async def deliver(self, events: Sequence[tuple[str, bytes]]) -> set[int]:
        """Put events, each a routing key and a line, into the spool and wait until the broker has them.

        Returns:
            Which of them the broker refuses for their size; the SDK has set them aside.

        Raises:
            BusyError: They could not be spooled.
            UnconfirmedError: They are spooled, and the broker has not confirmed them in time.
        """
        if not events:
            return set()
        if self._pipeline.waiting_bytes >= self._spool_bytes_max:
            raise BusyError(_FULL)
        try:
            stretches = self._pipeline.put_all(events)
        except SpoolError:
            raise BusyError("The events cannot be spooled: the disk or the spool is full. The log says more.") from None
        except ClosedError:
            raise BusyError("The gateway stops.") from None
        await self._settled(stretches)
        refused: set[int] = set()
        for stretch in stretches:
            mine = [index for index, (key, _) in enumerate(events) if key == stretch.lane.routing_key]
            refused.update(mine[at] for at in stretch.set_aside())
        return refused

    async def _settled(self, stretches: Sequence[Stretch]) -> None:
        waiter = _Waiter(self._loop.create_future(), 0)
        for stretch in stretches:
            if not stretch.settled:
                self._queues.setdefault(stretch.lane, OrderedDict())[stretch.last] = waiter
                waiter.left += 1
        # What was settled before its waiter stood in the queue is not told again.
        self._look()
        if not waiter.left:
            return
        try:
            async with asyncio.timeout(self._confirm_seconds):
                await waiter.done
        except TimeoutError:
            raise UnconfirmedError(self._confirm_seconds) from None
        finally:
            if waiter.left:
                for stretch in stretches:
                    self._queues.get(stretch.lane, OrderedDict()).pop(stretch.last, None)

    def _progressed(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        for lane, queue in self._queues.items():
            settled = lane.settled_events
            while queue and (last := next(iter(queue))) <= settled:
                waiter = queue.pop(last)
                waiter.left -= 1
                if not waiter.left and not waiter.done.done():
                    waiter.done.set_result(None)
