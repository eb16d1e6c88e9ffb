"""What an event may hold at most, and the patterns of its names.

The SDK and the worker both read them here; the lengths of labels stand in `taximeter.labels`. `taximeter_db.limits` repeats the two patterns for the database's side, which
imports nothing of the SDK; a test holds them equal.
"""

from __future__ import annotations

from typing import Final

WORKSPACE_ID_MAX: Final = 128
WORKSPACE_ID_PATTERN: Final = r"[A-Za-z0-9._:\-]{1,128}"
UNIT_PATTERN: Final = r"[A-Za-z0-9_.:\-]{1,64}"

EVENT_ID_MAX: Final = 255
"""Printable ASCII characters, at most this many."""
TOOL_MAX: Final = 128
PROVIDER_MAX: Final = 128
MODEL_MAX: Final = 256

HOLD_ID_MAX: Final = 128
TAGS_MAX: Final = 8
"""Tags of one event."""
TAG_KEY_PATTERN: Final = r"[a-z0-9_.\-]{1,32}"
TAG_TEXT_MAX: Final = 64

UNITS_MAX: Final = 64
"""Units in one event's ``quantities``."""
QUANTITY_MAX: Final = 10**15
QUANTITY_DECIMALS_MAX: Final = 6

EVENT_BYTES_MAX: Final = 1024 * 1024
"""Default limit of one event on the wire, in bytes."""
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Default limit of one broker message, in bytes."""
