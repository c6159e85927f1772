"""Any timm backbone as a source of feature maps at a chosen output stride."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weakseg.errors import InputError
from weakseg.models.head import stack_features
from weakseg.models.weights import OFFLINE_WEIGHTS, fingerprint, fit_checkpoint, offline_weights

OUTPUT_STRIDES = (8, 16, 32)


class Levels(Protocol):
    """What a `Backbone` must know of the maps that its network gives."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each map."""

    @property
    def reductions(self) -> tuple[int, ...]:
        """Input pixels between neighbouring positions of each map."""

    @property
    def plain(self) -> bool:
        """Whether all levels have the stride of one patch grid."""

    @property
    def levels(self) -> list[dict[str, Any]]:
        """What timm says of every level of the network, tapped or not."""


class Backbone(nn.Module):
    """A timm network that maps photographs to feature maps. Made by `load_backbone`.

    Attributes:
        name: timm model name.
        output_stride: no map is coarser than this, in input pixels.
        channels: channels of each map.
        strides: input pixels between neighbouring positions of each map.
        fixed_size: (H, W) that the network insists on, or None where it takes any size.
    """

    net: Any
    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, *, name: str, output_stride: int, plan: Levels) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.levels = plan.levels
        self.output_stride = output_stride
        self.channels = plan.channels
        self.native_strides = plan.reductions
        self.strides = tuple(
            output_stride if plan.plain else min(r, output_stride) for r in plan.reductions
        )
        self.fixed_size: tuple[int, int] | None = None
        self._channels_last_maps = False
        self._multiple = max(plan.reductions)
        config = self.net.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, -1, 1, 1), False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, -1, 1, 1), False)
        self._probe(tuple(config["input_size"][-2:]))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of a batch, coarsest last.

        Args:
            images: (B, 3, H, W) RGB in 0..1, any H and W. Normalised in here.

        Returns:
            One (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])) tensor a tap.
            Position (r, c) describes the pixels around ((r + .5) * stride, (c + .5) * stride).
        """
        height, width = images.shape[-2:]
        images = (images - self.mean) / self.std
        if self.fixed_size is None:
            # A whole number of cells, so that every map lies on its grid; the rest is cropped.
            bottom, right = (self.padded(n) - n for n in (height, width))
            if bottom or right:
                images = F.pad(images, (0, right, 0, bottom), mode="replicate")
        else:
            images = F.interpolate(
                images, self.fixed_size, mode="bilinear", align_corners=False, antialias=True
            )
        return self.grids(images, (height, width))

    def grids(self, images: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Feature maps of a batch that is normalised and padded already, as `forward` does it.

        Args:
            images: (B, 3, H', W'), H' and W' as `padded` says.
            size: (H, W) of the images without their padding.

        Returns:
            As `forward`.
        """
        height, width = size
        maps = []
        for out, native, stride in zip(
            self._maps(images), self.native_strides, self.strides, strict=True
        ):
            grid = _cells(height, stride), _cells(width, stride)
            if self.fixed_size is None:
                out = _to_grid(out, images.shape[-2:], native, stride)
                out = out[..., : grid[0], : grid[1]]
            elif out.shape[-2:] != grid:
                out = F.interpolate(out, grid, mode="bilinear", align_corners=False)
            maps.append(out)
        return maps

    def stacked(self, images: Tensor, stride: int = 8) -> Tensor:
        """All maps of a batch brought to one stride, channels concatenated.

        Args:
            images: as for `forward`.
            stride: input pixels between neighbouring positions.

        Returns:
            (B, sum(channels), ceil(H / stride), ceil(W / stride)).
        """
        size = [_cells(n, stride) for n in images.shape[-2:]]
        return stack_features(self(images), self.strides, stride, size)

    def padded(self, size: int) -> int:
        """Height or width to which images are padded: whole cells of every map."""
        cells = _cells(size, self.output_stride) * self.output_stride
        return _cells(cells, self._multiple) * self._multiple

    def train(self, mode: bool = True) -> Backbone:
        """As for any module, but batch norm whose parameters are frozen keeps its statistics."""
        super().train(mode)
        for module in self.modules():
            if _is_batch_norm(module) and not any(p.requires_grad for p in module.parameters()):
                module.training = False
        return self

    def fingerprint(self) -> str:
        """Hash of the weights, for naming what was computed with them."""
        return fingerprint(self.net)

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = list(self.net(images))
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last_maps else maps

    @torch.no_grad()
    def _probe(self, own_size: tuple[int, ...]) -> None:
        """Run the network once, small: does it take any size, and where are its channels?"""
        self.eval()
        any_size = 3 * self._multiple, 5 * self._multiple
        try:
            maps = self.net(torch.zeros(1, 3, *any_size))
        except (AssertionError, RuntimeError, ValueError, TypeError):
            try:
                maps = self.net(torch.zeros(1, 3, *own_size))
            except (AssertionError, RuntimeError, ValueError, TypeError) as error:
                raise _no_maps(self.name, error) from error
            self.fixed_size = own_size[0], own_size[1]
        if any(m.ndim != 4 for m in maps):
            raise _no_maps(self.name, f"maps of {[m.ndim for m in maps]} dimensions")
        if tuple(m.shape[1] for m in maps) != self.channels:
            self._channels_last_maps = True


