"""Photographs that are nearly the same: resized, recompressed, mirrored, or taken twice.

Candidates have like segments in like places; the photographs themselves decide.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.errors import InputError
from weakseg.images import read_image
from weakseg.retrieval.exact import exact_search
from weakseg.retrieval.index import Index
from weakseg.training.grid_maps import nearest

CELLS = 6
"""Rows and columns of the grid on which the segments of two images are compared."""

NEIGHBOURS = 5
"""Candidates for each image."""

LOOKED_AT = 20
"""Pairs of photographs that are compared for each pair that is wanted, at most."""

TINY, SAME = 24, 0.9
"""Side to which photographs are shrunk, and correlation from which they are nearly the same."""


class Pair(NamedTuple):
    """Two images, by name, and the correlation of their photographs."""

    first: str
    second: str
    correlation: float


def near_duplicates(index: Index, top: int) -> list[Pair]:
    """Pairs of nearly equal photographs, the most alike first.

    Images whose photographs cannot be read are left out.

    Args:
        index: of the images.
        top: how many pairs.
    """
    names = index.images
    if len(names) < 2:
        return []
    straight = np.stack([_descriptor(index, name) for name in names])
    mirrored = straight[:, :, ::-1]
    straight, mirrored = (d.reshape(len(names), -1) for d in (straight, mirrored))
    centre = (straight + mirrored).mean(0) / 2
    bank, turned = (_unit(d - centre) for d in (straight, mirrored))
    blocks = [(s, bank[s : s + 4096], None) for s in range(0, len(bank), 4096)]
    pairs: dict[tuple[int, int], float] = {}
    for queries in (bank, turned):
        for start in range(0, len(names), 1024):
            rows, scores = exact_search(blocks, queries[start : start + 1024], NEIGHBOURS + 1)
            for i, found, cosines in zip(range(start, len(names)), rows, scores, strict=False):
                for j, cosine in zip(found.tolist(), cosines.tolist(), strict=True):
                    if j >= 0 and j != i:
                        key = min(i, j), max(i, j)
                        pairs[key] = max(cosine, pairs.get(key, -1.0))
    likely = sorted(pairs, key=lambda pair: -pairs[pair])[: LOOKED_AT * top]
    tiny = {i: _tiny(index, names[i]) for i in {i for pair in likely for i in pair}}
    alike = [Pair(names[i], names[j], _correlation(tiny[i], tiny[j])) for i, j in likely]
    same = [pair for pair in alike if pair.correlation >= SAME]
    return sorted(same, key=lambda pair: -pair.correlation)[:top]


def _descriptor(index: Index, name: str) -> NDArray[np.float32]:
    """(rows, columns, D): the prototypes at the cells of a coarse grid."""
    image = index.image(name)
    place = np.zeros(int(image.index.max()) + 1, np.int64)
    place[image.segment] = np.arange(len(image))
    cells: NDArray[np.float32] = image.vectors[place[nearest(image.index, (CELLS, CELLS))]]
    return cells


def _tiny(index: Index, name: str) -> NDArray[np.float32] | None:
    """A photograph of 24 x 24 pixels with mean 0 and length 1, None where there is none."""
    file = index.image(name).file
    if not file:
        return None
    try:
        photograph = Image.fromarray(read_image(file))
    except InputError:
        return None
    small = np.asarray(photograph.resize((TINY, TINY), Image.Resampling.BOX), np.float32)
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)  # type: ignore[no-any-return]


def _correlation(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float:
    if a is None or b is None:
        return 0.0
    return float(max((a * b).sum(), (a[:, ::-1] * b).sum()))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(length, 1e-12), np.float32)
