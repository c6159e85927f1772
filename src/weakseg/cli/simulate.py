"""`weakseg simulate`: weak labels from masks."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from weakseg.simulate import Annotator, simulate_dataset
from weakseg.wording import counted


def simulate(
    dataset: Path,
    kind: tuple[str, ...],
    out: Path | None = None,
    length: float = 0.5,
    wobble: float = 1.0,
    width: float = 3.0,
    centre: float = 0.7,
    loose: float = 0.0,
    missed: float = 0.0,
    smallest: int = 30,
    seed: int = 0,
    split: str = "train",
    overwrite: bool = False,
) -> int:
    """Simulate weak labels from the masks of a data set, as an annotator would give them.

    Writes a new data set. Labels of the simulated kinds are replaced, all others and the masks
    stay; images are linked. The same seed gives the same labels.

    Args:
        dataset: Folder of a data set with masks.
        kind: Kinds of label to simulate: points, scribbles, boxes, tags; several separated by
            commas.
        out: Folder of the new data set. Default: DATASET-KIND beside the old one.
        length: Length of a stroke, as a share of its object's medial line.
        wobble: How far a stroke wobbles, in pixels; it never leaves its object.
        width: Width of a stroke in pixels.
        centre: How much clicks favour the middle of an object, from 0 (anywhere in it) to 1
            (its innermost pixel).
        loose: How far the sides of a box may lie outside its object, as a share of its size.
        missed: Chance that the tag of a small object is forgotten; that of larger ones is less.
        smallest: Pieces of fewer pixels get no point and no stroke.
        seed: Another seed gives other labels.
        split: Part of the data set to simulate labels for; all for every part.
        overwrite: Replace a data set that is there.

    Returns:
        0 if the data set was written, 1 if the input is bad.
    """
    folder = dataset.parent if dataset.name == "dataset.yaml" else dataset
    target = out or Path(f"{folder.resolve()}-{'-'.join(kind)}")
    annotator = Annotator(length, wobble, width, centre, loose, missed, smallest)
    made, without = simulate_dataset(
        dataset,
        target,
        kind,
        annotator=annotator,
        seed=seed,
        split=None if split == "all" else split,
        overwrite=overwrite,
        progress=sys.stderr.isatty(),
    )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{target}: {counted(len(made), 'image')} with simulated {', '.join(kind)}")
    if without:
        console.print(f"{counted(without, 'image')} without a mask: labels kept as they were")
    if "tags" in kind and missed and made.info.tags_exhaustive:
        console.print(
            "tags_exhaustive is true in dataset.yaml: with forgotten tags, false may be right"
        )
    if "boxes" in kind and not made.info.boxes_exhaustive:
        console.print(
            "boxes_exhaustive is false in dataset.yaml: what lies outside the boxes stays "
            "unlabelled; full masks give every object a box, so true may be right"
        )
    return 0
