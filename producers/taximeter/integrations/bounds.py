"""What a call can consume at most, told by what is asked.

Output: the limit that the request itself sets. Input: a token is never less than a byte of text, so the bytes of the whole
request as JSON are an upper bound of its tokens, about four times what English text comes to; and some tokens for what
providers put around it. What a request only refers to (by address, by id, an earlier answer) is not in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

INPUT: Final = "input_tokens"
OUTPUT: Final = "output_tokens"
AROUND_TOKENS: Final = 64
"""What a provider puts around messages."""
AROUND_TOOLS_TOKENS: Final = 1024
"""What it puts around tools: Anthropic's are the most, and below 750."""
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a request of one dialect says how much it may consume.

    Attributes:
        output: Where its limit of output tokens may stand; the first that is there counts, and the first of all is set where
            none is. Empty: it has no output tokens.
        times: What that limit is multiplied by: how many answers are asked for.
        writes_caches: Whether input that is written to a cache costs more than other input.
        body: The argument that holds the request as JSON; None: the arguments themselves are the request.
    """

    output: tuple[Path, ...] = ()
    times: tuple[Path, ...] = ()
    writes_caches: bool = False
    body: str | None = None

    def at_most(self, arguments: Mapping[str, Any], output_tokens: int) -> dict[str, int]:
        """What these arguments of a call can consume at most, by unit; ``output_tokens`` where they set no limit."""
        if self.body is not None:
            arguments = _decoded(arguments.get(self.body))
        text = _encoder.encode(arguments)
        tools = AROUND_TOOLS_TOKENS if b'"tools":' in text or b'"toolConfig":' in text else 0
        most = {self._input_unit(text): len(text) + AROUND_TOKENS + tools}
        if self.output:
            limit = next((number for path in self.output if (number := _number(arguments, path)) is not None), None)
            most[OUTPUT] = (output_tokens if limit is None else limit) * self._answers(arguments)
        return most

    def lower(self, arguments: dict[str, Any], output_tokens: int) -> None:
        """Set the limit of these arguments to what all answers together may have."""
        if self.body is not None:
            asked = _decoded(arguments.get(self.body))
            dataclasses.replace(self, body=None).lower(asked, output_tokens)
            arguments[self.body] = msgspec.json.encode(asked)
            return
        path = next((path for path in self.output if _number(arguments, path) is not None), self.output[0])
        _put(arguments, path, max(1, output_tokens // self._answers(arguments)))

    def _answers(self, arguments: Mapping[str, Any]) -> int:
        return max([1, *(number for path in self.times if (number := _number(arguments, path)) is not None)])

    def _input_unit(self, text: bytes) -> str:
        if not self.writes_caches or not (b'"cache_control":' in text or b'"cachePoint":' in text):
            return INPUT
        return "cache_write_1h_tokens" if b'"1h"' in text else "cache_write_tokens"


def _decoded(body: object) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(body) if isinstance(body, str | bytes | bytearray) else None
    except msgspec.DecodeError:
        decoded = None
    return decoded if isinstance(decoded, dict) else {"body": str(body)}


def _number(arguments: Any, path: Path) -> int | None:
    for name in path:
        arguments = arguments.get(name) if isinstance(arguments, Mapping) else getattr(arguments, name, None)
    is_number = isinstance(arguments, int) and not isinstance(arguments, bool)
    return arguments if is_number and arguments > 0 else None


def _put(arguments: dict[str, Any], path: Path, number: int) -> None:
    """Set a number within arguments, of which none but the outermost is ours to change."""
    *outer, last = path
    for name in outer:
        inner = arguments.get(name)
        if inner is not None and not isinstance(inner, Mapping):  # an object of the library
            arguments[name] = inner.model_copy(update={last: number})
            return
        copied = dict(inner or {})
        arguments[name] = copied
        arguments = copied
    arguments[last] = number


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump(mode="json", exclude_none=True, by_alias=True)
    return str(value)


_encoder: Final = msgspec.json.Encoder(enc_hook=_plain)

CHAT: Final = Limits((("max_completion_tokens",), ("max_tokens",)), (("n",),))
COMPLETIONS: Final = Limits((("max_tokens",),), (("n",), ("best_of",)))
RESPONSES: Final = Limits((("max_output_tokens",),))
MESSAGES: Final = Limits((("max_tokens",),), writes_caches=True)
TEXT: Final = Limits((("max_tokens",),), (("n",),))
GOOGLE: Final = Limits((("config", "max_output_tokens"),), (("config", "candidate_count"),))
INVOKE: Final = Limits(
    (
        ("max_tokens",),
        ("inferenceConfig", "maxTokens"),
        ("inferenceConfig", "max_new_tokens"),
        ("max_gen_len",),
        ("max_tokens_to_sample",),
        ("textGenerationConfig", "maxTokenCount"),
    ),
    writes_caches=True,
    body="body",
)
CONVERSE: Final = Limits((("inferenceConfig", "maxTokens"),), writes_caches=True)
INPUT_ALONE: Final = Limits()
