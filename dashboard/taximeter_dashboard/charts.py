"""Charts as SVG, drawn on the server. Colours are classes of the style sheet, so that they follow light and dark.

All of them are decoration: the sentence of their figure and the table behind it say the same.
"""

from __future__ import annotations

from typing import Final

import msgspec
from markupsafe import Markup, escape

from taximeter_dashboard import amounts
from taximeter_dashboard.charts_scale import Scale, scale

TOP: Final = 22
BOTTOM: Final = 24
SIZES: Final = (("wide", 1080, 260), ("middle", 640, 240), ("small", 264, 200))
"""Name, width and height of the drawings of one chart: letters must not shrink with the window."""
_LETTER: Final = 7
_LABEL: Final = 52


class Segment(msgspec.Struct, frozen=True):
    """A part of a column: series 1 to 5, or 0 for all other, and its height in picodollars."""

    color: int
    value: int


class Column(msgspec.Struct, frozen=True):
    """A column, drawn from the bottom up; `before` is the value of the same column of the period before."""

    label: str
    segments: list[Segment]
    high: bool
    running: bool
    before: int | None = None

    @property
    def value(self) -> int:
        """Picodollars."""
        return sum(one.value for one in self.segments)


class Frame:
    """Where things are within a chart: ticks with their lines and labels, and the places of columns and values."""

    def __init__(self, width: int, height: int, values: Scale, count: int) -> None:
        self.width, self.height = width, height
        self.bottom, self.top = values.bottom, values.top
        self._ticks, self._labels = values.ticks, values.labels()
        self.left = max(map(len, self._labels)) * _LETTER + 10
        self._plot = height - TOP - BOTTOM
        self.slot = (width - self.left - 4) / max(1, count)
        self.every = max(1, -(-count * _LABEL // max(1, width - self.left)))
        self._count = count

    def y(self, value: int) -> float:
        """The height of a value in picodollars."""
        return TOP + self._plot * (self.top - value) / (self.top - self.bottom)

    def x(self, place: float) -> float:
        """Where a column begins."""
        return self.left + self.slot * place

    def open(self) -> list[str]:
        """The opening tag, the grid and the labels of its ticks."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        parts = [f'<svg class="chart" {size} aria-hidden="true">']
        for tick, label in zip(self._ticks, self._labels, strict=True):
            kind = "zero" if tick == 0 else "grid"
            parts.append(f'<path class="{kind}" d="M{self.left} {self.y(tick):.1f}H{self.width}"/>')
            parts.append(f'<text class="tick" x="{self.left - 8}" y="{self.y(tick) + 4:.1f}">{escape(label)}</text>')
        return parts

    def label(self, place: int, text: str) -> list[str]:
        """The label under a column, where there is room: counted from the last one, which is now."""
        if (self._count - 1 - place) % self.every:
            return []
        x, anchor = self.x(place + 0.5), "label"
        if x + len(text) * _LETTER / 2 > self.width:
            x, anchor = self.width, "label end"
        return [f'<text class="{anchor}" x="{x:.1f}" y="{self.height - 6}">{escape(text)}</text>']


def drawings(draw: object, *parts: object) -> list[tuple[str, Markup]]:
    """A chart in all sizes: the name of a size and the drawing."""
    return [(name, draw(*parts, width, height)) for name, width, height in SIZES]  # type: ignore[operator]


def columns_svg(columns: list[Column], width: int, height: int) -> Markup:
    """Stacked columns from zero; the running one hatched, high ones marked, the period before as an outline."""
    most = max((max(one.value, one.before or 0) for one in columns), default=0)
    frame = Frame(width, height, scale(most), len(columns))
    hatch = f"hatch-{width}"
    parts = frame.open()
    parts.append(
        f'<defs><pattern id="{hatch}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="hatch" width="2.5" height="6"/></pattern></defs>'
    )
    for place, column in enumerate(columns):
        words = f"{column.label}{' so far' if column.running else ''}: {amounts.exact(column.value)}"
        parts.append(f"<g><title>{escape(words)}</title>")
        parts += _column(frame, column, frame.x(place + 0.12), frame.slot * 0.76, hatch)
        parts.append("</g>")
        parts += frame.label(place, column.label)
    parts += _outline(frame, columns)
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - made of numbers and escaped labels


def _column(frame: Frame, column: Column, x: float, width: float, hatch: str) -> list[str]:
    parts = []
    base = frame.y(0)
    total = 0
    for segment in column.segments:
        under, total = total, total + segment.value
        y, tall = frame.y(total), frame.y(under) - frame.y(total)
        # One pixel of the surface between segments, as long as something remains.
        parts.append(
            f'<rect class="s{segment.color}" x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{max(tall - 1, 0.6):.2f}"/>'
        )
    y = frame.y(total)
    if column.running and column.segments:
        parts.append(
            f'<rect fill="url(#{hatch})" x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{base - y:.2f}"/>'
        )
    if column.high:
        parts.append(
            f'<rect class="high" x="{x - 1:.1f}" y="{y - 1:.2f}" width="{width + 2:.1f}" height="{base - y + 1:.2f}"/>'
        )
        parts.append(f'<text class="mark" x="{x + width / 2:.1f}" y="{y - 5:.1f}">▲</text>')
    return parts


def _outline(frame: Frame, columns: list[Column]) -> list[str]:
    """The period before, as the line of its columns' heads."""
    steps: list[str] = []
    for place, column in enumerate(columns):
        if column.before is None:
            continue
        y = frame.y(column.before)
        steps.append(f"{'V' if steps else f'M{frame.x(place):.1f} '}{y:.1f}H{frame.x(place + 1):.1f}")
    return [f'<path class="outline" d="{"".join(steps)}"/>'] if steps else []


def line_svg(points: list[tuple[str, int | None]], width: int, height: int) -> Markup:
    """One line from zero over labelled places; None where there is nothing to show."""
    values = [value for _, value in points if value is not None]
    frame = Frame(width, height, scale(max(values, default=0)), len(points))
    parts = frame.open()
    path: list[str] = []
    last = None
    for place, (label, value) in enumerate(points):
        if value is not None:
            x, y = frame.x(place + 0.5), frame.y(value)
            path.append(f"{'L' if last == place - 1 and path else 'M'}{x:.1f} {y:.1f}")
            parts.append(
                f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{escape(label)}</title></circle>'
            )
            last = place
        parts += frame.label(place, label)
    if path:
        parts.append(f'<path class="line" d="{"".join(path)}"/>')
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - made of numbers and escaped labels
