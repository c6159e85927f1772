"""Immutable pieces of an index: the segments of some images.

`ID.npy` holds the prototypes, (n, D) float32; `ID.segments.arrow` a row for each of them;
`ID.images.arrow` a row for each image, with its map of segments. All three can be memory-mapped.
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from weakseg.errors import InputError
from weakseg.files import atomic_path
from weakseg.retrieval.segments import ImageSegments, thumbnails_of

FOLDER = "shards"
SUFFIXES = (".npy", ".segments.arrow", ".images.arrow")

_CORNERS = pa.list_(pa.int32(), 4)
_NAME = pa.dictionary(pa.int32(), pa.string())
SEGMENTS = pa.schema(
    [
        ("image", _NAME),  # its code is the row of the images' table
        ("segment", pa.int32()),
        ("box", _CORNERS),  # x0, y0, x1, y1, half-open, pixels of the photograph
        ("area", pa.int64()),
        ("predicted", _NAME),
        ("weak", _NAME),  # null: unlabelled
        ("thumbnail", _CORNERS),
    ]
)
IMAGES = pa.schema(
    [
        ("image", pa.string()),
        ("file", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("stamp", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("first", pa.int64()),  # of its rows
        ("segments", pa.int32()),
        ("rows", pa.int32()),  # of its map of segments
        ("columns", pa.int32()),
        ("map", pa.binary()),  # uint16, row by row
    ]
)


def write_shard(folder: Path, images: Sequence[ImageSegments], dim: int) -> str:
    """Write some images' segments; whole before the call returns.

    Args:
        folder: of the index.
        images: at least one, of different names.
        dim: D.

    Returns:
        The shard's name.

    Raises:
        InputError: no room, or a folder that cannot be written to.
    """
    name = secrets.token_hex(8)
    vectors = np.concatenate([one.vectors for one in images]).astype(np.float32, copy=False)
    with atomic_path(folder / FOLDER / f"{name}.npy") as temporary:
        np.save(temporary, vectors.reshape(-1, dim))
    _write_table(folder / FOLDER / f"{name}.segments.arrow", _segment_table(images))
    _write_table(folder / FOLDER / f"{name}.images.arrow", _image_table(images))
    return name


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard on disk, mapped into memory where it is read.

    Args:
        folder: of the index.
        name: the shard's.
        count: its segments.
        dim: D.
    """

    folder: Path
    name: str
    count: int
    dim: int

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(n, D) prototypes, memory-mapped."""
        path = self._path(".npy")
        try:
            mapped: NDArray[np.float32] = np.load(
                path, mmap_mode="c"
            )  # torch wants to be able to write
        except (OSError, ValueError) as error:
            raise damaged(path) from error
        if mapped.shape != (self.count, self.dim) or mapped.dtype != np.float32:
            raise damaged(path)
        return mapped

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Copy of some prototypes; unlike a memory map it leaves nothing in this process."""
        mapped = self.vectors
        offset = int(mapped.offset) + start * self.dim * 4  # type: ignore[attr-defined]
        count = (min(stop, self.count) - start) * self.dim
        return np.fromfile(self._path(".npy"), np.float32, count, offset=offset).reshape(
            -1, self.dim
        )

    def release(self) -> None:
        """Let go of the pages of `vectors` that were read: they count as this process's memory.

        What is read again comes from the system's cache.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self.vectors._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    @cached_property
    def segments(self) -> pa.Table:
        """One row for each segment, `SEGMENTS`."""
        return self._table(".segments.arrow", SEGMENTS, self.count)

    @cached_property
    def images(self) -> pa.Table:
        """One row for each image, `IMAGES`."""
        return self._table(".images.arrow", IMAGES, None)

    @cached_property
    def names(self) -> list[str]:
        """Of its images."""
        names: list[str] = self.images["image"].to_pylist()
        return names

    @cached_property
    def files(self) -> list[str]:
        """Of its images."""
        files: list[str] = self.images["file"].to_pylist()
        return files

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """First row of each image, and the end."""
        return np.append(self.images["first"].to_numpy(), self.count)

    def check(self, images: int) -> None:
        """See that the files hold together.

        Raises:
            InputError: they do not.
        """
        if self.vectors.shape != (len(self.segments), self.dim) or len(self.images) != images:
            raise damaged(self._path(""))

    def codes(self, column: str) -> tuple[NDArray[np.int32], list[str]]:
        """A dictionary column as codes (n,), -1 for null, and the words they stand for."""
        chunks = self.segments[column].chunks
        if not chunks:
            return np.zeros(0, np.int32), []
        codes = chunks[0].indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return codes, chunks[0].dictionary.to_pylist()

    def image_segments(self, place: int) -> ImageSegments:
        """All of one image, by its row in `images`."""
        image = self.images.slice(place, 1).to_pylist()[0]
        first, count = image["first"], image["segments"]
        rows = self.segments.slice(first, count)
        return ImageSegments(
            name=image["image"],
            file=image["file"],
            width=image["width"],
            height=image["height"],
            stamp=image["stamp"],
            tags=tuple(image["tags"]),
            index=map_of(image),
            segment=rows["segment"].to_numpy(),
            vectors=self.read(first, first + count),
            boxes=np.array(rows["box"].to_pylist(), np.int32).reshape(-1, 4),
            areas=rows["area"].to_numpy(),
            predicted=np.array(rows["predicted"].to_pylist(), object),
            weak=np.array(rows["weak"].to_pylist(), object),
        )

    def _path(self, suffix: str) -> Path:
        return self.folder / FOLDER / f"{self.name}{suffix}"

    def _table(self, suffix: str, schema: pa.Schema, count: int | None) -> pa.Table:
        path = self._path(suffix)
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged(path) from error
        if table.schema != schema or (count is not None and len(table) != count):
            raise damaged(path)
        return table


def map_of(image: dict[str, Any]) -> NDArray[np.uint16]:
    """The (h, w) map of segments in a row of the images' table."""
    return np.frombuffer(image["map"], np.uint16).reshape(image["rows"], image["columns"])


