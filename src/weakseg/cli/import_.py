"""`weakseg import`: a data set from the files of another tool."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from weakseg.annotation import KINDS
from weakseg.errors import Problem
from weakseg.formats import import_dataset
from weakseg.wording import counted

_SHOWN = 5  # findings of one kind


def import_(
    format: str,
    source: str,
    out: Path,
    images: Path | None = None,
    classes: tuple[str, ...] = (),
    map: Path | None = None,
    background: str | None = None,
    kinds: tuple[str, ...] = (),
    exhaustive: bool = False,
    boxes_exhaustive: bool = False,
    tags_exhaustive: bool = True,
    width: float = 3,
    unlabelled: int | None = None,
    ignore: int | None = None,
    predictions: bool = False,
    all_images: bool = False,
    copy: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    verbose: bool = False,
) -> int:
    """Make a data set from labels that another tool wrote.

    What cannot be used is left out and listed; unknown classes are named all at once. The formats
    are coco, coralnet, cvat, folders, geojson, ilastik, label-studio, labelme, masks, napari,
    nnunet, points, scribblesup, tags, voc and yolo; docs/formats.md tells what each can hold.

    Args:
        format: Format of the source.
        source: File, folder or zip file of labels; or several with the part they become:
            "train=a.json,val=b.json".
        out: Folder of the new data set.
        images: Folder of the photographs. Default: where the format has them, else the source.
        classes: Classes of the data set, separated by commas. Default: those of the source.
        map: YAML file with a line "name, number or colour in the source: class" for each class
            that is called otherwise; null leaves a class out, ignore marks its pixels as to be
            ignored.
        background: Class that is no object. Default: the one called background.
        kinds: Kinds of label to take (tags,boxes,points,scribbles,masks). Default: all.
        exhaustive: Outlines and brushed masks leave no object out: pixels outside them are
            background. Otherwise they are unlabelled.
        boxes_exhaustive: Boxes leave no object out: pixels outside them are background.
        tags_exhaustive: Tags leave no class out.
        width: Width of strokes in pixels, for formats that have none.
        unlabelled: Value of label images that says nothing (napari and ilastik: 0).
        ignore: Value of label images to ignore (masks: 255).
        predictions: Take Label Studio's predictions for images without annotation.
        all_images: Add the other images of the folder, without labels.
        copy: Copy the images instead of linking them.
        overwrite: Replace a data set that is there.
        strict: Fail instead of leaving anything out.
        verbose: List every finding, not only the first of each kind.

    Returns:
        0 if the data set was written, 1 if the input is bad.
    """
    dataset, report = import_dataset(
        format,
        parse_sources(source),
        out,
        images=images,
        classes=classes or None,
        map=map,
        background=background,
        kinds=kinds or None,
        exhaustive=exhaustive,
        boxes_exhaustive=boxes_exhaustive,
        tags_exhaustive=tags_exhaustive,
        width=width,
        unlabelled=unlabelled,
        ignore=ignore,
        predictions=predictions,
        all_images=all_images,
        copy=copy,
        overwrite=overwrite,
        strict=strict,
        progress=sys.stderr.isatty(),
    )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    counts = ", ".join(f"{report.labels[kind]} {kind}" for kind in KINDS if report.labels[kind])
    console.print(f"{out}: {counted(report.images, 'image')}; {counts or 'no labels'}")
    console.print(f"classes: {', '.join(dataset.info.classes)}")
    if report.unused:
        unused = f"{counted(report.unused, 'image')} of the folder not in the source"
        console.print(f"{unused} (--all-images adds them without labels)")
    print_problems(report.problems, console, None if verbose else _SHOWN)
    console.print(f"Next: weakseg check {out}")
    return 0


def parse_sources(source: str) -> str | dict[str, str]:
    """A source, or several with their parts out of "train=a.json,val=b.json"."""
    pairs = [part.partition("=") for part in source.split(",")]
    if Path(source).exists() or not all(sep and name.isidentifier() for name, sep, _ in pairs):
        return source
    return {name: path for name, _, path in pairs}


def print_problems(problems: Sequence[Problem], console: Console, shown: int | None) -> None:
    """Print findings, at most `shown` of each kind, with the number of all."""
    total = Counter(problem.what for problem in problems)
    printed: Counter[str] = Counter()
    for problem in problems:
        printed[problem.what] += 1
        if shown is None or printed[problem.what] <= shown:
            console.print(str(problem), style="yellow")
        elif printed[problem.what] == total[problem.what]:
            more = total[problem.what] - shown
            console.print(f"... and {more} more like it: {problem.what}", style="yellow")
