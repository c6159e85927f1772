"""`weakseg check`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from weakseg.check import check_dataset, print_report


def check(dataset: Path, json: bool = False, quick: bool = False) -> int:
    """Report what is in a data set and every problem found in it.

    Counts images, labels of each class and kind, and the labelled share of pixels. Every problem
    is listed with its file, line, the value found and the rule that it breaks.

    Args:
        dataset: Folder of the data set (with dataset.yaml and annotations.jsonl).
        json: Print the report as JSON instead of tables.
        quick: Read only the headers of images and masks; damaged files and wrong mask values
            go unnoticed.

    Returns:
        0 if the data set can be used, 1 if a problem is fatal.
    """
    report = check_dataset(dataset, pixels=not quick, progress=not json and sys.stderr.isatty())
    if json:
        print(report.to_json())
    else:
        print_report(report, Console())
    return 1 if report.fatal else 0
