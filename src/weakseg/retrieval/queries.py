"""What is looked for: a segment, or the pixels of a box or a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from weakseg.errors import InputError
from weakseg.retrieval.scene import Scene, mean_embedding
from weakseg.retrieval.segments import ImageSegments, grouped
from weakseg.segmenter import Segmenter
from weakseg.training.grid_maps import nearest


@dataclass(frozen=True, eq=False)
class Query:
    """A vector to look for, and where in its photograph it comes from.

    Attributes:
        vector: (D,) or, with its scene, (2 D,) float32, unit length.
        inside: (H, W) bool, the pixels it stands for.
        text: what was asked for, in words.
    """

    vector: NDArray[np.float32]
    inside: NDArray[np.bool_]
    text: str


class QueryImage:
    """A photograph to ask from.

    Args:
        model: embeds it.
        image: (H, W, 3) uint8 RGB.
        scene: how the index counts scenes (`Index.scene`).
    """

    def __init__(
        self, model: Segmenter, image: NDArray[np.uint8], scene: Scene | None = None
    ) -> None:
        self.size = image.shape[0], image.shape[1]
        with torch.inference_mode():
            self.embeddings = model.embed(model.features(image))
            found = grouped(self.embeddings)
        self.index = found.index[0].cpu().numpy()
        self.prototypes = found.prototypes.float().cpu()
        self.mean, self.scene = mean_embedding(self.embeddings).cpu(), scene

    def at(self, x: float, y: float) -> Query:
        """The segment at a pixel position.

        Raises:
            InputError: it lies outside the photograph.
        """
        segment = segment_at(self.index, self.size, x, y)
        return self._whole(segment, f"the segment at ({x:g}, {y:g})")

    def segment(self, number: int) -> Query:
        """A segment by its number.

        Raises:
            InputError: there is none.
        """
        if not 0 <= number < len(self.prototypes):
            rule = f"0..{len(self.prototypes) - 1}"
            raise InputError("no such segment", found=number, rule=rule)
        return self._whole(number, f"segment {number}")

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Query:
        """The pixels in a box, x1 and y1 exclusive.

        Raises:
            InputError: no box, or one outside the photograph.
        """
        inside = np.zeros(self.size, bool)
        corners = [max(0, int(np.ceil(v))) for v in (x0, y0, x1, y1)]
        inside[corners[1] : corners[3], corners[0] : corners[2]] = True
        if not inside.any():
            height, width = self.size
            rule = f"x0 < x1, y0 < y1, within {width} x {height} pixels"
            raise InputError("no box", found=[x0, y0, x1, y1], rule=rule)
        return self.mask(inside, f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g}")

    def mask(self, inside: NDArray[np.bool_], text: str = "the mask") -> Query:
        """The pixels of a mask (H, W).

        Raises:
            InputError: a mask of another size, or an empty one.
        """
        if inside.shape != self.size:
            height, width = self.size
            found = f"{inside.shape[1]} x {inside.shape[0]}"
            raise InputError("mask of another size", found=found, rule=f"{width} x {height}")
        if not inside.any():
            raise InputError("empty mask", rule="pixels that are not 0")
        cells = torch.from_numpy(cell_shares(inside, self.index.shape))
        rows = self.embeddings.float().cpu().flatten(1) * cells.flatten()
        return self._query(normalize(rows.sum(1), dim=0), inside, text)

    def _whole(self, number: int, text: str) -> Query:
        inside = nearest(self.index, self.size) == number
        return self._query(self.prototypes[number], inside, text)

    def _query(self, prototype: Tensor, inside: NDArray[np.bool_], text: str) -> Query:
        if self.scene is not None:
            prototype = self.scene.beside(prototype[None], self.mean)[0]
        return Query(prototype.numpy(), inside, text)


def indexed_query(image: ImageSegments, number: int, text: str) -> Query:
    """A segment of an image of the index.

    Raises:
        InputError: the image has no segment of that number.
    """
    found = np.flatnonzero(image.segment == number)
    if not len(found):
        rule = f"0..{image.segment.max()}" if len(image) else "an image with segments"
        raise InputError("no such segment", found=f"{number} in {image.name}", rule=rule)
    inside = nearest(image.index, (image.height, image.width)) == number
    return Query(image.vectors[found[0]], inside, text)


def segment_at(index: NDArray[np.integer], size: tuple[int, int], x: float, y: float) -> int:
    """The segment at pixel (x, y) of a photograph of `size` = (H, W), from a coarser map.

    Raises:
        InputError: the position lies outside.
    """
    height, width = size
    column, row = round(x), round(y)
    if not (0 <= column < width and 0 <= row < height):
        rule = f"0 <= x < {width}, 0 <= y < {height}"
        raise InputError("a position outside the photograph", found=[x, y], rule=rule)
    i = int((row + 0.5) * index.shape[0] / height)
    j = int((column + 0.5) * index.shape[1] / width)
    return int(index[i, j])


def cell_shares(inside: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.float32]:
    """Pixels of a mask (H, W) in each cell of a grid (h, w)."""
    rows, columns = (
        ((np.arange(n) + 0.5) * cells / n).astype(np.int64)
        for n, cells in zip(inside.shape, size, strict=True)
    )
    y, x = np.nonzero(inside)
    cells = np.bincount(rows[y] * size[1] + columns[x], minlength=size[0] * size[1])
    return cells.reshape(size).astype(np.float32)
