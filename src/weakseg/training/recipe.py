"""The recipe: every setting of a training run, one validated dataclass."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from weakseg.annotation import KINDS, UNPLACED, check_kinds
from weakseg.errors import InputError
from weakseg.relations import RELATIONS, Relation, RelationSettings

Regime = Literal["auto", "frozen", "fine-tune"]
Regions = Literal["learned", "gradient", "slic", "none"]
Scores = Literal["classifier", "knn"]
Precision = Literal["auto", "fp32", "bf16"]

CHOICES = {
    "regime": get_args(Regime),
    "regions": get_args(Regions),
    "scores": get_args(Scores),
    "precision": get_args(Precision),
}


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training run; each has a default that works.

    Args:
        kinds: kinds of label to train on, out of masks, scribbles, points, boxes and tags. By
            default every weak kind that the data set has; masks only if there is no other.
        mix: image i keeps only the (i mod k)-th of the k kinds, to try a mixed data set.
        baselines: also train plain cross-entropy on the same seeds, for comparison.
        backbone: any timm model by name. The weights of tf_efficientnet_lite0, 1 and 2 are
            installed with weakseg; others come from the network or from `backbone_weights`.
        backbone_weights: checkpoint for the backbone, .safetensors or a torch state dict.
        regime: "frozen" computes the backbone's features once and trains what stands on them;
            "fine-tune" trains the backbone too (all but its stem) and needs a GPU to be quick;
            "auto" is fine-tune on a GPU and frozen elsewhere.
        long_side: images are resized to this many pixels on their longer side.
        output_stride: pixels between neighbouring positions of the backbone's coarsest map.
        embedding_stride: pixels between neighbouring pixel embeddings, 4 or 8.
        dim: length D of the pixel embeddings.
        steps: training steps of the embedding; by default 600 frozen, 4,000 fine-tune.
        classifier_steps: training steps of each pixel classifier.
        rounds: rounds of pseudo-masks and classifier after the first classifier; none where every
            image has a mask to train on.
        scores: what pseudo-masks start from: the "classifier", or a vote of the nearest labelled
            segments ("knn").
        crf: sharpen pseudo-masks with a dense CRF.
        walk: steps of the random walk along the embedding that spreads class probabilities at
            prediction; 0 leaves it out. By default 64, as in pseudo-masks, where a relation trains
            the embedding and long_side is 512 or less: its cost grows with the fourth power.
        regions: low-level regions: "learned" contours, a "gradient" without weights, "slic"
            superpixels, or "none". A folder of your own maps is given as `region_maps`.
        region_maps: folder of region maps, one for each image by name, instead of `regions`.
        relations: weight and concentration of the four relations; by default they follow the
            kinds of label. Where one is given, the others are as for points.
        cross_entropy: weight of a cross-entropy on the seeds that also trains the embedding.
        memory: number of past batches whose segments are compared with.
        grid: k-means cells (rows, columns) that segments start from in training.
        crop: side of a training crop in embedding positions (frozen) or pixels (fine-tune);
            0 chooses by regime.
        batch: images in a training batch.
        lr: peak learning rate of the embedding head; that of the classifiers is fixed.
        backbone_lr: peak learning rate of the backbone (fine-tune).
        weight_decay: of AdamW.
        point_radius: radius in pixels of the disc that a point labels.
        foreground: CAM score, over its class's maximum, from which a pixel takes the class.
        background: CAM score up to which a pixel is background.
        validation: share of the labelled images that are held out where the data set has no
            "val" part.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        devices: number of processes, each with a device of its own (fine-tune).
        precision: "auto", "fp32" or "bf16".
        workers: threads or processes that read images.
        seed: of every random choice.
    """

    kinds: tuple[str, ...] = ()
    mix: bool = False
    baselines: bool = False
    backbone: str = "tf_efficientnet_lite0"
    backbone_weights: Path | None = None
    regime: Regime = "auto"
    long_side: int = 416
    output_stride: int = 16
    embedding_stride: int = 8
    dim: int = 64
    steps: int | None = None
    classifier_steps: int = 1500
    rounds: int = 2
    scores: Scores = "classifier"
    crf: bool = True
    walk: int | None = None
    regions: Regions = "gradient"
    region_maps: Path | None = None
    relations: RelationSettings | None = None
    cross_entropy: float = 1.0
    memory: int = 2
    grid: tuple[int, int] = (6, 6)
    crop: int = 0
    batch: int = 8
    lr: float = 2e-3
    backbone_lr: float = 2e-4
    weight_decay: float = 1e-2
    point_radius: float = 6
    foreground: float = 0.5
    background: float = 0.15
    validation: float = 0.1
    device: str = "auto"
    devices: int = 1
    precision: Precision = "auto"
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds(self.kinds)
        if isinstance(self.kinds, str):
            object.__setattr__(self, "kinds", (self.kinds,))
        for name in ("kinds", "grid"):  # a list, in YAML
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(choices)}")
        for name in ("steps", "walk"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise _wrong(name, getattr(self, name), "0 or more")
        for name in ("long_side", "dim", "batch", "devices"):
            if getattr(self, name) < 1:
                raise _wrong(name, getattr(self, name), "1 or more")
        for name in (
            *("classifier_steps", "rounds", "memory", "crop", "workers", "seed"),
            *("weight_decay", "cross_entropy"),
        ):
            if not getattr(self, name) >= 0:
                raise _wrong(name, getattr(self, name), "0 or more")
        if self.output_stride not in (8, 16):
            raise _wrong("output_stride", self.output_stride, "8 or 16")
        if self.embedding_stride not in (4, 8):
            raise _wrong("embedding_stride", self.embedding_stride, "4 or 8")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise _wrong("grid", list(self.grid), "two numbers, 1 or more")
        for name in ("lr", "backbone_lr", "point_radius"):
            if not getattr(self, name) > 0:
                raise _wrong(name, getattr(self, name), "more than 0")
        if not 0 <= self.background < self.foreground <= 1:
            raise _wrong(
                "background", self.background, f"0 <= background < foreground ({self.foreground})"
            )
        if not 0 <= self.validation < 1:
            raise _wrong("validation", self.validation, "at least 0, less than 1")
        if self.relations is not None:
            _check_relations(self.relations)

    def resolved(self, kinds: tuple[str, ...], *, complete: bool = False) -> Recipe:
        """This recipe with everything that was left open decided.

        Args:
            kinds: of label that will be trained on.
            complete: every image has a full mask, which leaves pseudo-masks nothing to label.

        Raises:
            InputError: nothing would train the embedding, or sizes do not fit each other.
        """
        device = resolve_device(self.device)
        regime = self.regime
        if regime == "auto":
            regime = "fine-tune" if device.type == "cuda" else "frozen"
        frozen = regime == "frozen"
        if device.type == "cuda" and self.devices > torch.cuda.device_count():
            raise _wrong("devices", self.devices, f"{torch.cuda.device_count()} or fewer, here")
        if not frozen and self.crop % self.output_stride:
            rule = f"a multiple of --output-stride, {self.output_stride}"
            raise _wrong("crop", self.crop, rule)
        relations = self.relations or relations_for(
            kinds, cross_entropy=self.cross_entropy, complete=complete
        )
        if not self.cross_entropy and not relations.on:
            rule = "more than 0 where no relation has a weight: nothing would train the embedding"
            raise _wrong("cross_entropy", self.cross_entropy, rule)
        return replace(
            self,
            kinds=kinds,
            rounds=0 if complete else self.rounds,
            regime=regime,
            device=str(device),
            steps=(600 if frozen else 4000) if self.steps is None else self.steps,
            walk=self._steps_of_walk(relations) if self.walk is None else self.walk,
            crop=self.crop or (28 if frozen else 320),
            relations=relations,
        )

    def _steps_of_walk(self, relations: RelationSettings) -> int:
        return 64 if relations.on and self.long_side <= 512 else 0

    @property
    def settings(self) -> RelationSettings:
        """The relations, decided."""
        return self.relations or relations_for(self.kinds, cross_entropy=self.cross_entropy)


def relations_at(weight: float) -> RelationSettings:
    """All four relations on, of this weight beside a cross-entropy of weight 1.

    The relation of annotations has three times the weight: few pixels are labelled.
    """
    return RelationSettings().weighted(
        image_similarity=weight, annotation=3 * weight, cooccurrence=weight, affinity=weight
    )


def relations_for(
    kinds: tuple[str, ...], *, cross_entropy: float = 1.0, complete: bool = False
) -> RelationSettings:
    """Relations that are worth it for the kinds of label of a data set, by docs/results.md.

    Args:
        kinds: of label; the most certain one decides.
        cross_entropy: weight of the cross-entropy on the seeds. Beside it the relation of
            annotations gains nothing and is off, but for seeds of class maps.
        complete: every image has a full mask: nothing is left for the others to find.
    """
    kind = min(kinds or ("points",), key=KINDS.index)
    off = {"affinity"}
    if cross_entropy and kind not in UNPLACED:
        off.add("annotation")
    if complete:
        off |= {"image_similarity", "cooccurrence"}
    return relations_at(1.0).weighted(**dict.fromkeys(off, 0.0))


def resolve_device(name: str) -> torch.device:
    """The device that a name stands for.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise _wrong("device", name, 'a device that this machine has; "auto" finds one') from error
    return device


def _check_relations(settings: RelationSettings) -> None:
    """Raise if a relation would train on nonsense: a negative weight maximises its loss."""

    def wrong(name: str, found: object, rule: str) -> InputError:
        return InputError(f"--relations.{name}", found=found, rule=rule)

    for name in RELATIONS:
        relation: Relation = getattr(settings, name)
        if not 0 <= relation.weight < math.inf:
            raise wrong(f"{name}.weight", relation.weight, "0 or more")
        if not 0 < relation.concentration < math.inf:
            raise wrong(f"{name}.concentration", relation.concentration, "more than 0")
    if settings.affinity_neighbours < 1:
        raise wrong("affinity_neighbours", settings.affinity_neighbours, "1 or more")
    if not -1 <= settings.affinity_cosine <= 1:
        raise wrong("affinity_cosine", settings.affinity_cosine, "-1 to 1")


def _wrong(name: str, found: object, rule: str) -> InputError:
    return InputError(f"--{name.replace('_', '-')}", found=found, rule=rule)
