"""What a run is measured by, and how the figures came about."""

from __future__ import annotations

from typing import Any

from weakseg.dataset import Dataset
from weakseg.evaluation import Confusion
from weakseg.segmenter import Segmenter
from weakseg.training import stages

Accuracy = dict[str, list[float]]
"""Share of pixels right in each measured image, by method."""


def measure(
    job: stages.Job, models: dict[str, Segmenter], dataset: Dataset | None
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]], Accuracy]:
    """Mean IoU, IoU by class and accuracy by image of each model, masks at full size."""
    miou: dict[str, float | None] = dict.fromkeys(models)
    iou: dict[str, dict[str, float | None]] = {name: {} for name in models}
    accuracy: Accuracy = {name: [] for name in models}
    if dataset is None:
        return miou, iou, accuracy
    for name, model in models.items():
        model = model.to(job.fabric.device).eval()
        backbone = model.backbone
        features = stages.features_of(job, dataset, backbone, name)
        confusion = Confusion(job.labels.info)
        with job.progress.stage(f"measuring {name}", len(dataset)) as advance:
            for index, entry in enumerate(dataset):
                one = stages.features_at(features, index, job.fabric.device)
                prediction = model.predict_features(one, (entry.height, entry.width))
                truth = entry.read_mask()
                confusion.add(prediction.mask, truth)
                right = (prediction.mask == truth)[truth < len(job.labels.info.classes)]
                accuracy[name].append(float(right.mean()) if right.size else 1.0)
                advance(index + 1, len(dataset))
        scores = confusion.scores()
        miou[name], iou[name] = scores.miou, dict(scores.iou)
    return miou, iou, accuracy


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


def describe_protocol(job: stages.Job, evaluated: Dataset | None) -> dict[str, Any]:
    """How the figures came about."""
    recipe = job.recipe
    part = "train" if evaluated is None else evaluated[0].split
    return {
        "dataset": job.labels.info.name,
        "train_images": len(job.dataset),
        "measured_images": 0 if evaluated is None else len(evaluated),
        "measured_on": 'the part "val"' if part == "val" else "images held out of the part train",
        "classes": len(job.labels.info.classes),
        "mean": "over the classes that occur in the truth; ignored pixels do not count",
        "scales": [1],
        "walk": recipe.walk,
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
