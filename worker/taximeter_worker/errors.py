"""Errors of the worker.

TaximeterWorkerError
 ├── SourceLostError          the broker's connection is gone; connect again
 ├── FlagsUnavailableError    Redis did not take the flags; the debt must be noted
 ├── MetricsPortTakenError    the metrics port is in use
 ├── AddressRefusedError      notices may not be sent to that address
 ├── LockTakenError      another worker does this work at the moment
 ├── BillError           a provider's bill cannot be read
 ├── DrainError          a broker cannot be emptied into another
 ├── CorrectionError     a correction of a quarantined event cannot be applied
 ├── RepriceError        a repricing cannot be done (in ``reprice``)
 └── PricingError        root of the errors of catalogues and price files (in ``pricing.errors``)
"""

from __future__ import annotations


class TaximeterWorkerError(Exception):
    """Root of everything the worker raises on purpose."""


class SourceLostError(TaximeterWorkerError):
    """The connection to the broker is gone or no longer ours; what was not acknowledged will come again."""


class FlagsUnavailableError(TaximeterWorkerError):
    """Redis did not take the flags in time; their debts must be noted in the database."""


class MetricsPortTakenError(TaximeterWorkerError):
    """The metrics port is in use by another process."""


class AddressRefusedError(TaximeterWorkerError):
    """An address that notices may not be sent to: it is not public, and nobody allowed its network."""


class LockTakenError(TaximeterWorkerError):
    """Another worker does this work at the moment; try again later."""


class BillError(TaximeterWorkerError, ValueError):
    """A provider's bill cannot be read, or says nothing of its models; the sentence says what is missing."""


class DrainError(TaximeterWorkerError):
    """A broker cannot be emptied into another; what was not confirmed there is still in the first."""


class CorrectionError(TaximeterWorkerError):
    """A correction of a quarantined event cannot be applied; nothing was changed."""
