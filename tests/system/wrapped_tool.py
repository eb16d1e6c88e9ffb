"""A tool that calls providers through wrapped clients, made to be killed at any moment.

python wrapped_tool.py ADDRESS RECEIVED

For each number that it reads from its input it forks a process that makes this number of calls to the provider at ADDRESS, prints
the process's id, waits for its end and prints how it ended. The libraries are imported once, before the first fork. After a
call has returned, or its stream is at its end, the caller appends a line to RECEIVED: the answer's id and whom it was for.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import anthropic
import openai

from taximeter import Meter

ADDRESS, RECEIVED = sys.argv[1:]
THREADS = 3
TASKS = 2
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def whole(client: Any, _: Any) -> str:
    return str(client.chat.completions.create(**ASKED).id)


def stream(client: Any, _: Any) -> str:
    chunks = list(client.chat.completions.create(**ASKED, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    return str(chunks[-1].id)


def responses(client: Any, _: Any) -> str:
    events = list(client.responses.create(model="m", input="Hi", stream=True))
    return str(events[-1].response.id)


def messages(_: Any, client: Any) -> str:
    with client.messages.stream(**ASKED, max_tokens=9) as told:
        return str(told.get_final_message().id)


WAYS: tuple[Callable[[Any, Any], str], ...] = (whole, stream, responses, messages)


class Calls:
    """The calls of one process: a given number, by threads and by tasks of a loop."""

    def __init__(self, count: int, parent: int) -> None:
        self._left = count
        self._parent = parent
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._received = os.open(RECEIVED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._meter = Meter.from_env(timeout_seconds=30)  # a crowded machine answers late

    def make(self) -> None:
        """Make them, and publish what was recorded."""
        about: dict[str, Any] = {"api_key": "k", "base_url": ADDRESS, "max_retries": 0}
        with (
            openai.OpenAI(**about, http_client=openai.DefaultHttpxClient(verify=False)) as one,
            anthropic.Anthropic(**about, http_client=anthropic.DefaultHttpxClient(verify=False)) as another,
        ):
            clients = self._meter.wrap(one, provider="p"), self._meter.wrap(another, provider="p")
            threads = [threading.Thread(target=self._sync, args=[clients, f"thread-{at}"]) for at in range(THREADS)]
            threads.append(threading.Thread(target=lambda: asyncio.run(self._tasks(about))))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self._meter.flush(60)
        self._meter.close()

    def _next(self) -> bool:
        if os.getppid() != self._parent:
            os._exit(1)  # nobody is left to kill it
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _note(self, answer: str, user: str) -> None:
        os.write(self._received, f"{answer} {user}\n".encode())

    def _sync(self, clients: tuple[Any, Any], user: str) -> None:
        with self._meter.attribution("acme", tool="chat", user=user):
            while self._next():
                self._note(WAYS[next(self._numbers) % len(WAYS)](*clients), user)

    async def _tasks(self, about: dict[str, Any]) -> None:
        web = openai.DefaultAsyncHttpxClient(verify=False)
        async with openai.AsyncOpenAI(**about, http_client=web) as plain:
            client = self._meter.wrap(plain, provider="p")
            await asyncio.gather(*(self._task(client, f"task-{number}") for number in range(TASKS)))

    async def _task(self, client: Any, user: str) -> None:
        with self._meter.attribution("acme", tool="chat", user=user):
            while self._next():
                told = await client.chat.completions.create(**ASKED, stream=True)
                self._note([chunk.id async for chunk in told][-1], user)


def main() -> None:
    for line in sys.stdin:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                Calls(int(line), parent).make()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
