"""Features of many images in one memory-mapped file, grown by appending.

`features.bin` holds float16 values, image after image, each (h, w, C): all of a position's
channels lie together, so that a crop or a few labelled positions read little. `index.jsonl` says
where each image lies; its line is written after the values are on disk, so what a killed run
leaves behind is whole images and a tail that the next one overwrites.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weakseg.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: two runs must not fill one cache at the same time
    fcntl = None  # type: ignore[assignment]

Features = NDArray[np.float16]
Stamp = tuple[str, int, int]
"""Of an image file, see `file_stamp`."""

_ITEM = 2  # bytes of a float16
_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class _Record:
    key: str
    offset: int  # in values
    height: int
    width: int
    stamp: Stamp | None = None


class FeatureCache(Sequence[Features]):
    """Features of a list of images: `cache[i]` is a (C, h, w) float16 view of the file.

    Images differ in size. Nothing is copied into memory before it is read.

    Attributes:
        folder: where it lies.
        channels: C.
    """

    def __init__(self, folder: str | os.PathLike[str], channels: int) -> None:
        self.folder = Path(folder)
        self.channels = channels
        self._records: dict[str, _Record] = {}
        self._stamps: dict[Stamp, str] = {}
        self._pending: list[_Record] = []
        self._end = 0
        self._rows: list[str] | None = None
        self._values: Features = np.zeros(0, np.float16)
        self._writer: io.BufferedRandom | None = None
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memmap would carry all its values to the other process.
        return self.__dict__ | {"_values": np.zeros(0, np.float16), "_writer": None}

    @property
    def data_path(self) -> Path:
        """The file of values."""
        return self.folder / "features.bin"

    @property
    def index_path(self) -> Path:
        """The file that says where each image lies."""
        return self.folder / "index.jsonl"

    @property
    def keys(self) -> list[str]:
        """Key of each image of this list."""
        return list(self._records) if self._rows is None else self._rows

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._records

    @overload
    def __getitem__(self, index: int) -> Features: ...
    @overload
    def __getitem__(self, index: slice) -> FeatureCache: ...
    def __getitem__(self, index: int | slice) -> Features | FeatureCache:
        if isinstance(index, slice):
            return self.select(self.keys[index])
        record = self._records[self.keys[index]]
        stop = record.offset + record.height * record.width * self.channels
        if stop > len(self._values):
            self._map()
        values = self._values[record.offset : stop]
        return values.reshape(record.height, record.width, self.channels).transpose(2, 0, 1)

    def size(self, index: int) -> tuple[int, int]:
        """(h, w) of an image's grid."""
        record = self._records[self.keys[index]]
        return record.height, record.width

    def crop(self, index: int, top: int, left: int, height: int, width: int) -> Features:
        """A (C, height, width) view of part of image `index`.

        Raises:
            IndexError: the part does not lie within the image.
        """
        h, w = self.size(index)
        if not (0 <= top <= top + height <= h and 0 <= left <= left + width <= w):
            raise IndexError(f"crop {top, left, height, width} of a grid of {h} x {w}")
        return self[index][:, top : top + height, left : left + width]

    def crops(
        self,
        picks: Iterable[tuple[int, int, int]],
        height: int,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Crops of several images as one batch.

        Args:
            picks: (index, top, left) of each, in grid positions; what reaches beyond the image
                (tops and lefts below 0 too) is 0.
            height: of every crop, in grid positions.
            width: likewise.
            dtype: of the batch.

        Returns:
            (B, C, height, width), channels last in memory.
        """
        picks = list(picks)
        batch = torch.zeros(len(picks), height, width, self.channels, dtype=torch.float16)
        for row, (index, top, left) in zip(batch.numpy(), picks, strict=True):
            h, w = self.size(index)
            y0, y1 = max(top, 0), min(top + height, h)
            x0, x1 = max(left, 0), min(left + width, w)
            if y0 < y1 and x0 < x1:
                part = self.crop(index, y0, x0, y1 - y0, x1 - x0).transpose(1, 2, 0)
                row[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return batch.to(dtype).permute(0, 3, 1, 2)

    def first_rows(self) -> NDArray[np.int64]:
        """(N,) the row of each image's first position in what `rows` counts."""
        return np.array([self._records[key].offset // self.channels for key in self.keys])

    def rows(self, rows: NDArray[np.integer]) -> Features:
        """Features of single positions, copied out of the file.

        Args:
            rows: (n,), `first_rows()[i] + y * w + x` for position (x, y) of image i.

        Returns:
            (n, C) float16.
        """
        if (int(rows.max(initial=-1)) + 1) * self.channels > len(self._values):
            self._map()
        whole = len(self._values) // self.channels * self.channels
        picked: Features = self._values[:whole].reshape(-1, self.channels).take(rows, axis=0)
        return picked

    def select(self, keys: Iterable[str]) -> FeatureCache:
        """The images with these keys, in this order; the file is shared.

        Raises:
            KeyError: a key is not in the cache.
        """
        view = FeatureCache.__new__(FeatureCache)
        view.__dict__.update(self.__dict__)
        view._rows = list(keys)
        view._writer = None
        for key in view._rows:
            self._records[key]
        return view

    def key_of(self, stamp: Stamp) -> str | None:
        """Key of an image file that has not changed since its features were stored."""
        return self._stamps.get(stamp)

    @contextmanager
    def writing(self) -> Iterator[FeatureCache]:
        """Open for `append`. Another process that wants to write waits until the block ends.

        What was appended is kept when the block raises.
        """
        with _cannot_write(self.data_path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("a")
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._load()  # what the other one wrote meanwhile
            with _cannot_write(self.data_path):
                self._cut_index()
                self.data_path.touch()
                self._writer = self.data_path.open("r+b")
            try:
                yield self
            finally:
                self.commit()
        finally:
            if self._writer is not None:
                with _cannot_write(self.data_path):
                    self._writer.close()
                self._writer = None
            lock.close()

    def append(self, key: str, features: Tensor, stamp: Stamp | None = None) -> None:
        """Store an image's features; valid after a crash from the next `commit` on.

        Args:
            key: names the image and everything that its features depend on.
            features: (C, h, w); stored as float16, values beyond its range clamped.
            stamp: of the image file, for `key_of`.

        Raises:
            InputError: NaN or infinite features, or the disk is full.
        """
        if self._writer is None:
            raise RuntimeError("append outside of `with cache.writing()`")
        channels, height, width = features.shape
        if channels != self.channels:
            raise ValueError(f"{channels} channels, the cache holds {self.channels}")
        if not torch.isfinite(features).all():
            raise InputError("features are not finite", found=f"image {key}", rule="finite values")
        values = features.permute(1, 2, 0).clamp(-_LIMIT, _LIMIT).to(torch.float16).contiguous()
        with _cannot_write(self.data_path):
            self._writer.seek(self._end * _ITEM)  # over what a failed write left
            self._writer.write(values.cpu().numpy().data)
        self._add(_Record(key, self._end, height, width, stamp), new=True)

    def alias(self, key: str, stamp: Stamp) -> None:
        """Note that the image file with this stamp has the features stored under `key`."""
        old = self._records[key]
        self._add(_Record(key, old.offset, old.height, old.width, stamp), new=True)

    def commit(self) -> None:
        """Bring what was appended to disk, values first, then the index."""
        if self._writer is None or not self._pending:
            return
        with _cannot_write(self.data_path):
            self._writer.flush()
            os.fsync(self._writer.fileno())
            lines = "".join(json.dumps(asdict(record)) + "\n" for record in self._pending)
            with self.index_path.open("ab") as file:
                file.write(lines.encode())
        self._pending.clear()

    def _load(self) -> None:
        """Read the index up to the first line that is not whole or whose values are missing."""
        self._records.clear()
        self._stamps.clear()
        self._end = self._index_end = 0
        if not self.index_path.exists() or not self.data_path.exists():
            return
        stored = self.data_path.stat().st_size // _ITEM
        with self.index_path.open("rb") as file:
            for line in file:
                record = _parse(line)
                if record is None or self._stop(record) > stored:
                    break
                self._add(record)
                self._index_end += len(line)

    def _cut_index(self) -> None:
        self.index_path.touch()
        os.truncate(self.index_path, self._index_end)

    def _add(self, record: _Record, *, new: bool = False) -> None:
        self._records[record.key] = record
        if record.stamp is not None:
            self._stamps[record.stamp] = record.key
        self._end = max(self._end, self._stop(record))
        if new:
            self._pending.append(record)

    def _stop(self, record: _Record) -> int:
        return record.offset + record.height * record.width * self.channels

    def _map(self) -> None:
        if self._writer is not None:
            self._writer.flush()
        # A killed run may have left half a value at the end.
        count = self.data_path.stat().st_size // _ITEM
        self._values = np.memmap(self.data_path, np.float16, mode="r", shape=(count,))


def _parse(line: bytes) -> _Record | None:
    """A line of the index, None where it was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        data: dict[str, Any] = json.loads(line)
        stamp = data.pop("stamp")
        return _Record(**data, stamp=None if stamp is None else (stamp[0], stamp[1], stamp[2]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def _cannot_write(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            "cannot be written", file=path, found=error.strerror, rule="a writable place with room"
        ) from error
