"""`from_coco` and its like: a data set from another tool's files in one line."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from weakseg.dataset import Dataset
from weakseg.errors import Problem
from weakseg.formats.importing import Source, import_dataset


class FromFormat(Protocol):
    """A function that reads one format."""

    def __call__(
        self,
        source: Source | Mapping[str, Source],
        images: Source | None = None,
        *,
        out: Source | None = None,
        **options: Any,
    ) -> Dataset:
        """Read labels.

        Args:
            source: file or folder, or several with the part they become.
            images: folder of the photographs.
            out: folder of the new data set; without, it stays in memory.
            **options: as in `import_dataset`.

        Raises:
            InputError: as `import_dataset`.
        """
        ...


def _read(
    format: str,
    source: Source | Mapping[str, Source],
    images: Source | None = None,
    *,
    out: Source | None = None,
    **options: Any,
) -> Dataset:
    dataset, report = import_dataset(format, source, out, images=images, **options)
    if report.problems:
        warnings.warn(_summary(report.problems, source), stacklevel=2)
    return dataset


def _summary(problems: Sequence[Problem], source: Any) -> str:
    counts = Counter(problem.what for problem in problems)
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else str(source)
    lines = [f"{count} x {what}" for what, count in counts.items()]
    return f"{name}: left out or changed: " + "; ".join(lines)


from_coco: FromFormat = partial(_read, "coco")
from_coralnet: FromFormat = partial(_read, "coralnet")
from_cvat: FromFormat = partial(_read, "cvat")
from_folders: FromFormat = partial(_read, "folders")
from_geojson: FromFormat = partial(_read, "geojson")
from_ilastik: FromFormat = partial(_read, "ilastik")
from_label_studio: FromFormat = partial(_read, "label-studio")
from_labelme: FromFormat = partial(_read, "labelme")
from_masks: FromFormat = partial(_read, "masks")
from_napari: FromFormat = partial(_read, "napari")
from_nnunet: FromFormat = partial(_read, "nnunet")
from_points: FromFormat = partial(_read, "points")
from_scribblesup: FromFormat = partial(_read, "scribblesup")
from_tags: FromFormat = partial(_read, "tags")
from_voc: FromFormat = partial(_read, "voc")
from_yolo: FromFormat = partial(_read, "yolo")
