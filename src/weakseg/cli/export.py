"""`weakseg export`: labels or predicted masks in the format of another tool."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from weakseg.cli.import_ import print_problems
from weakseg.formats import export_dataset
from weakseg.wording import counted


def export(
    format: str,
    dataset: Path,
    out: Path,
    masks: Path | None = None,
    kinds: tuple[str, ...] = (),
    split: str | None = None,
    tolerance: float = 0,
    background: bool = False,
    prefix: str = "",
    overwrite: bool = False,
) -> int:
    """Write the labels of a data set, or predicted masks, in another tool's format.

    What the format cannot hold is listed. The formats are coco, coralnet, cvat, folders, geojson,
    ilastik, label-studio, labelme, masks, napari, nnunet, points, scribblesup, tags, voc and yolo;
    docs/formats.md tells what each can hold. `weakseg export model` writes a trained model.

    Args:
        format: Format to write.
        dataset: Folder of the data set.
        out: File or folder to write.
        masks: Folder of masks to write instead of the data set's labels, as weakseg predict
            makes them; images without one are left out.
        kinds: Kinds of label to write (tags,boxes,points,scribbles,masks). Default: all.
        split: Write only this part of the data set.
        tolerance: Pixels by which the outlines of masks may move to have fewer corners, where
            the format has polygons.
        background: Write the background of full masks as a shape, too.
        prefix: Put before the names of images, where the tool expects a folder or URL; for
            example /data/local-files/?d=reef/ for Label Studio.
        overwrite: Replace what is there.

    Returns:
        0 if it was written, 1 if the input is bad.
    """
    report = export_dataset(
        format,
        dataset,
        out,
        masks=masks,
        kinds=kinds or None,
        split=split,
        tolerance=tolerance,
        background=background,
        prefix=prefix,
        overwrite=overwrite,
        progress=sys.stderr.isatty(),
    )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{out}: labels of {counted(report.images, 'image')}")
    if report.problems:
        console.print(f"What {format} does not hold:")
        print_problems(report.problems, console, None)
    return 0
