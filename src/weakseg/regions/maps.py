"""Photograph in, regions out: the calls that the rest of the package and its users make."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from skimage.segmentation import slic

from weakseg.errors import InputError
from weakseg.files import atomic_path, content_hash
from weakseg.images import as_rgb
from weakseg.regions.gradient import lab_colours, lab_gradient
from weakseg.regions.ultrametric import Hierarchy, build_hierarchy

Contours = Literal["learned", "gradient"]
Method = Literal["learned", "gradient", "slic", "none"]

MAX_PIXELS = 1_500_000
"""Larger images are shrunk to this many pixels before their contours are found."""

MIN_AREA = 20
"""Smallest base region, in pixels of the (shrunk) image."""

GRADIENT_IN_CONTOURS = 0.3
GRADIENT_IN_RIDGES = 0.7
"""Share of the gradient in what is otherwise learned: in the strength of boundaries, and in the
ridges along which they may run. The network is silent inside things, where an over-segmentation has
to divide as well, and its contours are wider than edges are."""

REGIONS = 200
"""Regions asked of a photograph when nothing else is said."""

VERSION = 3
"""Part of every cache key: raised whenever the regions of an unchanged image change."""


def hierarchy(
    image: NDArray[Any],
    *,
    contours: Contours = "learned",
    max_pixels: int = MAX_PIXELS,
    min_area: int = MIN_AREA,
) -> Hierarchy:
    """Nested segmentations of an image: contours, watershed, ultrametric contour map.

    Args:
        image: (H, W, 3) uint8 RGB, or whatever else `weakseg.images.as_rgb` takes: grey, alpha
            (dropped), 16 bits and floats (stretched to 8 bits).
        contours: Where contour strength comes from: "learned", our network with three tenths of the
            gradient, or "gradient", the colour and brightness gradient that needs no weights.
        max_pixels: An image with more pixels is shrunk to this many, and the regions are scaled
            back to its full size; this bounds time and memory.
        min_area: Smallest base region in pixels, of the shrunk image where it is shrunk.

    Returns:
        The hierarchy, at the image's full size.

    Raises:
        InputError: If the array is no image, or the network's weights are missing.
    """
    picture = as_rgb(image)
    height, width = picture.shape[:2]
    small = _shrink(picture, max_pixels)
    result = _build(small, contours, min_area)
    if small.shape == picture.shape:
        return result
    return replace(
        result,
        base=_nearest(result.base, height, width),
        contours=_nearest(result.contours, height, width),
    )


def region_map(
    image: NDArray[Any], *, method: Method = "gradient", count: int = REGIONS
) -> NDArray[np.int32]:
    """The over-segmentation that training uses.

    Args:
        image: As for `hierarchy`.
        method: "learned" or "gradient": a cut of that hierarchy; "slic": superpixels of
            scikit-image; "none": the whole image is one region.
        count: How many regions at most ("slic": about).

    Returns:
        (H, W) int32, numbered from 0 without gaps.

    Raises:
        InputError: If the array is no image.
        ValueError: If count is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}, it must be 1 or more")
    picture = as_rgb(image)
    if method == "none":
        return np.zeros(picture.shape[:2], np.int32)
    if method == "slic":
        return slic(picture, n_segments=count, start_label=0).astype(np.int32)  # type: ignore[no-any-return]
    return hierarchy(picture, contours=method).cut_to(count)


def region_map_cached(
    image: NDArray[Any], cache: Path, *, method: Method = "gradient", count: int = REGIONS
) -> tuple[NDArray[np.int32], Path]:
    """`region_map`, kept on disk under the content of the image and the settings.

    Args:
        image: As for `hierarchy`.
        cache: Folder of the cache; created when missing. One small file an image.
        method: As for `region_map`.
        count: As for `region_map`.

    Returns:
        (H, W) int32, numbered from 0 without gaps, and the file that keeps it.
    """
    key = content_hash(np.ascontiguousarray(image), f"{VERSION} {method} {count} {MAX_PIXELS}")
    path = cache / f"{key}.png"
    if path.exists():
        try:
            return read_region_map(path, size=(image.shape[0], image.shape[1])), path
        except InputError:
            path.unlink(missing_ok=True)  # a file damaged from outside is made anew
    regions = region_map(image, method=method, count=count)
    write_region_map(path, regions)
    return regions, path


def write_region_map(path: Path, regions: NDArray[np.int32]) -> None:
    """Write a region map as 16-bit grey PNG, whole or not at all.

    Raises:
        InputError: If there are more than 65,536 regions, or the file cannot be written.
    """
    if regions.max(initial=0) > np.iinfo(np.uint16).max:
        raise InputError(
            "too many regions for a 16-bit PNG",
            file=path,
            found=int(regions.max()) + 1,
            rule="at most 65,536 regions",
        )
    with atomic_path(path) as temporary:
        Image.fromarray(regions.astype(np.uint16)).save(temporary, format="PNG")


def read_region_map(path: Path, *, size: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """Read a region map that any tool wrote.

    Args:
        path: An 8- or 16-bit grey or palette PNG, an `.npy`, or an `.npz` with one array; one
            integer a pixel, equal where two pixels are of the same region.
        size: (H, W) that the map must have, the size of its image as displayed.

    Returns:
        (H, W) int32, renumbered from 0 without gaps.

    Raises:
        InputError: If the file cannot be read, is no integer map, or has another size.
    """
    regions = _read_array(Path(path))
    if regions.ndim != 2 or regions.size == 0 or regions.dtype.kind not in "iub":
        raise InputError(
            "not a region map",
            file=path,
            found=f"array of shape {regions.shape}, dtype {regions.dtype}",
            rule="one integer a pixel, shape (H, W)",
        )
    if size is not None and regions.shape != tuple(size):
        raise InputError(
            "region map of another size than its image",
            file=path,
            found=f"{regions.shape[1]} x {regions.shape[0]} pixels",
            rule=f"{size[1]} x {size[0]} pixels",
        )
    numbers = np.unique(regions, return_inverse=True)[1]
    return numbers.reshape(regions.shape).astype(np.int32)


def _build(image: NDArray[np.uint8], contours: Contours, min_area: int) -> Hierarchy:
    lab = lab_colours(image)
    gradient = lab_gradient(lab)
    if contours == "gradient":
        return build_hierarchy(gradient, ridges=gradient, lab=lab, min_area=min_area)
    from weakseg.regions.network import learned_contours  # torch is slow to import

    learned = learned_contours(image)
    strength, ridges = (
        (1 - share) * learned + share * gradient
        for share in (GRADIENT_IN_CONTOURS, GRADIENT_IN_RIDGES)
    )
    return build_hierarchy(strength, ridges=ridges, lab=lab, min_area=min_area)


def _shrink(image: NDArray[np.uint8], max_pixels: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if height * width <= max_pixels:
        return image
    factor = (max_pixels / (height * width)) ** 0.5
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _nearest(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    rows = (np.arange(height) * 2 + 1) * values.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * values.shape[1] // (2 * width)
    return np.asarray(values[rows[:, None], columns])


def _read_array(path: Path) -> NDArray[Any]:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if len(archive.files) != 1:
                    raise InputError(
                        "not a region map",
                        file=path,
                        found=f"{len(archive.files)} arrays",
                        rule="an archive with one array",
                    )
                return np.asarray(archive[archive.files[0]])
        with Image.open(path) as picture:
            return np.asarray(picture)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise InputError(
            "region map cannot be read", file=path, found=str(error), rule="a PNG, .npy or .npz"
        ) from error
