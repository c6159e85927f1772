"""The map that a backbone's ImageNet classifier pools: the best one for class activation maps.

EfficientNet and MobileNet widen their last feature level by a 1x1 convolution before pooling, so
this map is none of the levels that `load_backbone` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from weakseg.models.backbone import Backbone, _create, _quiet
from weakseg.models.weights import fit_checkpoint, offline_weights


class FinalPlan:
    """Describes the one level of a `Backbone` made by `load_final`."""

    plain = False

    def __init__(self, channels: int, reduction: int) -> None:
        self.channels = (channels,)
        self.reductions = (reduction,)
        self.levels = [{"num_chs": channels, "reduction": reduction, "module": "final"}]


class _Final(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.pretrained_cfg = model.pretrained_cfg
        self.model: Any = model
        self.channels: int = model.num_features

    def forward(self, images: Tensor) -> list[Tensor]:
        x: Tensor = self.model.forward_features(images)
        if x.ndim == 3:  # tokens of a transformer, class and register tokens first
            first = getattr(self.model, "num_prefix_tokens", 0)
            size = self.model.patch_embed.patch_size
            h, w = (n // p for n, p in zip(images.shape[-2:], size, strict=True))
            x = x[:, first:].transpose(1, 2).reshape(len(x), -1, h, w)
        elif x.shape[1] != self.channels and x.shape[-1] == self.channels:
            x = x.permute(0, 3, 1, 2)
        return [x]


def load_final(
    name: str,
    *,
    output_stride: int = 16,
    pretrained: bool = True,
    weights: str | Path | None = None,
) -> Backbone:
    """A backbone that gives only the map that its ImageNet classifier pools.

    Args:
        name: timm model name.
        output_stride: as for `load_backbone`.
        pretrained: load ImageNet weights.
        weights: checkpoint to load instead.

    Raises:
        InputError: as for `load_backbone`.
    """
    _, options = _create(name, output_stride)
    with _quiet():
        if weights is not None:
            needed = timm.create_model(name, num_classes=0, **options).state_dict()
            state = fit_checkpoint(name, weights, needed, **options)
            model = timm.create_model(name, **options)
            model.load_state_dict(state)
        else:
            state_or_none = offline_weights(name) if pretrained else None
            model = timm.create_model(
                name, pretrained=pretrained and state_or_none is None, **options
            )
            if state_or_none is not None:
                model.load_state_dict(state_or_none)
    net = _Final(model.eval())
    plan = FinalPlan(*_probe(net))
    return Backbone(net, name=f"{name}.final", output_stride=output_stride, plan=plan).eval()


@torch.no_grad()
def _probe(net: _Final) -> tuple[int, int]:
    """Channels and stride of the map, from one small image."""
    side: Sequence[int] = net.pretrained_cfg["input_size"]
    out = net(torch.zeros(1, *side))[0]
    return out.shape[1], side[-1] // out.shape[-1]
