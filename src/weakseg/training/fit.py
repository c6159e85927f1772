"""From a data set to a trained model: the stages in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from weakseg.classifier import PixelClassifier
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.features import FeatureCache
from weakseg.files import write_json
from weakseg.models import EmbeddingHead
from weakseg.segmenter import Architecture, Segmenter, build_segmenter
from weakseg.training import stages
from weakseg.training.batches import RegionsOf
from weakseg.training.cam_stage import cam_stage
from weakseg.training.embedding import EmbeddingNetwork
from weakseg.training.grid_maps import GridMaps
from weakseg.training.knn_stage import knn_scores
from weakseg.training.labels import Labels, chosen_kinds
from weakseg.training.measuring import Accuracy, describe_protocol, measure, results
from weakseg.training.pixels import LabelledPixels
from weakseg.training.progress import Progress
from weakseg.training.recipe import Recipe, relations_at
from weakseg.training.region_stage import region_stage
from weakseg.training.run_folder import RunFolder
from weakseg.training.setup import (
    cache_folder,
    check_files,
    fingerprint,
    make_fabric,
    say_plan,
    tensorboard_writer,
)
from weakseg.training.shift_stage import shifted_scores


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a run ends with.

    Attributes:
        segmenter: the trained model.
        miou: mean IoU by method ("weakseg", "cross_entropy"), None where there is no truth.
        iou: IoU of each class by method.
        job: the run's data, for the report.
        pseudo_masks: folder of the last pseudo-masks, None with `rounds` 0.
        evaluated: the images that were measured on, None where none has a mask.
        regions: the region map of training image i, (H, W).
        accuracy: share of pixels right in each image of `evaluated`, by method.
        models: the trained model of each method.
    """

    segmenter: Segmenter
    miou: dict[str, float | None]
    iou: dict[str, dict[str, float | None]]
    protocol: dict[str, Any]
    job: stages.Job
    pseudo_masks: Path | None
    evaluated: Dataset | None
    regions: RegionsOf
    accuracy: Accuracy
    models: dict[str, Segmenter]


def fit(
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
    console: Console | None = None,
    tensorboard: bool = False,
) -> Fitted:
    """Train a segmenter.

    Args:
        dataset: its part "train" is trained on, its part "val" measured on. Without "val", some
            images are held out for measuring, where labels allow it.
        recipe: settings; defaults work.
        out: the run folder. A run with the same settings is resumed.
        overwrite: throw away a run with other settings.
        console: shows progress there; None shows nothing.
        tensorboard: write losses for TensorBoard into the run folder too.

    Raises:
        InputError: unusable data, labels or settings, or another run in `out`.
    """
    recipe = recipe or Recipe()
    train, held_out = split_for_training(dataset, recipe)
    kinds = chosen_kinds(train, recipe.kinds, in_turn=recipe.mix)
    # What is wrong with the data shows before a run folder is made, or an old one thrown away.
    labels = Labels(train, recipe.resolved(kinds))
    labels.recipe = recipe = recipe.resolved(kinds, complete=labels.complete)
    check_files(train, held_out)
    known = fingerprint(dataset, train, recipe)
    run = RunFolder(Path(out), recipe, known, overwrite=overwrite)
    job = stages.Job(labels, recipe, run, cache_folder(), make_fabric(recipe), Progress(console))
    if tensorboard:
        job.progress.writers.append(tensorboard_writer(run.path))
    say_plan(job, held_out)

    segmenter = new_segmenter(job)
    if held_out is not None and recipe.regime == "frozen":
        # Needed for measuring, and a damaged image shows now instead of after the training.
        stages.features_of(job, held_out, segmenter.backbone, "measured")
    regions = region_stage(job)
    features, network, context = train_embedding_and_features(job, segmenter, regions)
    segmenter.head.load_state_dict(network.head.state_dict())
    seeds = seed_grid(job, features)
    classifier, folder = train_rounds(job, segmenter, features, context, seeds, regions)
    segmenter.classifier.load_state_dict(classifier.state_dict())
    segmenter.save(run.path, {"kinds": list(kinds), "labels": labels.counts})

    models = {"weakseg": segmenter}
    if recipe.baselines:
        models["cross_entropy"] = train_baseline(job, features, context, seeds, regions)
    evaluated = held_out if held_out is not None and len(held_out) else None
    miou, iou, accuracy = measure(job, models, evaluated)
    protocol = describe_protocol(job, evaluated)
    write_json(run.path / "results.json", results(kinds, recipe.mix, miou, iou, protocol))
    return Fitted(segmenter, miou, iou, protocol, job, folder, evaluated, regions, accuracy, models)


