"""Whose bills can be read, and what usages name as their provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from taximeter_worker.bills import anthropic, aws, google, openai
from taximeter_worker.bills.lines import Line


class Provider(msgspec.Struct, frozen=True):
    """How its files are read, and the names that the log has for it."""

    read: Callable[[str], Iterator[Line]]
    names: tuple[str, ...]


PROVIDERS: Final = {
    "openai": Provider(openai.read, ("openai",)),
    "anthropic": Provider(anthropic.read, ("anthropic",)),
    "aws": Provider(aws.read, ("aws", "aws-bedrock", "bedrock")),
    "google": Provider(google.read, ("google", "google-vertex", "google-gla", "google-genai")),
}
