"""The value axis of a chart: where its ticks are, and what they say."""

from __future__ import annotations

from typing import Final

import msgspec

from taximeter_dashboard.formatting import amounts

_FEWEST: Final = 4
_MOST: Final = 5


class Scale(msgspec.Struct, frozen=True):
    """From `bottom` to `top`, with ticks between them; all in picodollars."""

    bottom: int
    top: int
    ticks: list[int]

    def depth(self, value: int) -> float:
        """How far below the top a value is: 0 at the top, 1 at the bottom."""
        return (self.top - value) / (self.top - self.bottom)

    def labels(self) -> list[str]:
        """What stands at the ticks: as many decimals for all, the unit once, at the topmost."""
        places = max(map(amounts.decimals, self.ticks))
        labels = []
        for tick in self.ticks:
            text = amounts.exact(tick)
            text += "0" * (places - len(text.partition(".")[2]))
            labels.append(text if tick == self.ticks[-1] else text.replace("$", ""))
        return labels


def scale(top: int, bottom: int = 0) -> Scale:
    """Four or five round ticks, 1, 2 or 5 times a power of ten apart, over a range that holds 0, `bottom` and `top`."""
    top, bottom = max(top, 0), min(bottom, 0)
    if top == bottom:
        top = 1
    step = 1
    while True:
        for factor in (1, 2, 5):
            size = step * factor
            first, last = -(-bottom // size), top // size
            if _FEWEST <= last - first + 1 <= _MOST:
                return Scale(bottom, top, [size * place for place in range(first, last + 1)])
            if last - first + 1 < _FEWEST:
                # This step is too wide within the range, and the one before it was too narrow: widen the range,
                # below only where that is needed. A minimum of a few cents must not take a quarter of the height.
                last = -(-top // size)
                if last - first + 1 < _FEWEST:
                    first = bottom // size
                    last = max(last, first + _FEWEST - 1)
                return Scale(min(bottom, size * first), size * last, [size * place for place in range(first, last + 1)])
        step *= 10
