"""Contour strength from colour and brightness alone: no weights, any image."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

SCALES = (1.0, 2.0, 4.0)
"""Standard deviations, in pixels, of the Gaussians at which the gradient is taken."""

CONTRAST = 8.0
"""Gradient, in Lab units a pixel, that counts as a contour of strength 1 - 1/e."""


def gradient_contours(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Contour strength as the multi-scale gradient of an image in the Lab colour space.

    At each scale the gradient of the three channels together is the square root of the largest
    eigenvalue of their structure tensor (Di Zenzo, 1986). Coarser scales count more, by the square
    root of the scale, because smoothing spreads an edge's height over more pixels.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) float32 in 0..1.
    """
    return lab_gradient(lab_colours(image))


def lab_colours(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) float32 Lab colours of an (H, W, 3) RGB image."""
    return rgb2lab(image).astype(np.float32)  # type: ignore[no-any-return]


def lab_gradient(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """`gradient_contours` of an image that is in Lab colours already."""
    total = np.zeros(lab.shape[:2], np.float32)
    reached = 0.0
    for scale in SCALES:
        # Gaussians add in variance: blurring the last scale a little more is cheaper than anew.
        step = float(np.sqrt(scale**2 - reached**2))
        lab = gaussian_filter(lab, (step, step, 0), mode="nearest", truncate=3.0)
        reached = scale
        total += np.sqrt(scale) * _largest_gradient(lab)
    return (1.0 - np.exp(-total / (len(SCALES) * CONTRAST))).astype(np.float32)  # type: ignore[no-any-return]


def _largest_gradient(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(channels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    yy = np.einsum("hwc,hwc->hw", dy, dy)
    xx = np.einsum("hwc,hwc->hw", dx, dx)
    yx = np.einsum("hwc,hwc->hw", dy, dx)
    eigenvalue = (yy + xx + np.sqrt((yy - xx) ** 2 + 4 * yx**2)) / 2
    return np.sqrt(eigenvalue)  # type: ignore[no-any-return]
