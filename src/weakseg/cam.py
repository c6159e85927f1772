"""Class activation maps: where a classifier that only saw tags finds each class.

Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weakseg.seeds import ClassMaps


class Tagger(nn.Module):
    """A linear multi-label classifier on the mean of an image's last feature map.

    Being linear, it scores every position of the map as well as their mean.

    Args:
        channels: of the features.
        classes: how many tags there are.
        dropout: share of channels dropped in training.
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Scores (B, classes) before the sigmoid of mean feature vectors (B, channels)."""
        scores: Tensor = self.linear(self.dropout(self.norm(pooled)))
        return scores


def train_tagger(
    pooled: Tensor,
    tags: Tensor,
    *,
    steps: int = 1500,
    batch: int = 64,
    lr: float = 3e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    weights: Tensor | None = None,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> Tagger:
    """Train a multi-label classifier on image-level tags.

    Args:
        pooled: (N, channels) mean of each image's last feature map.
        tags: (N, classes) bool.
        steps: of AdamW.
        batch: images a step.
        lr: peak learning rate.
        weight_decay: of AdamW.
        seed: of weights, batches and dropout; the global random state is left as it was.
        weights: (N, classes) of the tags in the loss, 0 or more; default: 1.
        log: called with step and losses.

    Returns:
        The tagger in eval mode, on the device of `pooled`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _trained(pooled, tags, steps, batch, lr, weight_decay, weights, log)


def _trained(
    pooled: Tensor,
    tags: Tensor,
    steps: int,
    batch: int,
    lr: float,
    weight_decay: float,
    weights: Tensor | None,
    log: Callable[[int, dict[str, float]], None] | None,
) -> Tagger:
    tagger = Tagger(pooled.shape[1], tags.shape[1]).to(pooled.device).train()
    optimizer = torch.optim.AdamW(tagger.parameters(), lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(steps, 1) + 1)
    if weights is None:
        weights = torch.ones_like(tags, dtype=torch.float32)
    size = max(2, min(batch, len(pooled)))  # batch norm needs two
    for step in range(steps):
        chosen = torch.randint(len(pooled), (size,)).to(pooled.device)
        loss = F.binary_cross_entropy_with_logits(
            tagger(pooled[chosen]), tags[chosen].float(), weight=weights[chosen]
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if log is not None:
            log(step + 1, {"tags": float(loss.detach())})
    return tagger.eval()


SCALES = (0.5, 1.0, 1.5)
"""Factors on an image's size at which its class maps are taken and added up: small, a class's
whole extent stands out; large, its outline. On photographs of PASCAL VOC the mirrored image as
well took twice the time and added nothing."""


@torch.inference_mode()
def class_activation(
    tagger: Tagger, views: Sequence[Tensor], classes: tuple[int, ...]
) -> ClassMaps:
    """Where in an image the tagger sees some of its classes.

    Each class's score, less its bias, summed over the views and below 0 cut off, over its own
    maximum.

    Args:
        tagger: in eval mode.
        views: (channels, h, w) each, the last feature maps of the image at one size or several.
        classes: K class indices that the image's labels name.

    Returns:
        K maps in 0..1, on the grid of the largest view.
    """
    mean, var = tagger.norm.running_mean, tagger.norm.running_var
    assert mean is not None
    assert var is not None
    weight = tagger.linear.weight[list(classes)] / (var + tagger.norm.eps).sqrt()
    maps = [torch.einsum("kc,chw->khw", weight, view - mean[:, None, None]) for view in views]
    height = max(view.shape[1] for view in views)
    width = max(view.shape[2] for view in views)
    total = torch.stack([_resized(one, (height, width)) for one in maps]).sum(0).relu()
    peaks = total.flatten(1).amax(1)[:, None, None].clamp_min(1e-6)
    return ClassMaps(classes, (total / peaks).cpu().numpy().astype(np.float32))


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if len(maps) == 0:
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
