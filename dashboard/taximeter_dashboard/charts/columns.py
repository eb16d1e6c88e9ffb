"""Charts as SVG, drawn on the server. Colours are classes of the style sheet, so that they follow light and dark.

All of them are decoration: the sentence of their figure and the table behind it say the same. A chart stands in the page in
three sizes, because letters must not shrink with the window; what holds no letters is drawn once, on a square of 1,000 units
that each size stretches to its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from markupsafe import Markup, escape

from taximeter_dashboard.charts.scale import Scale, scale
from taximeter_dashboard.formatting import amounts

TOP: Final = 22
BOTTOM: Final = 24
UNITS: Final = 1_000
SIZES: Final = (("wide", 1080, 260), ("middle", 640, 240), ("small", 264, 200))
"""Name, width and height of the drawings of one chart."""
_RIGHT: Final = 4
_GAP: Final = 5
"""About a pixel of the surface between segments, in units."""
_FILLED: Final = 0.76
LETTER: Final = 7
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
    """One size of a chart: where its columns and values are, in pixels, and the letters around them."""

    def __init__(self, width: int, height: int, values: Scale, count: int) -> None:
        self.width, self.height, self.count = width, height, count
        self._values, self._labels = values, values.labels()
        self.left = max(map(len, self._labels)) * LETTER + 10
        self.slot = (width - self.left - _RIGHT) / max(1, count)
        self._every = max(1, -(-count * _LABEL // max(1, width - self.left)))

    def y(self, value: int) -> float:
        """The height of a value in picodollars."""
        return TOP + (self.height - TOP - BOTTOM) * self._values.depth(value)

    def x(self, place: float) -> float:
        """Where a column begins."""
        return self.left + self.slot * place

    def open(self, shapes: str) -> list[str]:
        """The opening tag, the shapes stretched to this size, and the labels of the ticks."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        inside = f'width="{self.width - self.left - _RIGHT}" height="{self.height - TOP - BOTTOM}"'
        return [
            f'<svg class="chart" {size} aria-hidden="true"><use href="#{shapes}" x="{self.left}" y="{TOP}" {inside}/>',
            *(
                f'<text class="tick" x="{self.left - 8}" y="{short(self.y(tick) + 4)}">{escape(label)}</text>'
                for tick, label in zip(self._values.ticks, self._labels, strict=True)
            ),
        ]

    def label(self, place: int, text: str) -> list[str]:
        """The label under a column, where there is room: counted from the last one, which is now."""
        last = self.count - 1
        half = len(text) * LETTER / 2
        x, end = (min(self.x(one + 0.5), self.width - half) for one in (place, last))
        if (last - place) % self._every or (place < last and end - x < half * 2 + LETTER):
            return []
        return [f'<text class="label" x="{short(x)}" y="{self.height - 6}">{escape(text)}</text>']


def short(place: float) -> str:
    """A coordinate with one decimal, or none."""
    return f"{place:.1f}".removesuffix(".0")


def draw(
    name: str, values: Scale, count: int, shapes: Iterable[str], letters: Callable[[Frame], Iterable[str]]
) -> Markup:
    """A chart in all sizes: its shapes, in units, and what each size writes over them, in pixels. `name` is its id."""
    lines = {"grid": "", "zero": ""}
    for tick in values.ticks:
        lines["grid" if tick else "zero"] += f"M0 {height(values, tick)}H{UNITS}"
    square = f'viewBox="0 0 {UNITS} {UNITS}" preserveAspectRatio="none"'
    parts = [
        f'<svg class="chart shapes" aria-hidden="true"><symbol id="{name}" {square}>',
        *(f'<path class="{kind}" d="{line}"/>' for kind, line in lines.items() if line),
        *shapes,
        "</symbol></svg>",
    ]
    for size, wide, tall in SIZES:
        frame = Frame(wide, tall, values, count)
        parts += [f'<div class="{size}-chart">', *frame.open(name), *letters(frame), "</svg></div>"]
    return Markup("".join(parts))  # noqa: S704 - made of numbers and escaped labels


def height(values: Scale, value: int) -> int:
    """How far below the top a value in picodollars is, in units."""
    return round(UNITS * values.depth(value))


