"""Photographs and masks, always as a viewer displays them.

Sizes given as a pair are (width, height); arrays are (H, W) or (H, W, 3).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from weakseg.errors import InputError
from weakseg.files import atomic_path

MAX_PIXELS = 1_000_000_000
"""Larger images are refused: a small file that claims such a size may be an attack."""

IMAGE_SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg"),
        *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
"""What `find_images` takes for an image."""

# Pillow's own limit, 89 million pixels, is below an ordinary aerial or slide photograph. It
# warns above this number and refuses twice as much.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_ORIENTATION = 0x0112  # tags of TIFF and EXIF
_BITS_PER_SAMPLE = 0x0102
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a photograph as displayed, (H, W, 3) uint8 RGB.

    The EXIF rotation is applied. Grey images get three equal channels; palettes, CMYK and the
    like become RGB; transparency is dropped, not blended. Values of more than 8 bits are
    stretched from the image's own minimum..maximum, over all channels, to 0..255; floats within
    0..1 are multiplied by 255. Of several frames the first is read.

    Raises:
        InputError: missing, not an image, cut short, or larger than `MAX_PIXELS`.
    """
    if _is_deep_tiff(path):
        return _read_deep_tiff(path)
    with _opened(path) as image:
        # Of 16-bit colour Pillow keeps the upper eight bits.
        deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        displayed = _displayed(image)
        if image.mode.startswith(("I", "F")):
            return as_rgb(_stretch(np.asarray(displayed)))
        # A grey or palette image may carry alpha; convert() drops it.
        rgb = np.array(displayed.convert("RGB"))
        return _stretch(rgb) if deep else rgb


