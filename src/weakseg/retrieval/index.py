"""An index that is read: the segments of a collection, and search among them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.errors import InputError
from weakseg.retrieval.approximate import Approximate, available
from weakseg.retrieval.exact import BLOCK, Block, exact_search
from weakseg.retrieval.manifest import Manifest
from weakseg.retrieval.scene import Scene
from weakseg.retrieval.segments import ImageSegments
from weakseg.retrieval.shards import FOLDER, Shard


@dataclass(frozen=True)
class Hit:
    """A segment that was found.

    Attributes:
        image: name of its image.
        segment: its number there.
        similarity: cosine with the query; of prototypes and scenes where the index has both.
        box: x0, y0, x1, y1, half-open, pixels.
        area: pixels.
        predicted: class that the model sees.
        weak: class that a weak label gives, None without one.
        tags: classes of the image's weak labels, without the background.
        thumbnail: the part of the photograph that shows it, x0, y0, x1, y1.
        file: the photograph.
        row: its number in the index.
    """

    image: str
    segment: int
    similarity: float
    box: tuple[int, int, int, int]
    area: int
    predicted: str
    weak: str | None
    tags: tuple[str, ...]
    thumbnail: tuple[int, int, int, int]
    file: str
    row: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, without the row."""
        data = asdict(self)
        del data["row"]
        return data


