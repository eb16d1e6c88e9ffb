"""The worker side: usage consumer, price book, flags, metrics.

``celery -A taximeter_worker worker`` finds its app in the attribute ``celery``.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Made on first use: importing a part of this package must not need the settings of a worker.
    if name == "celery":
        from taximeter_worker.app import shared_app

        return shared_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
