"""Errors of the database side.

TaximeterDbError
├── AmountError               an amount that is no exact, finite number of USD in range
├── SettingsError             a workspace setting that cannot be accepted
├── NotFoundError             there is no such workspace, usage, payment or quarantine entry
├── DatabaseUnavailableError  PostgreSQL cannot be reached, or went away
├── CheckpointError           a checkpoint that cannot be believed or made
└── SchemaError               the database's schema is not the one this version needs
"""

from __future__ import annotations


class TaximeterDbError(Exception):
    """Root of every error that this package raises itself."""


class AmountError(TaximeterDbError, ValueError):
    """An amount that is not an exact, finite number of USD within range."""


class SettingsError(TaximeterDbError, ValueError):
    """A workspace setting that cannot be accepted; nothing was changed."""


class NotFoundError(TaximeterDbError, LookupError):
    """There is no such workspace, usage, payment or quarantine entry."""


class DatabaseUnavailableError(TaximeterDbError):
    """PostgreSQL cannot be reached, or went away during the work."""


class CheckpointError(TaximeterDbError, ValueError):
    """A checkpoint that is not whole or not signed with the key given, or a key that cannot sign one."""


class SchemaError(TaximeterDbError):
    """The database's schema is not the one that this version needs."""
