"""`report.html`: one page, in one file, of what one or several runs learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weakseg.annotation import UNPLACED
from weakseg.dataset import DatasetInfo
from weakseg.files import write_text
from weakseg.images import palette
from weakseg.report.examples import (
    METHODS,
    SIDE,
    Example,
    Shown,
    measured_examples,
    same_images,
    training_examples,
)
from weakseg.report.frame import render
from weakseg.report.pictures import Picture, data_uri, shrink
from weakseg.report.plots import loss_charts
from weakseg.training import Fitted
from weakseg.training.run_folder import CONFIG
from weakseg.wording import counted

LARGEST = 8_000_000
"""Characters that the page may have: it is to be sent by mail, too."""

ENCODINGS = ((SIDE, 82), (360, 76), (260, 70), (160, 60), (80, 50))
"""Longer side in pixels and JPEG quality of the pictures; the first that keep to `LARGEST`."""

EXAMPLES = {1: 6, 2: 3, 3: 3, 4: 3}
"""Training examples of each run by the number of runs; of more runs, two."""

MEASURED, WORST = 6, 3
"""Measured examples: drawn at random, and the worst."""

FEW = 30
"""Measured images below which the page warns that chance decides."""


@dataclass(frozen=True)
class Cell:
    """A figure in a table: its value (None: there is none), and as text."""

    value: float | None
    text: str
    method: str = ""
    bar: bool = True


def report_of(runs: dict[str, Fitted], path: Path) -> None:
    """Write what finished runs learned as one self-contained HTML page.

    Args:
        runs: the runs by name, of one data set.
        path: the file to write; it appears whole or not at all.

    Raises:
        ValueError: there are no runs.
        InputError: the file cannot be written.
    """
    if not runs:
        raise ValueError("a report needs a run")
    each = EXAMPLES.get(len(runs), 2)
    training = {name: training_examples(fitted, each) for name, fitted in runs.items()}
    measured = _measured(runs)
    content = _figures(runs) | _class_table(runs) | _legend(runs, training, measured)
    for side, quality in ENCODINGS:
        page = _render(runs, training, measured, content, side, quality)
        if len(page) <= LARGEST:
            break
    write_text(path, page)


def _measured(runs: dict[str, Fitted]) -> dict[str, list[Example]]:
    """Measured examples by run, or for all runs together where they share their images."""
    if same_images(list(runs.values())):
        together = measured_examples(runs, MEASURED, WORST)
        return {"": together} if together else {}
    return {
        name: measured_examples({name: fitted}, 2, 1)
        for name, fitted in runs.items()
        if fitted.evaluated
    }


def _render(
    runs: dict[str, Fitted],
    training: dict[str, list[Example]],
    measured: dict[str, list[Example]],
    content: dict[str, Any],
    side: int,
    quality: int,
) -> str:
    first = next(iter(runs.values()))
    details = [
        {
            "name": name,
            "examples": [_encoded(e, side, quality) for e in training[name]],
            "charts": loss_charts(fitted.job.run.records()),
            "protocol": [(k.replace("_", " "), _words(v)) for k, v in fitted.protocol.items()],
            "config": (fitted.job.run.path / CONFIG).read_text(),
        }
        for name, fitted in runs.items()
    ]
    groups = [
        {"name": name, "examples": [_encoded(e, side, quality) for e in examples]}
        for name, examples in measured.items()
    ]
    return render(
        Path(__file__).with_name("page.html"),
        command="report",
        title=first.job.labels.info.name,
        lead=_lead(runs),
        notes=notes(runs),
        runs=details,
        measured=groups,
        has_truth=any(e.shown[-1].title == "Truth" for es in training.values() for e in es),
        trains_on_masks=any("masks" in f.job.recipe.kinds for f in runs.values()),
        **content,
    )


def _lead(runs: dict[str, Fitted]) -> str:
    first = next(iter(runs.values()))
    protocol = first.protocol
    learned = f"from {_kinds(first)}" if len(runs) == 1 else f"in {len(runs)} runs"
    measured = protocol["measured_images"]
    images = counted(protocol["train_images"], "image")
    tail = f", measured on {counted(measured, 'other')}" if measured else ""
    return (
        f"{protocol['classes']} classes learned {learned} on {images}"
        f"{tail}. Backbone {protocol['backbone']}, {protocol['regime']}."
    )


def _kinds(fitted: Fitted) -> str:
    kinds = list(fitted.job.recipe.kinds)
    text = kinds[0] if len(kinds) == 1 else ", ".join(kinds[:-1]) + " and " + kinds[-1]
    return f"{text}, one kind an image" if fitted.job.recipe.mix else text


def _figures(runs: dict[str, Fitted]) -> dict[str, Any]:
    """MIoU of each run by method."""
    methods = _methods(runs)
    rows = []
    for name, fitted in runs.items():
        cells = [
            _percent(fitted.miou[m], METHODS.get(m, m)) if m in fitted.miou else Cell(None, "–")
            for m in methods
        ]
        ours, plain = fitted.miou.get("weakseg"), fitted.miou.get("cross_entropy")
        gain = "" if ours is None or plain is None else _signed(ours - plain)
        rows.append({"name": name, "kinds": _kinds(fitted), "cells": cells, "gain": gain})
    train = len(next(iter(runs.values())).job.dataset)
    names = [METHODS.get(m, m) for m in methods]
    say_kinds = any(row["name"] != row["kinds"] for row in rows)
    return {
        "figures": rows,
        "methods": names,
        "say_kinds": say_kinds,
        "train_images": f"{train:,}",
    }


def _methods(runs: dict[str, Fitted]) -> list[str]:
    return list(dict.fromkeys(method for fitted in runs.values() for method in fitted.miou))


def _class_table(runs: dict[str, Fitted]) -> dict[str, Any]:
    """IoU by class: a column for each run and method that was measured."""
    pairs = [(n, f, m) for n, f in runs.items() for m in f.miou if f.iou[m]]
    several_methods = len(_methods(runs)) > 1
    columns = [
        [name] * (len(runs) > 1) + [METHODS.get(method, method)] * several_methods or ["IoU"]
        for name, _, method in pairs
    ]
    if not pairs:
        return {"table": [], "columns": []}
    info = pairs[0][1].job.labels.info
    counts = pairs[0][1].job.labels.tags.sum(0).tolist()
    table = []
    for index, name in enumerate(info.classes):
        cells = [_percent(fitted.iou[method].get(name)) for _, fitted, method in pairs]
        if len(runs) == 1:
            cells += [_gain(*cells)] if len(cells) == 2 else []
            cells.append(Cell(counts[index], f"{counts[index]:,}", bar=False))
        table.append({"index": index, "name": name, "colour": _hex(index), "cells": cells})
    if len(runs) == 1:
        columns += [["gain"]] * (len(pairs) == 2) + [["labelled images"]]
    return {"table": table, "columns": columns}


def _legend(
    runs: dict[str, Fitted],
    training: dict[str, list[Example]],
    measured: dict[str, list[Example]],
) -> dict[str, Any]:
    """The classes on the page's pictures."""
    info: DatasetInfo = next(iter(runs.values())).job.labels.info
    examples = [e for group in (*training.values(), *measured.values()) for e in group]
    present = sorted(frozenset().union(*(e.classes for e in examples)))
    return {"legend": [{"name": info.classes[i], "colour": _hex(i)} for i in present]}


