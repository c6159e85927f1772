"""`weakseg train`: from a data set to a run folder with a model and a report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from weakseg.dataset import Dataset
from weakseg.report import report_of
from weakseg.training import Recipe, fit
from weakseg.wording import counted


def train(
    dataset: Path,
    recipe: Recipe,
    out: Path,
    overwrite: bool = False,
    tensorboard: bool = False,
) -> int:
    """Train a segmenter on a data set with weak labels.

    Writes to OUT: config.yaml (every setting), weights.safetensors and model.json (all that
    `weakseg predict` needs), results.json, report.html, log.jsonl, and under stages/ what lets
    a stopped run go on: the same command resumes it.

    Args:
        dataset: Folder of the data set (with dataset.yaml and annotations.jsonl).
        recipe: Settings.
        out: Run folder. A run with the same settings is resumed, another is refused.
        overwrite: Throw away a run with other settings that is in OUT.
        tensorboard: Write losses for TensorBoard too (needs the package tensorboard).

    Returns:
        0 if the model was trained, 1 if the input is bad.
    """
    console = Console()
    fitted = fit(
        Dataset.open(dataset),
        recipe,
        out=out,
        overwrite=overwrite,
        console=console,
        tensorboard=tensorboard,
    )
    report_of({out.name: fitted}, out / "report.html")
    if fitted.evaluated is None:
        console.print("no mIoU: no image that is not trained on has a mask to measure on")
    else:
        table = Table("method", f"mIoU on {counted(len(fitted.evaluated), 'image')}, %")
        for method, value in fitted.miou.items():
            table.add_row(method, "-" if value is None else f"{100 * value:.1f}")
        console.print(table)
    console.print(f"model and report: {out}, {out / 'report.html'}", markup=False)
    return 0
