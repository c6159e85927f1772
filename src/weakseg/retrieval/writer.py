"""Adding, replacing and removing the images of an index."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from weakseg.errors import InputError
from weakseg.retrieval.manifest import NAME, Manifest, ShardRecord
from weakseg.retrieval.scene import Scene
from weakseg.retrieval.segments import ImageSegments
from weakseg.retrieval.shards import FOLDER, SUFFIXES, Shard, write_shard

try:
    import fcntl
except ImportError:  # Windows: two writers must not change one index at the same time
    fcntl = None  # type: ignore[assignment]

SHARD_ROWS = 200_000
"""Segments after which a shard is written: 50 MB of 64-dimensional prototypes."""

COMMIT_EVERY = 10.0
"""Seconds of work that a killed run may lose."""

SMALL_SHARDS = 8
"""Shards of less than half of `SHARD_ROWS` that may be there before they are merged."""

LOCK = "lock"


class IndexWriter:
    """Changes an index; a context manager. Only one writer at a time.

    What was added is in the index from the next `commit` on, at the latest when the block ends,
    even by an exception. Readers go on with the state that they opened.

    Args:
        folder: of the index; made if missing.
        dim: length of the vectors.
        model: fingerprint of the model that makes them.
        run: the model's run folder.
        background: name of the background class.
        scene: how the vectors count scenes; None: not at all.

    Raises:
        InputError: something else is in the folder, another model made the index, or it is
            being written to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dim: int,
        model: str,
        run: str = "",
        background: str | None = None,
        scene: Scene | None = None,
    ) -> None:
        self.folder = folder
        self.manifest = Manifest(dim, model, run, background, scene=scene)
        self._pending: dict[str, ImageSegments] = {}
        self._removed: dict[str, set[int]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._rows = 0
        self._committed = 0.0

    def __enter__(self) -> IndexWriter:
        self._locked = locked(self.folder)
        self._locked.__enter__()
        try:
            self._open()
        except BaseException:
            self._locked.__exit__(None, None, None)
            raise
        self._committed = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.commit()
            self._collect()
        finally:
            self._locked.__exit__(None, None, None)

    def __contains__(self, name: str) -> bool:
        return name in self._pending or name in self._places

    @property
    def names(self) -> list[str]:
        """Of the images that the index will hold."""
        return [*self._places, *self._pending]

    def stamp(self, name: str) -> tuple[str, str]:
        """File and stamp of an image that the index holds."""
        if name in self._pending:
            one = self._pending[name]
            return one.file, one.stamp
        shard, place = self._places[name]
        image = self._shard(shard).images.select(["file", "stamp"]).slice(place, 1).to_pylist()[0]
        return image["file"], image["stamp"]

    def add(self, image: ImageSegments) -> None:
        """Add an image; one of the same name is replaced.

        Raises:
            InputError: no room on disk.
            ValueError: vectors of another length.
        """
        if len(image) and image.vectors.shape[1] != self.manifest.dim:
            raise ValueError(f"vectors {image.vectors.shape}, the index has {self.manifest.dim}")
        if image.name in self:
            self.remove(image.name)
        self._pending[image.name] = image
        self._rows += len(image)
        if self._rows >= SHARD_ROWS or time.monotonic() - self._committed > COMMIT_EVERY:
            self.commit()

    def remove(self, name: str) -> None:
        """Take an image out of the index.

        Raises:
            InputError: it has none of that name.
        """
        if name in self._pending:
            self._rows -= len(self._pending.pop(name))
        elif name in self._places:
            shard, place = self._places.pop(name)
            self._removed.setdefault(shard, set()).add(place)
        else:
            raise InputError("no such image in the index", file=self.folder, found=name)

    def commit(self) -> None:
        """Bring everything so far to disk: a new shard first, then the list of shards."""
        self._committed = time.monotonic()
        if not self._pending and not self._removed:
            return
        manifest = self.manifest.without(self._removed)
        if self._pending:
            images = list(self._pending.values())
            record = self._write(images)
            manifest = replace(manifest, shards=(*manifest.shards, record))
        manifest.save(self.folder)
        if self._pending:
            self._places |= {name: (record.name, i) for i, name in enumerate(self._pending)}
        self.manifest, self._removed, self._pending, self._rows = manifest, {}, {}, 0

    def update(self, manifest: Manifest) -> None:
        """Make `manifest` the state of the index."""
        manifest.save(self.folder)
        self.manifest = manifest

    def _open(self) -> None:
        wanted = self.manifest
        if not (self.folder / NAME).exists():
            strange = [p.name for p in self.folder.iterdir() if not _is_ours(p.name)]
            if strange:
                rule = "an index, or a new or empty folder"
                raise InputError("not an index", file=self.folder, found=strange[0], rule=rule)
            self.manifest.save(self.folder)
        self.manifest = Manifest.load(self.folder)
        found = self.manifest
        if found.model == wanted.model and found.scene != wanted.scene:
            asked, has = (0 if m.scene is None else m.scene.context for m in (wanted, found))
            raise InputError(
                "the index counts scenes otherwise",
                file=self.folder,
                found=f"--context {asked:g}",
                rule=f"{has:g}, or another folder for --out",
            )
        if (found.model, found.dim) != (wanted.model, wanted.dim):
            raise InputError(
                "another model made this index",
                file=self.folder,
                found=found.run or found.model,
                rule="the same run, or another folder for --out",
            )
        if wanted.run and wanted.run != found.run:
            self.update(replace(found, run=wanted.run))
        self._collect()
        self._find_places()

    def _find_places(self) -> None:
        self._places.clear()
        for record in self.manifest.shards:
            names, gone = self._shard(record.name).names, set(record.removed)
            self._places |= {n: (record.name, i) for i, n in enumerate(names) if i not in gone}

    def _write(self, images: list[ImageSegments]) -> ShardRecord:
        name = write_shard(self.folder, images, self.manifest.dim)
        return ShardRecord(name, len(images), sum(map(len, images)))

    def _shard(self, name: str) -> Shard:
        (record,) = (r for r in self.manifest.shards if r.name == name)
        return Shard(self.folder, name, record.segments, self.manifest.dim)

    def merge(self) -> None:
        """Write small shards together, and those anew of which most was removed."""
        self.commit()
        small = [r for r in self.manifest.shards if r.segments < SHARD_ROWS // 2]
        sparse = [r for r in self.manifest.shards if 2 * len(r.removed) > r.images]
        old = {r.name for r in (*(small if len(small) > SMALL_SHARDS else ()), *sparse)}
        if not old:
            return
        made: list[ShardRecord] = []
        batch: list[ImageSegments] = []
        for image in self._images_of(old):
            batch.append(image)
            if sum(map(len, batch)) >= SHARD_ROWS:
                made.append(self._write(batch))
                batch = []
        if batch:
            made.append(self._write(batch))
        kept = tuple(r for r in self.manifest.shards if r.name not in old)
        self.update(replace(self.manifest, shards=(*kept, *made)))
        self._find_places()

    def _images_of(self, names: set[str]) -> Iterator[ImageSegments]:
        for record in self.manifest.shards:
            if record.name in names:
                shard, gone = self._shard(record.name), set(record.removed)
                for place in range(record.images):
                    if place not in gone:
                        yield shard.image_segments(place)

    def _collect(self) -> None:
        """Delete what the list of shards does not name: left by a killed run, or replaced."""
        kept = {r.name + suffix for r in self.manifest.shards for suffix in SUFFIXES}
        if self.manifest.approximate is not None:
            kept.add(self.manifest.approximate.name)
        for path in _files(self.folder / FOLDER):
            if path.name not in kept:
                path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an index's lock, which dies with the process.

    Raises:
        InputError: another process holds it, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        rule = "a folder that can be written to"
        raise InputError(
            "no index can be made", file=folder, found=error.strerror, rule=rule
        ) from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                rule = "one writer at a time"
                raise InputError("the index is being written to", file=folder, rule=rule) from error
        yield
    finally:
        os.close(descriptor)


def _is_ours(name: str) -> bool:
    return name in (NAME, LOCK, FOLDER) or name.startswith(".")


def _files(folder: Path) -> Iterable[Path]:
    return list(folder.iterdir()) if folder.is_dir() else ()
