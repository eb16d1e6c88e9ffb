"""A TCP proxy that misbehaves on demand: cuts, stalls, slices, and swallows a reply.

with Proxy(host, port) as proxy:
    client.connect(proxy.host, proxy.port)
    proxy.stall()
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65536
HOST = "127.0.0.1"


class Proxy:
    """Forwards connections on a free port, of the loopback unless told otherwise, to ``host:port``."""

    def __init__(self, host: str, port: int, *, listen: str = HOST) -> None:
        self.host = listen
        self._target = (host, port)
        self._requests_flowing = threading.Event()
        self._replies_flowing = threading.Event()
        self.resume()
        self._piece_bytes = CHUNK_BYTES
        self._swallow: bytes | None = None
        self._swallowed = threading.Event()
        self._cutting = True
        self._refusing = False
        self._closed = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((listen, 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def url(self, url: str) -> str:
        """The same address through this proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{self.host}:{self.port}"))

    def cut(self) -> None:
        """Reset every open connection; new ones are welcome."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for sock in sockets:
            _reset(sock)

    def refuse(self, refusing: bool = True) -> None:
        """Reset every open connection and every new one, until told otherwise."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def stall(self, *, replies_only: bool = False) -> None:
        """Forward nothing more, in either direction or only from the server, and keep every connection open."""
        self._replies_flowing.clear()
        if not replies_only:
            self._requests_flowing.clear()

    def resume(self) -> None:
        """Forward again what was held back."""
        self._requests_flowing.set()
        self._replies_flowing.set()

    def slice(self, piece_bytes: int) -> None:
        """Forward in pieces of at most this number of bytes."""
        self._piece_bytes = piece_bytes

    def drop_reply(self, needle: bytes, *, cut: bool = True) -> threading.Event:
        """Cut the connection instead of forwarding the next reply that holds ``needle``; once.

        With ``cut=False`` the connection goes on, without that piece. The needle must arrive in one piece. The returned
        event is set when it happened.
        """
        self._swallowed = threading.Event()
        self._cutting = cut
        self._swallow = needle
        return self._swallowed

    def forget_reply(self) -> None:
        """Take back a ``drop_reply`` that has not happened."""
        self._swallow = None

    def retarget(self, host: str, port: int) -> None:
        """Forward new connections to another address: a server that was started again may have another port."""
        self._target = (host, port)

    def close(self) -> None:
        """Stop accepting and forwarding."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.resume()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._pump, client, server, False)
            self._start(self._pump, server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                (self._replies_flowing if replies else self._requests_flowing).wait()
                if replies and self._swallow is not None and self._swallow in chunk:
                    self._swallow = None
                    self._swallowed.set()
                    if self._cutting:
                        break
                    continue
                for start in range(0, len(chunk), self._piece_bytes):
                    target.sendall(chunk[start : start + self._piece_bytes])
        with self._lock:
            self._sockets -= {source, target}
        _reset(source)
        _reset(target)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
