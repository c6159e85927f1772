"""Segments out of thin air: what an image holds follows from its name and version alone."""

import zlib

import numpy as np

from weakseg.retrieval.segments import ImageSegments

CLASSES = ("sky", "horse", "fence")


def made(name, version=0, count=6, dim=8, spread=1.0, file=""):
    """The segments of an image; some labelled, none in the first image called `bare...`."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), version])
    vectors = rng.normal(size=(count, dim)) * spread + np.eye(dim)[rng.integers(0, dim, count)]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    names = np.array([*CLASSES, None], object)
    number = np.arange(count, dtype=np.int32)
    corner = np.stack([number * 4, number * 0], 1)
    return ImageSegments(
        name=name,
        file=file,
        width=4 * count,
        height=9,
        stamp=f"version {version}",
        tags=CLASSES[1 : 1 + version % 3],
        index=np.tile(number.astype(np.uint16), (3, 1)),
        segment=number,
        vectors=vectors,
        boxes=np.hstack([corner, corner + np.array([4, 9])]).astype(np.int32),
        areas=np.full(count, 36),
        predicted=names[rng.integers(0, 3, count)],
        weak=names[np.full(count, 3) if name.startswith("bare") else rng.integers(0, 4, count)],
    )


def same(a, b):
    """Whether two images' segments are equal in everything."""
    return all(
        np.array_equal(getattr(a, field), getattr(b, field))
        if isinstance(getattr(a, field), np.ndarray)
        else getattr(a, field) == getattr(b, field)
        for field in vars(a)
    )
