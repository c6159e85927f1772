"""The whole way from photograph to mask as one network whose sizes stay free."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weakseg.classifier import pooled
from weakseg.errors import InputError
from weakseg.models import stack_features
from weakseg.portable.resizing import resize_bicubic
from weakseg.propagate import SHARPNESS, power
from weakseg.segmenter import STRIDE, Segmenter


class PortableSegmenter(nn.Module):
    """What `Segmenter.predict` does, in operations that every runtime has.

    Sizes are computed by tensors, from the shape of the input on, and no branch depends on
    them: what is traced with one image holds for any.

    Args:
        segmenter: is copied, in float32 and to the CPU.

    Raises:
        InputError: its backbone insists on one size of image.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        if segmenter.backbone.fixed_size is not None:
            raise InputError(
                f"backbone {segmenter.backbone.name} cannot be exported",
                found=f"insists on images of {segmenter.backbone.fixed_size}",
                rule="a backbone that takes any size",
            )
        model = copy.deepcopy(segmenter).float().cpu().eval().requires_grad_(False)
        self.backbone, self.head, self.classifier = model.backbone, model.head, model.classifier
        for name in ("norm", "context_norm", "hidden_norm"):
            setattr(self.classifier, name, _ScaleAndShift(getattr(self.classifier, name)))
        self.long_side = model.architecture.long_side
        self.walk = model.architecture.walk

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify every pixel of a batch of photographs of one size.

        Args:
            images: (B, H, W, 3) RGB of 0 to 255, uint8 or float.

        Returns:
            (B, H, W) uint8 class indices, and (B, C, H, W) float32 class probabilities.
        """
        shape = torch._shape_as_tensor(images)
        size = self._resized(shape[1:3].max(0, keepdim=True)[0], shape[1:2], shape[2:3])
        features = self._features(images.permute(0, 3, 1, 2), size)
        embeddings = self.head(features, features.shape[-2:]) if self.classifier.dim else None
        scores = self.classifier(features, pooled(features), embeddings).softmax(1)
        if embeddings is not None and self.walk:
            scores = self._spread(embeddings, scores)
        # Probabilities are enlarged, not scores before the softmax: as `predict` does.
        scores = F.interpolate(
            scores, (images.shape[1], images.shape[2]), mode="bilinear", align_corners=False
        )
        return scores.argmax(1).to(torch.uint8), scores

    def _spread(self, embeddings: Tensor, scores: Tensor) -> Tensor:
        """`Segmenter.spread` of a batch (B, D, h, w), (B, C, h, w)."""
        vectors = embeddings.flatten(2)
        affinity = (SHARPNESS * (vectors.transpose(1, 2) @ vectors - 1)).clamp(min=-40).exp()
        transition = affinity / affinity.sum(1, keepdim=True)
        some = scores.flatten(2).clamp(min=1e-12)  # products of subnormal numbers take long
        return power(lambda x: x @ transition, some, self.walk).view_as(scores)

    def _resized(self, longest: Tensor, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """`features.resized_size` in tensors of one element; both round half to even."""
        scale = torch.tensor([self.long_side], dtype=torch.float64) / longest.double()
        rounded = [(n.double() * scale).round().long().clamp(min=1) for n in (height, width)]
        return rounded[0], rounded[1]

    def _features(self, images: Tensor, size: tuple[Tensor, Tensor]) -> Tensor:
        """(B, C, h, w) features at stride 8 of (B, 3, H, W) images, seen at `size`."""
        backbone: Any = self.backbone  # counts with tensors as with numbers
        cells = backbone.padded(size[0]), backbone.padded(size[1])
        seen = resize_bicubic(images, size, cells) / 255
        maps = backbone.grids((seen - backbone.mean) / backbone.std, (size[0][0], size[1][0]))
        grid: Any = [(n[0] + STRIDE - 1) // STRIDE for n in size]
        return stack_features(maps, backbone.strides, STRIDE, grid)


class _ScaleAndShift(nn.Module):
    """A batch norm in eval mode; the ONNX exporter does not know the channels of rows."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        shift = torch.zeros_like(scale)
        if norm.affine:
            scale, shift = scale * norm.weight.detach(), norm.bias.detach()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift - norm.running_mean * scale)

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.scale + self.shift
