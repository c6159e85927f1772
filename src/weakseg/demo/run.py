"""`weakseg demo`: train on the built-in data set with every kind of label."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from weakseg.annotation import KINDS
from weakseg.dataset import Dataset
from weakseg.demo.make import make_demo_dataset
from weakseg.files import write_json
from weakseg.report import report_of
from weakseg.training import Fitted, Recipe, fit

RECIPE = Recipe(
    baselines=True,
    regime="frozen",
    device="cpu",
    long_side=320,
    steps=100,
    classifier_steps=240,
    batch=6,
    crop=24,
)
"""The defaults, on smaller images and for fewer steps: the demo is to end within minutes."""

WEAK = tuple(kind for kind in reversed(KINDS) if kind != "masks")
"""The kinds of label that the demo trains on, the cheapest first."""


def run_demo(out: Path, *, seed: int = 0, console: Console | None = None) -> dict[str, Any]:
    """Make the demo data set, train on each kind of label, measure and report.

    Every run is measured on scenes that share no pixel with the training scenes, beside plain
    cross-entropy on the same seeds, features and steps. Full masks with plain cross-entropy are
    the yardstick above. A demo that was stopped goes on where it was.

    Args:
        out: folder of data set, runs, `results.json` and `report.html`.
        seed: of the training; the data set is always the same.
        console: shows progress there; None shows nothing.

    Returns:
        What `results.json` holds.
    """
    console = console or Console(quiet=True)
    start = time.monotonic()
    data = out / "data"
    if (data / "annotations.jsonl").exists():
        dataset = Dataset.open(data)
    else:
        dataset = make_demo_dataset(data, overwrite=True)
    recipe = replace(RECIPE, seed=seed)
    fitted: dict[str, Fitted] = {}
    for kind in WEAK:
        console.rule(kind)
        fitted[kind] = fit(dataset, replace(recipe, kinds=(kind,)), out=out / kind, console=console)
    console.rule("masks (full supervision, for comparison)")
    full = fit(
        dataset,
        replace(recipe, kinds=("masks",), rounds=0, steps=0),
        out=out / "masks",
        console=console,
    )
    miou: dict[str, dict[str, float | None]] = {"masks": {}}
    miou["masks"] = {"cross_entropy": full.miou["cross_entropy"]}
    miou |= {kind: fitted[kind].miou for kind in reversed(WEAK)}
    protocol = dict(fitted["points"].protocol) | {"minutes": (time.monotonic() - start) / 60}
    results = {"miou": miou, "protocol": protocol}
    write_json(out / "results.json", results)
    report_of(fitted, out / "report.html")
    console.print(demo_table(miou))
    return results


def demo_table(miou: dict[str, dict[str, float | None]]) -> Table:
    """Table of mIoU in percent by kind of label and method."""
    table = Table("label", "cross-entropy", "weakseg", "gain", title="mIoU on unseen scenes, %")
    for kind, values in miou.items():
        plain, ours = values.get("cross_entropy"), values.get("weakseg")
        gain = f"{100 * (ours - plain):+.1f}" if ours is not None and plain is not None else ""
        table.add_row(kind, _percent(plain), _percent(ours), gain)
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
