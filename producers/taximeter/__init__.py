"""Prepaid metering for AI usage: record usage, check the flag.

from taximeter import Meter

meter = Meter.from_env()
if meter.enabled("acme"):
    meter.record("acme", tool="chat", quantities={"requests": 1})
"""

from taximeter.calls.call import Call
from taximeter.calls.holding import CallHolds
from taximeter.calls.tracking import current_call
from taximeter.errors import (
    AIDisabled,
    BudgetExceeded,
    CallRefusedError,
    ClosedError,
    ConfigurationError,
    FlushTimeoutError,
    HoldsUnavailableError,
    InsufficientCredit,
    InvalidEventError,
    NoAttributionError,
    NotMeteredError,
    OutOfRangeError,
    PriceMissingError,
    PricesUnavailableError,
    SetAsideError,
    SpoolError,
    TaximeterError,
)
from taximeter.flags.cache import FlagStatus
from taximeter.holds.hold import Hold
from taximeter.meter import Meter
from taximeter.spool.pipeline import MeterStats

__all__ = [
    "AIDisabled",
    "BudgetExceeded",
    "Call",
    "CallHolds",
    "CallRefusedError",
    "ClosedError",
    "ConfigurationError",
    "FlagStatus",
    "FlushTimeoutError",
    "Hold",
    "HoldsUnavailableError",
    "InsufficientCredit",
    "InvalidEventError",
    "Meter",
    "MeterStats",
    "NoAttributionError",
    "NotMeteredError",
    "OutOfRangeError",
    "PriceMissingError",
    "PricesUnavailableError",
    "SetAsideError",
    "SpoolError",
    "TaximeterError",
    "current_call",
]
