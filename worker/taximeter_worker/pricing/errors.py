"""Errors of catalogues and price files. What an event cannot be priced for is in ``taximeter.errors``.

PricingError
├── CatalogueError   a catalogue is not installed, or is not what it should be
└── BookFileError    a price file cannot be read
"""

from __future__ import annotations

from taximeter_worker.errors import TaximeterWorkerError


class PricingError(TaximeterWorkerError):
    """Root of every error that this package raises itself."""


class CatalogueError(PricingError):
    """A price catalogue is not installed, or is not what it should be."""


class BookFileError(PricingError, ValueError):
    """A price file cannot be read; nothing was imported."""
