"""How good masks are: confusion, IoU of each class, mIoU.

IoU of a class is TP / (TP + FP + FN) over all pixels of all images together. mIoU is the mean
over the classes that occur in the truth. A class that is predicted but never true has IoU 0 in
the table and stays out of the mean; its pixels count as misses of the classes they truly belong
to. A class that occurs in neither has no IoU.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.dataset import Dataset
from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError
from weakseg.images import read_mask
from weakseg.wording import counted

Mask = NDArray[Any] | Path

MIOU_RULE = "mean IoU of the classes that occur in the truth, over all pixels of all images"

EXTRA_FOLDERS = ("confidence", "overlays", "probabilities")
"""Folders beside the masks that `weakseg predict` may write; no masks are looked for in them."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a comparison of predicted masks with the truth gave.

    Attributes:
        miou: in 0..1; None where no pixel could be scored.
        iou: by class name, in 0..1; None for a class neither in the truth nor predicted.
        confusion: (C, C) int64 pixel counts, rows the truth, columns the prediction.
        images: how many were compared.
        protocol: what was compared and how, ready for JSON.
    """

    miou: float | None
    iou: dict[str, float | None]
    confusion: NDArray[np.int64]
    images: int
    protocol: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The form that `weakseg evaluate --json` prints."""
        return {
            "miou": self.miou,
            "iou": self.iou,
            "confusion": self.confusion.tolist(),
            "images": self.images,
            "protocol": self.protocol,
        }


