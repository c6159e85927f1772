"""`index.json`: which shards an index consists of. Whatever it does not name does not count.

Shards are written first and never change; then this file is replaced in one step. So an index
that was being written to when its writer was killed is the one before or the one after.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from weakseg.errors import InputError
from weakseg.files import write_json
from weakseg.retrieval.scene import Scene

NAME = "index.json"
_FORMAT, _FIRST = 2, 1


@dataclass(frozen=True)
class ShardRecord:
    """One shard.

    Attributes:
        name: of its files.
        images: how many it holds.
        segments: how many it holds.
        removed: rows of the images' table that count no longer, ascending.
    """

    name: str
    images: int
    segments: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True)
class ApproximateRecord:
    """A faiss index over some shards, and how well it was found to do.

    Attributes:
        name: of its file.
        shards: the shards whose rows it numbers, in this order.
        counts: segments of each of them.
        lists: inverted lists that rows are sorted into.
        probes: lists looked into for a query.
        candidates: rows whose similarity is computed exactly, at least.
        recall: share of the exact 20 nearest that it found.
        sample: queries that this was measured on.
    """

    name: str
    shards: tuple[str, ...]
    counts: tuple[int, ...]
    lists: int
    probes: int
    candidates: int
    recall: float
    sample: int


@dataclass(frozen=True)
class Manifest:
    """What an index consists of.

    Attributes:
        dim: length of the vectors.
        model: fingerprint of the model that made them.
        run: the model's run folder, empty where it has none.
        background: name of the background class, None without one.
        shards: in the order in which rows are numbered.
        approximate: None while search is exact.
        scene: how scenes count; None: not at all.
    """

    dim: int
    model: str
    run: str
    background: str | None
    shards: tuple[ShardRecord, ...] = ()
    approximate: ApproximateRecord | None = None
    scene: Scene | None = None

    def save(self, folder: Path) -> None:
        """Make this the state of the index, in one step."""
        write_json(folder / NAME, {"format": _FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the state of an index.

        Raises:
            InputError: there is no index, or one of another version, or a damaged one.
        """
        path = folder / NAME
        rule = "the folder that `weakseg index --out` wrote"
        try:
            data = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError("no index", file=folder, rule=rule) from error
        except (OSError, ValueError) as error:
            raise InputError("damaged index", file=path, rule=rule) from error
        version = data.pop("format", None) if isinstance(data, dict) else None
        if version == _FIRST:
            data["scene"] = None  # that version knew prototypes only
        elif version != _FORMAT:
            raise InputError("an index of another version", file=path, rule="index the images anew")
        try:
            return cls._from(data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError("damaged index", file=path, rule=rule) from error

    @classmethod
    def _from(cls, data: dict[str, Any]) -> Manifest:
        shards = [ShardRecord(**{**s, "removed": tuple(s["removed"])}) for s in data.pop("shards")]
        approximate = data.pop("approximate")
        if approximate is not None:
            shards_of, counts = approximate.pop("shards"), approximate.pop("counts")
            approximate = ApproximateRecord(
                shards=tuple(shards_of), counts=tuple(counts), **approximate
            )
        scene = data.pop("scene")
        if scene is not None:
            scene = Scene(float(scene["context"]), tuple(map(float, scene["centre"])))
        return cls(**data, shards=tuple(shards), approximate=approximate, scene=scene)

    def without(self, removed: Mapping[str, set[int]]) -> Manifest:
        """This state with some images removed, by shard and row; empty shards drop out."""
        shards = []
        for shard in self.shards:
            gone = tuple(sorted({*shard.removed, *removed.get(shard.name, ())}))
            if len(gone) < shard.images:
                shards.append(replace(shard, removed=gone))
        return replace(self, shards=tuple(shards))
