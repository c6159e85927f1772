"""Class activation maps of the training images, for labels that say what but not where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.ahead import map_ahead
from weakseg.cam import SCALES, Tagger, class_activation, train_tagger
from weakseg.errors import InputError
from weakseg.features import FeatureCache, compute_features, extract_features
from weakseg.files import atomic_path
from weakseg.models import Backbone, load_final
from weakseg.seeds import ClassMaps
from weakseg.training.run_folder import damaged_as_input, load_stage, save_stage
from weakseg.training.stages import Job, contexts, features_at

STRIDE = 16


def cam_stage(job: Job) -> TrainingMaps:
    """Train a tagger on the classes that the labels name, and map them.

    Returns:
        The class maps of training image i, None where its labels name no foreground class.

    Raises:
        InputError: no image has a label of a foreground class.
    """
    recipe, info = job.recipe, job.labels.info
    backbone = load_final(
        recipe.backbone, output_stride=recipe.output_stride, weights=recipe.backbone_weights
    ).to(job.fabric.device)
    with job.progress.stage("features (tags)", len(job.dataset)) as advance:
        features = extract_features(
            job.dataset,
            backbone,
            cache_dir=job.cache / "features",
            long_side=recipe.long_side,
            stride=STRIDE,
            precision=recipe.precision,
            workers=max(1, recipe.workers),
            progress=advance,
        )
    tags = job.labels.tags.clone()
    if info.background_index is not None:
        tags[:, info.background_index] = False
    if not tags.any():
        raise InputError(
            "tags and boxes name no class but background",
            file=job.dataset.folder,
            rule="some images with other classes",
        )
    tagger = _tagger(job, features, tags)
    maps = TrainingMaps(job.run.stages / "class-maps", tags)
    _write_maps(job, maps, tagger, backbone, features)
    return maps


@dataclass
class TrainingMaps:
    """The class maps of a training image, None where its labels name no foreground class.

    Attributes:
        folder: a file for each image that has some.
        tags: (N, C) bool, the foreground classes that their labels name.
    """

    folder: Path
    tags: Tensor

    def __call__(self, index: int) -> ClassMaps | None:
        """The maps of image `index`."""
        classes = self.classes(index)
        if not classes:
            return None
        with damaged_as_input(self.file(index)):
            return ClassMaps(classes, np.load(self.file(index)))

    def classes(self, index: int) -> tuple[int, ...]:
        """Indices of the foreground classes that the labels of image `index` name."""
        return tuple(int(c) for c in torch.nonzero(self.tags[index])[:, 0])

    def file(self, index: int) -> Path:
        """Where the maps (K, h, w) float16 of image `index` are kept."""
        return self.folder / f"{index:06d}.npy"


def _tagger(job: Job, features: FeatureCache, tags: Tensor) -> Tagger:
    """The tagger, trained or found."""
    device = job.fabric.device
    tagger = Tagger(features.channels, tags.shape[1]).to(device)
    file = job.run.stages / "tagger.safetensors"
    if file.exists():
        load_stage(file, tagger)
        return tagger.eval()
    weights = job.labels.tag_weights()
    labelled = weights.any(1)  # those of background alone too: they show what a class is not
    means = contexts(features)[labelled].to(device)
    with job.progress.training("tagger", 1500, job.run) as log:
        tagger = train_tagger(
            means,
            tags[labelled].to(device),
            seed=job.recipe.seed,
            weights=weights[labelled].to(device),
            log=log,
        )
    save_stage(file, tagger)
    return tagger


def _write_maps(
    job: Job, maps: TrainingMaps, tagger: Tagger, backbone: Backbone, features: FeatureCache
) -> None:
    """Map the classes of every image that is not mapped yet."""

    def views(index: int) -> list[Tensor]:
        image: NDArray[np.uint8] | None = None
        found = []
        for scale in SCALES:
            if scale == 1:
                found.append(features_at(features, index, job.fabric.device))
                continue
            image = job.dataset[index].read_image() if image is None else image
            found.append(
                compute_features(
                    backbone,
                    image,
                    long_side=round(job.recipe.long_side * scale),
                    stride=STRIDE,
                    precision=job.recipe.precision,
                )
            )
        return found

    def write(index: int) -> None:
        classes, file = maps.classes(index), maps.file(index)
        if classes and not file.exists():
            scores = class_activation(tagger, views(index), classes).scores
            with atomic_path(file) as temporary, temporary.open("wb") as out:
                np.save(out, scores.astype(np.float16))

    count = len(job.dataset)
    with job.progress.stage("class maps", count) as advance:
        for done, _ in enumerate(map_ahead(write, range(count), job.recipe.workers), 1):
            advance(done, count)
