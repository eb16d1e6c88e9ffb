"""The process's own streams: they write plain characters where a terminal knows no others, and notice a closed pipe."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import IO, Any, Final

_PLAIN: Final = {
    "→": "->",
    "…": "...",
    "≈": "~",
    "\N{MULTIPLICATION SIGN}": "x",
    "±": "+/-",
    "€": "EUR",
    **dict.fromkeys("·•─━—\N{EN DASH}\N{MINUS SIGN}\N{NON-BREAKING HYPHEN}", "-"),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}", "'"),
    "\N{NO-BREAK SPACE}": " ",
    "\N{NARROW NO-BREAK SPACE}": " ",
}
"""What our own sentences hold beyond ASCII, and what stands for it. Other characters are written as escapes."""
_HANDLER: Final = "taximeter-plain"


class ReaderGoneError(BaseException):
    """Whoever read our output has gone, as ``| head`` does. No Exception, so that no command takes it for a fault."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(
        _PLAIN.get(letter) or letter.encode("unicode_escape", "surrogatepass").decode("ascii") for letter in characters
    ), error.end


class Output(io.TextIOWrapper):
    """Text to a terminal, a file or a pipe."""

    def write(self, text: str, /) -> int:
        """Write a text.

        Raises:
            ReaderGoneError: Nobody reads any more.
        """
        try:
            return super().write(text)
        except BrokenPipeError:
            raise ReaderGoneError from None

    def flush(self) -> None:
        """Hand on what is buffered.

        Raises:
            ReaderGoneError: Nobody reads any more.
        """
        try:
            super().flush()
        except BrokenPipeError:
            raise ReaderGoneError from None


class Notes(Output):
    """The same for stderr: where nobody reads it any more, what is said is dropped, and the command goes on to its end.

    A warning that nobody hears must not keep a command from its work, nor change its exit code.
    """

    def write(self, text: str, /) -> int:
        """Write a text, or drop it."""
        try:
            return super().write(text)
        except ReaderGoneError:
            _let_go(self.fileno())
            return len(text)

    def flush(self) -> None:
        """Hand on what is buffered, or drop it."""
        try:
            super().flush()
        except ReaderGoneError:
            _let_go(self.fileno())


def _let_go(number: int) -> None:
    """Write nowhere from now on: the interpreter flushes once more at its end, and must not complain then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def open_streams() -> None:
    """Take the place of stdout and stderr; what is closed altogether becomes a place where nothing is kept."""
    codecs.register_error(_HANDLER, _plain)
    for name in ("stdin", "stdout", "stderr"):
        stream: IO[Any] | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115, PTH123 -- for as long as we live
        elif name != "stdin" and not isinstance(stream, Output):
            kind, lines = (Notes, True) if name == "stderr" else (Output, stream.isatty())
            setattr(sys, name, kind(stream.buffer, stream.encoding, _HANDLER, line_buffering=lines))  # type: ignore[attr-defined]


def close_streams(code: int) -> int:
    """Hand on what is buffered; returns the exit code, 1 in the place of 0 where it could not be written."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (ReaderGoneError, OSError, ValueError) as error:
            _let_go(number)
            if isinstance(error, OSError):
                sys.stderr.write(f"taximeter: the output could not be written: {error.strerror}.\n")
                code = code or 1
    return code
