"""Class activation maps of the training images, for labels that say what but not where."""

from __future__ import annotations

import safetensors.torch
import torch

from weakseg.cam import Tagger, class_activation, train_tagger
from weakseg.errors import InputError
from weakseg.features import extract_features
from weakseg.models import load_final
from weakseg.seeds import ClassMaps
from weakseg.training.labels import CamOf
from weakseg.training.stages import Job, contexts, features_at, save_stage

STRIDE = 16


def cam_stage(job: Job) -> CamOf:
    """Train a tagger on the classes that the labels name, and map them.

    Returns:
        The class maps of training image i, None where its labels name no foreground class.

    Raises:
        InputError: no image has a label of a foreground class.
    """
    recipe, labels = job.recipe, job.labels
    info = labels.info
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
    tags = labels.tags.clone()
    if info.background_index is not None:
        tags[:, info.background_index] = False
    labelled = tags.any(1)
    if not labelled.any():
        raise InputError(
            "tags and boxes name no class but background",
            file=job.dataset.folder,
            rule="some images with other classes",
        )
    tagger = Tagger(features.channels, len(info.classes)).to(job.fabric.device)
    file = job.run.stages / "tagger.safetensors"
    if file.exists():
        tagger.load_state_dict(safetensors.torch.load_file(file))
        tagger.eval()
    else:
        means = contexts(features)
        device = job.fabric.device
        with job.progress.training("tagger", 1500, job.run) as log:
            tagger = train_tagger(
                means[labelled].to(device), tags[labelled].to(device), seed=recipe.seed, log=log
            )
        save_stage(file, tagger)

    def cam_of(index: int) -> ClassMaps | None:
        classes = tuple(int(c) for c in torch.nonzero(tags[index])[:, 0])
        if not classes:
            return None
        one = features_at(features, index, job.fabric.device)
        return class_activation(tagger, one, classes)

    return cam_of
