"""Pictures of labels, masks, regions and embeddings, drawn over photographs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from weakseg.annotation import Annotation, Number
from weakseg.dataset import DatasetInfo
from weakseg.images import palette, read_mask
from weakseg.training.grid_maps import nearest

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB."""

NEUTRAL = 0.45
"""Share of a picture's own blend that black classes get: they dim the photograph, not hide it."""


def class_colours(info: DatasetInfo) -> Picture:
    """(256, 3) colours of mask values: classes as in `palette`, anything else light grey."""
    colours = palette(256)
    colours[len(info.classes) :] = 225
    return colours


def shrink(image: NDArray[Any], side: int | None) -> NDArray[Any]:
    """A photograph (H, W, 3) or map (H, W) with at most `side` pixels on its longer side.

    Photographs are averaged; of maps the nearest value is taken.
    """
    height, width = image.shape[:2]
    if side is None or max(height, width) <= side:
        return image
    factor = side / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if image.ndim == 2:
        return nearest(image, size)
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX))


def data_uri(picture: Picture, quality: int = 82) -> str:
    """A picture as JPEG within a page: a `data:` address."""
    buffer = io.BytesIO()
    # Full colour resolution: class boundaries would bleed otherwise.
    Image.fromarray(np.ascontiguousarray(picture)).save(
        buffer, "JPEG", quality=quality, subsampling=0, optimize=True
    )
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def overlay(
    image: Picture, mask: NDArray[np.integer], colours: Picture, alpha: float = 0.55
) -> Picture:
    """A mask drawn over its photograph, class boundaries at full strength.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) of indices into `colours`.
        colours: (256, 3) uint8 RGB; what is black (background) only dims the photograph.
        alpha: share of the colour in the blend, 0..1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: photograph and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image is {image.shape[:2]}, mask {mask.shape}: they must be equal")
    table = colours.astype(np.float32)
    black = colours.max(axis=1) == 0
    shares = np.where(black, alpha * NEUTRAL, alpha).astype(np.float32)
    share = shares[mask]
    edge = boundaries(mask) & ~black[mask]
    share[edge] = max(alpha, 0.9)
    blend = image * (1 - share[..., None]) + table[mask] * share[..., None]
    return blend.round().astype(np.uint8)  # type: ignore[no-any-return]


def boundaries(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(H, W), True where the value differs from the pixel's right or lower neighbour."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def draw_seeds(image: Picture, seeds: NDArray[np.integer], info: DatasetInfo) -> Picture:
    """A seed map (H, W) over its photograph, which is paled where it is unlabelled."""
    share = np.full(256, 0.85, np.float32)
    share[info.unlabelled] = 0
    share[info.ignore] = 0.7
    colours = class_colours(info).astype(np.float32)
    colours[info.ignore] = 150
    part = share[seeds][..., None]
    pale = image * 0.45 + 255 * 0.55
    return (pale * (1 - part) + colours[seeds] * part).round().astype(np.uint8)  # type: ignore[no-any-return]


def draw_boundaries(image: Picture, labels: NDArray[np.integer], alpha: float = 1) -> Picture:
    """A photograph with the boundaries of regions (H, W) on it in white, `alpha` of it."""
    picture = image.copy()
    edge = boundaries(labels)
    picture[edge] = (image[edge] * (1 - alpha) + 255 * alpha).round().astype(np.uint8)
    return picture


def draw_outline(
    image: Picture, inside: NDArray[np.bool_], colour: tuple[int, int, int] = (255, 221, 0)
) -> Picture:
    """A photograph with the outline of a part (H, W) of it; the rest is dimmed a little."""
    picture = image.copy()
    picture[~inside] = (picture[~inside] * 0.72).astype(np.uint8)
    near = binary_dilation(inside, iterations=1)
    picture[binary_dilation(inside, iterations=3) & ~inside] = (20, 20, 20)
    picture[binary_dilation(near, iterations=1) & ~inside] = colour
    return picture


def mosaic(image: Picture, labels: NDArray[np.integer]) -> Picture:
    """A photograph whose segments (H, W) each have their mean colour; negative ones are grey."""
    inside = labels >= 0
    picture = np.full_like(image, 225)
    if not inside.any():
        return picture
    index = labels[inside]
    counts = np.bincount(index).clip(min=1)
    means = [np.bincount(index, image[..., c][inside]) / counts for c in range(3)]
    picture[inside] = np.stack(means, 1).round().astype(np.uint8)[index]
    return picture


def draw_annotation(
    image: Picture, annotation: Annotation, info: DatasetInfo, *, side: int | None = None
) -> Picture:
    """A photograph with its labels on it, each in its class's colour.

    Strokes, points and boxes are drawn where they lie, a full mask as its outline, tags as a
    row of chips, areas to ignore as light grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        annotation: labels, in pixels of `image`.
        info: classes.
        side: shrink the result to this many pixels on its longer side; lines stay readable.

    Returns:
        (h, w, 3) uint8.

    Raises:
        InputError: a class that is not in `info`, or an unreadable mask file.
    """
    return _Drawing(image, info, side).draw(annotation)


class _Drawing:
    """A photograph that labels are drawn on; `factor` brings their pixels to its own."""

    def __init__(self, image: Picture, info: DatasetInfo, side: int | None) -> None:
        small = shrink(image, side)
        self.info = info
        self.factor = small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]
        self.picture = Image.fromarray(small)
        self.canvas = ImageDraw.Draw(self.picture)
        self.unit = max(1.0, max(small.shape[:2]) / 300)
        self.font = ImageFont.load_default(max(9, round(10 * self.unit)))
        self.colours = [tuple(int(v) for v in c) for c in palette(len(info.classes))]

    def draw(self, annotation: Annotation) -> Picture:
        for area in annotation.ignore:
            corners = area.xy or _box_corners(area.xyxy or (0, 0, 0, 0))
            self.canvas.polygon(self._centres(corners), fill=(225, 225, 225))
        if annotation.mask is not None:
            self._outline(annotation.mask)
        for box in annotation.boxes:
            self._box(box.xyxy, box.label)
        for scribble in annotation.scribbles:
            self._stroke(scribble.xy, self._colour(scribble.label))
        for point in annotation.points:
            self._point(point.xy, self._colour(point.label))
        self._chips(annotation.tags)
        return np.array(self.picture)

    def _colour(self, label: str) -> tuple[int, ...]:
        return self.colours[self.info.index(label)]

    def _centres(self, positions: Sequence[tuple[Number, Number]]) -> list[tuple[float, float]]:
        """Where the centres of these pixels lie, in coordinates of the canvas."""
        fx, fy = self.factor
        return [((x + 0.5) * fx - 0.5, (y + 0.5) * fy - 0.5) for x, y in positions]

    def _outline(self, mask: Any) -> None:
        values = read_mask(mask) if not isinstance(mask, np.ndarray) else mask
        small = nearest(values, (self.picture.height, self.picture.width)).astype(np.uint8)
        drawn = overlay(np.asarray(self.picture), small, class_colours(self.info), 0.25)
        self.picture = Image.fromarray(drawn)
        self.canvas = ImageDraw.Draw(self.picture)

    def _box(self, xyxy: tuple[Number, Number, Number, Number], label: str) -> None:
        colour, (fx, fy) = self._colour(label), self.factor
        # Half-open: x1 and y1 are the first pixels outside.
        corners = (xyxy[0] * fx, xyxy[1] * fy, xyxy[2] * fx - 1, xyxy[3] * fy - 1)
        corners = (*corners[:2], max(corners[0], corners[2]), max(corners[1], corners[3]))
        width = round(2 * self.unit)
        self.canvas.rectangle(corners, outline=(255, 255, 255), width=width + 2)
        inner = (corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1)
        if inner[2] > inner[0] and inner[3] > inner[1]:
            self.canvas.rectangle(inner, outline=colour, width=width)
        self._chip((corners[0], corners[1]), label)

    def _stroke(self, xy: Sequence[tuple[Number, Number]], colour: tuple[int, ...]) -> None:
        line = self._centres(xy)
        for width, ink in ((5.5, (255, 255, 255)), (3.5, colour)):
            size = max(2, round(width * self.unit))
            self.canvas.line(line, fill=ink, width=size, joint="curve")
            for end in (line[0], line[-1]):
                self._disc(end, size / 2, ink)

    def _point(self, xy: tuple[Number, Number], colour: tuple[int, ...]) -> None:
        (centre,) = self._centres([xy])
        self._disc(centre, 5.5 * self.unit, (255, 255, 255))
        self._disc(centre, 4 * self.unit, colour)

    def _disc(self, centre: tuple[float, float], radius: float, ink: tuple[int, ...]) -> None:
        x, y = centre
        self.canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)

    def _chips(self, tags: Sequence[str]) -> None:
        gap = 3 * self.unit
        x = y = gap
        for tag in tags:
            width, height = self._chip_size(tag)
            if x > gap and x + width > self.picture.width - gap:
                x, y = gap, y + height + gap
            self._chip((x, y), tag)
            x += width + gap

    def _chip_size(self, label: str) -> tuple[float, float]:
        size = self.font.size  # type: ignore[union-attr]
        return self.font.getlength(label) + size * 0.8, size * 1.45

    def _chip(self, xy: tuple[float, float], label: str) -> None:
        width, height = self._chip_size(label)
        x = max(0.0, min(xy[0], self.picture.width - width - 1))
        y = max(0.0, min(xy[1], self.picture.height - height - 1))
        colour = self._colour(label)
        box = (x, y, x + width, y + height)
        self.canvas.rounded_rectangle(box, height / 4, fill=colour, outline=(255, 255, 255))
        middle = x + width / 2, y + height / 2
        self.canvas.text(middle, label, fill=ink_on(colour), font=self.font, anchor="mm")


def ink_on(colour: Sequence[int]) -> tuple[int, int, int]:
    """Black or white, whichever can be read on `colour`."""
    red, green, blue = colour
    return (0, 0, 0) if 0.3 * red + 0.59 * green + 0.11 * blue > 140 else (255, 255, 255)


def _box_corners(
    xyxy: tuple[Number, Number, Number, Number],
) -> tuple[tuple[Number, Number], ...]:
    x0, y0, x1, y1 = xyxy[0], xyxy[1], xyxy[2] - 1, xyxy[3] - 1
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def pca_colours(embeddings: Sequence[NDArray[np.floating]]) -> list[Picture]:
    """Embeddings as colours: their first three principal components as red, green and blue.

    The components are fitted to all maps together, so that one colour means the same vector in
    all of them.

    Args:
        embeddings: maps (D, h, w), of one D.

    Returns:
        (h, w, 3) uint8 for each; each component's 1st to 99th percentile spans 0..255.
    """
    if not embeddings:
        return []
    rows = np.concatenate([e.reshape(len(e), -1).T for e in embeddings]).astype(np.float64)
    rows -= rows.mean(0)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    axes = vectors[:, ::-1][:, :3]
    # An eigenvector's sign is arbitrary: fix it, so that one run has one picture.
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    values = rows @ axes
    low, high = np.percentile(values, [1, 99], axis=0)
    span = high - low
    flat = span < 1e-9
    scaled = np.where(flat, 0.5, (values - low) / np.where(flat, 1, span)).clip(0, 1)
    scaled = np.pad(scaled, ((0, 0), (0, 3 - scaled.shape[1])), constant_values=0.5)
    colours = (scaled * 255).round().astype(np.uint8)
    ends = np.cumsum([e.shape[1] * e.shape[2] for e in embeddings])[:-1]
    parts = np.split(colours, ends)
    return [p.reshape(*e.shape[1:], 3) for p, e in zip(parts, embeddings, strict=True)]
