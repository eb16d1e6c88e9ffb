"""What can go wrong for a person at the command line; each message says what to do."""

from __future__ import annotations


class CliError(Exception):
    """Root of the errors that end a command with a sentence on stderr instead of a traceback."""


class UsageError(CliError):
    """The command's own words make no sense, whatever the state of the system: exit code 2."""


class EmbeddedError(CliError):
    """A part of the embedded stack cannot be started, found or stopped."""
