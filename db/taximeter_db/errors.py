"""Errors of the database side.

TaximeterDbError
├── AmountError               an amount that is not an exact, finite number of USD in range
├── ConfigurationError        a setting from the environment is missing, wrong or contradicts another
├── SettingsError             a workspace setting that cannot be accepted
├── NotFoundError             there is no such workspace, usage, payment or quarantine entry
├── DatabaseUnavailableError  PostgreSQL cannot be reached, or went away
├── CheckpointError           a checkpoint that cannot be believed or made
├── RebuildError              a rebuild from the log that cannot begin
├── MasterKeyError            a master key is missing, malformed or not the right one
├── PayloadError              stored contents that cannot be opened
├── StatementError            a month's account that does not add up, or cannot be written
└── SchemaError               the database's schema is not the one this version needs
"""

from __future__ import annotations


class TaximeterDbError(Exception):
    """Root of every error that this package raises itself."""


class AmountError(TaximeterDbError, ValueError):
    """An amount that is not an exact, finite number of USD within range."""


class ConfigurationError(TaximeterDbError, ValueError):
    """A setting from the environment is missing, makes no sense or contradicts another; the sentence names the variable."""


class SettingsError(TaximeterDbError, ValueError):
    """A workspace setting that cannot be accepted; nothing was changed."""


class NotFoundError(TaximeterDbError, LookupError):
    """There is no such workspace, usage, payment or quarantine entry."""


class DatabaseUnavailableError(TaximeterDbError):
    """PostgreSQL cannot be reached, or went away during the work."""


class CheckpointError(TaximeterDbError, ValueError):
    """A checkpoint that is not whole or not signed with the key given, or a key that cannot sign one."""


class RebuildError(TaximeterDbError, ValueError):
    """A rebuild from the log that cannot begin: its moment lies ahead, its schema's name is taken, the server is a standby."""


class MasterKeyError(TaximeterDbError, ValueError):
    """A master key is missing, is not a key, or is not the one that wrapped a data key. It is never quoted."""


class PayloadError(TaximeterDbError, ValueError):
    """Stored contents were changed, belong to another event, or need a key that is not at hand."""


class StatementError(TaximeterDbError):
    """A month's account does not add up to the balance, or cannot be written in the form that was asked for."""


class SchemaError(TaximeterDbError):
    """The database's schema is not the one that this version needs."""
