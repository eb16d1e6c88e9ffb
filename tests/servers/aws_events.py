"""Streams of Amazon Bedrock in the binary framing of AWS."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from binascii import crc32
from typing import Any

from adapter_fixtures import FIXTURES
from servers.provider import Reply, pieces

CONVERSED = FIXTURES["bed-converse-stream"]["events"]
INVOKED = FIXTURES["bedrock-ant-invoke-stream"]["events"]
ABOUT = {"x-amzn-requestid": "rid_abc"}


def frame(kind: str, payload: Any) -> bytes:
    """An event in the binary framing of AWS."""
    body = json.dumps(payload).encode()
    head = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        head += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    framed = prelude + struct.pack(">I", crc32(prelude)) + head + body
    return framed + struct.pack(">I", crc32(framed))


def as_frames(frames: list[bytes], size: int | None = None) -> Reply:
    return Reply(pieces(*frames, size=size), "application/vnd.amazon.eventstream", headers=ABOUT)


def conversed(events: list[Any] = CONVERSED, size: int | None = None) -> Reply:
    return as_frames([frame(kind, payload) for event in events for kind, payload in event.items()], size)


def invoked(events: list[Any] = INVOKED, size: int | None = None) -> Reply:
    return as_frames([frame("chunk", {"bytes": b64encode(json.dumps(e).encode()).decode()}) for e in events], size)
