"""The photographs that the demo's scenes are cut from; they come inside the scikit-image wheel.

Every photograph is cut into a `train` part and a `val` part with a gap between them, so that
scenes of one part share no pixel with scenes of the other. `docs/demo.md` lists where the
photographs come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
from numpy.typing import NDArray

from weakseg.images import read_image

SPLITS = ("train", "val")

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photograph:
    """A photograph of one material.

    Args:
        file: its name in scikit-image's folder of data.
        train: (x0, y0, x1, y1), half-open, the part for training scenes.
        val: the part for validation scenes.
        scale: smallest and largest enlargement in a scene.
        tint: (R, G, B) factors that give a grey photograph a colour.
    """

    file: str
    train: Rectangle
    val: Rectangle
    scale: tuple[float, float]
    tint: tuple[float, float, float] = (1, 1, 1)


MATERIALS = {
    "grass": Photograph(
        "grass.png", (0, 0, 248, 512), (264, 0, 512, 512), (0.5, 1.1), (0.9, 1.05, 0.65)
    ),
    "gravel": Photograph(
        "gravel.png", (0, 0, 248, 512), (264, 0, 512, 512), (0.5, 1.1), (1.05, 1.0, 0.9)
    ),
    "wood": Photograph("coffee.png", (486, 10, 600, 200), (486, 212, 600, 400), (0.8, 1.6)),
    "bricks": Photograph(
        "brick.png", (0, 0, 248, 512), (264, 0, 512, 512), (0.5, 1.0), (1.15, 0.9, 0.75)
    ),
    "cat": Photograph("chelsea.png", (20, 0, 212, 300), (224, 20, 345, 270), (1.0, 1.8)),
    "coins": Photograph("coins.png", (0, 0, 180, 303), (190, 0, 384, 303), (0.6, 1.2)),
    "galaxies": Photograph(
        "hubble_deep_field.jpg", (0, 0, 490, 872), (510, 0, 1000, 872), (0.4, 1.0)
    ),
    "retina": Photograph("retina.jpg", (220, 220, 1190, 690), (220, 720, 1190, 1190), (0.25, 0.5)),
    "tissue": Photograph("ihc.png", (0, 0, 248, 512), (264, 0, 512, 512), (0.6, 1.2)),
}

BACKGROUND = {"grass": 0.4, "gravel": 0.4, "wood": 0.2}
"""How often a material is the background; every other material is a class of its own."""


def read_materials(split: str) -> dict[str, NDArray[np.uint8]]:
    """The parts that scenes of one split may use, (h, w, 3) uint8 RGB by material.

    Args:
        split: one of `SPLITS`.

    Raises:
        InputError: scikit-image is installed without a photograph.
    """
    folder = Path(skimage.__file__).parent / "data"
    parts = {}
    for name, photograph in MATERIALS.items():
        x0, y0, x1, y1 = getattr(photograph, split)
        parts[name] = read_image(folder / photograph.file)[y0:y1, x0:x1].copy()
    return parts
