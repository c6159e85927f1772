"""What a run is set up with: device, cache, the identity of its data, the plan in words."""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.markup import escape

from weakseg.dataset import Dataset, Entry
from weakseg.errors import InputError
from weakseg.files import content_hash, file_stamp
from weakseg.images import image_size
from weakseg.seeds import full_mask
from weakseg.training import stages
from weakseg.training.processes import fabric_precision
from weakseg.training.recipe import Recipe
from weakseg.wording import counted


def make_fabric(recipe: Recipe) -> Fabric:
    """Device and precision of everything that one process does."""
    device = torch.device(recipe.device)
    devices: Any = 1 if device.index is None else [device.index]
    # What it has to say, the plan says too.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator={"cuda": "cuda", "mps": "mps"}.get(device.type, "cpu"),
        devices=devices,
        precision=fabric_precision(recipe),
    )
    fabric.launch()
    return fabric


def cache_folder() -> Path:
    """Where runs share features and regions: $WEAKSEG_CACHE, or the user's cache folder."""
    if "WEAKSEG_CACHE" in os.environ:
        return Path(os.environ["WEAKSEG_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "weakseg"


def fingerprint(dataset: Dataset, train: Dataset, recipe: Recipe) -> dict[str, str]:
    """What tells whether a run is resumed on the same data.

    Args:
        dataset: the whole data set.
        train: its training images.
        recipe: names other files that the run reads.
    """
    if dataset.folder is not None:
        files = [dataset.folder / name for name in ("dataset.yaml", "annotations.jsonl")]
        known = {"folder": str(dataset.folder.resolve()), "content": content_hash(*files)}
        # A file that is missing shows later, where it is read.
        there = filter(Path.exists, _files(train, recipe))
        known["files"] = content_hash([file_stamp(file) for file in there])
        with files[1].open("rb") as lines:
            part = len(dataset) < sum(1 for _ in lines)
        if part:
            known["images"] = content_hash([entry.name for entry in dataset])
        return known
    parts = [
        [
            [entry.name, entry.split, entry.annotation.to_dict()],
            content_hash(np.asarray(entry.image)),
            None if entry.mask is None else content_hash(entry.read_mask()),
        ]
        for entry in dataset
    ]
    return {"folder": "in memory", "content": content_hash(dataset.info, parts)}


def _files(train: Dataset, recipe: Recipe) -> Iterator[Path]:
    """Photographs and masks that are trained on, weights, region maps."""
    for entry in train:
        for file in (entry.image, entry.mask if "masks" in recipe.kinds else None):
            if isinstance(file, Path):
                yield file
    if recipe.backbone_weights is not None:
        yield Path(recipe.backbone_weights)
    if recipe.region_maps is not None:
        yield from sorted(Path(recipe.region_maps).rglob("*"))


def check_files(train: Dataset, held_out: Dataset | None) -> None:
    """See before anything is computed that images and true masks can be used.

    Of images only the headers are read, of masks to measure on every value: a bad one would
    show only when the training has ended.

    Raises:
        InputError: an image that is missing, listed twice, or not as large as its line says; a
            true mask that is missing, damaged, or holds values that are no class.
    """
    names = array("q")
    for entry in chain(train, held_out or ()):
        names.append(hash(entry.name))
        if not isinstance(entry.image, Path):
            continue
        width, height = image_size(entry.image)
        if (width, height) != (entry.width, entry.height):
            raise InputError(
                "image of another size than its line says",
                file=entry.image,
                found=f"{width} x {height}",
                rule=f"{entry.width} x {entry.height}",
            )
    found, counts = np.unique(np.array(names), return_counts=True)
    for again in found[counts > 1]:
        _refuse_twice(e for e in chain(train, held_out or ()) if hash(e.name) == again)
    for entry in held_out or ():
        assert entry.mask is not None
        try:
            full_mask(entry.mask, train.info, (entry.height, entry.width))
        except InputError as error:
            raise error.at(f"mask of {entry.name}") from None


def _refuse_twice(entries: Iterable[Entry]) -> None:
    """Raise if one of these is the image of another."""
    seen: dict[Path, int | None] = {}
    for entry in entries:
        if isinstance(entry.image, Path) and entry.image in seen:
            raise InputError(
                "image listed twice",
                file=entry.file,
                line=entry.line,
                found=entry.image.name,
                rule=f"each image once; it is on line {seen[entry.image]}",
            )
        if isinstance(entry.image, Path):
            seen[entry.image] = entry.line


def say_plan(job: stages.Job, held_out: Dataset | None) -> None:
    """Print what the run will do."""
    recipe, say = job.recipe, job.progress.say
    measured = 0 if held_out is None else len(held_out)
    trained = counted(len(job.dataset), "image")
    say(
        f"{escape(job.labels.info.name)}: {trained} to train on, {measured} to measure on, "
        f"{len(job.labels.info.classes)} classes; labels: {', '.join(recipe.kinds)}"
        + (" (one kind an image, in turn)" if recipe.mix else "")
    )
    unlabelled = int((~job.labels.labelled).sum())
    if unlabelled:
        images = counted(unlabelled, "image")
        say(f"no label: {images}; taking part in grouping and image similarity")
    absent = [
        name
        for name, count in zip(job.labels.info.classes, job.labels.tags.sum(0), strict=True)
        if count == 0 and not (name == job.labels.info.background and job.labels.needs_cam())
    ]
    if absent:
        say(f"[yellow]classes without any label, never predicted: {escape(', '.join(absent))}[/]")
    if everywhere := job.labels.tagged_everywhere():
        say(
            f"[yellow]tags of nearly every image: {escape(', '.join(everywhere))}; tags alone do "
            "not tell where these are; boxes, points or scribbles do[/]"
        )
    say(
        f"{recipe.regime} {recipe.backbone} on {recipe.device}: features, "
        f"{recipe.steps} steps of the embedding, {recipe.rounds + 1} x {recipe.classifier_steps} "
        f"steps of the classifier, {recipe.rounds} rounds of pseudo-masks; "
        f"about {about_minutes(job):.0f} minutes, less what the cache has"
    )


def about_minutes(job: stages.Job) -> float:
    """A rough guess of a run's length, from the speed of a matrix product.

    The seconds are those of EfficientNet-Lite2 on two cores that multiply 100 GFLOP/s; a larger
    backbone takes longer.
    """
    recipe, images = job.recipe, len(job.dataset)
    matrix = torch.ones(1024, 1024, device=job.fabric.device)
    best = min(_seconds_of(matrix) for _ in range(5))
    slowness = best / (2 * 1024**3 / 100e9)
    steps = recipe.steps or 0
    step, loading = 0.15, 0.0
    if recipe.regime == "fine-tune":
        pixels = float(job.labels.sizes.prod(1).mean())
        step, loading = 2.5, recipe.batch * pixels * 4e-8 / max(1, recipe.workers)
    # Photographs are read and cut while the device computes.
    waiting = steps * max(0.0, loading - step * slowness)
    on_device = images * 0.07 + steps * step
    on_device += (recipe.rounds + 1 + recipe.baselines) * recipe.classifier_steps * 0.03
    # The CRF and the regions run on the CPU wherever the model is.
    on_cpu = images * (0.2 + recipe.rounds * (0.35 if recipe.crf else 0.1))
    return (on_device * slowness + waiting + on_cpu * max(1.0, slowness)) / 60


def _seconds_of(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    (matrix @ matrix)[0, 0].item()
    return time.perf_counter() - start


def tensorboard_writer(folder: Path) -> Any:
    """A TensorBoard writer into a run folder.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard needs a package", rule='pip install "weakseg[tensorboard]"'
        ) from error
    return SummaryWriter(str(folder))