def confusion_matrix(
    prediction: NDArray[Any], truth: NDArray[Any], classes: int, ignore: int = 255
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Args:
        prediction: (H, W) of integers in 0..classes-1 wherever `truth` is not ignored.
        truth: (H, W) of integers in 0..classes-1, or `ignore`.
        classes: number of classes, C.
        ignore: truth of pixels that are not scored.

    Returns:
        (C, C) int64, rows the truth, columns the prediction.

    Raises:
        InputError: sizes differ, or a value is no class.
    """
    if prediction.shape != truth.shape:
        found = f"{prediction.shape} and {truth.shape}"
        raise InputError("prediction and truth differ in size", found=found, rule="equal sizes")
    scored = truth != ignore
    true, predicted = truth[scored].astype(np.int64), prediction[scored].astype(np.int64)
    for what, values in (("truth", true), ("prediction", predicted)):
        wrong = values[(values < 0) | (values >= classes)]
        if wrong.size:
            rule = f"0..{classes - 1}" + (f", or {ignore} (ignored)" if what == "truth" else "")
            raise InputError(f"{what} is not a class", found=int(wrong[0]), rule=rule)
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


class Confusion:
    """Adds up images one by one.

    Args:
        info: the classes, and the value of ignored pixels. Pixels that a mask marks as
            unlabelled are not scored either.
    """

    def __init__(self, info: DatasetInfo) -> None:
        self.info = info
        self.images = 0
        self.not_scored = 0
        self.matrix = np.zeros((len(info.classes), len(info.classes)), np.int64)

    def add(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add one image, both (H, W) of class indices.

        Raises:
            InputError: sizes differ, or a value is no class.
        """
        info = self.info
        if truth.size and (truth == info.unlabelled).any():
            truth = np.where(truth == info.unlabelled, info.ignore, truth)
        matrix = confusion_matrix(prediction, truth, len(info.classes), info.ignore)
        self.matrix += matrix
        self.images += 1
        self.not_scored += truth.size - int(matrix.sum())

    def scores(self, **protocol: Any) -> Scores:
        """The scores of all images so far.

        Args:
            protocol: what else to note beside the rules of scoring.
        """
        true, predicted = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        hits = np.diag(self.matrix)
        union = true + predicted - hits
        values = [float(h / u) if u else None for h, u in zip(hits, union, strict=True)]
        names = self.info.classes
        averaged = [v for v, n in zip(values, true, strict=True) if n and v is not None]
        never = [c for c, t, p in zip(names, true, predicted, strict=True) if not t and p]
        absent = [c for c, u in zip(names, union, strict=True) if not u]
        rules = {
            "miou": MIOU_RULE,
            "classes_averaged": len(averaged),
            "classes_predicted_but_never_true": never,
            "classes_in_neither": absent,
            "pixels_scored": int(self.matrix.sum()),
            "pixels_not_scored": self.not_scored,
            "ignore_value": self.info.ignore,
        }
        return Scores(
            miou=float(np.mean(averaged)) if averaged else None,
            iou=dict(zip(names, values, strict=True)),
            confusion=self.matrix.copy(),
            images=self.images,
            protocol=rules | protocol,
        )


def evaluate(
    predictions: str | os.PathLike[str],
    truth: str | os.PathLike[str] | Dataset,
    info: DatasetInfo,
    *,
    strict: bool = False,
) -> Scores:
    """Compare a folder of predicted masks with the truth.

    Masks are matched by their path in the folder, subfolders included, without suffix; in a data
    set, by the image's name. Truth without a prediction is counted in the protocol.

    Args:
        predictions: folder of PNG masks, L or P mode; `EXTRA_FOLDERS` in it are passed over.
        truth: folder of PNG masks; or a data set, as a folder or opened, whose masks count and
            may be unlabelled in parts, which are not scored.
        info: the classes, and the value of ignored pixels.
        strict: refuse truth without a prediction.

    Raises:
        InputError: nothing to compare, a prediction without truth, sizes that differ, a file
            that is no mask, or a value that is no class.
    """
    folder = Path(predictions)
    predicted = dict(_masks_in(folder, skip=EXTRA_FOLDERS))
    if not predicted:
        raise InputError("no predictions found", file=folder, rule="PNG masks of class indices")
    place, masks, partial = _truth_masks(truth)
    found: dict[str, Mask] = {}
    missing: list[str] = []
    for name, mask in masks:
        if name in predicted:
            found[name] = mask
        else:
            missing.append(name)
    without = [name for name in predicted if name not in found]
    if without:
        raise InputError(
            f"{len(without)} of {counted(len(predicted), 'prediction')} without truth in {place}",
            file=predicted[without[0]],
            found=_few(without),
            rule="a mask of the same name for each",
        )
    if strict and missing:
        raise InputError(
            f"{counted(len(missing), 'mask')} of {place} without a prediction",
            file=folder,
            found=_few(missing),
            rule="a prediction for each, as strict demands",
        )
    confusion = Confusion(info)
    for name, path in predicted.items():
        _add_files(confusion, path, found[name], partial)
    return confusion.scores(
        predictions=str(folder), truth=place, truth_without_prediction=len(missing)
    )


def _masks_in(folder: Path, skip: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """Name and path of each PNG in a folder and its subfolders, but those in `skip`, sorted."""
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise InputError(what, file=folder, rule="a folder of masks")
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.suffix.lower() == ".png" and not hidden and parts[0] not in skip:
            yield PurePosixPath(*parts).with_suffix("").as_posix(), path


def _truth_masks(
    truth: str | os.PathLike[str] | Dataset,
) -> tuple[str, Iterator[tuple[str, Mask]], bool]:
    """What to call the truth, name and mask of each image, whether pixels may be unlabelled."""
    if not isinstance(truth, Dataset):
        folder = Path(truth)
        if folder.name != "dataset.yaml" and not (folder / "dataset.yaml").is_file():
            return str(folder), _masks_in(folder), False
        truth = Dataset.open(folder)
    place = truth.info.name if truth.folder is None else str(truth.folder)
    return place, ((e.name, e.mask) for e in truth if e.mask is not None), True


def _add_files(confusion: Confusion, path: Path, truth: Mask, partial: bool) -> None:
    """Add one predicted mask; whatever is wrong with it names its file and that of the truth."""
    prediction = read_mask(path)
    mask = truth if isinstance(truth, np.ndarray) else read_mask(truth)
    other = "the truth" if isinstance(truth, np.ndarray) else str(truth)
    if prediction.shape != mask.shape:
        (height, width), (rows, columns) = prediction.shape, mask.shape
        raise InputError(
            "prediction and truth differ in size",
            file=path,
            found=f"{width} x {height}",
            rule=f"{columns} x {rows} as {other}",
        )
    unlabelled = confusion.info.unlabelled
    if not partial and (mask == unlabelled).any():
        rule = f"0..{unlabelled - 1}, or {confusion.info.ignore} (ignored)"
        raise InputError("truth is not a class", file=other, found=unlabelled, rule=rule)
    try:
        confusion.add(prediction, mask)
    except InputError as error:
        in_truth = error.what.startswith("truth")
        raise error.at(other if in_truth else path) from None


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
