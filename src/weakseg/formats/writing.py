"""What the writers of all formats share: names, shapes out of masks, and the list of losses."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.annotation import Scribble
from weakseg.dataset import DatasetInfo, Entry
from weakseg.errors import InputError, Problem
from weakseg.files import atomic_path
from weakseg.formats.rasters import Patch, Ring, components, join_holes, outline
from weakseg.formats.records import IGNORE


@dataclass
class Losses:
    """What a format cannot hold, counted while writing."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, name: str, count: int = 1) -> None:
        """Note that `count` things of image `name` are left out or changed."""
        if count:
            self.counts[what] += count
            self.examples.setdefault(what, name)

    def problems(self) -> list[Problem]:
        """One line for each kind of loss."""
        return [
            Problem(what, found=f"{count}, such as in {self.examples[what]}", fatal=False)
            for what, count in self.counts.items()
        ]


@dataclass(frozen=True)
class WriteOptions:
    """How to write.

    Attributes:
        info: classes of the data set.
        lost: joined by what cannot be written.
        folder: the data set's folder of images; names of images are relative to it.
        tolerance: polygons may move by so many pixels to have fewer corners.
        background: write the background of full masks as a shape, too.
        prefix: put before image names (a folder or URL, where the tool looks for them).
        total: number of images, at most.
        splits: the parts that they are in.
    """

    info: DatasetInfo
    lost: Losses
    folder: Path | None = None
    tolerance: float = 0
    background: bool = False
    prefix: str = ""
    total: int = 0
    splits: tuple[str, ...] = ("train",)

    @property
    def ignore_label(self) -> str | None:
        """The label of areas to ignore, None where a class has this name."""
        return None if IGNORE in self.info.classes else IGNORE


def image_name(entry: Entry, options: WriteOptions) -> str:
    """Path of an entry's image in the folder of images, with its suffix and forward slashes."""
    if isinstance(entry.image, np.ndarray):
        return f"{entry.name}.png"
    return f"{entry.name}{entry.image.suffix}"


def place_image(entry: Entry, target: Path) -> None:
    """Put an entry's image at `target`: a link, where the file system allows it, or a copy."""
    with atomic_path(target) as temporary:
        if isinstance(entry.image, np.ndarray):
            Image.fromarray(entry.image).save(temporary, format="PNG")
            return
        try:
            os.link(entry.image.resolve(), temporary)
        except OSError:
            shutil.copyfile(entry.image, temporary)


def mask_shapes(entry: Entry, options: WriteOptions) -> Iterator[tuple[str, Patch]]:
    """The 4-connected components of an entry's mask with their classes.

    The background is left out where all the rest of the mask is labelled: it is what remains
    then, and reading with `exhaustive` brings it back.
    """
    for value, label in _mask_labels(entry, options):
        for patch in components(entry.read_mask(), value):
            yield label, patch


def mask_classes(entry: Entry, options: WriteOptions) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The pixels of each class of an entry's mask, (H, W) bool; as `mask_shapes` otherwise."""
    for value, label in _mask_labels(entry, options):
        yield label, entry.read_mask() == value


def _mask_labels(entry: Entry, options: WriteOptions) -> list[tuple[int, str]]:
    """Values of the mask that are to be written, with their labels."""
    if entry.mask is None:
        return []
    info, lost = options.info, options.lost
    counts = np.bincount(entry.read_mask().ravel(), minlength=256)
    shown = []
    for value in np.flatnonzero(counts).tolist():
        if value == info.unlabelled:
            continue
        if value == info.ignore:
            if options.ignore_label is None:
                lost.add("ignored pixels: a class is called so", entry.name, int(counts[value]))
            else:
                shown.append((value, options.ignore_label))
        elif value > info.unlabelled:
            raise InputError("mask value is not a class", file=entry.name, found=value)
        elif value == info.background_index and not (counts[info.unlabelled] or options.background):
            lost.add(
                "background: what is outside all shapes (import with --exhaustive)", entry.name
            )
        else:
            shown.append((value, info.classes[value]))
    return shown


def polygons(patch: Patch, options: WriteOptions) -> Ring:
    """The outline of a component as one polygon in edge coordinates, holes cut open."""
    return join_holes(outline(patch, options.tolerance))


def lose(entry: Entry, options: WriteOptions, *kinds: str) -> None:
    """Note that labels of these kinds of an entry are left out."""
    for kind in kinds:
        if kind == "masks":
            options.lost.add("masks: left out", entry.name, int(entry.mask is not None))
        elif kind == "ignore":
            options.lost.add("areas to ignore: left out", entry.name, len(entry.annotation.ignore))
        else:
            count = len(getattr(entry.annotation, kind))
            options.lost.add(f"{kind}: left out", entry.name, count)


def odd_width(scribble: Scribble, entry: Entry, options: WriteOptions) -> None:
    """Note a stroke's width that a format without widths does not bring back."""
    if scribble.width != Scribble.width:
        options.lost.add("width of strokes (import with --width)", entry.name)


def xml_text(text: str) -> str:
    """`text`, if XML can hold it.

    Raises:
        InputError: it has control characters.
    """
    if _NOT_XML.search(text):
        raise InputError("a name that XML cannot hold", found=repr(text), rule="no control signs")
    return text


_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
