"""Class activation maps of the training images, for labels that say what but not where."""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

from weakseg.cam import Tagger, class_activation, train_tagger
from weakseg.errors import InputError
from weakseg.features import FeatureCache, extract_features
from weakseg.models import load_final
from weakseg.seeds import ClassMaps
from weakseg.training.run_folder import save_stage
from weakseg.training.stages import Job, contexts, features_at

STRIDE = 16


def cam_stage(job: Job) -> TrainingMaps:
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

    # On the CPU, where the processes that load images can use it too.
    return TrainingMaps(tagger.cpu(), features, tags)


@dataclass
class TrainingMaps:
    """The class maps of a training image, None where its labels name no foreground class.

    Attributes:
        tagger: trained.
        features: last feature maps of the training images.
        tags: (N, C) bool, the foreground classes that their labels name.
    """

    tagger: Tagger
    features: FeatureCache
    tags: Tensor

    def __call__(self, index: int) -> ClassMaps | None:
        """The maps of image `index`."""
        classes = tuple(int(c) for c in torch.nonzero(self.tags[index])[:, 0])
        if not classes:
            return None
        one = features_at(self.features, index, self.tagger.linear.weight.device)
        return class_activation(self.tagger, one, classes)
