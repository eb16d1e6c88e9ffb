"""A server on loopback that answers each request with the next prepared reply, in pieces of any size."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


@dataclass(frozen=True)
class Reply:
    """What is answered. The body goes out in its pieces."""

    pieces: tuple[bytes, ...]
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: str = "whole"
    gate: threading.Event | None = None
    """Waited for before the last piece."""

    def dying(self) -> Reply:
        """The same, and then the connection breaks."""
        return replace(self, ending="dying")

    def hanging(self) -> Reply:
        """The same, and then nothing comes until the client goes."""
        return replace(self, ending="hanging")


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    path: str
    body: Any


class Replay:
    """The server: `queue` replies, look at `requests`."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.address = ""

    def queue(self, *replies: Reply) -> None:
        """Prepare the next replies."""
        self.replies.extend(replies)

    def reply(self) -> Reply:
        """The reply to the request that has just come."""
        return self.replies.popleft()

    def reply_to(self, request: Request) -> Reply:
        """The reply to a request, for tests whose requests come at once."""
        return self.reply()


Server = TypeVar("Server", bound=Replay)


def as_json(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A whole JSON body."""
    return Reply((json.dumps(body).encode(),), status=status, headers=headers or {})


def as_events(
    events: Iterable[Mapping[str, Any]], *, size: int | None = None, end: str = "", named: bool = False
) -> Reply:
    """Server-sent events, in pieces of `size` bytes (None: one event a piece)."""
    lines = [(f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in events]
    return Reply(pieces(*(line.encode() for line in lines), end.encode(), size=size), "text/event-stream")


def pieces(*parts: bytes, size: int | None) -> tuple[bytes, ...]:
    """The parts as they are, or all of them cut into pieces of `size` bytes."""
    if size is None:
        return tuple(part for part in parts if part)
    whole = b"".join(parts)
    return tuple(whole[start : start + size] for start in range(0, len(whole), size))


@contextmanager
def serving(replay: Server) -> Iterator[Server]:
    """A server of its own, which answers as `replay` says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            request = Request(self.path, json.loads(raw) if raw[:1] in b"{[" and raw else raw)
            replay.requests.append(request)
            reply = replay.reply_to(request)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for number, piece in enumerate(reply.pieces, 1):
                    if reply.gate is not None and number == len(reply.pieces):
                        reply.gate.wait(60)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                if reply.ending == "hanging":
                    self.rfile.read(1)
                if reply.ending != "whole":
                    self.close_connection = True
                    return
                self.wfile.write(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = do_DELETE = do_POST  # noqa: N815 - the base class's names

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client went away, as tests do
                super().handle()

    class LoopbackServer(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = LoopbackServer(("127.0.0.1", 0), Handler)
    replay.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield replay
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
