"""Loss curves as inline SVG, drawn with the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Line = list[tuple[float, float]]

WIDTH, HEIGHT = 390, 210
LEFT, RIGHT, TOP, BOTTOM = 38, 130, 10, 26
POINTS = 200
"""Points drawn of a line: more would not be seen."""

LOG = 100
"""From this ratio of the largest to the smallest loss on the height is their logarithm."""

COLOURS = ("cross_entropy", "image_similarity", "annotation", "cooccurrence", "affinity")
"""Losses by number of their colour; others have the last."""


@dataclass(frozen=True)
class Chart:
    """One stage's losses: its title, its picture (SVG), and the same in words."""

    title: str
    svg: str


def loss_charts(records: Sequence[dict[str, Any]]) -> list[Chart]:
    """A chart for each training stage, in order, with a line for each loss.

    Args:
        records: of a run's log, as `RunFolder.records` gives them.
    """
    stages: dict[str, dict[str, Line]] = {}
    for record in records:
        for name, value in record["losses"].items():
            if math.isfinite(value):
                lines = stages.setdefault(record["stage"], {})
                lines.setdefault(name, []).append((record["step"], value))
    return [
        Chart(stage_title(stage), line_chart(stage_title(stage), lines))
        for stage, lines in stages.items()
    ]


def stage_title(stage: str) -> str:
    """What a stage of the log is called on the page."""
    if stage.startswith("classifier-"):
        number = stage.removeprefix("classifier-")
        return "Classifier on seeds" if number == "0" else f"Classifier, round {number}"
    plain = {
        "tagger": "Tagger, for class activation maps",
        "cross-entropy-classifier": "Baseline: plain cross-entropy",
        "cross-entropy-embedding": "Baseline: backbone",
    }
    return plain.get(stage, stage.replace("_", " ").capitalize())


def line_chart(title: str, lines: dict[str, Line]) -> str:
    """An SVG of lines over steps from 0 up, each named at its end with its last value.

    Heights count from 0, or are logarithms where the values span more than a `LOG`-fold.
    """
    lines = {name: thinned(sorted(line)) for name, line in lines.items()}
    height, marks = _scale([value for line in lines.values() for _, value in line])
    steps = max(1.0, *(step for line in lines.values() for step, _ in line))
    base, end = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x(step: float) -> float:
        return LEFT + (end - LEFT) * step / steps

    def y(value: float) -> float:
        return base - (base - TOP) * height(value)

    last = ", ".join(f"{_name(name)} {line[-1][1]:.3g}" for name, line in lines.items())
    label = escape(f"{title}: losses by step; at the end {last}")
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for mark in marks:
        at = f"{y(mark):.1f}"
        parts.append(f'<path class="rule" d="M{LEFT} {at}H{end}"/>')
        parts.append(_text("tick", LEFT - 6, y(mark), f"{mark:g}", "end"))
    for mark in ticks(0, steps):
        parts.append(_text("tick", x(mark), HEIGHT - 13, f"{mark:,.0f}", "middle"))
    heights = spread([y(line[-1][1]) for line in lines.values()], 15, TOP + 6, base)
    for (name, line), at_name in zip(lines.items(), heights, strict=True):
        number = COLOURS.index(name) if name in COLOURS else len(COLOURS)
        kind = f"line s{number}"
        path = "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in line)
        # A round cap makes a dot of a line of one point.
        parts.append(f'<path class="{kind}" d="M{path}{"h0" * (len(line) == 1)}"/>')
        leader = f"M{x(line[-1][0]) + 2:.1f} {y(line[-1][1]):.1f}L{end + 12} {at_name:.1f}"
        parts.append(f'<path class="{kind} leader" d="{leader}"/>')
        value = f'<tspan class="last" dx="4">{line[-1][1]:.2g}</tspan>'
        parts.append(_text(f"t{number}", end + 15, at_name, escape(_name(name)) + value))
    return "".join([*parts, "</svg>"])


def _scale(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """How high a value stands, 0..1, and the values to mark."""
    low, high = min(values), max(values)
    if low > 0 and high / low > LOG:
        first, last = math.log10(low), math.log10(high)
        powers = range(math.ceil(first), math.floor(last) + 1)
        return lambda value: (math.log10(value) - first) / (last - first), [10.0**p for p in powers]
    low = min(0.0, low)
    marks = ticks(low, high)
    bottom, top = min(low, *marks), max(high, *marks)
    return lambda value: (value - bottom) / (top - bottom or 1), marks


def _name(loss: str) -> str:
    return loss.replace("_", " ")


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{text}</text>'


def thinned(line: Line) -> Line:
    """At most `POINTS` means of neighbouring points, the last point kept as it is."""
    if len(line) <= POINTS:
        return line
    size = math.ceil(len(line) / POINTS)
    groups = [line[i : i + size] for i in range(0, len(line) - 1, size)]
    means = [(g[len(g) // 2][0], sum(value for _, value in g) / len(g)) for g in groups]
    return [*means, line[-1]]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within low..high, evenly spaced, `count` steps at most."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights near `places`, in their order, at least `gap` apart and within low..high."""
    order = sorted(range(len(places)), key=places.__getitem__)
    result = list(places)
    for before, index in zip([None, *order], order, strict=False):
        result[index] = max(result[index], low if before is None else result[before] + gap)
    limit = high
    for index in reversed(order):
        result[index] = min(result[index], limit)
        limit = result[index] - gap
    return result
