"""The balance over time: a step line over the zones, with the flips numbered as in the list beneath it."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec
from markupsafe import Markup, escape

from taximeter_dashboard.charts import BOTTOM, TOP, Frame
from taximeter_dashboard.charts_scale import scale

_NEAR: Final = 20
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


def balance_svg(
    span: Span, points: list[Point], flips: list[Flip], limits: tuple[int, int], width: int, height: int
) -> Markup:
    """The step line; `limits` are the minimum and the threshold of now, in picodollars."""
    values = [one.balance for one in points] + list(limits)
    frame = Frame(width, height, scale(max(values), min(values)), 1)
    right = width - 4
    seconds = (span.until - span.since).total_seconds()

    def x(at: dt.datetime) -> float:
        return frame.left + (right - frame.left) * min(1.0, max(0.0, (at - span.since).total_seconds() / seconds))

    parts = frame.open()
    parts += _zones(frame, limits, right)
    parts += _labels(span, x, frame, width)
    path: list[str] = []
    for one in points:
        y = frame.y(one.balance)
        path.append(f"H{x(one.at):.1f}V{y:.1f}" if path else f"M{x(one.at):.1f} {y:.1f}")
    if path:
        path.append(f"H{right}")
        parts.append(f'<path class="line" d="{"".join(path)}"/>')
    last = -_NEAR * 1.0
    for flip in flips:
        at, y = x(flip.at), frame.y(flip.balance)
        kind = "off" if flip.off else "on"
        # Where flips crowd, their numbers would cover each other: the dots stay.
        if at - last >= _NEAR:
            y = min(max(y, TOP), height - BOTTOM - 10.0)
            parts.append(f'<circle class="flip {kind}" cx="{at:.1f}" cy="{y:.1f}" r="9"/>')
            parts.append(f'<text class="flip-number" x="{at:.1f}" y="{y + 4:.1f}">{flip.number}</text>')
            last = at
        else:
            parts.append(f'<circle class="flip {kind}" cx="{at:.1f}" cy="{y:.1f}" r="3"/>')
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - made of numbers and escaped labels


def _zones(frame: Frame, limits: tuple[int, int], right: float) -> list[str]:
    minimum, low = limits
    floor, top = frame.y(frame.bottom), frame.y(frame.top)
    lines = []
    for kind, upper, lower in (
        ("sufficient", top, frame.y(low)),
        ("low", frame.y(low), frame.y(minimum)),
        ("insufficient", frame.y(minimum), floor),
    ):
        if lower > upper:
            lines.append(
                f'<rect class="zone-{kind}" x="{frame.left}" y="{upper:.1f}" width="{right - frame.left:.1f}"'
                f' height="{lower - upper:.1f}"/>'
            )
    lines.append(f'<path class="limit" d="M{frame.left} {frame.y(minimum):.1f}H{right}"/>')
    return lines


def _labels(span: Span, x: object, frame: Frame, width: int) -> list[str]:
    parts = []
    last = width * 1.0 + _LABELS_APART
    for at, text in reversed(span.labels):
        place = x(at)  # type: ignore[operator]
        if last - place < _LABELS_APART or place < frame.left + 16:
            continue
        kind = "label end" if place > width - 24 else "label"
        parts.append(f'<text class="{kind}" x="{min(place, width):.1f}" y="{frame.height - 6}">{escape(text)}</text>')
        last = place
    return parts
