"""The stages of a run, each of which is kept on disk and found again by a resumed run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from weakseg.ahead import map_ahead
from weakseg.classifier import PixelClassifier, pooled
from weakseg.dataset import Dataset
from weakseg.features import FeatureCache, extract_features
from weakseg.files import content_hash
from weakseg.images import palette, read_mask, write_mask
from weakseg.models import Backbone, EmbeddingHead
from weakseg.pseudo_masks import pseudo_mask
from weakseg.seeds import seeds_at
from weakseg.training.batches import FeatureBatches, ImageBatches, RegionsOf
from weakseg.training.embedding import EmbeddingNetwork, Rules, train_embedding
from weakseg.training.grid_maps import GridMaps, nearest, renumbered
from weakseg.training.labels import Labels
from weakseg.training.pixels import LabelledPixels, train_classifier
from weakseg.training.processes import train_in_processes
from weakseg.training.progress import Progress
from weakseg.training.recipe import Recipe
from weakseg.training.run_folder import RunFolder, load_stage, save_stage

STRIDE = 8
"""Stride of the features, of pseudo-masks in training, and of the random walk."""

ScoresOf = Callable[[int], Tensor]


@dataclass
class Job:
    """What the stages of one run share.

    Attributes:
        labels: of the training images.
        recipe: resolved.
        run: its folder.
        cache: folder of what runs share: features, regions.
        fabric: device and precision.
        progress: where it is shown and logged.
    """

    labels: Labels
    recipe: Recipe
    run: RunFolder
    cache: Path
    fabric: Fabric
    progress: Progress

    def seed(self, what: str) -> None:
        """Set torch's random state for one thing, a stage for example, by the run's seed.

        A resumed run passes over the stages that are done: what it draws after them must not
        depend on what they drew.
        """
        torch.manual_seed(int(content_hash([self.recipe.seed, what])[:15], 16))

    @property
    def dataset(self) -> Dataset:
        """The training images."""
        return self.labels.dataset

    @property
    def rules(self) -> Rules:
        """Background index and ignore value."""
        return self.labels.info.background_index, self.labels.info.ignore


def features_of(job: Job, dataset: Dataset, backbone: Backbone, name: str) -> FeatureCache:
    """Backbone features of the images of `dataset`; a tuned backbone's stay with its run."""
    cache = job.cache if job.recipe.regime == "frozen" else job.run.stages
    with job.progress.stage(f"features ({name})", len(dataset)) as advance:
        return extract_features(
            dataset,
            backbone.to(job.fabric.device),
            cache_dir=cache / "features",
            long_side=job.recipe.long_side,
            stride=STRIDE,
            precision=job.recipe.precision,
            workers=max(1, job.recipe.workers),
            progress=advance,
        )


def contexts(features: FeatureCache) -> Tensor:
    """(N, C) mean feature vector of each image."""
    cpu = torch.device("cpu")
    return torch.stack([pooled(features_at(features, i, cpu)) for i in range(len(features))])


def features_at(features: FeatureCache, index: int, device: torch.device) -> Tensor:
    """Features (C, h, w) float32 of one image, copied out of the cache's file."""
    return torch.from_numpy(np.array(features[index], np.float32)).to(device)


def on_grid(
    maps: Iterable[NDArray[np.integer]], sizes: Iterable[tuple[int, int]], labels: Labels
) -> GridMaps:
    """Seed maps or masks brought to the grids of the features."""
    info = labels.info
    return GridMaps(
        seeds_at(one.astype(np.int32), size, classes=info.unlabelled, ignore=info.ignore)
        for one, size in zip(maps, sizes, strict=True)
    )


def grid_sizes(features: FeatureCache, scale: int = 1) -> list[tuple[int, int]]:
    """(h, w) of the grid of each image, `scale` times finer than the features'."""
    return [(h * scale, w * scale) for h, w in map(features.size, range(len(features)))]


