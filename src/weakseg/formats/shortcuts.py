"""`from_coco` and its like: a data set from another tool's files in one line."""

from __future__ import annotations

import inspect
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from weakseg.dataset import Dataset, FromFormat
from weakseg.errors import Problem
from weakseg.formats.importing import Source, import_dataset


def _reader(format: str) -> FromFormat:
    def read(
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

    read.__name__ = read.__qualname__ = f"from_{format.replace('-', '_')}"
    read.__doc__ = (
        f"A data set from files in the format {format}; what was left out goes to `warnings`.\n\n"
        + inspect.cleandoc(FromFormat.__call__.__doc__ or "").partition("\n\n")[2]
    )
    return read


def _summary(problems: Sequence[Problem], source: Any) -> str:
    counts = Counter(problem.what for problem in problems)
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else str(source)
    lines = [f"{count} x {what}" for what, count in counts.items()]
    return f"{name}: left out or changed: " + "; ".join(lines)


from_coco = _reader("coco")
from_coralnet = _reader("coralnet")
from_cvat = _reader("cvat")
from_folders = _reader("folders")
from_geojson = _reader("geojson")
from_ilastik = _reader("ilastik")
from_label_studio = _reader("label-studio")
from_labelme = _reader("labelme")
from_masks = _reader("masks")
from_napari = _reader("napari")
from_nnunet = _reader("nnunet")
from_points = _reader("points")
from_scribblesup = _reader("scribblesup")
from_tags = _reader("tags")
from_voc = _reader("voc")
from_yolo = _reader("yolo")
