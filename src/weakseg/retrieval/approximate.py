"""Approximate search in large indexes: IVF-PQ on disk, memory-mapped, re-ranked exactly.

Inverted lists and product quantisation after Jegou, Douze, Schmid (PAMI 2011), by faiss, an
optional package. The codes choose candidates; their similarities are computed from the prototypes
themselves, so that what is returned is right, only perhaps not complete.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.files import atomic_path
from weakseg.retrieval.exact import BLOCK, exact_search
from weakseg.retrieval.manifest import ApproximateRecord
from weakseg.retrieval.shards import FOLDER, Shard, damaged

WORTH = 500_000
"""Segments from which an approximate search is made by itself: exact search takes 10 ms there."""

TARGET = 0.93
"""Share of the exact 20 nearest that is to be found."""

SAMPLE, TOP = 200, 20
"""Queries that recall is measured with, and their neighbours."""

CANDIDATES = 200
"""Rows whose similarity is computed exactly, for a query."""

FEWEST = 10_000
"""Segments below which codes cannot be learned: 39 for each of their 256 words."""

PER_LIST, ROUNDS, SEED = 20, 6, 0
"""Training prototypes a list, rounds of k-means, seed of what is drawn at random."""


def available() -> bool:
    """Whether faiss is installed."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def build_approximate(
    folder: Path, shards: Sequence[Shard], *, target: float = TARGET
) -> ApproximateRecord | None:
    """Build and tune an approximate index over some shards.

    Prototypes are read in blocks; at a time a sample of 20 a list is in memory, and 24 bytes for
    each of all (at 64 dimensions; 40 at 128).

    Args:
        folder: of the index.
        shards: their rows are numbered in this order.
        target: recall to reach, by looking into more and more lists.

    Returns:
        What was built; None where there are too few segments, or the target cannot be reached
        with less than a quarter of the lists: exact search is better then.
    """
    import faiss

    total = sum(shard.count for shard in shards)
    if total < FEWEST:
        return None
    dim = shards[0].dim
    lists = _lists(total)
    rng = np.random.default_rng(SEED)
    pieces = next(n for n in (dim // 4, dim // 2, dim) if n and dim % n == 0)
    index = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(dim), dim, lists, pieces, 8, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter, index.cp.seed, index.cp.spherical = ROUNDS, SEED, True
    index.cp.min_points_per_centroid = 1
    index.train(_drawn(shards, min(total, PER_LIST * lists), rng))
    for _, block in _blocks(shards):
        index.add(block)
    name = f"{secrets.token_hex(8)}.faiss"
    queries, exact = _exact_sample(shards, rng)
    path = folder / FOLDER / name
    found = ApproximateRecord(
        name, tuple(s.name for s in shards), tuple(s.count for s in shards),
        lists, 0, CANDIDATES, 0.0, len(queries),
    )  # fmt: skip
    # Tuned before it is written: mapped again from the file, it would be in memory twice.
    approximate = Approximate(path, found, {shard.name: shard for shard in shards}, index)
    record = _tuned(approximate, shards, queries, exact, target)
    if record is not None:
        with atomic_path(path) as temporary:
            faiss.write_index(index, str(temporary))
    return record


class Approximate:
    """Search in an approximate index.

    Args:
        path: of its file.
        record: how it was built.
        shards: those that are still there, by name.
        index: what is in the file, where it has just been built; default: mapped when needed.
    """

    def __init__(
        self,
        path: Path,
        record: ApproximateRecord,
        shards: dict[str, Shard],
        index: Any = None,
    ) -> None:
        self.path, self.record = path, record
        if index is not None:
            self._faiss = index
        self.shards = [shards.get(name) for name in record.shards]
        self.starts = np.concatenate([[0], np.cumsum(record.counts)])

    @cached_property
    def _faiss(self) -> Any:
        import faiss

        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        try:
            index: Any = faiss.read_index(str(self.path), flags)
        except RuntimeError as error:
            raise damaged(self.path) from error
        # Threads that read lists ahead take longer to start than what is cached to scan.
        lists: Any = faiss.downcast_InvertedLists(index.invlists)
        lists.prefetch_nthread = 0
        return index

    def search(
        self, query: NDArray[np.float32], count: int, probes: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nearest rows that it finds.

        Args:
            query: (D,).
            count: candidates.
            probes: lists to look into; 0: as many as were found to be enough.

        Returns:
            Row numbers in the order of its shards, the nearest first, and exact dot products.
        """
        self._faiss.nprobe = probes or self.record.probes
        _, found = self._faiss.search(query[None], count)
        rows = np.sort(found[0][found[0] >= 0])
        part = np.searchsorted(self.starts, rows, side="right") - 1
        scores = np.full(len(rows), -np.inf, np.float32)
        for p in np.unique(part):
            shard = self.shards[p]
            if shard is not None:
                mine = part == p
                scores[mine] = shard.vectors[rows[mine] - self.starts[p]] @ query
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > -np.inf]
        return rows[order], scores[order]


def _lists(total: int) -> int:
    """The power of two next to 4 sqrt(n), as faiss advises, that leaves enough for k-means."""
    wanted = round(np.log2(4 * total**0.5))
    return int(2 ** min(wanted, int(np.log2(max(1.0, total / PER_LIST)))))


def _blocks(shards: Sequence[Shard]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All rows, read instead of mapped: maps would count as memory of this process."""
    first = 0
    for shard in shards:
        for start in range(0, shard.count, BLOCK):
            yield first + start, shard.read(start, start + BLOCK)
        first += shard.count


def _drawn(shards: Sequence[Shard], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Rows drawn evenly at random from all blocks."""
    total = sum(shard.count for shard in shards)
    chosen = np.sort(rng.choice(total, count, replace=False))
    drawn = np.empty((count, shards[0].dim), np.float32)
    for first, block in _blocks(shards):
        a, b = np.searchsorted(chosen, [first, first + len(block)])
        drawn[a:b] = block[chosen[a:b] - first]
    return drawn


def _exact_sample(
    shards: Sequence[Shard], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Queries drawn from the rows (Q, D); their exact neighbours (Q, 20) without themselves."""
    total = sum(shard.count for shard in shards)
    queries = _drawn(shards, min(SAMPLE, total), rng)
    blocks = ((first, block, None) for first, block in _blocks(shards))
    rows, _ = exact_search(blocks, queries, min(TOP + 1, total))
    return queries, rows[:, 1:]


def _tuned(
    found: Approximate,
    shards: Sequence[Shard],
    queries: NDArray[np.float32],
    exact: NDArray[np.int64],
    target: float,
) -> ApproximateRecord | None:
    """With as few lists looked into as reach the target, to an eighth."""
    record = found.record

    def recall(probes: int) -> float:
        hits = 0
        for query, wanted in zip(queries, exact, strict=True):
            rows, _ = found.search(query, CANDIDATES, probes)
            hits += len(np.intersect1d(rows[: TOP + 1], wanted))
            for shard in shards:
                shard.release()  # candidates lie everywhere: all rows would be mapped in the end
        return hits / max(1, exact.size)

    most, probes = max(1, record.lists // 4), 1
    while (reached := recall(probes)) < target:
        if probes == most:
            return None
        probes = min(2 * probes, most)
    step = probes // 8
    few = probes // 2 + step  # at half of them it was not reached
    while step and few < probes:
        if (fewer := recall(few)) >= target:
            probes, reached = few, fewer
        few += step
    return replace(record, probes=probes, recall=reached)