def embedding_stage(
    job: Job,
    network: EmbeddingNetwork,
    features: FeatureCache | None,
    regions: RegionsOf,
    name: str = "embedding",
) -> EmbeddingNetwork:
    """Train the embedding on cached features, or with the backbone on images."""
    file = job.run.stages / f"{name}.safetensors"
    if file.exists():
        load_stage(file, network)
        return network.to(job.fabric.device).eval()
    recipe, labels = job.recipe, job.labels
    if features is None:
        batches: FeatureBatches | ImageBatches = ImageBatches(job.dataset, labels, regions, recipe)
    else:
        sizes = grid_sizes(features, STRIDE // recipe.embedding_stride)
        seeds = on_grid(map(labels.seeds, range(len(labels.sizes))), sizes, labels)
        region_maps = GridMaps(
            renumbered(nearest(regions(i), size)) for i, size in enumerate(sizes)
        )
        batches = FeatureBatches(
            features, seeds, region_maps, labels.tags, recipe, labels.info.ignore
        )
    given = network, batches, recipe, len(labels.info.classes), job.rules
    checkpoint = job.run.stages / f"{name}.checkpoint"
    if recipe.devices > 1:
        train_in_processes(*given, run=job.run, checkpoint=checkpoint, file=file)
        load_stage(file, network)
        network.to(job.fabric.device).eval()
    else:
        with job.progress.training(name, recipe.steps or 0, job.run) as log:
            train_embedding(*given, fabric=job.fabric, checkpoint=checkpoint, log=log)
        save_stage(file, network)
    checkpoint.unlink(missing_ok=True)
    return network


def classifier_stage(
    job: Job,
    classifier: PixelClassifier,
    pixels: LabelledPixels,
    head: EmbeddingHead | None,
    name: str,
    *,
    last: bool = False,
) -> PixelClassifier:
    """Train a pixel classifier on seeds or pseudo-masks; the last one is that which predicts."""
    file = job.run.stages / f"{name}.safetensors"
    if file.exists():
        load_stage(file, classifier)
        return classifier.to(job.fabric.device).eval()
    job.seed(name)
    with job.progress.training(name, job.recipe.classifier_steps, job.run) as log:
        train_classifier(
            classifier, pixels, job.recipe, head=head, fabric=job.fabric, log=log, last=last
        )
    save_stage(file, classifier)
    return classifier


def pseudo_mask_stage(
    job: Job,
    scores_of: Callable[[int], Tensor],
    embeddings_of: Callable[[int], Tensor],
    name: str,
) -> Path:
    """Write a pseudo-mask for every training image that has labels.

    Without labels to say which classes an image shows, its pseudo-mask would do more harm than
    good (docs/results.md).

    Args:
        job: the run.
        scores_of: (C, h, w) class scores of image i, 0 or more.
        embeddings_of: (D, h', w') of image i.
        name: of the stage.

    Returns:
        The folder of masks, `000000.png` for image 0; unlabelled pixels have the value C, ignored
        ones that of the data set.
    """
    folder, labels = job.run.stages / name, job.labels
    colours = palette(256)

    def write(index: int) -> None:
        path = folder / f"{index:06d}.png"
        if path.exists():
            return
        entry = job.dataset[index]
        seeds = labels.seeds(index)
        mask, _ = pseudo_mask(
            entry.read_image(),
            scores_of(index),
            embeddings=embeddings_of(index),
            seeds=seeds,
            places=labels.places(index),
            boxes=labels.boxes(index),
            crf=job.recipe.crf,
        )
        mask[seeds == labels.info.ignore] = labels.info.ignore
        write_mask(path, mask, colours)

    labelled = np.flatnonzero(labels.labelled).tolist()
    with job.progress.stage(name, len(labelled)) as advance:
        written = map_ahead(write, labelled, job.recipe.workers)
        for done, _ in enumerate(written, 1):
            advance(done, len(labelled))
    return folder


def masks_on_grid(job: Job, folder: Path, features: FeatureCache) -> GridMaps:
    """Pseudo-masks read back, on the grids of the features; images without one are unlabelled."""
    sizes, unlabelled = grid_sizes(features), job.labels.info.unlabelled

    def masks() -> Iterator[NDArray[np.integer]]:
        for index, labelled in enumerate(job.labels.labelled):
            if labelled:
                yield read_mask(folder / f"{index:06d}.png")
            else:
                yield np.full(sizes[index], unlabelled)

    return on_grid(masks(), sizes, job.labels)