def split_for_training(dataset: Dataset, recipe: Recipe) -> tuple[Dataset, Dataset | None]:
    """The images to train on, and those with masks to measure on (None: there are none).

    Where no image of the part "val" has a mask, a share of the training images with masks is held
    out; the choice depends on their number and the seed alone.
    """
    splits = dataset.splits()
    train = dataset.split("train")
    if not len(train):
        found = None if "val" in splits else f"parts {', '.join(splits)}"
        rule = 'entries with "split": "train"' + ("" if "val" in splits else ", or without one")
        raise InputError("no image to train on", file=dataset.folder, found=found, rule=rule)
    if "val" in splits:
        val = dataset.split("val")
        truth = [i for i, entry in enumerate(val) if entry.mask is not None]
        if truth:
            return train, val.subset(truth)
    truth = [i for i, entry in enumerate(train) if entry.mask is not None]
    count = int(len(truth) * recipe.validation)
    if count == 0:
        return train, None
    rng = np.random.default_rng(recipe.seed)
    held = {truth[i] for i in rng.permutation(len(truth))[:count]}
    kept = [i for i in range(len(train)) if i not in held]
    return train.subset(kept), train.subset(sorted(held))


def train_embedding_and_features(
    job: stages.Job, segmenter: Segmenter, regions: RegionsOf, name: str = "embedding"
) -> tuple[FeatureCache, EmbeddingNetwork, Tensor]:
    """Features of the training images and a trained embedding over them.

    Frozen: features first, the embedding on them. Fine-tune: backbone and embedding together on
    images, then the features of the tuned backbone; all that follows is the same.
    """
    classes = len(job.labels.info.classes)
    frozen = job.recipe.regime == "frozen"
    features = None
    if job.labels.needs_cam():
        job.labels.cam_of = cam_stage(job)
    if frozen:
        features = stages.features_of(job, job.dataset, segmenter.backbone, "train")
    job.seed(f"{name} weights")
    network = EmbeddingNetwork(
        segmenter.head,
        classes,
        None if frozen else segmenter.backbone,
        scale=stages.STRIDE // job.recipe.embedding_stride,
    )
    network = stages.embedding_stage(job, network, features if frozen else None, regions, name)
    if not frozen:
        features = stages.features_of(job, job.dataset, segmenter.backbone, "train, tuned")
    assert features is not None
    return features, network, stages.contexts(features)


def train_rounds(
    job: stages.Job,
    segmenter: Segmenter,
    features: FeatureCache,
    context: Tensor,
    seeds: GridMaps,
    regions: RegionsOf,
) -> tuple[PixelClassifier, Path | None]:
    """A classifier on the seeds, then rounds of pseudo-masks and a classifier on them."""
    head = segmenter.head.to(job.fabric.device).eval()
    masks, folder = seeds, None

    def embeddings(index: int) -> Tensor:
        return embedded(job, head, features, index)

    for number in range(job.recipe.rounds + 1):
        name = f"classifier-{number}"
        job.seed(f"{name} weights")
        classifier = new_classifier(segmenter)
        pixels = LabelledPixels(features, masks, context, len(job.labels.info.classes))
        last = number == job.recipe.rounds
        stages.classifier_stage(job, classifier, pixels, head, name, last=last)
        if last:
            break
        scores = scores_from(job, classifier, head, features, context)
        if job.recipe.scores == "knn":
            scores = knn_scores(job, embeddings, seeds, regions)
        elif number == 0:
            scores = shifted_scores(job, scores, pixels.shares)
        folder = stages.pseudo_mask_stage(job, scores, embeddings, f"pseudo-masks-{number + 1}")
        masks = stages.masks_on_grid(job, folder, features)
    return classifier, folder