def notes(runs: dict[str, Fitted]) -> list[str]:
    """What a reader has to know before trusting the figures."""
    found: dict[str, list[str]] = {}
    for name, fitted in runs.items():
        for note in _notes_of(fitted):
            found.setdefault(note, []).append(name)
    return [
        note if len(names) == len(runs) else f"{', '.join(names)}: {note}"
        for note, names in found.items()
    ]


def _notes_of(fitted: Fitted) -> list[str]:
    labels = fitted.job.labels
    info, recipe = labels.info, fitted.job.recipe
    # Tags and boxes leave the background unsaid; the class maps find it.
    unsaid = set() if UNPLACED.isdisjoint(recipe.kinds) else {info.background}
    seen = labels.tags.any(0).tolist()
    missing = [c for c, s in zip(info.classes, seen, strict=True) if not s and c not in unsaid]
    result = []
    if missing:
        result.append(
            f"No training image has a label of {', '.join(missing)}: "
            "the model cannot know what that looks like."
        )
    bare = int((~labels.tags.any(1)).sum())
    if bare:
        result.append(f"{bare:,} of {counted(len(labels.tags), 'training image')} without a label.")
    measured = fitted.protocol["measured_images"]
    if not measured:
        result.append("No image with a true mask was set apart, so nothing could be measured.")
    elif measured < FEW:
        result.append(
            f"Measured on {counted(measured, 'image')} only: "
            "differences of a few points may be chance."
        )
    return result


def _percent(value: float | None, method: str = "") -> Cell:
    return Cell(value, "–" if value is None else f"{100 * value:.1f}", method)


def _gain(ours: Cell, plain: Cell) -> Cell:
    if ours.value is None or plain.value is None:
        return Cell(None, "–", bar=False)
    gain = ours.value - plain.value
    return Cell(gain, _signed(gain), bar=False)


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _hex(index: int) -> str:
    red, green, blue = palette(256)[index]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _encoded(example: Example, side: int, quality: int) -> dict[str, Any]:
    return {
        "name": example.name,
        "worst": example.worst,
        "shown": [_picture(example.name, shown, side, quality) for shown in example.shown],
    }


def _picture(name: str, shown: Shown, side: int, quality: int) -> dict[str, Any]:
    small: Picture = shrink(shown.picture, side)
    words = [shown.title, f"of {name}", *([shown.note] if shown.note else [])]
    return {
        "uri": data_uri(small, quality),
        "width": small.shape[1],
        "height": small.shape[0],
        "title": shown.title,
        "note": shown.note,
        "alt": " ".join(words[:2]) + "".join(f", {w}" for w in words[2:]),
    }
