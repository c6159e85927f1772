"""Exporting: from a data set, or from predicted masks, to any format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from weakseg.annotation import KINDS, Annotation, check_kinds
from weakseg.dataset import Dataset, Entry
from weakseg.dataset_writer import check_relative
from weakseg.errors import InputError, Problem
from weakseg.formats.coco_writer import write_coco
from weakseg.formats.cvat import write_cvat
from weakseg.formats.geojson import write_geojson
from weakseg.formats.label_images import write_masks, write_napari, write_nnunet
from weakseg.formats.label_studio_writer import write_label_studio
from weakseg.formats.labelme import write_labelme
from weakseg.formats.points import write_coralnet, write_points
from weakseg.formats.scribblesup import write_scribblesup
from weakseg.formats.tags import write_folders, write_tags
from weakseg.formats.voc import write_voc
from weakseg.formats.writing import Losses, WriteOptions
from weakseg.formats.yolo import write_yolo

Writer = Callable[[Iterable[Entry], Path, WriteOptions], None]

WRITERS: dict[str, Writer] = {
    "coco": write_coco,
    "coralnet": write_coralnet,
    "cvat": write_cvat,
    "folders": write_folders,
    "geojson": write_geojson,
    "ilastik": write_napari,
    "label-studio": write_label_studio,
    "labelme": write_labelme,
    "masks": write_masks,
    "napari": write_napari,
    "nnunet": write_nnunet,
    "points": write_points,
    "scribblesup": write_scribblesup,
    "tags": write_tags,
    "voc": write_voc,
    "yolo": write_yolo,
}
"""The formats that can be written."""


@dataclass
class ExportReport:
    """What an export did.

    Attributes:
        images: number of images.
        problems: what the format cannot hold, one line for each kind of loss.
    """

    images: int
    problems: list[Problem]


def export_dataset(
    format: str,
    dataset: Dataset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    kinds: Sequence[str] | None = None,
    split: str | None = None,
    tolerance: float = 0,
    background: bool = False,
    prefix: str = "",
    overwrite: bool = False,
    progress: bool = False,
) -> ExportReport:
    """Write the labels of a data set in another tool's format.

    Args:
        format: one of `WRITERS`.
        dataset: the data set or its folder.
        out: file or folder to write.
        masks: folder of masks to write instead of the data set's labels, `NAME.png` for each
            image, as `weakseg predict` makes them; images without one are left out.
        kinds: kinds of label to write; default: all that the data set has.
        split: write only this part.
        tolerance: polygons may move by so many pixels to have fewer corners.
        background: write the background of full masks as shapes, too.
        prefix: put before the names of images, where the tool expects a folder or a URL.
        overwrite: replace what is there.
        progress: show a progress bar.

    Returns:
        How many images were written and what could not be.

    Raises:
        InputError: something is there already, nothing is to be written, or a label or a mask
            breaks a rule.
    """
    if format not in WRITERS:
        raise InputError("unknown format", found=format, rule=", ".join(WRITERS))
    if not isinstance(dataset, Dataset):
        dataset = Dataset.open(dataset)
    target = Path(out)
    if not overwrite and (any(target.iterdir()) if target.is_dir() else target.exists()):
        raise InputError("exists already and is not overwritten", file=target)
    chosen = dataset if split is None else dataset.split(split)
    if len(chosen) == 0:
        raise InputError("no images to write", found=split, rule=", ".join(dataset.splits()))
    wanted = check_kinds(kinds) if kinds is not None else KINDS
    lost = Losses()
    folder = None if dataset.folder is None else dataset.folder / "images"
    total, splits = len(chosen), tuple(chosen.splits())
    options = WriteOptions(dataset.info, lost, folder, tolerance, background, prefix, total, splits)
    entries = _Entries(chosen, wanted, None if masks is None else Path(masks), lost)
    WRITERS[format](_watched(entries, total, progress), target, options)
    problems = lost.problems()
    if len(splits) > 1 and format not in _WITH_SPLITS:
        what = "parts of the data set are not told apart; write one with --split"
        problems.insert(0, Problem(what, found=", ".join(splits), fatal=False))
    return ExportReport(entries.count, problems)


_WITH_SPLITS = frozenset({"cvat", "folders", "label-studio", "points", "tags", "voc", "yolo"})


class _Entries:
    """The entries to write, restricted to some kinds or with other masks."""

    def __init__(
        self, dataset: Dataset, kinds: tuple[str, ...], masks: Path | None, lost: Losses
    ) -> None:
        self.dataset = dataset
        self.kinds = kinds
        self.masks = masks
        self.lost = lost
        self.count = 0

    def __iter__(self) -> Iterator[Entry]:
        for entry in self.dataset:
            if self.masks is None:
                annotation = entry.annotation.restrict(self.kinds)
            else:
                mask = self.masks / f"{entry.name}.png"
                if not mask.is_file():
                    self.lost.add("images without a mask there: left out", entry.name)
                    continue
                annotation = Annotation(mask=mask)
            check_relative(entry.name)  # in memory, any name is possible
            if entry.meta:
                self.lost.add("meta: left out", entry.name)
            self.count += 1
            yield replace(entry, annotation=annotation)
        if self.count == 0:
            rule = "NAME.png for each image"
            raise InputError("no image has a mask there", file=self.masks, rule=rule)


def _watched(entries: Iterable[Entry], total: int, progress: bool) -> Iterable[Entry]:
    if not progress:
        return entries
    return track(entries, "writing labels", total=total, console=Console(stderr=True))
