"""`weakseg predict`: masks of photographs from a trained run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from weakseg.cli.photographs import dataset_part, named_images
from weakseg.dataset import Dataset
from weakseg.errors import InputError, WeaksegError
from weakseg.files import atomic_path
from weakseg.images import palette, read_image, write_mask
from weakseg.report import overlay
from weakseg.segmenter import Prediction, Segmenter
from weakseg.training.recipe import resolve_device

FOLDERS = ("confidence", "probabilities", "overlays")
"""Subfolders of the output, one a kind of file."""


class Job(NamedTuple):
    """An image to classify.

    Attributes:
        name: under the output folder.
        read: gives the photograph.
        files: of the input, which nothing may replace.
    """

    name: str
    read: Callable[[], NDArray[np.uint8]]
    files: tuple[Path, ...] = ()


def predict(
    run: Path,
    images: Path,
    out: Path,
    split: str | None = None,
    flip: bool = False,
    scales: tuple[float, ...] = (1.0,),
    walk: int | None = None,
    crf: bool = False,
    confidence: bool = False,
    probabilities: bool = False,
    overlays: bool = False,
    device: str = "auto",
) -> int:
    """Classify every pixel of photographs.

    Writes OUT/NAME.png, indexed PNG of class indices; subfolders of IMAGES are mirrored. An
    image that cannot be read is listed, and the rest goes on.

    Args:
        run: Run folder that `weakseg train` wrote.
        images: A folder (searched with its subfolders), a file, a glob pattern, or with --split
            a data set.
        out: Folder to write to; made if missing.
        split: IMAGES is a data set: predict this part of it, "val" for example.
        flip: Average over the image and its mirror image.
        scales: Average over these sizes, as factors on the training size: [0.75,1,1.25].
        walk: Steps of the random walk that makes pixels of like embedding agree; 0 leaves it out.
            By default as trained.
        crf: Sharpen masks with a dense CRF.
        confidence: Write OUT/confidence/NAME.png too, 255 times the winning class's probability.
        probabilities: Write OUT/probabilities/NAME.npz too, float16 (classes, H, W).
        overlays: Write OUT/overlays/NAME.jpg too, the mask drawn over the photograph.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Returns:
        0 if every image was classified, 1 if the input is bad or an image failed.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if not scales or not all(0 < scale <= 4 for scale in scales):
        raise InputError("--scales", found=list(scales), rule="factors above 0, up to 4")
    if walk is not None and walk < 0:
        raise InputError("--walk", found=walk, rule="0 or more")
    model = Segmenter.load(run, device=resolve_device(device))
    jobs = _from_dataset(images, split) if split else _from_files(images, out)
    _refuse_clashes(jobs)
    _refuse_replacing(jobs, out)
    failed = 0
    shown = track(jobs, "predicting", console=console, disable=not console.is_terminal)
    for name, read, _ in shown:
        try:
            image = read()
            prediction = model.predict(
                image,
                flip=flip,
                scales=scales,
                walk=walk,
                crf=crf,
                probabilities=probabilities,
            )
            _write(out, name, image, prediction, model, confidence, overlays)
        except (WeaksegError, OSError, MemoryError, RuntimeError) as error:
            failed += 1  # torch says "out of memory" by a RuntimeError
            reason = str(error).partition("\n")[0] or type(error).__name__
            console.print(f"{name}: {reason}", style="red", markup=False)
    console.print(f"{len(jobs) - failed} of {len(jobs)} images classified in {out}", markup=False)
    return 1 if failed else 0


def _from_files(images: Path, out: Path) -> list[Job]:
    return [
        Job(name, partial(read_image, path), (path,)) for name, path in named_images(images, out)
    ]


def _from_dataset(folder: Path, split: str) -> list[Job]:
    part = dataset_part(folder, split)
    return [_job(part, index) for index in range(len(part))]


def _job(part: Dataset, index: int) -> Job:
    try:
        entry = part[index]
    except InputError as error:
        return Job(f"image {index + 1} of the part", partial(_fail, error))
    files = tuple(file for file in (entry.image, entry.mask) if isinstance(file, Path))
    return Job(entry.name, entry.read_image, files)


def _fail(error: InputError) -> NDArray[np.uint8]:
    raise error


def _refuse_clashes(jobs: list[Job]) -> None:
    """Two images that would be written to one file, or into our own subfolders."""
    seen: set[str] = set()
    for name, *_ in jobs:
        if name in seen:
            raise InputError(
                "two images of one name",
                found=name,
                rule="names that differ without their suffix, or one folder at a time",
            )
        if name.split("/")[0] in FOLDERS and "/" in name:
            raise InputError(
                "a folder of images has the name of an output folder",
                found=name,
                rule=f"names other than {', '.join(FOLDERS)}",
            )
        seen.add(name)


def _refuse_replacing(jobs: list[Job], out: Path) -> None:
    """A mask may replace one of an earlier prediction, but no photograph and no true mask."""
    inputs = {file.resolve() for job in jobs for file in job.files}
    for job in jobs:
        target = out / f"{job.name}.png"
        if target.exists() and (target.resolve() in inputs or not _is_indexed(target)):
            raise InputError(
                "a mask would replace a file of another kind",
                file=target,
                rule="another folder for --out",
            )


def _is_indexed(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode == "P"
    except OSError:
        return False


def _write(
    out: Path,
    name: str,
    image: NDArray[np.uint8],
    prediction: Prediction,
    model: Segmenter,
    confidence: bool,
    overlays: bool,
) -> None:
    colours = palette(256)
    if prediction.probabilities is not None:
        with atomic_path(out / "probabilities" / f"{name}.npz") as temporary:
            np.savez_compressed(
                temporary, probabilities=prediction.probabilities.astype(np.float16)
            )
    if confidence:
        levels = (prediction.confidence * 255).round().clip(0, 255).astype(np.uint8)
        with atomic_path(out / "confidence" / f"{name}.png") as temporary:
            Image.fromarray(levels).save(temporary)
    if overlays:
        with atomic_path(out / "overlays" / f"{name}.jpg") as temporary:
            Image.fromarray(overlay(image, prediction.mask, colours)).save(temporary, quality=90)
    # The mask comes last: where it is, the rest is there too.
    write_mask(out / f"{name}.png", prediction.mask, colours)
