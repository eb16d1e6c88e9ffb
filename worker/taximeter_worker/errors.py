"""Errors of the worker.

TaximeterWorkerError
 ├── SettingError        a setting is missing or makes no sense
 ├── SourceLost          the broker's connection is gone; connect again
 ├── FlagsUnavailable    Redis did not take the flags; the debt must be written down
 ├── MetricsPortTaken    the metrics port is in use
 ├── CorrectionError     a correction of a quarantined event cannot be applied
 ├── RepriceError        a repricing cannot be done (in ``reprice``)
 └── PricingError        root of pricing's own tree (in ``pricing.errors``)
"""

from __future__ import annotations


class TaximeterWorkerError(Exception):
    """Root of everything the worker raises on purpose."""


class SettingError(TaximeterWorkerError):
    """A setting is missing or makes no sense; the text names the variable and what it takes."""


class SourceLost(TaximeterWorkerError):  # noqa: N818 -- it is an event of normal life, not a mistake
    """The connection to the broker is gone or no longer ours; what was not acknowledged will come again."""


class FlagsUnavailable(TaximeterWorkerError):  # noqa: N818 -- as above
    """Redis did not take the flags in time; the workspaces must be noted as stale in the database."""


class MetricsPortTaken(TaximeterWorkerError):  # noqa: N818 -- reads as the fact it states
    """The metrics port is in use by another process."""


class CorrectionError(TaximeterWorkerError):
    """A correction of a quarantined event cannot be applied; nothing was changed."""