def damaged(path: Path) -> InputError:
    """What is said of a file that is missing or not whole."""
    return InputError("damaged index", file=path, rule="files as `weakseg index` left them")


def _segment_table(images: Sequence[ImageSegments]) -> pa.Table:
    counts = [len(one) for one in images]
    codes = np.repeat(np.arange(len(images), dtype=np.int32), counts)
    names = pa.array([one.name for one in images], pa.string())
    thumbnails = [thumbnails_of(one.boxes, one.width, one.height) for one in images]
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), names),
        pa.array(np.concatenate([one.segment for one in images]), pa.int32()),
        _corners(np.concatenate([one.boxes for one in images])),
        pa.array(np.concatenate([one.areas for one in images]), pa.int64()),
        _words(np.concatenate([one.predicted for one in images])),
        _words(np.concatenate([one.weak for one in images])),
        _corners(np.concatenate(thumbnails)),
    ]
    return pa.Table.from_arrays(columns, schema=SEGMENTS)


def _image_table(images: Sequence[ImageSegments]) -> pa.Table:
    ends = np.cumsum([len(one) for one in images])
    rows = [
        {
            "image": one.name,
            "file": one.file,
            "width": one.width,
            "height": one.height,
            "stamp": one.stamp,
            "tags": list(one.tags),
            "first": int(end) - len(one),
            "segments": len(one),
            "rows": one.index.shape[0],
            "columns": one.index.shape[1],
            "map": one.index.tobytes(),
        }
        for one, end in zip(images, ends, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES)


def _corners(values: NDArray[np.int32]) -> pa.Array:
    flat = pa.array(values.astype(np.int32).ravel(), pa.int32())
    return pa.FixedSizeListArray.from_arrays(flat, type=_CORNERS)


def _words(values: NDArray[np.object_]) -> pa.Array:
    return pa.array(values.tolist(), pa.string()).dictionary_encode().cast(_NAME)


def _write_table(path: Path, table: pa.Table) -> None:
    # One batch a file, so that a row is found without a search; no compression, so that it can
    # be mapped.
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
