"""Plots as SVG, made by hand: bars, stacked bars and a line are all that the report needs. Readable on light and dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH = 760
_LABEL = 230
_BAR = 22
_GAP = 10
_INK = "#6b7280"
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#64748b")
_FONT = 'font-family="system-ui, sans-serif" font-size="13"'


def _document(height: float, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" {_FONT}>\n'
        f"<title>{escape(title)}</title>\n{body}\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}"{weight}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, colour: str, what: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{_BAR}" fill="{colour}">'
        f"<title>{escape(what)}</title></rect>"
    )


def bars(title: str, rows: Sequence[tuple[str, float, float, float]], unit: str) -> str:
    """Horizontal bars: label, median, lowest and highest of each; whiskers show the spread."""
    most = max(high for _, _, _, high in rows) or 1.0
    scale = (WIDTH - _LABEL - 110) / most
    parts = [_text(0, 16, title, bold=True)]
    for index, (label, median, low, high) in enumerate(rows):
        y = 30 + index * (_BAR + _GAP)
        middle = y + _BAR / 2
        parts += [
            _text(_LABEL - 8, middle + 4, label, "end"),
            _box(_LABEL, y, median * scale, COLOURS[0], f"{label}: {median:,.0f} {unit}"),
            f'<path d="M{_LABEL + low * scale:.1f} {middle:.1f}H{_LABEL + high * scale:.1f}" stroke="{_INK}" stroke-width="2"/>',
            _text(_LABEL + high * scale + 8, middle + 4, f"{median:,.0f}"),
        ]
    return _document(30 + len(rows) * (_BAR + _GAP), f"{title}, {unit}", parts)


def stacked(title: str, rows: Sequence[tuple[str, dict[str, float]]], unit: str) -> str:
    """Horizontal bars of parts that add up, with a legend."""
    names = list(dict.fromkeys(name for _, parts in rows for name in parts))
    most = max(sum(parts.values()) for _, parts in rows) or 1.0
    scale = (WIDTH - _LABEL - 70) / most
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    drawn = [_text(0, 16, title, bold=True)]
    x = float(_LABEL)
    for name in names:
        drawn += [f'<rect x="{x:.1f}" y="24" width="12" height="12" fill="{colours[name]}"/>', _text(x + 17, 35, name)]
        x += 40 + 7.2 * len(name)
    for index, (label, parts) in enumerate(rows):
        y = 46 + index * (_BAR + _GAP)
        x = float(_LABEL)
        drawn.append(_text(_LABEL - 8, y + _BAR / 2 + 4, label, "end"))
        for name, value in parts.items():
            drawn.append(_box(x, y, value * scale, colours[name], f"{label}, {name}: {value:.1f} {unit}"))
            x += value * scale
        drawn.append(_text(x + 8, y + _BAR / 2 + 4, f"{sum(parts.values()):.1f}"))
    return _document(46 + len(rows) * (_BAR + _GAP), f"{title}, {unit}", drawn)


def line(title: str, points: Sequence[tuple[float, float]], x_unit: str, y_unit: str) -> str:
    """One line from zero, for a course over time."""
    height, left, bottom = 260.0, 60.0, 226.0
    x_most = max(x for x, _ in points) or 1.0
    y_most = max(y for _, y in points) * 1.15 or 1.0
    path = " ".join(
        f"{left + x / x_most * (WIDTH - left - 20):.1f},{bottom - y / y_most * (bottom - 34):.1f}" for x, y in points
    )
    parts = [
        _text(0, 16, title, bold=True),
        f'<path d="M{left} 30V{bottom}H{WIDTH - 20}" fill="none" stroke="{_INK}"/>',
        f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>',
        _text(left - 6, bottom + 4, "0", "end"),
        _text(left - 6, 40, f"{y_most:,.0f}", "end"),
        _text(left, 244, f"0 {x_unit}"),
        _text(WIDTH - 20, 244, f"{x_most:,.1f} {x_unit}", "end"),
        _text(left + 8, 40, y_unit),
    ]
    return _document(height, title, parts)
