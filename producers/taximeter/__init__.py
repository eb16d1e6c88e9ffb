"""Prepaid metering for AI usage: record usage, check the flag.

from taximeter import Meter

meter = Meter.from_env()
if meter.enabled("acme"):
    meter.record("acme", tool="chat", quantities={"requests": 1})
"""

from taximeter.errors import (
    ClosedError,
    ConfigurationError,
    FlushTimeoutError,
    InvalidEventError,
    SpoolError,
    TaximeterError,
)
from taximeter.flags import FlagStatus
from taximeter.meter import Meter
from taximeter.outbox import MeterStats

__all__ = [
    "ClosedError",
    "ConfigurationError",
    "FlagStatus",
    "FlushTimeoutError",
    "InvalidEventError",
    "Meter",
    "MeterStats",
    "SpoolError",
    "TaximeterError",
]
