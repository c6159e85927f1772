"""A trained model: photograph in, classes out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from weakseg.classifier import PixelClassifier, pooled
from weakseg.crf import dense_crf
from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError
from weakseg.features import compute_features
from weakseg.files import atomic_path, write_json
from weakseg.images import as_rgb
from weakseg.models import Backbone, EmbeddingHead, load_backbone
from weakseg.propagate import random_walk

STRIDE = 8
"""Input pixels between neighbouring positions of features and class scores."""

_PRESENT = 0.1
"""Share of the image's highest probability that a class must reach somewhere to be seen by the CRF:
of 21 classes some 5 do, at a cost of .02 mIoU."""

WEIGHTS, MODEL = "weights.safetensors", "model.json"

_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)
"""What a `model.json` of another form may lead to."""


@dataclass(frozen=True)
class Architecture:
    """What is needed to rebuild a model before its weights are loaded.

    `walk` counts the steps of the random walk at prediction, see `Segmenter.spread`; models of
    before there was one have none.
    """

    backbone: str
    output_stride: int
    long_side: int
    dim: int
    hidden: int = 512
    walk: int = 0


@dataclass(frozen=True, eq=False)
class Prediction:
    """The classes of one photograph.

    Attributes:
        mask: (H, W) uint8 class indices.
        confidence: (H, W) float32, probability of that class.
        probabilities: (C, H, W) float32, or None where they were not asked for.
    """

    mask: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None


class Segmenter(nn.Module):
    """Backbone, embedding head and pixel classifier.

    Args:
        backbone: frozen or fine-tuned.
        head: embedding head over the backbone's stacked features.
        classifier: over features, context and embedding.
        info: classes.
        architecture: how the parts were built.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: EmbeddingHead,
        classifier: PixelClassifier,
        info: DatasetInfo,
        architecture: Architecture,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.classifier = backbone, head, classifier
        self.info, self.architecture = info, architecture
        self.precision = "auto"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.backbone.mean.device

    @torch.inference_mode()
    def features(self, image: NDArray[Any], *, scale: float = 1) -> Tensor:
        """Features of a photograph, (C, h, w) float32; the costly part of `predict`.

        Args:
            image: (H, W, 3) uint8 RGB, or what else `weakseg.images.as_rgb` takes.
            scale: factor on the size at which the backbone sees the image.
        """
        return compute_features(
            self.backbone,
            as_rgb(image),
            long_side=max(1, round(self.architecture.long_side * scale)),
            stride=STRIDE,
            precision=self.precision,
        )

    @torch.inference_mode()
    def embed(self, features: Tensor) -> Tensor:
        """Unit vectors (D, h, w) of features (C, h, w)."""
        embeddings: Tensor = self.head(features[None])[0]
        return embeddings

    @torch.inference_mode()
    def scores(self, features: Tensor) -> Tensor:
        """Class scores before softmax, (classes, h, w), of features (C, h, w)."""
        batch = features[None]
        embeddings = self.head(batch, features.shape[-2:]) if self.classifier.dim else None
        scores: Tensor = self.classifier(batch, pooled(batch), embeddings)[0]
        return scores

    @torch.inference_mode()
    def spread(self, features: Tensor, probabilities: Tensor, steps: int | None = None) -> Tensor:
        """Class probabilities after a random walk along the embedding: like pixels come to agree.

        The walk of the pseudo-masks (Ke, Hwang, Yu, ICLR 2021, "SPML"), which this model's
        classifier learned from, at prediction too.

        Args:
            features: (C, h, w).
            probabilities: (classes, h, w).
            steps: of the walk; None: as the model was trained for; 0 changes nothing, nor does a
                model whose classifier reads no embedding.

        Returns:
            (classes, h, w).
        """
        steps = self.architecture.walk if steps is None else steps
        if not (steps and self.classifier.dim):
            return probabilities
        return random_walk(self.embed(features), probabilities, steps=steps)

    def predict(
        self,
        image: NDArray[Any],
        *,
        flip: bool = False,
        scales: Sequence[float] = (1,),
        walk: int | None = None,
        crf: bool = False,
        probabilities: bool = False,
    ) -> Prediction:
        """Classify every pixel of a photograph.

        Args:
            image: (H, W, 3) uint8 RGB, or what else `weakseg.images.as_rgb` takes; any size.
            flip: average with the mirrored image.
            scales: average over these sizes, .5 to 2 times the training size.
            walk: steps of the random walk, see `spread`, on the average and the grid of that of
                these sizes which is nearest to the training size.
            crf: sharpen with a dense CRF; needs memory for all classes at full size.
            probabilities: return those too.
        """
        picture = as_rgb(image)
        total: Tensor | None = None
        for scale in sorted(scales, key=lambda scale: abs(math.log(scale))):
            for mirrored in (False, True) if flip else (False,):
                view = picture[:, ::-1].copy() if mirrored else picture
                features = self.features(view, scale=scale)
                scores = self.scores(features).softmax(0)
                scores = scores.flip(-1) if mirrored else scores
                if total is None:
                    first, total = features, scores
                else:
                    total = (
                        total
                        + F.interpolate(
                            scores[None], total.shape[-2:], mode="bilinear", align_corners=False
                        )[0]
                    )
        assert total is not None, "scales is empty"
        total = self.spread(first, total / total.sum(0), walk)
        if crf:
            return _sharpened(picture, total.cpu(), probabilities)
        return _enlarged(total.cpu(), picture.shape[:2], probabilities)

    def predict_features(self, features: Tensor, size: tuple[int, int]) -> Prediction:
        """Classify the pixels of a photograph whose features are known.

        Args:
            features: (C, h, w), as `features` gives them.
            size: (H, W) of the photograph.
        """
        spread = self.spread(features, self.scores(features).softmax(0))
        return _enlarged(spread.cpu(), size, False)

    def save(self, folder: Path, meta: dict[str, Any] | None = None) -> None:
        """Write weights and description to a folder; `load` needs nothing else."""
        with atomic_path(folder / WEIGHTS) as temporary:
            safetensors.torch.save_file(
                {name: t.contiguous() for name, t in self.state_dict().items()}, temporary
            )
        write_json(
            folder / MODEL,
            {
                "architecture": vars(self.architecture),
                "classes": list(self.info.classes),
                "background": self.info.background,
                "ignore": self.info.ignore,
                "name": self.info.name,
                **(meta or {}),
            },
        )

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Segmenter:
        """Load a trained model from its run folder.

        Raises:
            InputError: no finished run there, or its files are damaged.
        """
        folder = Path(folder)
        rule = "the folder that `weakseg train --out` wrote, its training finished"
        if not (folder / MODEL).is_file() or not (folder / WEIGHTS).is_file():
            raise InputError("no trained model", file=folder, rule=rule)
        try:
            data = json.loads((folder / MODEL).read_text())
            architecture = Architecture(**data["architecture"])
            info = DatasetInfo(
                data["name"], tuple(data["classes"]), data["background"], data["ignore"]
            )
            model = build_segmenter(architecture, info, pretrained=False)
            model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        except (InputError, SafetensorError, OSError, RuntimeError, *_MALFORMED) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError("damaged model", file=folder, found=reason, rule=rule) from error
        return model.to(device).eval()


