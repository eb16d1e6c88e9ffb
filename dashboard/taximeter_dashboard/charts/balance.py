"""The balance over time: a step line over the zones, with the flips numbered as in the list beneath it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

import msgspec
from markupsafe import Markup, escape

from taximeter_dashboard.charts.columns import BOTTOM, LETTER, TOP, UNITS, Frame, draw, height, short
from taximeter_dashboard.charts.scale import Scale, scale

_NEAR: Final = 20
_RADIUS: Final = 10
_LABELS_APART: Final = 64


class Point(msgspec.Struct, frozen=True):
    """The balance in picodollars from a moment on."""

    at: dt.datetime
    balance: int


class Flip(msgspec.Struct, frozen=True):
    """AI went off or on at a point; `number` as in the list."""

    at: dt.datetime
    balance: int
    number: int
    off: bool


class Span(msgspec.Struct, frozen=True):
    """From when to when, and what stands under the axis at which moments."""

    since: dt.datetime
    until: dt.datetime
    labels: list[tuple[dt.datetime, str]]

    def part(self, at: dt.datetime) -> float:
        """How much of it has passed at a moment, from 0 to 1."""
        return min(1.0, max(0.0, (at - self.since) / (self.until - self.since)))


def balance_svg(name: str, span: Span, points: list[Point], flips: list[Flip], limits: tuple[int, int]) -> Markup:
    """The step line; `limits` are the minimum and the threshold of now, in picodollars."""
    balances = [one.balance for one in points] + list(limits)
    values = scale(max(balances), min(balances))
    path = steps((UNITS * span.part(one.at), height(values, one.balance)) for one in points)
    shapes = [
        *_zones(values, limits),
        f'<path class="line" d="{path}H{UNITS}"/>' if path else "",
        *_dots(span, values, flips),
    ]
    return draw(name, values, 1, shapes, lambda frame: [*_labels(span, frame), *_numbers(span, frame, flips)])


def steps(places: Iterable[tuple[float, int]]) -> str:
    """A step line through places from left to right.

    Of all that falls on one unit the highest, the lowest and the last are drawn: it looks the same, and a workspace whose
    balance goes up and down all day costs no more than a calm one.
    """
    columns: dict[int, list[int]] = {}
    for x, y in places:
        columns.setdefault(round(x), []).append(y)
    path, before = "", 0
    for x, heights in columns.items():
        if not path:
            before = heights[0]
            path = f"M{x} {before}"
        last = heights[-1]
        ends = min(*heights, before), max(*heights, before)
        way = [y for y in ends if y not in {before, last}]
        if way or last != before:
            path += f"H{x}" + "".join(f"V{y}" for y in (*way, last))
        before = last
    return path


def _zones(values: Scale, limits: tuple[int, int]) -> list[str]:
    minimum, low = (height(values, limit) for limit in limits)
    parts = [
        f'<rect class="zone-{kind}" y="{upper}" width="{UNITS}" height="{lower - upper}"/>'
        for kind, upper, lower in (("low", low, minimum), ("insufficient", minimum, UNITS))
        if lower > upper
    ]
    return [*parts, f'<path class="limit" d="M0 {minimum}H{UNITS}"/>']


def _dots(span: Span, values: Scale, flips: list[Flip]) -> list[str]:
    """A dot for each flip."""
    paths = {True: "", False: ""}
    for flip in flips:
        paths[flip.off] += f"M{short(UNITS * span.part(flip.at))} {height(values, flip.balance)}h0"
    return [f'<path class="flip {"off" if off else "on"}" d="{path}"/>' for off, path in paths.items() if path]


def _numbers(span: Span, frame: Frame, flips: list[Flip]) -> list[str]:
    """The numbers of the flips, each on a larger dot. Where flips crowd they would cover each other: the dots stay."""
    paths = {True: "", False: ""}
    numbers = []
    last = -_NEAR * 1.0
    for flip in flips:
        x = min(frame.x(span.part(flip.at)), frame.width - _RADIUS)  # whole, at the right edge too
        if x - last >= _NEAR:
            y = min(max(frame.y(flip.balance), TOP), frame.height - BOTTOM - 10.0)
            paths[flip.off] += f"M{short(x)} {short(y)}h0"
            numbers.append(f'<text class="flip-number" x="{short(x)}" y="{short(y + 4)}">{flip.number}</text>')
            last = x
    dots = [f'<path class="flip {"off" if off else "on"} large" d="{path}"/>' for off, path in paths.items() if path]
    return dots + numbers


def _labels(span: Span, frame: Frame) -> list[str]:
    parts = []
    last = frame.width * 1.0 + _LABELS_APART
    for at, text in reversed(span.labels):
        place = min(frame.x(span.part(at)), frame.width - len(text) * LETTER / 2)
        if last - place < _LABELS_APART or place < frame.left + 16:
            continue
        parts.append(f'<text class="label" x="{short(place)}" y="{frame.height - 6}">{escape(text)}</text>')
        last = place
    return parts
