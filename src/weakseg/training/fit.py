"""From a data set to a trained model: the stages in their order."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from weakseg.classifier import PixelClassifier
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.evaluation import Confusion
from weakseg.features import FeatureCache
from weakseg.features.extract import resolve_precision
from weakseg.files import content_hash, write_json
from weakseg.models import EmbeddingHead
from weakseg.relations import Relation, RelationSettings
from weakseg.segmenter import Architecture, Segmenter, build_segmenter
from weakseg.training import stages
from weakseg.training.cam_stage import cam_stage
from weakseg.training.embedding import EmbeddingNetwork
from weakseg.training.grid_maps import GridMaps
from weakseg.training.labels import Labels, chosen_kinds
from weakseg.training.progress import Progress
from weakseg.training.recipe import Recipe
from weakseg.training.run_folder import RunFolder

_OFF = Relation(0.0, 1.0)
NO_RELATIONS = RelationSettings(_OFF, _OFF, _OFF, _OFF)


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
    """

    segmenter: Segmenter
    miou: dict[str, float | None]
    iou: dict[str, dict[str, float | None]]
    protocol: dict[str, Any]
    job: stages.Job
    pseudo_masks: Path | None
    evaluated: Dataset | None


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
    train, held_out = split_for_training(dataset, recipe or Recipe())
    kinds = chosen_kinds(train, (recipe or Recipe()).kinds)
    recipe = (recipe or Recipe()).resolved(kinds)
    run = RunFolder(Path(out), recipe, fingerprint(dataset), overwrite=overwrite)
    torch.manual_seed(recipe.seed)
    labels = Labels(train, recipe)
    job = stages.Job(labels, recipe, run, cache_folder(), make_fabric(recipe), Progress(console))
    if tensorboard:
        job.progress.writers.append(tensorboard_writer(run.path))
    say_plan(job, held_out)

    segmenter = new_segmenter(job)
    features, network, context = train_embedding_and_features(job, segmenter)
    segmenter.head.load_state_dict(network.head.state_dict())
    seeds = seed_grid(job, features)
    classifier, folder = train_rounds(job, segmenter, features, context, seeds)
    segmenter.classifier.load_state_dict(classifier.state_dict())
    segmenter.save(run.path, {"kinds": list(kinds)})

    models = {"weakseg": segmenter}
    if recipe.baselines:
        models["cross_entropy"] = train_baseline(job, segmenter, features, context, seeds)
    evaluated = held_out if held_out is not None and len(held_out) else None
    miou, iou = measure(job, models, evaluated)
    protocol = describe_protocol(job, evaluated, measured="val" in dataset.splits())
    write_json(run.path / "results.json", results(kinds, recipe.mix, miou, iou, protocol))
    return Fitted(segmenter, miou, iou, protocol, job, folder, evaluated)


def split_for_training(dataset: Dataset, recipe: Recipe) -> tuple[Dataset, Dataset | None]:
    """The images to train on, and those with masks to measure on (None: there are none).

    Where the data set has no "val" part, a share of the images with masks is held out; the
    choice depends on their number and the seed alone.
    """
    splits = dataset.splits()
    if "val" in splits:
        train, val = dataset.split("train"), dataset.split("val")
        if not len(train):
            raise InputError(
                "no image to train on", file=dataset.folder, rule='entries with "split": "train"'
            )
        truth = [i for i, entry in enumerate(val) if entry.mask is not None]
        return train, val.subset(truth) if truth else None
    train = dataset.split("train")
    if not len(train):
        raise InputError(
            "no image to train on",
            file=dataset.folder,
            found=f"parts {', '.join(splits)}",
            rule='entries with "split": "train", or without one',
        )
    truth = [i for i, entry in enumerate(train) if entry.mask is not None]
    count = int(len(truth) * recipe.validation)
    if count == 0:
        return train, None
    rng = np.random.default_rng(recipe.seed)
    held = {truth[i] for i in rng.permutation(len(truth))[:count]}
    kept = [i for i in range(len(train)) if i not in held]
    return train.subset(kept), train.subset(sorted(held))