def read_mask(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Read a mask of class indices as displayed, (H, W) uint8.

    Args:
        path: a PNG of mode L (grey value = index) or P (palette index).
        size: (width, height) that the mask must have.

    Raises:
        InputError: missing, damaged, of another mode (an RGB mask, say) or of another size.
    """
    with _opened(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise InputError(
                "mask is not a map of class indices",
                file=path,
                found=f"mode {image.mode}",
                rule="8-bit grey (L) or indexed colour (P)",
            )
        mask = np.array(_displayed(image), dtype=np.uint8)
    found = (mask.shape[1], mask.shape[0])
    if size is not None and found != tuple(size):
        raise InputError(
            "mask of another size",
            file=path,
            found=f"{found[0]} x {found[1]}",
            rule=f"{size[0]} x {size[1]} as the image",
        )
    return mask


def write_mask(
    path: str | os.PathLike[str],
    mask: NDArray[Any],
    colours: NDArray[np.uint8] | None = None,
) -> None:
    """Write a mask as indexed PNG, whole or not at all.

    Args:
        path: the file to write.
        mask: (H, W) of integers in 0..255.
        colours: (n, 3) uint8 RGB of index 0..n-1, the rest as in `palette`; default: `palette`.

    Raises:
        InputError: `mask` has another shape or range, or the file cannot be written.
    """
    if mask.ndim != 2 or mask.size == 0 or mask.min() < 0 or mask.max() > 255:
        found = f"shape {mask.shape}" + (f", {mask.min()}..{mask.max()}" if mask.size else "")
        raise InputError("not a mask", file=path, found=found, rule="(H, W), values 0..255")
    table = palette(256)
    if colours is not None:
        table[: len(colours)] = colours
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(table.tobytes())
    with atomic_path(path, flush=False) as temporary:
        image.save(temporary, format="PNG")


def palette(n: int) -> NDArray[np.uint8]:
    """The PASCAL VOC colours of indices 0..n-1, (n, 3) uint8 RGB; 0 is black."""
    index = np.arange(n)
    colours = np.zeros((n, 3), np.uint8)
    for shift in range(8):
        for channel in range(3):
            bit = (index >> (3 * shift + channel)) & 1
            colours[:, channel] |= (bit << (7 - shift)).astype(np.uint8)
    return colours


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) of an image as displayed, from its header alone.

    Raises:
        InputError: missing, not an image, or larger than `MAX_PIXELS`.
    """
    if _is_deep_tiff(path):
        with _deep_tiff(path) as (page, orientation):
            width, height = page.imagewidth, page.imagelength
            return (height, width) if orientation >= 5 else (width, height)
    with _opened(path) as image:
        width, height = image.size
        # Pillow has already turned the size of a TIFF.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        return (height, width) if turned else (width, height)


def as_rgb(array: NDArray[Any]) -> NDArray[np.uint8]:
    """An image array as (H, W, 3) uint8 RGB.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4, alpha dropped). uint8 is taken as it
            is; floats within 0..1 are multiplied by 255; anything else is stretched from its own
            minimum..maximum to 0..255.

    Raises:
        InputError: another shape, an empty array, or no numbers.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise InputError("not an image array", found=array.shape, rule="(H, W) or (H, W, 3)")
    if array.dtype.kind not in "buif":
        raise InputError("not an image array", found=str(array.dtype), rule="numbers")
    array = array[:, :, :3]
    if array.dtype != np.uint8:
        array = _stretch(array)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def find_images(path: str | os.PathLike[str]) -> list[Path]:
    """The images that `path` names, sorted.

    Args:
        path: a folder (searched with its subfolders, by suffix, hidden files left out), a file,
            or a glob pattern.

    Raises:
        InputError: nothing there, or no image in it.
    """
    place = Path(path)
    if place.is_file():
        return [place]
    if place.is_dir():
        found = list(walk_images(place))
    else:
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
        if not matches:
            raise InputError("no such file or folder", file=place)
        found = [p for p in matches if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        rule = "files that end in " + ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError("no images found", file=place, rule=rule)
    return sorted(found)


def walk_images(folder: Path) -> Iterator[Path]:
    """The images in a folder and its subfolders, by suffix, one after the other, unsorted."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        # A link to a folder above would go round for ever.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong until it is closed becomes an `InputError`."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError("no such file", file=path, rule="a file that exists") from error
    except UnidentifiedImageError as error:
        raise InputError("not an image", file=path, rule="an image that Pillow reads") from error
    except Image.DecompressionBombError as error:
        rule = f"at most {MAX_PIXELS:,} pixels"
        raise InputError("image too large", file=path, rule=rule) from error
    except Exception as error:
        # Pillow's decoders raise many kinds of exception on a damaged file.
        rule = "a whole, undamaged image"
        raise InputError("cannot be read", file=path, found=str(error), rule=rule) from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata are no reason to refuse the picture
        return 1
    return value if value in _TRANSPOSE else 1


def _displayed(image: Image.Image) -> Image.Image:
    # Decode first: for a TIFF that applies the rotation and removes the tag.
    image.load()
    orientation = _orientation(image)
    return image if orientation == 1 else image.transpose(_TRANSPOSE[orientation])


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map the range of `values` to 0..255; floats in 0..1 are scaled by 255 instead."""
    numbers = values.astype(np.float64)
    usable = np.isfinite(numbers)
    if not usable.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(numbers[usable].min()), float(numbers[usable].max())
    if values.dtype.kind in "bf" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255 / (high - low) if high > low else 0.0
    numbers = np.where(usable, numbers, low)
    return np.rint((np.clip(numbers, low, high) - low) * scale).astype(np.uint8)


def _is_deep_tiff(path: str | os.PathLike[str]) -> bool:
    """Whether it is a TIFF that Pillow refuses, or reads wrongly, as 16-bit colour."""
    if Path(path).suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with Image.open(path) as image:
            bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
            return len(bits) > 1 and max(bits) > 8
    except UnidentifiedImageError:
        return True
    except Exception:
        return False


@contextmanager
def _deep_tiff(path: str | os.PathLike[str]) -> Iterator[tuple[Any, int]]:
    """The first page of a TIFF as tifffile sees it, and its orientation."""
    import tifffile  # comes with scikit-image

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if page.imagewidth * page.imagelength > MAX_PIXELS:
                raise Image.DecompressionBombError
            orientation = page.tags.valueof(_ORIENTATION, 1)
            yield page, orientation if orientation in _TRANSPOSE else 1
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        rule = f"at most {MAX_PIXELS:,} pixels"
        raise InputError("image too large", file=path, rule=rule) from error
    except Exception as error:
        found = str(error) or type(error).__name__
        rule = "a whole TIFF with 1, 3 or 4 channels"
        raise InputError("cannot be read", file=path, found=found, rule=rule) from error


def _read_deep_tiff(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    with _deep_tiff(path) as (page, orientation):
        array = page.asarray()
        if page.planarconfig == 2 and array.ndim == 3:  # one plane a channel
            array = np.moveaxis(array, 0, 2)
        image = Image.fromarray(as_rgb(array))
        return np.array(image if orientation == 1 else image.transpose(_TRANSPOSE[orientation]))
