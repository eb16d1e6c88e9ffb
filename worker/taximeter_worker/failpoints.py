"""Places where a test can make the worker die, so that recovery is shown and not believed.

``TAXIMETER_FAILPOINT=after_commit:3`` kills the process with SIGKILL when it comes by ``after_commit`` for the third time.
Unset, as it always is outside the fault tests, ``hit`` is one comparison.
"""

from __future__ import annotations

import itertools
import os
import signal

VARIABLE = "TAXIMETER_FAILPOINT"
BOOKING_POINTS = (
    "after_receive",
    "after_decode",
    "before_commit",
    "after_commit",
    "before_flag",
    "after_flag",
    "before_ack",
    "after_ack",
)
REPRICING_POINTS = ("before_reprice_commit", "after_reprice_commit")
OWING_POINTS = ("before_owing", "after_owing")
"""Around the note that a flag could not be written."""
REBUILD_POINTS = ("after_new_epoch", "before_ready")
"""Within a rebuild of all flags."""
NOTICE_POINTS = ("before_notice_sent", "after_notice_sent")
"""Around the sending of a notice: the second before anything is noted of it."""
DRAIN_POINTS = ("before_drain_ack", "after_drain_ack")
"""While one broker is emptied into another: around the acknowledgement of what the other has confirmed."""
POINTS = BOOKING_POINTS + REPRICING_POINTS + OWING_POINTS + REBUILD_POINTS + NOTICE_POINTS + DRAIN_POINTS


def _armed() -> tuple[str, int]:
    name, _, nth = os.environ.get(VARIABLE, "").partition(":")
    if name and name not in POINTS:
        raise ValueError(f"{VARIABLE}: {name!r} is not one of {', '.join(POINTS)}")
    return name, int(nth or 1)


_NAME, _NTH = _armed()
_count = itertools.count(1)


def hit(name: str) -> None:
    """Die here if the environment says so."""
    if name == _NAME and next(_count) == _NTH:
        os.kill(os.getpid(), signal.SIGKILL)
