"""Loss curves as inline SVG, drawn with the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Line = list[tuple[float, float]]

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 38, 118, 10, 26
POINTS = 200
"""Points drawn of a line: more would not be seen."""


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
    """An SVG of lines over steps from 0 up, each named at its end with its last value."""
    lines = {name: thinned(sorted(line)) for name, line in lines.items()}
    steps = max(x for line in lines.values() for x, _ in line)
    high = max(y for line in lines.values() for _, y in line)
    low = min(0.0, min(y for line in lines.values() for _, y in line))
    marks = ticks(low, high)
    bottom, top = min(low, marks[0]), max(high, marks[-1])

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps, 1)

    def y(value: float) -> float:
        span = top - bottom or 1
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / span

    last = ", ".join(f"{name.replace('_', ' ')} {line[-1][1]:.3g}" for name, line in lines.items())
    label = escape(f"{title}: losses by step; at the end {last}")
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for mark in marks:
        parts.append(f'<path class="rule" d="M{LEFT} {y(mark):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y(mark) + 3.5:.1f}" '
            f'text-anchor="end">{mark:g}</text>'
        )
    for mark in ticks(0, steps, 4):
        parts.append(
            f'<text class="tick" x="{x(mark):.1f}" y="{HEIGHT - 9}" '
            f'text-anchor="middle">{mark:,.0f}</text>'
        )
    heights = spread([y(line[-1][1]) for line in lines.values()], 15, TOP + 6, HEIGHT - BOTTOM)
    for number, ((name, line), at) in enumerate(zip(lines.items(), heights, strict=True)):
        path = "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in line)
        kind = f"line s{number % 6}"
        end = x(line[-1][0])
        text = escape(name.replace("_", " "))
        if len(line) == 1:
            parts.append(
                f'<circle class="{kind} dot" cx="{end:.1f}" cy="{y(line[0][1]):.1f}" r="2"/>'
            )
        parts.append(f'<path class="{kind}" d="M{path}"><title>{text}</title></path>')
        leader = f"M{end + 2:.1f} {y(line[-1][1]):.1f}L{WIDTH - RIGHT + 12} {at:.1f}"
        parts.append(f'<path class="{kind} leader" d="{leader}"/>')
        parts.append(
            f'<text class="name t{number % 6}" x="{WIDTH - RIGHT + 15}" y="{at + 3.5:.1f}">{text}'
            f'<tspan class="last" dx="4">{line[-1][1]:.2g}</tspan></text>'
        )
    return "".join([*parts, "</svg>"])


def thinned(line: Line) -> Line:
    """At most `POINTS` means of neighbouring points, the last point kept as it is."""
    if len(line) <= POINTS:
        return line
    size = math.ceil(len(line) / POINTS)
    groups = [line[i : i + size] for i in range(0, len(line) - 1, size)]
    means = [(g[len(g) // 2][0], sum(value for _, value in g) / len(g)) for g in groups]
    return [*means, line[-1]]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that span low..high."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((f * power for f in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
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
