"""A provider's HTTP on this machine: answers with the bodies of the adapters' fixtures, in whatever pieces a test likes."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from servers.provider import Replay, Reply, as_json, serving

FOLDER = Path(__file__).parent / "data" / "adapters"
FIXTURES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}


def blocks(fixture: dict[str, Any]) -> list[bytes]:
    """The server-sent events of a fixture, as its provider writes them."""
    sent = []
    for event in fixture["events"]:
        name = f"event: {event['type']}\n".encode() if "type" in event else b""
        sent.append(name + b"data: " + json.dumps(event).encode() + b"\n\n")
    return sent if "anthropic" in fixture["shape"] else [*sent, b"data: [DONE]\n\n"]


class Provider(Replay):
    """What every request is answered with until a test says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        """Number of requests that are answered by 500 first."""
        self.gate: threading.Event | None = None
        """Waited for before the last piece."""
        self.answer = Reply(())

    @property
    def url(self) -> str:
        """Its address."""
        return self.address

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests, empty where one was not JSON."""
        return [request.body if isinstance(request.body, dict) else {} for request in self.requests]

    def answers(self, fixture: dict[str, Any]) -> None:
        """Answer with a fixture, whole, or one event a piece."""
        self.gate = None
        if "events" in fixture:
            self.answer = Reply(tuple(blocks(fixture)), "text/event-stream")
        elif "response" in fixture:
            self.answer = as_json(fixture["response"])
        else:
            self.answer = Reply((b"ID3",), "audio/mpeg")

    def streams(self, pieces: Sequence[bytes], *, breaks_off: bool = False) -> None:
        """Answer with these pieces of a stream; `breaks_off`: then the connection is lost."""
        self.answer = Reply(tuple(pieces), "text/event-stream", ending="dying" if breaks_off else "whole")

    def reply(self) -> Reply:
        """A failure, as long as there are any, then the answer."""
        if self.failures:
            self.failures -= 1
            return as_json({"error": {"message": "down"}}, status=500)
        return dataclasses.replace(self.answer, gate=self.gate)


def provider() -> AbstractContextManager[Provider]:
    """A provider that runs."""
    return serving(Provider())