def columns_svg(name: str, columns: list[Column]) -> Markup:
    """Stacked columns from zero; the running one hatched, high ones marked, the period before as an outline."""
    values = scale(max((max(one.value, one.before or 0) for one in columns), default=0))
    slot = UNITS / max(1, len(columns))
    shapes = [
        *_stacks(values, columns, slot),
        *_highs(values, columns, slot),
        *_outline(values, columns, slot),
        *_told(columns, slot),
    ]
    return draw(name, values, len(columns), shapes, lambda frame: _around(frame, columns, name))


def _stacks(values: Scale, columns: list[Column], slot: float) -> list[str]:
    """All segments of a series as one path: upright strokes as wide as a column."""
    paths: dict[int, str] = {}
    for place, column in enumerate(columns):
        total = 0
        for segment in column.segments:
            under, total = total, total + segment.value
            # The gap is taken from the lower end, as long as something remains.
            tall = max(height(values, under) - height(values, total) - _GAP, 3)
            path = f"M{short(slot * (place + 0.5))} {height(values, total)}v{tall}"
            paths[segment.color] = paths.get(segment.color, "") + path
    wide = short(slot * _FILLED)
    return [f'<path class="s{color}" stroke-width="{wide}" d="{path}"/>' for color, path in sorted(paths.items())]


def _highs(values: Scale, columns: list[Column], slot: float) -> list[str]:
    """A frame around each column that is high."""
    path = "".join(
        f"M{short(slot * (place + (1 - _FILLED) / 2))} {UNITS}V{height(values, column.value)}h{short(slot * _FILLED)}V{UNITS}z"
        for place, column in enumerate(columns)
        if column.high
    )
    return [f'<path class="high" d="{path}"/>'] if path else []


def _outline(values: Scale, columns: list[Column], slot: float) -> list[str]:
    """The period before, as the line of its columns' heads."""
    path = ""
    for place, column in enumerate(columns):
        if column.before is not None:
            path += f"{'V' if path else f'M{short(slot * place)} '}{height(values, column.before)}H{short(slot * (place + 1))}"
    return [f'<path class="outline" d="{path}"/>'] if path else []


def _told(columns: list[Column], slot: float) -> list[str]:
    """What a pointer is told, anywhere above or upon a column."""
    parts = [f'<g class="told" stroke-width="{short(slot)}">']
    for place, column in enumerate(columns):
        words = f"{column.label}{' so far' if column.running else ''}: {amounts.exact(column.value)}"
        parts.append(f'<path d="M{short(slot * (place + 0.5))} 0V{UNITS}"><title>{escape(words)}</title></path>')
    return [*parts, "</g>"]


def _around(frame: Frame, columns: list[Column], name: str) -> Iterable[str]:
    """Stripes over the last column while it runs, which may not be stretched; marks, and labels under the columns."""
    if columns and columns[-1].running and columns[-1].value:
        hatch, y = f"{name}-hatch-{frame.width}", frame.y(columns[-1].value)
        x, wide = frame.x(frame.count - 1 + (1 - _FILLED) / 2), frame.slot * _FILLED
        yield f'<defs><pattern id="{hatch}" width="6" height="6" patternUnits="userSpaceOnUse"'
        yield ' patternTransform="rotate(45)"><rect class="hatch" width="2.5" height="6"/></pattern></defs>'
        yield f'<rect fill="url(#{hatch})" x="{short(x)}" y="{short(y)}"'
        yield f' width="{short(wide)}" height="{short(frame.y(0) - y)}"/>'
    for place, column in enumerate(columns):
        if column.high:
            x, y = frame.x(place + 0.5), frame.y(column.value) - 5
            yield f'<text class="mark" x="{short(x)}" y="{short(y)}">▲</text>'
        yield from frame.label(place, column.label)


def line_svg(name: str, points: list[tuple[str, int | None]]) -> Markup:
    """One line from zero over labelled places; None where there is nothing to show."""
    values = scale(max((value for _, value in points if value is not None), default=0))
    slot = UNITS / max(1, len(points))
    path, dots, last = "", "", None
    for place, (_, value) in enumerate(points):
        if value is not None:
            at = f"{short(slot * (place + 0.5))} {height(values, value)}"
            path += f"{'L' if path and last == place - 1 else 'M'}{at}"
            dots += f"M{at}h0"
            last = place
    shapes = [f'<path class="line" d="{path}"/><path class="dots" d="{dots}"/>'] if path else []

    def labels(frame: Frame) -> Iterable[str]:
        for place, (label, _) in enumerate(points):
            yield from frame.label(place, label)

    return draw(name, values, len(points), shapes, labels)
