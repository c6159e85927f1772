"""Mean IoU of predicted masks against true ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.dataset import Dataset, DatasetInfo
from weakseg.errors import InputError
from weakseg.images import read_mask

PROTOCOL = (
    "IoU of a class: pixels predicted and true over pixels predicted or true, counted over all "
    "images at full size; mIoU: mean over the classes that occur in the truth; ignored and "
    "unlabelled pixels of the truth do not count; a class that is predicted but never true has "
    "an IoU of 0 and is left out of the mean (its pixels count as errors of the true classes)"
)


@dataclass(frozen=True, eq=False)
class Scores:
    """How well predictions agree with the truth.

    Attributes:
        miou: mean IoU in 0..1 over the classes that occur in the truth; None if none does.
        iou: IoU by class name; None for a class that is neither true nor predicted anywhere.
        confusion: (C, C) int64 pixel counts, rows are true classes, columns predicted ones.
        images: how many were compared.
        protocol: how, in words and numbers.
    """

    miou: float | None
    iou: dict[str, float | None]
    confusion: NDArray[np.int64]
    images: int
    protocol: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return vars(self) | {"confusion": self.confusion.tolist()}


def confusion_matrix(
    prediction: NDArray[np.integer], truth: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """Pixel counts (classes, classes), rows true and columns predicted.

    Args:
        prediction: (H, W) of 0..classes-1.
        truth: (H, W); values outside 0..classes-1 do not count.
        classes: C.

    Raises:
        InputError: sizes differ, or a predicted value is no class.
    """
    if prediction.shape != truth.shape:
        raise InputError(
            "prediction and truth differ in size",
            found=_size(prediction),
            rule=f"{_size(truth)}, as the truth",
        )
    counted = (truth >= 0) & (truth < classes)
    wrong = (prediction < 0) | (prediction >= classes)
    if wrong.any():
        raise InputError(
            "predicted value is not a class",
            found=int(prediction[wrong][0]),
            rule=f"0..{classes - 1}",
        )
    pairs = truth[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


class Confusion:
    """Adds up the confusion of many images.

    Args:
        info: classes.
    """

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.counts = np.zeros((len(info.classes),) * 2, np.int64)
        self.images = 0

    def add(self, prediction: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Count an image; see `confusion_matrix`."""
        self.counts += confusion_matrix(prediction, truth, len(self.info.classes))
        self.images += 1

    def scores(self, **protocol: Any) -> Scores:
        """IoU over everything that was added; `protocol` is passed on."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        true = self.counts.sum(1) > 0
        iou = hits / np.maximum(union, 1)
        by_class = {
            name: float(iou[i]) if union[i] else None for i, name in enumerate(self.info.classes)
        }
        return Scores(
            float(iou[true].mean()) if true.any() else None,
            by_class,
            self.counts.copy(),
            self.images,
            {"rule": PROTOCOL, **protocol},
        )


def evaluate(
    predictions: str | os.PathLike[str],
    truth: str | os.PathLike[str] | Dataset,
    info: DatasetInfo,
    *,
    strict: bool = False,
) -> Scores:
    """Compare a folder of predicted masks with the truth, by name.

    Args:
        predictions: folder of L or P mode PNG, searched with its subfolders.
        truth: a folder of masks of the same names, or a data set, whose masks are used.
        info: classes; `ignore` marks pixels that do not count.
        strict: a true mask without prediction is an error, too.

    Raises:
        InputError: no prediction, one without truth, other sizes or values, unreadable files.
    """
    place = Path(predictions)
    names = {path.relative_to(place).with_suffix("").as_posix(): path for path in _masks(place)}
    readers = _truth(truth)
    orphans = sorted(names.keys() - readers.keys())
    if orphans:
        raise InputError(
            f"{len(orphans)} predictions without truth",
            file=names[orphans[0]],
            found=", ".join(orphans[:5]),
            rule="a true mask of the same name for each",
        )
    missing = sorted(readers.keys() - names.keys())
    if strict and missing:
        raise InputError(
            f"{len(missing)} true masks without prediction",
            file=place,
            found=", ".join(missing[:5]),
            rule="a prediction for each (--strict)",
        )
    confusion = Confusion(info)
    for name, path in names.items():
        true = readers[name]()
        bad = true[(true > info.unlabelled) & (true != info.ignore)]
        if bad.size:
            raise InputError(
                f"true mask of {name} holds a value that is not a class",
                found=int(bad[0]),
                rule=f"0..{info.unlabelled - 1}, or {info.ignore} for ignored",
            )
        try:
            confusion.add(read_mask(path), true)
        except InputError as error:
            raise error.at(path) from None
    return confusion.scores(truth_without_prediction=len(missing), ignore=info.ignore)


def _masks(folder: Path) -> list[Path]:
    """The masks in a folder; what `predict` puts beside them is left out."""
    if not folder.is_dir():
        raise InputError("no such folder", file=folder, rule="a folder of PNG masks")
    aside = {folder / name for name in ("confidence", "overlays", "probabilities")}
    found = [path for path in sorted(folder.rglob("*.png")) if not aside & set(path.parents)]
    if not found:
        raise InputError("no masks found", file=folder, rule="PNG files, grey or indexed")
    return found


def _truth(
    truth: str | os.PathLike[str] | Dataset,
) -> dict[str, Callable[[], NDArray[np.uint8]]]:
    """How to read the true mask of each name."""
    if not isinstance(truth, Dataset):
        place = Path(truth)
        if not (place / "dataset.yaml").is_file():
            paths = {p.relative_to(place).with_suffix("").as_posix(): p for p in _masks(place)}
            return {name: lambda path=path: read_mask(path) for name, path in paths.items()}  # type: ignore[misc]
        truth = Dataset.open(place)
    return dict(_readers(truth))


def _readers(dataset: Dataset) -> Iterator[tuple[str, Callable[[], NDArray[np.uint8]]]]:
    for entry in dataset:
        if entry.mask is not None:
            yield entry.name, entry.read_mask


def _size(array: NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape[::-1]))
