"""`weakseg evaluate`: mIoU of predicted masks."""

from __future__ import annotations

from json import dumps
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weakseg import evaluation
from weakseg.dataset import Dataset, DatasetInfo, dataset_folder
from weakseg.wording import counted


def evaluate(
    pred: Path,
    gt: Path,
    classes: Path,
    json: bool = False,
    strict: bool = False,
    split: str | None = None,
) -> int:
    """Compare predicted masks with the truth: mIoU, IoU of each class, confusion.

    Masks are PNG files whose pixel values (grey or palette index) are class indices. They are
    matched by name, subfolders included. mIoU averages the classes that occur in the truth; a
    class that is only predicted does not count in the mean, its pixels are errors all the same.

    Args:
        pred: Folder of predicted masks, as `weakseg predict` writes it. What is not in it is not
            scored.
        gt: The truth: a folder of masks, or the folder of a data set that has masks.
        classes: dataset.yaml (or the folder it lies in) that names the classes and the value of
            pixels to ignore.
        json: Print the scores as JSON: miou, iou by class, confusion (rows are the truth),
            images, protocol.
        strict: Fail when the truth holds a mask without a prediction, instead of counting it.
        split: Only this part of the data set counts as truth, e.g. val. For GT a data set.

    Returns:
        0 when the masks could be compared; bad input raises.
    """
    info = DatasetInfo.load(dataset_folder(classes) / "dataset.yaml")
    truth = gt if split is None else Dataset.open(gt).split(split)
    scores = evaluation.evaluate(pred, truth, info, strict=strict)
    if json:
        print(dumps(scores.to_dict(), ensure_ascii=False))
    else:
        print_scores(scores, Console())
    return 0


def print_scores(scores: evaluation.Scores, console: Console) -> None:
    """Print mIoU, a table of the classes, and how they were measured."""
    true, predicted = scores.confusion.sum(axis=1), scores.confusion.sum(axis=0)
    table = Table("class", "IoU", "recall", "precision", "pixels", title="IoU by class")
    for column in table.columns[1:]:
        column.justify = "right"
    for i, (name, iou) in enumerate(scores.iou.items()):
        hits = scores.confusion[i, i]
        table.add_row(
            escape(name),
            _percent(iou),
            _percent(hits / true[i] if true[i] else None),
            _percent(hits / predicted[i] if predicted[i] else None),
            f"{true[i]:,}",
        )
    console.print(table)
    console.print(f"mIoU [bold]{_percent(scores.miou)}[/bold] on {counted(scores.images, 'image')}")
    console.print("\nProtocol", style="bold")
    for key, value in scores.protocol.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        console.print(f"  {key.replace('_', ' ')}: {shown}", highlight=False, markup=False)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