class Index:
    """The segments of a collection of images, as they were when it was opened.

    Rows are numbered through all shards, those of removed images included.

    Attributes:
        folder: where it lies.
        manifest: what it consists of.
        shards: its parts.
        starts: first row of each shard, and the end.
    """

    def __init__(self, folder: Path, manifest: Manifest, shards: list[Shard]) -> None:
        self.folder, self.manifest, self.shards = folder, manifest, shards
        self.starts = np.concatenate([[0], np.cumsum([s.count for s in shards])]).astype(np.int64)
        self._codes: dict[str, tuple[NDArray[np.int32], list[str]]] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Index:
        """Open an index.

        Raises:
            InputError: no index there, or a damaged one.
        """
        folder = Path(folder)
        manifest = Manifest.load(folder)
        while True:
            try:
                return cls(folder, manifest, _mapped(folder, manifest))
            except InputError:
                # A writer may have merged shards since the manifest was read.
                before, manifest = manifest, Manifest.load(folder)
                if manifest == before:
                    raise

    def __len__(self) -> int:
        return int(self.live.sum())

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """(rows,) whether the row's image is still in the index."""
        live = np.ones(int(self.starts[-1]), bool)
        for shard, record, start in zip(
            self.shards, self.manifest.shards, self.starts, strict=False
        ):
            for place in record.removed:
                live[start + shard.firsts[place] : start + shard.firsts[place + 1]] = False
        return live

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """Shard and row in its images' table of every image, by name."""
        places: dict[str, tuple[int, int]] = {}
        for i, (shard, record) in enumerate(zip(self.shards, self.manifest.shards, strict=True)):
            gone = set(record.removed)
            places |= {name: (i, j) for j, name in enumerate(shard.names) if j not in gone}
        return places

    @property
    def scene(self) -> Scene | None:
        """How it counts scenes, for `QueryImage`; None: not at all."""
        return self.manifest.scene

    @property
    def images(self) -> list[str]:
        """Names of its images."""
        return list(self.places)

    @property
    def classes(self) -> list[str]:
        """Names of the classes that were predicted or labelled."""
        return sorted({*self.codes("predicted")[1], *self.codes("weak")[1]})

    def image(self, name: str) -> ImageSegments:
        """All segments of an image.

        Raises:
            InputError: the index has none of that name.
        """
        if name not in self.places:
            raise InputError("no such image in the index", file=self.folder, found=name)
        shard, place = self.places[name]
        return self.shards[shard].image_segments(place)

    def find(self, image: str) -> str | None:
        """The name of an image that is given by its name or its file; None: it is not there."""
        if image in self.places:
            return image
        path = Path(image)
        wanted = str(path.resolve()) if path.exists() else None
        for name, (shard, place) in self.places.items():
            if wanted is not None and self.shards[shard].files[place] == wanted:
                return name
        return None

    def vectors(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Prototypes of some rows, (n, D)."""
        out = np.empty((len(rows), self.manifest.dim), np.float32)
        part = np.searchsorted(self.starts, rows, side="right") - 1
        for p in np.unique(part):
            mine = part == p
            out[mine] = self.shards[p].vectors[rows[mine] - self.starts[p]]
        return out

    def codes(self, column: str) -> tuple[NDArray[np.int32], list[str]]:
        """A column of all rows as codes, -1 where there is nothing, and the words they stand for.

        Args:
            column: "image", "predicted" or "weak".
        """
        if column not in self._codes:
            words: dict[str, int] = {}
            parts = [np.zeros(0, np.int32)]
            for shard in self.shards:
                codes, names = shard.codes(column)
                table = [words.setdefault(name, len(words)) for name in names]
                parts.append(np.array([*table, -1], np.int32)[codes])
            self._codes[column] = np.concatenate(parts), list(words)
        return self._codes[column]

    def column(self, name: str) -> NDArray[Any]:
        """A column of all rows that holds numbers: "segment" or "area"."""
        parts = [shard.segments[name].to_numpy() for shard in self.shards]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def search(
        self,
        query: NDArray[np.floating],
        top: int = 20,
        *,
        label: str | None = None,
        exclude: Collection[str] = (),
        one_per_image: bool = False,
        exact: bool = False,
    ) -> list[Hit]:
        """The segments nearest to a vector.

        Args:
            query: (D,), of any length.
            top: how many.
            label: only segments of this class: that of their weak label, or else the predicted.
            exclude: names of images to leave out.
            one_per_image: of each image only the nearest segment.
            exact: do without the approximate index where there is one.

        Returns:
            `top` segments, or all if there are fewer, the nearest first.

        Raises:
            InputError: a vector of another length, or a class that does not occur.
        """
        vector = np.asarray(query, np.float32)
        if vector.shape != (self.manifest.dim,) or not np.isfinite(vector).all():
            rule = f"({self.manifest.dim},), finite"
            raise InputError("not a query", found=f"shape {vector.shape}", rule=rule)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        counts = self._counting(label, exclude)
        rows, scores = self.nearest(vector, top, counts, exact=exact)
        wanted = top
        while one_per_image:
            first = np.sort(np.unique(self.codes("image")[0][rows], return_index=True)[1])
            if len(first) >= top or len(rows) < wanted:
                rows, scores = rows[first[:top]], scores[first[:top]]
                break
            wanted *= 4
            rows, scores = self.nearest(vector, wanted, counts, exact=exact)
        return self.hits(rows, scores)

    def nearest(
        self,
        query: NDArray[np.float32],
        top: int,
        counts: NDArray[np.bool_] | None = None,
        *,
        exact: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and cosines of the nearest segments.

        Args:
            query: (D,), unit length.
            top: how many.
            counts: (rows,) which may be found; None: those that were not removed.
            exact: do without the approximate index.
        """
        if counts is None and any(record.removed for record in self.manifest.shards):
            counts = self.live
        if not exact and self._approximate is not None:
            rows, scores = self._nearest_by(self._approximate, query, top, counts)
            if len(rows) == top:
                return rows, scores
            # Few rows count: those that the lists hold are not enough.
        found, scored = exact_search(self._blocks(counts), query[None], top)
        kept = found[0] >= 0
        return found[0][kept], scored[0][kept]

    def hits(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        """What is known of some rows."""
        hits = []
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            part = int(np.searchsorted(self.starts, row, side="right")) - 1
            shard = self.shards[part]
            segment = shard.segments.slice(row - int(self.starts[part]), 1).to_pylist()[0]
            place = int(np.searchsorted(shard.firsts, row - self.starts[part], side="right")) - 1
            image = shard.images.select(["tags", "file"]).slice(place, 1).to_pylist()[0]
            hits.append(
                Hit(
                    image=segment["image"],
                    segment=segment["segment"],
                    similarity=score,
                    box=tuple(segment["box"]),
                    area=segment["area"],
                    predicted=segment["predicted"],
                    weak=segment["weak"],
                    tags=tuple(image["tags"]),
                    thumbnail=tuple(segment["thumbnail"]),
                    file=image["file"],
                    row=row,
                )
            )
        return hits

    @cached_property
    def _approximate(self) -> Approximate | None:
        record = self.manifest.approximate
        if record is None or not available():
            return None
        shards = {shard.name: shard for shard in self.shards}
        return Approximate(self.folder / FOLDER / record.name, record, shards)

    def _nearest_by(
        self,
        approximate: Approximate,
        query: NDArray[np.float32],
        top: int,
        counts: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Candidates of the approximate index, and exactly those of shards that came later."""
        count = max(approximate.record.candidates, 10 * top)
        rows, scores = approximate.search(query, count)
        rows = self._renumbered(approximate, rows)
        if counts is not None:
            rows, scores = rows[counts[rows]], scores[counts[rows]]
        later = {i for i, s in enumerate(self.shards) if s.name not in approximate.record.shards}
        if later:
            found, scored = exact_search(self._blocks(counts, later), query[None], top)
            rows = np.concatenate([rows, found[0][found[0] >= 0]])
            scores = np.concatenate([scores, scored[0][found[0] >= 0]])
        order = np.argsort(-scores, kind="stable")[:top]
        return rows[order], scores[order]

    def _renumbered(self, approximate: Approximate, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the approximate index as rows of this one."""
        first = {shard.name: start for shard, start in zip(self.shards, self.starts, strict=False)}
        shift = [first.get(name, 0) for name in approximate.record.shards] - approximate.starts[:-1]
        part = np.searchsorted(approximate.starts, rows, side="right") - 1
        renumbered: NDArray[np.int64] = rows + shift[part]
        return renumbered

    def _blocks(
        self, counts: NDArray[np.bool_] | None, only: Collection[int] | None = None
    ) -> Iterator[Block]:
        for i, (shard, first) in enumerate(zip(self.shards, self.starts.tolist(), strict=False)):
            if only is not None and i not in only:
                continue
            for start in range(0, shard.count, BLOCK):
                block = shard.vectors[start : start + BLOCK]
                at = first + start
                yield at, block, None if counts is None else counts[at : at + len(block)]

    def _counting(self, label: str | None, exclude: Collection[str]) -> NDArray[np.bool_] | None:
        """Which rows a search may find; None: all that were not removed."""
        if label is None and not exclude:
            return None
        counts = self.live.copy()
        if label is not None:
            if label not in self.classes:
                rule = f"one of {', '.join(self.classes)}"
                raise InputError("no segment of this class", found=label, rule=rule)
            weak, names = self.codes("weak")
            of_label = _equal(weak, names, label) | (
                (weak < 0) & _equal(*self.codes("predicted"), label)
            )
            counts &= of_label
        for name in exclude:
            if name in self.places:
                shard, place = self.places[name]
                first = self.starts[shard] + self.shards[shard].firsts
                counts[first[place] : first[place + 1]] = False
        return counts


def _equal(codes: NDArray[np.int32], words: list[str], word: str) -> NDArray[np.bool_]:
    return codes == words.index(word) if word in words else np.zeros(len(codes), bool)


def _mapped(folder: Path, manifest: Manifest) -> list[Shard]:
    """The shards, all files of them opened: what is missing or damaged shows now."""
    shards = [Shard(folder, r.name, r.segments, manifest.dim) for r in manifest.shards]
    for shard, record in zip(shards, manifest.shards, strict=True):
        shard.check(record.images)
    return shards
