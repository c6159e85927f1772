"""Scenes composed of photographed materials, with exact ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from weakseg.demo.photographs import BACKGROUND, MATERIALS

CLASSES = ("background", *(name for name in MATERIALS if name not in BACKGROUND))
SIZE = (208, 256)
"""(height, width) of a scene in pixels."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """A composed photograph and what is in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, index into `CLASSES`.
        objects: (H, W) uint8, 0 for background, then a number for each object.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    objects: NDArray[np.uint8]


def compose_scene(
    materials: dict[str, NDArray[np.uint8]],
    labels: Sequence[int],
    rng: np.random.Generator,
    size: tuple[int, int] = SIZE,
) -> Scene:
    """Put objects on a background of one or two materials.

    Args:
        materials: as `read_materials` gives them.
        labels: class of each object, indices into `CLASSES`; the first is the lowest.
        rng: decides everything else.
        size: (height, width).
    """
    canvas = _background(materials, rng, size)
    mask = np.zeros(size, np.uint8)
    objects = np.zeros(size, np.uint8)
    for number, label in enumerate(labels, start=1):
        shape = _free_shape(objects, rng)
        if shape is None:
            continue
        _drop_shadow(canvas, shape, rng)
        window = ndimage.find_objects(shape.astype(np.uint8))[0]
        inside = shape[window]
        texture = _texture(materials, CLASSES[label], rng, inside.shape)
        texture *= _slope(rng, inside.shape, 0.3)[..., None]
        canvas[window][inside] = texture[inside]
        mask[shape] = label
        objects[shape] = number
    return Scene(_photograph(canvas, rng), mask, objects)


def _background(
    materials: dict[str, NDArray[np.uint8]], rng: np.random.Generator, size: tuple[int, int]
) -> Floats:
    names = rng.choice([*BACKGROUND], 2, replace=False, p=[*BACKGROUND.values()])
    canvas = _texture(materials, names[0], rng, size)
    if rng.random() < 0.6:
        # A wavy border between two materials, both of them background.
        waves = ndimage.gaussian_filter(rng.standard_normal(size), 20)
        height = _slope(rng, size, 1) + 0.1 * waves / waves.std()
        other = height > rng.uniform(0.9, 1.2)
        canvas[other] = _texture(materials, names[1], rng, size)[other]
    return canvas


def _texture(
    materials: dict[str, NDArray[np.uint8]],
    name: str,
    rng: np.random.Generator,
    size: tuple[int, int],
) -> Floats:
    """A piece of a material as another camera and another light would show it, (H, W, 3)."""
    pixels = _crop(materials[name], rng, size, MATERIALS[name].scale)
    grey = pixels.mean(axis=-1, keepdims=True)
    pixels = grey + (pixels - grey) * rng.uniform(0.5, 1.1)
    pixels = pixels * np.array(MATERIALS[name].tint) ** rng.uniform(0.2, 1.2)
    contrast, white_balance = np.exp(rng.uniform(-0.25, 0.25)), np.exp(rng.normal(0, 0.07, 3))
    exposure = np.exp(rng.uniform(-0.25, 0.2))
    lit: Floats = np.clip(pixels, 0, 1) ** contrast * white_balance * exposure
    return lit


def _crop(
    part: NDArray[np.uint8],
    rng: np.random.Generator,
    size: tuple[int, int],
    scales: tuple[float, float],
) -> Floats:
    """A turned and scaled piece of a photograph, mirrored where the photograph ends, 0..1."""
    scale = np.exp(rng.uniform(*np.log(scales)))
    # Square, wide enough for any turn.
    side = min(int(np.hypot(*size) / scale) + 2, *part.shape[:2])
    y, x = (rng.integers(n - side + 1) for n in part.shape[:2])
    square = Image.fromarray(part[y : y + side, x : x + side])
    width = round(side * scale)
    square = square.resize((width, width), Image.Resampling.BICUBIC)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = width / 2 - turn @ (np.array(size) / 2)
    planes = [
        ndimage.affine_transform(
            np.asarray(plane, np.float64) / 255, turn, offset, size, order=1, mode="mirror"
        )
        for plane in square.split()
    ]
    return np.stack(planes, axis=-1)


def _free_shape(objects: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """A shape that hides at most a third of what shows of any object; None if none is found."""
    areas = np.bincount(objects.ravel(), minlength=256)[1:]
    for _ in range(20):
        shape = _shape(rng, objects.shape)
        covered = np.bincount(objects[shape], minlength=256)[1:]
        if shape.sum() > 1000 and not (covered > areas / 3).any():
            return shape
    return None


def _shape(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """A blob, a polygon or an ellipse somewhere in the scene, (H, W) bool."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    centre = rng.uniform(0.08, 0.92, 2) * size
    radius = np.exp(rng.uniform(*np.log((34, 78))))
    dy, dx = y - centre[0], x - centre[1]
    turn = rng.uniform(0, np.pi)
    squeeze = rng.uniform(0.55, 1)
    u = (dx * np.cos(turn) + dy * np.sin(turn)) / squeeze**0.5
    v = (dy * np.cos(turn) - dx * np.sin(turn)) * squeeze**0.5
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    outline = np.ones(size)
    kind = rng.choice(["blob", "polygon", "ellipse"])
    if kind == "blob":
        for k in range(2, 7):
            outline += rng.normal(0, 0.3 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    elif kind == "polygon":
        sector = 2 * np.pi / rng.integers(3, 7)
        outline = 1.1 * np.cos(sector / 2) / np.cos(angle % sector - sector / 2)
    inside: NDArray[np.bool_] = distance < radius * outline
    return inside


def _slope(rng: np.random.Generator, size: tuple[int, int], strength: float) -> Floats:
    """A plane of mean 1 that rises by `strength` at most across the scene."""
    y, x = np.mgrid[-0.5 : 0.5 : size[0] * 1j, -0.5 : 0.5 : size[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    plane: Floats = 1 + rng.uniform(0, strength) * (x * np.cos(angle) + y * np.sin(angle))
    return plane


def _drop_shadow(canvas: Floats, shape: NDArray[np.bool_], rng: np.random.Generator) -> None:
    shift = rng.uniform(-7, 7, 2)
    shadow = ndimage.shift(shape.astype(np.float64), shift, order=1)
    shadow = ndimage.gaussian_filter(shadow, rng.uniform(1.5, 4))
    canvas *= 1 - rng.uniform(0.2, 0.6) * shadow[..., None]


def _photograph(canvas: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, a shadow across the scene, the lens's blur, the sensor's noise; uint8."""
    size = canvas.shape[0], canvas.shape[1]
    light = _slope(rng, size, 0.5)
    if rng.random() < 0.5:
        edge = (_slope(rng, size, 1.5) - rng.uniform(0.8, 1.2)) * 12
        light *= 1 - rng.uniform(0.2, 0.5) / (1 + np.exp(-edge))
    canvas = canvas * light[..., None] * np.exp(rng.normal(0, 0.04, 3))
    blur = rng.uniform(0.3, 0.9)
    canvas = ndimage.gaussian_filter(canvas, (blur, blur, 0))
    canvas = canvas + rng.normal(0, rng.uniform(0.005, 0.025), canvas.shape)
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
