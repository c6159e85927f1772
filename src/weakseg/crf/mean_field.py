"""Mean-field inference in a fully connected CRF (Kraehenbuehl and Koltun, NIPS 2011)."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.crf.gaussian import Gaussian, build_gaussian
from weakseg.crf.lattice import Lattice, build_lattice
from weakseg.errors import InputError

_FLOOR = 1e-5  # probabilities below it are raised to it, as in pydensecrf's unary_from_softmax


@torch.no_grad()
def dense_crf(
    image: NDArray[np.uint8] | Tensor,
    probabilities: NDArray[np.floating] | Tensor,
    *,
    iterations: int = 10,
    smoothness_weight: float = 3,
    smoothness_xy: float = 1,
    appearance_weight: float = 4,
    appearance_xy: float = 67,
    appearance_rgb: float = 3,
) -> Tensor:
    """Refine class probabilities so that they follow the edges of the photograph.

    A fully connected CRF with Potts labels: neighbours (`smoothness`) and pixels that are near and
    of like colour (`appearance`) prefer the same class. Solved by mean field; both kernels are
    normalised symmetrically; appearance is filtered on a permutohedral lattice, smoothness by a
    separable convolution. Labels agree with pydensecrf's on over 99% of pixels.

    Args:
        image: (H, W, 3) uint8, RGB.
        probabilities: (C, H, W) floating point in 0..1, class scores after softmax.
        iterations: mean-field steps; 0 gives the clipped, renormalised input.
        smoothness_weight: weight of the smoothness kernel, 0 leaves it out.
        smoothness_xy: its standard deviation in pixels.
        appearance_weight: weight of the appearance kernel, 0 leaves it out.
        appearance_xy: its standard deviation in pixels.
        appearance_rgb: its standard deviation in grey levels (0..255).

    Returns:
        (C, H, W) float32 marginals, summing to 1 over C, on the device of `probabilities`.

    Raises:
        InputError: shapes or types that do not fit, or probabilities that are not finite or not
            in 0..1.
    """
    image, probabilities = _as_tensor(image), _as_tensor(probabilities)
    _check(image, probabilities)
    _check_options(
        iterations=iterations,
        smoothness_weight=smoothness_weight,
        smoothness_xy=smoothness_xy,
        appearance_weight=appearance_weight,
        appearance_xy=appearance_xy,
        appearance_rgb=appearance_rgb,
    )
    classes, height, width = probabilities.shape
    unary, carried = _unary(probabilities)

    kernels: list[Gaussian | Lattice] = []
    if smoothness_weight and iterations:
        kernels.append(
            build_gaussian(height, width, smoothness_xy, smoothness_weight, unary.device)
        )
    if appearance_weight and iterations:
        positions = _appearance(image.to(unary.device), appearance_xy, appearance_rgb)
        kernels.append(build_lattice(positions).normalised(appearance_weight))

    copies = carried.bincount()
    unary += copies.log()
    marginals = _softmax(unary.clone())  # of all copies together
    for _ in range(iterations):
        marginals /= copies
        logits = unary.clone()
        for kernel in kernels:
            logits += kernel.filter(marginals)
        marginals = _softmax(logits)
    marginals /= copies
    return marginals.t().index_select(0, carried).view(classes, height, width)


def _as_tensor(array: NDArray[np.generic] | Tensor) -> Tensor:
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    if array.dtype.kind not in "buif":
        raise InputError("dense_crf: array", found=str(array.dtype), rule="numbers")
    # torch refuses negative strides and warns of arrays that are read-only, such as Pillow's.
    return torch.from_numpy(
        array if array.flags.c_contiguous and array.flags.writeable else array.copy(order="C")
    )


def _check(image: Tensor, probabilities: Tensor) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != torch.uint8:
        found = f"{tuple(image.shape)} {image.dtype}"
        raise InputError("dense_crf: image", found=found, rule="(H, W, 3) uint8")
    size = tuple(image.shape[:2])
    if probabilities.ndim != 3 or probabilities.shape[1:] != size or not len(probabilities):
        raise InputError(
            "dense_crf: probabilities do not fit the image",
            found=str(tuple(probabilities.shape)),
            rule=f"(C, {size[0]}, {size[1]}) with C >= 1",
        )
    if not probabilities.is_floating_point():
        raise InputError(
            "dense_crf: probabilities", found=str(probabilities.dtype), rule="a floating-point type"
        )
    if not probabilities.numel():
        raise InputError("dense_crf: image without pixels", found=str(size), rule="H, W >= 1")
    low, high = probabilities.min().item(), probabilities.max().item()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN, too, ends here
        raise InputError(
            "dense_crf: probabilities",
            found="NaN" if math.isnan(low) or math.isnan(high) else f"{low:g}..{high:g}",
            rule="0..1; apply a softmax over the classes first",
        )


def _check_options(**options: float) -> None:
    for name, value in options.items():
        positive = name.endswith(("_xy", "_rgb"))
        if not (value > 0 if positive else value >= 0) or not math.isfinite(value):
            rule = "a finite number over 0" if positive else "a finite number, 0 or more"
            raise InputError(f"dense_crf: {name}", found=value, rule=rule)


def _unary(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the classes, with those that are absent from the image carried once.

    Classes at the floor everywhere have exactly the same marginal; most images hold few others.

    Returns:
        unary: (H W, K) float32, raised to the floor.
        carried: (C,) int64, column of `unary` that stands for each class.
    """
    seen = probabilities.amax((1, 2)) > _FLOOR
    carried = torch.where(seen, seen.cumsum(0) - 1, seen.sum())
    unary = probabilities[seen].float().flatten(1)
    if not seen.all():
        unary = torch.cat([unary, unary.new_full((1, unary.shape[1]), _FLOOR)])
    return unary.clamp_(_FLOOR, 1).log_().t().contiguous(), carried


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis, in place where torch's own is slow."""
    if logits.shape[-1] >= 16:  # torch vectorises along the axis, and crawls over a short one
        return logits.softmax(-1)
    logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    return logits.div_(logits.sum(-1, keepdim=True))


def _appearance(image: Tensor, std_xy: float, std_rgb: float) -> Tensor:
    """Position and colour of each pixel in standard deviations, (5, H W) float32."""
    height, width = image.shape[:2]
    y = torch.arange(height, device=image.device, dtype=torch.float32)[:, None] / std_xy
    x = torch.arange(width, device=image.device, dtype=torch.float32)[None, :] / std_xy
    colour = image.permute(2, 0, 1).float() / std_rgb
    positions = torch.stack([x.expand(height, width), y.expand(height, width), *colour])
    return positions.view(5, -1)
