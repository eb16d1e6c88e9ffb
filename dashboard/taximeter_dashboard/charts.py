"""Charts as SVG, drawn on the server. Colours are classes of the style sheet, so that they follow light and dark."""

from __future__ import annotations

from typing import Final

import msgspec
from markupsafe import Markup, escape

from taximeter_dashboard import amounts

_TOP: Final = 22
_BOTTOM: Final = 24
_LETTER: Final = 7
_TICKS: Final = 4


class Segment(msgspec.Struct, frozen=True):
    """A part of a column: series 1 to 5, or 0 for all other, and its height in picodollars."""

    color: int
    value: int


class Column(msgspec.Struct, frozen=True):
    """A column, drawn from the bottom up."""

    label: str
    segments: list[Segment]
    high: bool
    running: bool

    @property
    def value(self) -> int:
        """Picodollars."""
        return sum(one.value for one in self.segments)


def ticks(top: int) -> list[int]:
    """About four round numbers from 0 to at least `top`: 1, 2 or 5 times a power of ten apart."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * _TICKS >= top:
                count = max(1, -(-top // (step * factor)))
                return [step * factor * place for place in range(count + 1)]
        step *= 10


def columns_svg(columns: list[Column], width: int, height: int) -> Markup:
    """Stacked columns on a zero baseline; the running one hatched, high ones marked. Decoration: the table says it all."""
    scale = ticks(max((one.value for one in columns), default=0) or 1)
    decimals = min(amounts.decimals(tick) for tick in scale[1:])
    decimals = max(decimals, *(amounts.decimals(tick) for tick in scale))
    labels = [amounts.exact(tick) for tick in scale]
    left = max(len(label) for label in labels) * _LETTER + 10
    plot = height - _TOP - _BOTTOM
    slot = (width - left - 4) / max(1, len(columns))
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">']
    parts.append(
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="hatch" width="2.5" height="6"/></pattern></defs>'
    )
    for tick, label in zip(scale, labels, strict=True):
        y = _TOP + plot - plot * tick / scale[-1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{width}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}">{escape(label)}</text>')
    every = max(1, -(-len(columns) * 52 // max(1, width - left)))
    for place, column in enumerate(columns):
        x = left + slot * place + slot * 0.12
        parts += _column(column, x, slot * 0.76, _TOP + plot, plot / scale[-1])
        if (len(columns) - 1 - place) % every == 0:
            parts.append(
                f'<text class="label" x="{x + slot * 0.38:.1f}" y="{height - 6}">{escape(column.label)}</text>'
            )
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - made of numbers and escaped labels


def _column(column: Column, x: float, width: float, base: float, unit: float) -> list[str]:
    parts = []
    y = base
    for segment in column.segments:
        tall = segment.value * unit
        y -= tall
        # One pixel of the surface between segments, as long as something remains.
        parts.append(
            f'<rect class="s{segment.color}" x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{max(tall - 1, 0.6):.2f}"/>'
        )
    if column.running and column.segments:
        parts.append(f'<rect fill="url(#hatch)" x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{base - y:.2f}"/>')
    if column.high:
        parts.append(
            f'<rect class="high" x="{x - 1:.1f}" y="{y - 1:.2f}" width="{width + 2:.1f}" height="{base - y + 1:.2f}"/>'
        )
        parts.append(f'<text class="mark" x="{x + width / 2:.1f}" y="{y - 5:.1f}">▲</text>')
    return parts
