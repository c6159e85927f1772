"""Data sets: images with weak labels, on disk in the native format or in memory.

On disk: `dataset.yaml`, `annotations.jsonl`, `images/`, optional `masks/`. Lines are read when
they are asked for: a million images cost 24 bytes each until then.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, overload

import numpy as np
from numpy.typing import NDArray

from weakseg.annotation import KINDS, Annotation
from weakseg.dataset_info import DatasetInfo
from weakseg.dataset_writer import DatasetWriter
from weakseg.entries import Entry, EntryLines, EntryList, Source
from weakseg.errors import InputError
from weakseg.images import as_rgb

__all__ = ["Dataset", "DatasetInfo", "DatasetWriter", "Entry", "FromFormat", "dataset_folder"]


class FromFormat(Protocol):
    """A function that reads labels in another tool's format."""

    def __call__(
        self,
        source: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
        images: str | os.PathLike[str] | None = None,
        *,
        out: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Dataset:
        """Read labels.

        Args:
            source: file or folder, or several with the part they become.
            images: folder of the photographs.
            out: folder of the new data set; without, it stays in memory.
            **options: as in `weakseg.formats.import_dataset`.

        Raises:
            InputError: as `weakseg.formats.import_dataset`.
        """
        ...


class _InFormats:
    """A function of `weakseg.formats`, which stands on this module and is imported when asked."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> FromFormat:
        return cast(FromFormat, getattr(importlib.import_module("weakseg.formats"), self.name))


class Dataset(Sequence[Entry]):
    """Images with their labels; `len`, indexing and iteration give `Entry` objects.

    Make one with `Dataset.open`, `Dataset.from_arrays`, or from another tool's files with
    `Dataset.from_coco`, `Dataset.from_cvat` and so on.

    Attributes:
        info: names and rules.
        folder: where it lies, None in memory.
    """

    from_coco = _InFormats()
    from_coralnet = _InFormats()
    from_cvat = _InFormats()
    from_folders = _InFormats()
    from_geojson = _InFormats()
    from_ilastik = _InFormats()
    from_label_studio = _InFormats()
    from_labelme = _InFormats()
    from_masks = _InFormats()
    from_napari = _InFormats()
    from_nnunet = _InFormats()
    from_points = _InFormats()
    from_scribblesup = _InFormats()
    from_tags = _InFormats()
    from_voc = _InFormats()
    from_yolo = _InFormats()

    def __init__(
        self,
        info: DatasetInfo,
        source: Source,
        folder: Path | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.info = info
        self.folder = folder
        self._source = source
        self._rows = np.arange(len(source), dtype=np.int64) if rows is None else rows

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Dataset:
        """Open a data set on disk.

        Args:
            path: its folder, or its `dataset.yaml`.

        Raises:
            InputError: no data set there, a damaged `dataset.yaml`, or no images in it.
        """
        folder = dataset_folder(path)
        info = DatasetInfo.load(folder / "dataset.yaml")
        source = EntryLines(folder, info)
        if len(source) == 0:
            raise InputError("empty data set", file=source.path, rule="one line for each image")
        return cls(info, source, folder)

    @classmethod
    def from_arrays(
        cls,
        images: Iterable[NDArray[Any]],
        annotations: Iterable[Annotation | None],
        classes: Sequence[str],
        *,
        background: str | None = None,
        masks: Iterable[NDArray[Any] | None] | None = None,
        splits: Iterable[str] | None = None,
        names: Iterable[str] | None = None,
        ignore: int = 255,
        boxes_exhaustive: bool = False,
        tags_exhaustive: bool = True,
        name: str = "arrays",
    ) -> Dataset:
        """Build a data set in memory.

        Args:
            images: arrays as in `weakseg.images.as_rgb`, (H, W, 3) uint8 RGB at best.
            annotations: the labels of each, None for an unlabelled image.
            classes: class names in the order of their indices.
            background: see `DatasetInfo`, as for the other rules.
            masks: full masks, (H, W) of class indices, or None for images without.
            splits: the part of each image; default: `train`.
            names: of the images; default: `000000`, `000001`, ...
            ignore: value of ignored pixels.
            boxes_exhaustive: whether boxes leave no object out.
            tags_exhaustive: whether tags leave no class out.
            name: of the data set.

        Raises:
            InputError: lengths differ, or a label breaks a rule.
        """
        info = DatasetInfo(
            name, tuple(classes), background, ignore, boxes_exhaustive, tags_exhaustive
        )
        pictures = [as_rgb(image) for image in images]
        count = len(pictures)
        columns = {
            "annotations": list(annotations),
            "masks": [None] * count if masks is None else list(masks),
            "splits": ["train"] * count if splits is None else list(splits),
            "names": [f"{i:06d}" for i in range(count)] if names is None else list(names),
        }
        for key, column in columns.items():
            if len(column) != count:
                raise InputError(f"{key}: one for each image", found=len(column), rule=str(count))
        if count == 0:
            raise InputError("empty data set", rule="one image or more")
        entries = []
        for image, annotation, mask, split, image_name in zip(
            pictures, *columns.values(), strict=True
        ):
            labels: Annotation = annotation or Annotation()
            if mask is not None:
                labels = replace(labels, mask=np.asarray(mask))
            height, width = image.shape[:2]
            problems = labels.validate(width, height, info.classes)
            if problems:
                raise problems[0].error().at(f"image {image_name}")
            entries.append(Entry(image_name, image, width, height, labels, split))
        if len({entry.name for entry in entries}) < count:
            raise InputError("two images share a name", rule="unique names")
        return cls(info, EntryList(entries))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Entry | Dataset:
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        return next(self._source.read(self._rows[index, None]))

    def __iter__(self) -> Iterator[Entry]:
        return self._source.read(self._rows)

    def subset(self, indices: Iterable[int]) -> Dataset:
        """The images at these positions, as a data set."""
        chosen = np.fromiter(indices, np.int64)
        return Dataset(self.info, self._source, self.folder, self._rows[chosen])

    def split(self, name: str) -> Dataset:
        """The images of one part (`train`, `val`, ...), possibly none."""
        splits, codes, _ = self._source.survey
        code = splits.index(name) if name in splits else -1
        rows = self._rows[codes[self._rows] == code]
        return Dataset(self.info, self._source, self.folder, rows)

    def splits(self) -> dict[str, int]:
        """Number of images of each part."""
        splits, codes, _ = self._source.survey
        counts = np.bincount(codes[self._rows], minlength=len(splits))
        return {name: int(n) for name, n in zip(splits, counts, strict=True) if n}

    def kinds(self, split: str | None = "train") -> tuple[str, ...]:
        """Kinds of label that occur in a part (None: anywhere), in the order of `KINDS`."""
        rows = self._rows if split is None else self.split(split)._rows
        _, _, bits = self._source.survey
        present = int(np.bitwise_or.reduce(bits[rows], initial=0))
        return tuple(kind for i, kind in enumerate(KINDS) if present >> i & 1)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Dataset:
        """Write this data set, images and masks included, to a folder and open it there.

        Raises:
            InputError: a data set is there already, or writing fails.
        """
        with DatasetWriter(folder, self.info, overwrite=overwrite) as writer:
            for entry in self:
                writer.add(
                    entry.image,
                    entry.annotation,
                    name=entry.name,
                    split=entry.split,
                    meta=dict(entry.meta),
                )
        return Dataset.open(folder)


def dataset_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of a data set, given as itself or as its `dataset.yaml`."""
    path = Path(path)
    if path.is_dir():
        return path
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if path.name != "dataset.yaml":
            raise InputError("not a data set", file=path, rule="a folder with a dataset.yaml")
        return path.parent
    raise InputError("no such folder", file=path, rule="a folder with a dataset.yaml")
