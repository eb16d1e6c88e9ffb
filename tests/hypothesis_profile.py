"""How many examples a property is tried with: all of them in `make test`, a part under the profile of `make test-fast`."""

from __future__ import annotations

from hypothesis import settings

FAST = "fast"
_USUAL = settings.get_profile("default").max_examples
settings.register_profile(FAST, max_examples=_USUAL // 5)


def examples(count: int) -> int:
    """``count``, or the part of it that the profile in use asks for."""
    return max(1, count * settings.default.max_examples // _USUAL)
