"""Receivers of notices, good and bad ones, on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks.webhooks import Webhook


class Received(NamedTuple):
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def notice(self) -> dict[str, Any]:
        return json.loads(self.body)

    def verified(self, secret: str) -> dict[str, Any]:
        """The notice, if it was signed with this secret; raises where it was not."""
        return Webhook(secret).verify(self.body.decode(), self.headers)


class Receiver:
    """An HTTP server that answers as it is told: ``answer(request)`` gives a status, or a status and headers."""

    def __init__(self, answer: Callable[[Received], Any] = lambda _request: 204) -> None:
        self.requests: list[Received] = []
        self.answer = answer
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:  # the sender was killed in the middle
                    self.close_connection = True
                    return
                request = Received(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
                receiver.requests.append(request)
                answer = receiver.answer(request)
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def notices(self) -> list[dict[str, Any]]:
        return [request.notice for request in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class RawReceiver:
    """A TCP server that does with each connection what it is told; counts them."""

    def __init__(self, serve: Callable[[socket.socket, threading.Event], None]) -> None:
        self.connections = 0
        self._ended = threading.Event()
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=[sock], daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            self._serve(sock, self._ended)

    def close(self) -> None:
        self._ended.set()
        self._socket.close()


def silent(_sock: socket.socket, ended: threading.Event) -> None:
    """Takes everything and says nothing."""
    ended.wait()


def trickling(sock: socket.socket, ended: threading.Event) -> None:
    """Answers a header's byte every now and then, without end."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not ended.is_set():
        sock.sendall(b"a")
        ended.wait(0.05)


def endless(sock: socket.socket, ended: threading.Event) -> None:
    """Answers interim responses without end."""
    while not ended.is_set():
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def garbage(sock: socket.socket, _ended: threading.Event) -> None:
    """Answers in no protocol."""
    sock.recv(65536)
    sock.sendall(b"\x00\xff\xfe" * 1000)


def closing(sock: socket.socket, _ended: threading.Event) -> None:
    """Closes as soon as it was asked."""
    sock.recv(1)
