"""`weakseg regions`: the low-level regions of photographs, usable alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from weakseg.errors import InputError
from weakseg.files import atomic_path
from weakseg.images import find_images, read_image
from weakseg.regions import Contours, hierarchy, write_region_map

YELLOW = (255, 220, 0)
PICTURES = ("contours", "ultrametric", "overlays")
"""Subfolders of the output, one a kind of picture."""


def regions(
    images: Path,
    out: Path,
    contours: Contours = "learned",
    count: int = 200,
    threshold: float | None = None,
    pictures: bool = True,
) -> int:
    """Cut photographs into low-level regions along their contours.

    Writes OUT/NAME.png, the region map (16-bit PNG, one number a region), and in subfolders
    contours/ the contour strength (8-bit, 255 = 1), ultrametric/ the ultrametric map (8-bit: the
    threshold at which a boundary disappears) and overlays/ the photograph with the region
    boundaries drawn on it. Subfolders of IMAGES are mirrored. An image that cannot be read is
    listed, and the rest goes on.

    Args:
        images: A folder (searched with its subfolders), a file, or a glob pattern.
        out: Folder to write to; made if missing.
        contours: Where contour strength comes from: "learned", the contour network that comes
            with weakseg, or "gradient", the colour and brightness gradient.
        count: How many regions an image is cut into, at most. Size counts beside strength, so
            that specks with a strong outline do not use them up.
        threshold: Cut at this contour strength instead of at a number of regions, 0 (finest) to
            1 (one region).
        pictures: Write the three kinds of picture too, not only the region maps.

    Returns:
        0 if every image was cut, 1 if the input is bad or an image failed.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        _check(count, threshold)
        names = _names(find_images(images), images)
    except InputError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    failed = 0
    progress = track(names.items(), "Regions", console=console, disable=not console.is_terminal)
    for name, path in progress:
        try:
            image = read_image(path)
            tree = hierarchy(image, contours=contours)
            found = tree.cut_to(count) if threshold is None else tree.cut(threshold)
            write_region_map(out / f"{name}.png", found)
            if pictures:
                _write_grey(out / "contours" / f"{name}.png", tree.contours)
                _write_grey(out / "ultrametric" / f"{name}.png", tree.ultrametric())
                _write(out / "overlays" / f"{name}.png", overlay(image, found))
        except InputError as error:
            failed += 1
            console.print(str(error.at(path)), style="red", markup=False)
    print(f"{len(names) - failed} of {len(names)} images cut into regions, in {out}")
    return 1 if failed else 0


def overlay(image: NDArray[np.uint8], found: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The photograph with the boundaries between regions in yellow."""
    picture = image.copy()
    picture[:, :-1][found[:, :-1] != found[:, 1:]] = YELLOW
    picture[:-1][found[:-1] != found[1:]] = YELLOW
    return picture


def _check(count: int, threshold: float | None) -> None:
    if count < 1:
        raise InputError("--count", found=count, rule="1 or more")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError("--threshold", found=threshold, rule="a number in 0..1")


def _names(paths: list[Path], source: Path) -> dict[str, Path]:
    """Output names without suffix, by subfolder of the source; two images with one are refused."""
    names: dict[str, Path] = {}
    for path in paths:
        place = path.relative_to(source) if source.is_dir() else Path(path.name)
        name = place.with_suffix("").as_posix()
        if place.parts[0] in PICTURES and len(place.parts) > 1:
            raise InputError(
                "a folder has the name of an output folder",
                file=path,
                found=place.parts[0],
                rule=f"none of {', '.join(PICTURES)}",
            )
        if name in names:
            raise InputError(
                "two images would be written to the same name",
                file=path,
                found=f"{name}.png, also from {names[name]}",
                rule="names that differ in more than their suffix",
            )
        names[name] = path
    return names


def _write_grey(path: Path, strength: NDArray[np.float32]) -> None:
    _write(path, np.rint(strength * 255).astype(np.uint8))


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