def load_backbone(
    name: str = "tf_efficientnet_lite0",
    *,
    output_stride: int = 16,
    pretrained: bool = True,
    weights: str | Path | None = None,
    taps: Sequence[int] | None = None,
) -> Backbone:
    """Any timm backbone, convolutional or transformer, as a source of feature maps.

    Convolutional networks keep `output_stride` by dilation where timm can dilate them. Where it
    cannot, and for hierarchical transformers (Swin and its kin), maps coarser than
    `output_stride` are interpolated bilinearly to it. Plain transformers (ViT, DeiT, DINOv2)
    give their patch grid, layer-normed and interpolated to `output_stride`. A network that
    insists on one input size (BEiT, MaxViT) sees the image resized to that size.

    ImageNet weights of `tf_efficientnet_lite0`, `1` and `2` are installed with weakseg. Those of
    other backbones come from timm's hub, over the network, or from `weights`.

    Args:
        name: timm model name, see ``timm.list_models()``.
        output_stride: 8, 16 or 32 input pixels.
        pretrained: load ImageNet weights; False for random ones.
        weights: checkpoint to load instead, ``.safetensors`` or ``torch.save``, read unpickled.
        taps: which of timm's feature levels (plain transformers: which blocks) to give.
            Default: every level of stride 8 and coarser; of a plain transformer, the blocks
            at three quarters of its depth and at its end.

    Returns:
        The backbone in eval mode.

    Raises:
        InputError: unknown name, unusable stride or tap, weights out of reach or not fitting.
    """
    if not timm.is_model(name):
        raise _unknown(name)
    if output_stride not in OUTPUT_STRIDES:
        raise InputError("unusable output stride", found=output_stride, rule="8, 16 or 32")
    net, options = _create(name, output_stride)
    plan = _Plan(net.feature_info, name, taps)
    del net
    net = _build(name, options, plan)
    if weights is not None:
        state = fit_checkpoint(name, weights, net.state_dict(), **options)
        net = _build(name, options, plan, state)
    elif pretrained:
        net = _build(name, options, plan, offline_weights(name), pretrained=True)
    return Backbone(net, name=name, output_stride=output_stride, plan=plan).eval()


def freeze_stem(backbone: Backbone) -> list[str]:
    """Freeze the stem and the first stage for fine-tuning, their batch norm statistics too.

    The first stage is the network's first level of stride 4 or more; of a plain transformer,
    its first block. Ke, Hwang, Yu (ICLR 2021, "SPML") freeze the same part of a ResNet.

    Returns:
        Names of the frozen parameters.
    """
    modules = [name for name, _ in backbone.net.named_modules()]
    levels = backbone.levels
    first = next((i for i, level in enumerate(levels) if level["reduction"] >= 4), 0)
    end = _last_of(modules, levels[first]["module"])
    if end is None:  # named otherwise in the extractor: all that stands before the next stage
        starts = [_first_of(modules, level["module"]) for level in levels[first + 1 :]]
        end = next((start for start in starts if start is not None), 0) - 1
    early = set(modules[: end + 1])
    frozen = [n for n, _ in backbone.net.named_parameters() if n.rpartition(".")[0] in early]
    for name in frozen:
        backbone.net.get_parameter(name).requires_grad_(False)
    backbone.train(backbone.training)
    return [f"net.{name}" for name in frozen]


def set_frozen_bn(module: nn.Module) -> int:
    """Stop every batch norm in `module` from learning, parameters and statistics.

    In a `Backbone` they stay so through later ``train()`` calls; on any other module call it
    again after each.

    Returns:
        How many layers were frozen.
    """
    layers = [m for m in module.modules() if _is_batch_norm(m)]
    for layer in layers:
        layer.requires_grad_(False)
        layer.eval()
    return len(layers)


