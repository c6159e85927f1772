"""Contour strength from a small network, trained on people's segmentations (BSDS500).

The weights beside this file are ours: benchmarks/regions/train.py made them. The trunk began as
the first five stages of EfficientNet-Lite0 with ImageNet weights (Apache-2.0).
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from weakseg.errors import InputError

WEIGHTS = Path(__file__).with_name("contours.safetensors")
TRUNK = "tf_efficientnet_lite0"
WIDTHS = (16, 24, 32, 48, 64)
"""Channels of the decoder at strides 2, 4, 8, 16 and 32."""

SMOOTHING = 0.7
"""Standard deviation in pixels of the Gaussian over the network's answer."""

MARGIN = 32
"""Pixels by which an image is continued on every side, as in a mirror, for the network."""


class ContourNet(nn.Module):
    """Image to contour logits: a narrow U-shaped decoder on the trunk's maps of strides 2 to 16.

    Input (B, 3, H, W) float, RGB in -1..1, any H and W from 1; output (B, 1, H, W) logits.
    """

    trunk: Any

    def __init__(self) -> None:
        super().__init__()
        self.trunk = timm.create_model(TRUNK, features_only=True, out_indices=(0, 1, 2, 3))
        del self.trunk.blocks[5:]  # the stages of stride 32, most of the trunk's weights
        channels = (16, 24, 40, 112)
        self.scene = nn.Sequential(
            nn.Conv2d(channels[-1], WIDTHS[-1], 1, bias=False),
            nn.BatchNorm2d(WIDTHS[-1]),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            _separable(WIDTHS[-1], 5),
            _separable(WIDTHS[-1], 5),
        )
        self.sides = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, w, 1, bias=False), nn.BatchNorm2d(w))
            for c, w in zip(channels, WIDTHS, strict=False)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(WIDTHS[i + 1], WIDTHS[i], 1, bias=False) for i in range(4)
        )
        self.mix = nn.ModuleList(
            nn.Sequential(_separable(w, 3 if i < 3 else 5), _separable(w, 3))
            for i, w in enumerate(WIDTHS[:4])
        )
        # Four logits a cell of stride 2, one a pixel.
        self.logits = nn.Conv2d(WIDTHS[0], 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) contour logits of (B, 3, H, W) images."""
        return self.decode(images)[-1]

    def decode(self, images: Tensor) -> list[Tensor]:
        """The decoder's maps at strides 16, 8, 4 and 2, then the logits at full size."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
        maps = self.trunk(images)
        found = self.scene(maps[-1])
        decoded = []
        for i in (3, 2, 1, 0):
            own = self.sides[i](maps[i])
            above = F.interpolate(
                self.narrow[i](found), size=own.shape[-2:], mode="bilinear", align_corners=False
            )
            found = self.mix[i](F.relu(own + above))
            decoded.append(found)
        logits = F.pixel_shuffle(self.logits(found), 2)
        return [*decoded, logits[..., :height, :width]]


def learned_contours(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Contour strength as the network sees it: the mean of what it finds at two sizes.

    At half size it sees more of a thing and less of its texture; at full size it finds the place.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) float32 in 0..1.

    Raises:
        InputError: If the weights are missing.
    """
    pixels = torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    height, width = image.shape[:2]
    half = ((height + 1) // 2, (width + 1) // 2)
    with torch.inference_mode():
        fine = _strength(pixels)
        coarse = _strength(F.interpolate(pixels, size=half, mode="area"))
        coarse = F.interpolate(coarse, size=(height, width), mode="bilinear")
        strength = ((fine + coarse) / 2)[0, 0].numpy()
    # Without the finest wobble there are fewer basins, and boundaries run where the ridge is.
    return gaussian_filter(strength, SMOOTHING, mode="nearest")  # type: ignore[no-any-return]


def _strength(pixels: Tensor) -> Tensor:
    """(1, 1, H, W) strength of (1, 3, H, W) pixels, mirrored around them.

    Beyond the frame the layers see zeros, which looks like a contour all around.
    """
    height, width = pixels.shape[-2:]
    up, left = min(MARGIN, height), min(MARGIN, width)  # a thin image stays thin
    around = np.pad(pixels.numpy(), ((0, 0), (0, 0), (up, up), (left, left)), "symmetric")
    given = torch.from_numpy(around).contiguous(memory_format=torch.channels_last)
    logits: Tensor = _network()(given)
    return logits[..., up : up + height, left : left + width].sigmoid()


@lru_cache(maxsize=1)
def _network() -> ContourNet:
    if not WEIGHTS.exists():
        raise InputError(
            "the weights of the contour network are missing",
            file=WEIGHTS,
            rule='a whole installation of weakseg; "gradient" regions need no weights',
        )
    network = ContourNet()
    state = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    network.load_state_dict(state)
    return network.eval().to(memory_format=torch.channels_last)


def _separable(width: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, size, padding=size // 2, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
