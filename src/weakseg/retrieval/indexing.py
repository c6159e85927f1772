"""Photographs into an index: what is new or changed is embedded, the rest is left alone."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from weakseg.dataset import Entry
from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError, WeaksegError
from weakseg.files import content_hash
from weakseg.retrieval.approximate import WORTH, available, build_approximate
from weakseg.retrieval.manifest import NAME, Manifest
from weakseg.retrieval.scene import CONTEXT, IMAGES, Scene, common_part
from weakseg.retrieval.segments import (
    WEAK_KINDS,
    ImageSegments,
    in_scene,
    segments_and_mean,
    stamp_of,
)
from weakseg.retrieval.shards import Shard
from weakseg.retrieval.writer import IndexWriter
from weakseg.segmenter import Segmenter

When = Literal["auto", "always", "never"]
"""When approximate search is prepared."""

FAILURES = (WeaksegError, OSError, MemoryError, RuntimeError)
"""What a photograph that cannot be embedded leads to; torch's "out of memory" is the last."""

OUTGROWN = 0.2
"""Share of rows that an approximate index may lack before it is built anew."""


@dataclass
class Indexed:
    """What became of the images, by name.

    Attributes:
        added, replaced, unchanged, removed: names.
        failed: name and reason of images that could not be read.
        segments: rows of the index, those of removed images included.
        recall: of approximate search against exact search; None: search is exact.
        note: what there is to say about search.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    segments: int = 0
    recall: float | None = None
    note: str = ""


def index_images(
    folder: str | os.PathLike[str],
    model: Segmenter,
    entries: Iterable[Entry],
    *,
    info: DatasetInfo | None = None,
    kinds: Collection[str] = WEAK_KINDS,
    leave_out: Collection[str] = (),
    prune: bool = False,
    run: str = "",
    approximate: When = "auto",
    progress: Callable[[str], None] | None = None,
    embed: Callable[[Entry], ImageSegments] | None = None,
    context: float | None = None,
) -> Indexed:
    """Bring an index up to date with a collection.

    Args:
        folder: of the index; made if missing.
        model: embeds and classifies; all images of an index are embedded by one model.
        entries: images with their labels.
        info: classes of the labels; default: the model's.
        kinds: kinds of label that count.
        leave_out: names, or patterns of names, of images to take out and not to add.
        prune: take out images that are not in `entries`.
        run: the model's run folder, from which `weakseg retrieve` loads it.
        approximate: prepare approximate search: "always", "never", or where it pays.
        progress: called with the name of each image when it is done.
        embed: makes the segments of an image; default: `segments_of`.
        context: share of scenes in the similarity, see `scene.Scene`; default: what the index
            has, `CONTEXT` for a new one.

    Raises:
        InputError: the index belongs to another model or has another `context`, is being
            written to, or cannot be.
    """
    info = info or model.info
    coming = iter(entries)
    first = list(islice(coming, IMAGES))

    def described(entry: Entry) -> tuple[ImageSegments, Tensor]:
        return segments_and_mean(model, entry, info, kinds)

    scene, ahead = _scene(Path(folder), context, model.architecture.dim, first, described)

    def in_its_scene(entry: Entry) -> ImageSegments:
        segments, mean = ahead.pop(id(entry)) if id(entry) in ahead else described(entry)
        return segments if scene is None else in_scene(segments, mean, scene)

    make = embed or in_its_scene
    done = Indexed()
    present: set[str] = set()
    with IndexWriter(
        Path(folder),
        dim=model.architecture.dim * (1 if scene is None else 2),
        model=fingerprint(model),
        run=run,
        background=info.background,
        scene=scene,
    ) as writer:
        for entry in chain(first, coming):
            if not _matches(entry.name, leave_out):
                present.add(entry.name)
                _bring(writer, done, entry, kinds, make)
            if progress is not None:
                progress(entry.name)
        for name in writer.names:
            if _matches(name, leave_out) or (prune and name not in present):
                writer.remove(name)
                done.removed.append(name)
        writer.merge()
        done.segments = sum(shard.segments for shard in writer.manifest.shards)
        done.recall, done.note = prepare_search(writer, approximate)
    return done


def _scene(
    folder: Path,
    context: float | None,
    dim: int,
    first: Collection[Entry],
    described: Callable[[Entry], tuple[ImageSegments, Tensor]],
) -> tuple[Scene | None, dict[int, tuple[ImageSegments, Tensor]]]:
    """How scenes count: as in the index that is there, or anew, from some images.

    Returns:
        It, and what `described` gave by `id` of the entry, so that no image is embedded twice.
    """
    if context is not None and not (math.isfinite(context) and 0 <= context < 1):
        raise InputError("--context", found=context, rule="at least 0, less than 1")
    if (folder / NAME).exists():
        known = Manifest.load(folder).scene
        if context in (None, 0 if known is None else known.context):
            return known, {}
        return Scene(context, ()) if context else None, {}  # which the writer refuses
    if context == 0:
        return None, {}
    ahead = {}
    for entry in first:
        with suppress(*FAILURES):  # said when its turn comes
            ahead[id(entry)] = described(entry)
    means = [mean.cpu() for _, mean in ahead.values()] or [torch.zeros(dim)]
    centre = common_part(torch.stack(means))
    return Scene(CONTEXT if context is None else context, tuple(centre.tolist())), ahead


def fingerprint(model: Segmenter) -> str:
    """What tells one model's prototypes from another's."""
    # The classifier does not take part in them, and what it predicts is only shown.
    parts = {**model.backbone.state_dict(), **model.head.state_dict()}
    values = [t.detach().cpu().numpy() for _, t in sorted(parts.items())]
    return content_hash(vars(model.architecture), *values)


def prepare_search(writer: IndexWriter, when: When) -> tuple[float | None, str]:
    """Build, keep or drop the approximate index.

    Returns:
        Its recall, None where search is exact, and a sentence about it.
    """
    manifest = writer.manifest
    total = sum(shard.segments for shard in manifest.shards)
    if when == "never" or total == 0 or (when == "auto" and total < WORTH):
        if manifest.approximate is not None:
            writer.update(replace(manifest, approximate=None))
        return None, f"search is exact ({total:,} segments)"
    if not available():
        if when == "always":
            raise InputError(
                "approximate search needs a package", rule='pip install "weakseg[faiss]"'
            )
        return None, 'search is exact; pip install "weakseg[faiss]" makes it faster'
    old = manifest.approximate
    if old is not None:
        present = {shard.name: shard.segments for shard in manifest.shards}
        covered = sum(present.get(name, 0) for name in old.shards)
        if min(covered / total, covered / sum(old.counts)) >= 1 - OUTGROWN:
            return old.recall, _sentence(old.recall, old.sample)
    shards = [Shard(writer.folder, s.name, s.segments, manifest.dim) for s in manifest.shards]
    record = build_approximate(writer.folder, shards)
    writer.update(replace(manifest, approximate=record))
    if record is None:
        return None, "search is exact: approximate search would be no better here"
    return record.recall, _sentence(record.recall, record.sample)


def _sentence(recall: float, sample: int) -> str:
    return (
        f"search is approximate (IVF-PQ): it finds {100 * recall:.1f} % of the exact 20 nearest, "
        f"measured on {sample} segments"
    )


def _bring(
    writer: IndexWriter,
    done: Indexed,
    entry: Entry,
    kinds: Collection[str],
    make: Callable[[Entry], ImageSegments],
) -> None:
    """Add or replace one image, unless it is there as it is."""
    known = entry.name in writer
    if known:
        file, stamp = writer.stamp(entry.name)
        own = str(entry.image.resolve()) if isinstance(entry.image, Path) else ""
        if stamp == stamp_of(entry, kinds) and file == own:
            done.unchanged.append(entry.name)
            return
        if file and file != own and Path(file).exists():
            raise InputError(
                "two images of one name",
                file=own,
                found=f"{entry.name}, which is {file} in the index",
                rule="another index, or the folder above both as IMAGES",
            )
    try:
        made = make(entry)
    except FAILURES as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        done.failed.append((entry.name, reason))
        return
    writer.add(made)
    (done.replaced if known else done.added).append(entry.name)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