def train_embedding_and_features(
    job: stages.Job, segmenter: Segmenter, name: str = "embedding"
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
    regions = stages.regions_of(job)
    network = EmbeddingNetwork(segmenter.head, classes, None if frozen else segmenter.backbone)
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
) -> tuple[PixelClassifier, Path | None]:
    """A classifier on the seeds, then rounds of pseudo-masks and a classifier on them."""
    head = segmenter.head.to(job.fabric.device).eval()
    masks, folder = seeds, None
    classifier = new_classifier(segmenter)
    for number in range(job.recipe.rounds + 1):
        classifier = new_classifier(segmenter)
        stages.classifier_stage(
            job, classifier, features, context, masks, head, f"classifier-{number}"
        )
        if number == job.recipe.rounds:
            break
        folder = stages.pseudo_mask_stage(
            job,
            scores_from(job, classifier, head, features, context),
            lambda i: embedded(job, head, features, i),
            f"pseudo-masks-{number + 1}",
        )
        masks = stages.masks_on_grid(job, folder, features)
    return classifier, folder


def train_baseline(
    job: stages.Job,
    segmenter: Segmenter,
    features: FeatureCache,
    context: Tensor,
    seeds: GridMaps,
) -> Segmenter:
    """Plain cross-entropy on the same seeds, backbone, regime and steps.

    Frozen: the same classifier on the same features for as many steps, without embedding and
    pseudo-masks. Fine-tune: the backbone learns from cross-entropy alone before.
    """
    plain = replace(segmenter.architecture, dim=segmenter.architecture.dim)
    other = build_segmenter(plain, job.labels.info, weights=job.recipe.backbone_weights)
    if job.recipe.regime != "frozen":
        recipe = replace(job.recipe, relations=NO_RELATIONS, cross_entropy=1.0)
        alone = replace(job, recipe=recipe)
        features, network, context = train_embedding_and_features(
            alone, other, "cross-entropy-embedding"
        )
        other.head.load_state_dict(network.head.state_dict())
    classes = len(job.labels.info.classes)
    other.classifier = PixelClassifier(
        features.channels, 0, classes, hidden=plain.hidden, dropout=0.5
    )
    stages.classifier_stage(
        job, other.classifier, features, context, seeds, None, "cross-entropy-classifier"
    )
    return other.eval()


