"""Patterns that both sides need, although neither may import the other."""

from __future__ import annotations

import taximeter.limits
import taximeter_db.limits


def test_the_sdk_and_the_database_mean_the_same_names() -> None:
    assert taximeter_db.limits.WORKSPACE_ID_PATTERN == taximeter.limits.WORKSPACE_ID_PATTERN
    assert taximeter_db.limits.UNIT_PATTERN == taximeter.limits.UNIT_PATTERN