def build_segmenter(
    architecture: Architecture,
    info: DatasetInfo,
    *,
    pretrained: bool = True,
    weights: Path | None = None,
) -> Segmenter:
    """A model whose head and classifier are new.

    Args:
        architecture: its parts.
        info: classes.
        pretrained: load the backbone's ImageNet weights.
        weights: checkpoint to load into the backbone instead.
    """
    backbone = load_backbone(
        architecture.backbone,
        output_stride=architecture.output_stride,
        pretrained=pretrained,
        weights=weights,
    )
    channels = sum(backbone.channels)
    return Segmenter(
        backbone,
        EmbeddingHead(channels, architecture.dim),
        PixelClassifier(
            channels, architecture.dim, len(info.classes), hidden=architecture.hidden, dropout=0.5
        ),
        info,
        architecture,
    ).eval()


def _enlarged(total: Tensor, size: tuple[int, int], keep: bool) -> Prediction:
    """Probabilities at full size, in strips: all classes of a large image would not fit."""
    height, width = size
    mask = np.empty(size, np.uint8)
    confidence = np.empty(size, np.float32)
    full = np.empty((len(total), *size), np.float32) if keep else None
    columns = F.interpolate(total[None], (total.shape[1], width), mode="bilinear")[0]
    rows = (torch.arange(height) + 0.5) * total.shape[1] / height - 0.5
    low = rows.floor().clamp(0, total.shape[1] - 1).long()
    high = (rows.floor() + 1).clamp(0, total.shape[1] - 1).long()
    share = (rows - rows.floor())[None, :, None]
    step = max(1, 2**24 // (width * len(total)))
    for top in range(0, height, step):
        s = slice(top, top + step)
        strip = columns[:, low[s]] * (1 - share[:, s]) + columns[:, high[s]] * share[:, s]
        best, index = strip.max(0)
        mask[s], confidence[s] = index.numpy(), best.numpy()
        if full is not None:
            full[:, s] = strip.numpy()
    return Prediction(mask, confidence, full)


def _sharpened(picture: NDArray[np.uint8], total: Tensor, keep: bool) -> Prediction:
    full = _enlarged(total, picture.shape[:2], True).probabilities
    assert full is not None
    peaks = full.max((1, 2))
    present = np.flatnonzero(peaks > _PRESENT * peaks.max())
    some = full[present] / full[present].sum(0)
    sharp = dense_crf(picture, some).numpy() if len(present) > 1 else some
    mask = present[sharp.argmax(0)].astype(np.uint8)
    out = None
    if keep:
        out = np.zeros_like(full)
        out[present] = sharp
    return Prediction(mask, sharp.max(0), out)