def train_baseline(
    job: stages.Job,
    features: FeatureCache,
    context: Tensor,
    seeds: GridMaps,
    regions: RegionsOf,
) -> Segmenter:
    """Plain cross-entropy on the same seeds, backbone, regime and steps.

    Frozen: the same classifier on the same features for as many steps, without embedding and
    pseudo-masks. Fine-tune: the backbone learns from cross-entropy alone before.
    """
    other = new_segmenter(job)
    if job.recipe.regime != "frozen":
        recipe = replace(job.recipe, relations=relations_at(0.0), cross_entropy=1.0)
        alone = replace(job, recipe=recipe)
        features, network, context = train_embedding_and_features(
            alone, other, regions, "cross-entropy-embedding"
        )
        other.head.load_state_dict(network.head.state_dict())
    classes = len(job.labels.info.classes)
    name = "cross-entropy-classifier"
    job.seed(f"{name} weights")
    other.classifier = PixelClassifier(
        features.channels, 0, classes, hidden=other.architecture.hidden, dropout=0.5
    )
    pixels = LabelledPixels(features, seeds, context, classes)
    stages.classifier_stage(job, other.classifier, pixels, None, name)
    return other.eval()


def new_segmenter(job: stages.Job) -> Segmenter:
    """A model with ImageNet weights and a new head and classifier."""
    recipe = job.recipe
    job.seed("segmenter")
    architecture = Architecture(
        recipe.backbone, recipe.output_stride, recipe.long_side, recipe.dim, walk=recipe.walk or 0
    )
    return build_segmenter(architecture, job.labels.info, weights=recipe.backbone_weights)


def new_classifier(segmenter: Segmenter) -> PixelClassifier:
    """An untrained classifier of the model's architecture."""
    a = segmenter.architecture
    channels = sum(segmenter.backbone.channels)
    return PixelClassifier(
        channels, a.dim, len(segmenter.info.classes), hidden=a.hidden, dropout=0.5
    )


def seed_grid(job: stages.Job, features: FeatureCache) -> GridMaps:
    """The seed maps on the grids of the features."""
    labels = job.labels
    maps = map(labels.seeds, range(len(job.dataset)))
    return stages.on_grid(maps, stages.grid_sizes(features), labels)


@torch.inference_mode()
def embedded(job: stages.Job, head: EmbeddingHead, features: FeatureCache, index: int) -> Tensor:
    """Embeddings (D, h, w) of a training image."""
    one = stages.features_at(features, index, job.fabric.device)
    vectors: Tensor = head(one[None], one.shape[-2:])[0]
    return vectors


def scores_from(
    job: stages.Job,
    classifier: PixelClassifier,
    head: EmbeddingHead,
    features: FeatureCache,
    context: Tensor,
) -> stages.ScoresOf:
    """Class probabilities of training images, with what the labels exclude set to 0."""
    classifier.eval()

    @torch.inference_mode()
    def scores(index: int) -> Tensor:
        one = stages.features_at(features, index, job.fabric.device)
        around = context[index][None].to(job.fabric.device)
        logits: Tensor = classifier(one[None], around, head(one[None], one.shape[-2:]))[0]
        prior = job.labels.prior(index).to(logits.device)
        return logits.softmax(0) * prior[:, None, None]

    return scores