class _Plan:
    """Which feature levels of a network are tapped, and what they are."""

    def __init__(self, info: Any, name: str, taps: Sequence[int] | None) -> None:
        # timm keeps a list in its models and an object with that list in its extractors.
        levels = list(getattr(info, "info", info))
        self.levels = levels
        reductions = [int(level["reduction"]) for level in levels]
        self.plain = len(levels) > 1 and len(set(reductions)) == 1
        if taps is None:
            count = len(levels)
            if self.plain:
                taps = [count * 3 // 4 - 1, count - 1]
            else:
                taps = [i for i, r in enumerate(reductions) if r >= 8] or [count - 1]
        if not taps or any(not -len(levels) <= i < len(levels) for i in taps):
            raise InputError(
                f"unusable taps for backbone {name}",
                found=list(taps),
                rule=f"indices 0 to {len(levels) - 1}, of strides {reductions}",
            )
        self.taps = tuple(sorted({i % len(levels) for i in taps}))
        self.reductions = tuple(reductions[i] for i in self.taps)
        self.channels = tuple(int(levels[i]["num_chs"]) for i in self.taps)


class _Blocks(nn.Module):
    """Some blocks of a plain transformer as layer-normed maps (timm's wrapper leaves the norm)."""

    def __init__(self, model: Any, taps: Sequence[int]) -> None:
        super().__init__()
        self.pretrained_cfg = model.pretrained_cfg
        self.model: Any = model
        self.taps = list(model.prune_intermediate_layers(list(taps), prune_norm=False))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model.forward_intermediates(
            images, indices=self.taps, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps


def _create(name: str, output_stride: int) -> tuple[Any, dict[str, Any]]:
    """An untrained extractor of all levels, and the options that this architecture takes."""
    error: Exception | None = None
    for options in ({"output_stride": output_stride}, {"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(name, features_only=True, **options), options
        except (TypeError, AssertionError, NotImplementedError, RuntimeError, ValueError) as e:
            error = e
    raise _no_maps(name, error) from error


def _build(
    name: str,
    options: dict[str, Any],
    plan: _Plan,
    state: dict[str, Tensor] | None = None,
    *,
    pretrained: bool = False,
) -> Any:
    """The extractor of the planned levels, with the weights in `state` or from timm's hub."""
    options = dict(options)
    if state is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": state}
        pretrained = True
    if not plan.plain:
        options |= {"features_only": True, "out_indices": plan.taps}
    try:
        with _quiet():
            net = timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, ValueError) as error:
        if state is not None or not pretrained:
            raise
        raise InputError(
            f"ImageNet weights of backbone {name} are out of reach",
            found=str(error) or type(error).__name__,
            rule=f"access to timm's hub, a checkpoint of your own (--backbone-weights FILE), or "
            f"a backbone whose weights are installed ({', '.join(OFFLINE_WEIGHTS)})",
        ) from error
    return _Blocks(net, plan.taps) if plan.plain else net


def _cells(size: int, stride: int) -> int:
    """ceil(size / stride), in integers: tracing follows these where it would freeze a float."""
    return (size + stride - 1) // stride


def _to_grid(x: Tensor, image: Sequence[int], native: int, stride: int) -> Tensor:
    """A map of native stride `native` of an image of size `image`, resampled to `stride`."""
    whole = image[0] // native, image[1] // native
    if tuple(x.shape[-2:]) != whole:  # a network that does not pad its convolutions
        x = F.interpolate(x, whole, mode="bilinear", align_corners=False)
    if native == stride:
        return x
    # The factor, not the size, is what aligns the grids: 14 does not divide into 16.
    return F.interpolate(x, scale_factor=native / stride, mode="bilinear", align_corners=False)


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _belongs(name: str, module: str) -> bool:
    """Whether module `name` of an extractor lies in `module` of timm's own naming."""
    dotted = name.removeprefix("model.").replace("_", ".")
    return f"{dotted}.".startswith(f"{module.replace('_', '.')}.")


def _last_of(names: Sequence[str], module: str) -> int | None:
    return max((i for i, name in enumerate(names) if _belongs(name, module)), default=None)


def _first_of(names: Sequence[str], module: str) -> int | None:
    return min((i for i, name in enumerate(names) if _belongs(name, module)), default=None)


def _unknown(name: str) -> InputError:
    close = difflib.get_close_matches(name, timm.list_models(), n=6, cutoff=0.5)
    rule = f"one of {', '.join(close)}" if close else "a name from timm.list_models()"
    return InputError("unknown backbone", found=name, rule=rule)


def _no_maps(name: str, reason: object) -> InputError:
    return InputError(
        f"backbone {name} gives no feature maps",
        found=str(reason),
        rule="an image network such as tf_efficientnet_lite0, resnet50 or vit_small_patch14_dinov2",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep timm from warning that an extractor drops the classifier's tensors."""
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