def measure(
    job: stages.Job, models: dict[str, Segmenter], dataset: Dataset | None
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """Mean IoU and IoU by class of each model on images with masks, at full size."""
    miou: dict[str, float | None] = dict.fromkeys(models)
    iou: dict[str, dict[str, float | None]] = {name: {} for name in models}
    if dataset is None:
        return miou, iou
    for name, model in models.items():
        model = model.to(job.fabric.device).eval()
        backbone = model.backbone
        features = stages.features_of(job, dataset, backbone, f"measured, {name}")
        confusion = Confusion(job.labels.info)
        with job.progress.stage(f"measuring {name}", len(dataset)) as advance:
            for index, entry in enumerate(dataset):
                one = stages.features_at(features, index, job.fabric.device)
                prediction = model.predict_features(one, (entry.height, entry.width))
                confusion.add(prediction.mask, entry.read_mask())
                advance(index + 1, len(dataset))
        scores = confusion.scores()
        miou[name], iou[name] = scores.miou, dict(scores.iou)
    return miou, iou


def results(
    kinds: tuple[str, ...],
    mix: bool,
    miou: dict[str, float | None],
    iou: dict[str, dict[str, float | None]],
    protocol: dict[str, Any],
) -> dict[str, Any]:
    """What `results.json` holds."""
    name = "mixed" if mix else "+".join(kinds)
    return {"miou": {name: miou}, "iou": {name: iou}, "protocol": protocol}


def describe_protocol(
    job: stages.Job, evaluated: Dataset | None, *, measured: bool
) -> dict[str, Any]:
    """How the figures came about."""
    recipe = job.recipe
    return {
        "dataset": job.labels.info.name,
        "train_images": len(job.dataset),
        "measured_images": 0 if evaluated is None else len(evaluated),
        "measured_on": 'the part "val"' if measured else "images held out of the part train",
        "classes": len(job.labels.info.classes),
        "mean": "over the classes that occur in the truth; ignored pixels do not count",
        "scales": [1],
        "flip": False,
        "crf": "in pseudo-masks only" if recipe.crf else False,
        "backbone": recipe.backbone,
        "regime": recipe.regime,
        "long_side": recipe.long_side,
        "steps": recipe.steps,
        "classifier_steps": recipe.classifier_steps,
        "rounds": recipe.rounds,
        "seed": recipe.seed,
        "cross_entropy": "the same features and classifier steps, on the same seeds",
    }


def new_segmenter(job: stages.Job) -> Segmenter:
    """A model with ImageNet weights and a new head and classifier."""
    recipe = job.recipe
    architecture = Architecture(recipe.backbone, recipe.output_stride, recipe.long_side, recipe.dim)
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


def make_fabric(recipe: Recipe) -> Fabric:
    """Device, precision and processes."""
    device = torch.device(recipe.device)
    bf16 = resolve_precision(recipe.precision, device) == "bf16"
    devices: Any = recipe.devices
    if device.type == "cuda" and device.index is not None:
        devices = [device.index]
    fabric = Fabric(
        accelerator={"cuda": "cuda", "mps": "mps"}.get(device.type, "cpu"),
        devices=devices,
        precision="bf16-mixed" if bf16 else "32-true",
    )
    fabric.launch()
    return fabric


def cache_folder() -> Path:
    """Where runs share features and regions: $WEAKSEG_CACHE, or the user's cache folder."""
    if "WEAKSEG_CACHE" in os.environ:
        return Path(os.environ["WEAKSEG_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "weakseg"


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """What tells whether a run is resumed on the same data."""
    if dataset.folder is not None:
        files = [dataset.folder / name for name in ("dataset.yaml", "annotations.jsonl")]
        return {"folder": str(dataset.folder.resolve()), "content": content_hash(*files)}
    parts = [
        [entry.name, content_hash(np.asarray(entry.image)), repr(entry.annotation)]
        for entry in dataset
    ]
    return {"folder": "in memory", "content": content_hash(parts)}


def say_plan(job: stages.Job, held_out: Dataset | None) -> None:
    """Print what the run will do."""
    recipe, say = job.recipe, job.progress.say
    measured = 0 if held_out is None else len(held_out)
    say(
        f"{job.labels.info.name}: {len(job.dataset)} images to train on, {measured} to measure "
        f"on, {len(job.labels.info.classes)} classes; labels: {', '.join(recipe.kinds)}"
        + (" (one kind an image, in turn)" if recipe.mix else "")
    )
    unlabelled = int((~job.labels.tags.any(1)).sum())
    if unlabelled:
        say(f"{unlabelled} images have no label; they take part in grouping and image similarity")
    absent = [
        name
        for name, count in zip(job.labels.info.classes, job.labels.tags.sum(0), strict=True)
        if count == 0 and not (name == job.labels.info.background and job.labels.needs_cam())
    ]
    if absent:
        say(f"[yellow]classes without any label, never predicted: {', '.join(absent)}[/]")
    say(
        f"{recipe.regime} {recipe.backbone} on {recipe.device}: features, "
        f"{recipe.steps} steps of the embedding, {recipe.rounds + 1} x {recipe.classifier_steps} "
        f"steps of the classifier, {recipe.rounds} rounds of pseudo-masks"
    )


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
