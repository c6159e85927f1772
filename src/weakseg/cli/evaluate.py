"""`weakseg evaluate`: mean IoU of predicted masks."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from weakseg.dataset_info import DatasetInfo
from weakseg.evaluation import Scores
from weakseg.evaluation import evaluate as compare


def evaluate(pred: Path, gt: Path, classes: Path, json: bool = False, strict: bool = False) -> int:
    """Compare predicted masks with true ones, by name.

    Args:
        pred: Folder of predicted masks (grey or indexed PNG), searched with its subfolders.
        gt: Folder of true masks of the same names, or a data set, whose masks are used.
        classes: The dataset.yaml that names the classes.
        json: Print JSON: miou, iou (by class), confusion, images, protocol.
        strict: Fail if a true mask has no prediction, instead of counting such masks.

    Returns:
        0 if the masks were compared, 1 if the input is bad.
    """
    scores = compare(pred, gt, DatasetInfo.load(classes), strict=strict)
    if json:
        print(json_module.dumps(scores.to_dict()))
    else:
        _show(scores)
    return 0


def _show(scores: Scores) -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table("class", "IoU", "true pixels", "predicted pixels")
    rows = zip(scores.iou.items(), scores.confusion.sum(1), scores.confusion.sum(0), strict=True)
    for (name, iou), true, predicted in rows:
        table.add_row(name, _percent(iou), f"{true:,}", f"{predicted:,}")
    console.print(table)
    console.print(f"[bold]mIoU {_percent(scores.miou)}[/] over {scores.images} images")
    skipped = scores.protocol["truth_without_prediction"]
    if skipped:
        console.print(f"{skipped} true masks have no prediction and were left out")
    console.print(f"Protocol: {scores.protocol['rule']}", style="dim")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
