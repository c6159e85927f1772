"""`weakseg init`: start a data set from a folder of images."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from weakseg.errors import InputError
from weakseg.scaffold import init_dataset
from weakseg.wording import counted


def init(images: Path, classes: str, tags: Path | None = None, out: Path | None = None) -> int:
    """Start a data set from a folder of images.

    Writes dataset.yaml and annotations.jsonl, to which labels can then be added. Nothing that
    exists is overwritten.

    Args:
        images: Folder of images, searched with its subfolders.
        classes: Names of the classes, separated by commas. One called background becomes the
            background class.
        tags: CSV file with an image and its tags on each row: "a.jpg,coral;sand", or a row for
            each pair.
        out: Folder of the data set. Default: IMAGES itself if it has a folder "images" in it,
            else a new folder IMAGES-weakseg, into which the images are linked.

    Returns:
        0 if the data set was written, 1 if the input is bad.
    """
    try:
        dataset = init_dataset(images, classes=classes, tags=tags, out=out)
    except InputError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    tagged = sum("tags" in entry.annotation.kinds for entry in dataset)
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{dataset.folder}: {counted(len(dataset), 'image')}, {tagged} with tags", markup=False
    )
    console.print(
        "Next: see dataset.yaml, add labels to annotations.jsonl, then run weakseg check "
        f"{dataset.folder}",
        markup=False,
    )
    return 0
