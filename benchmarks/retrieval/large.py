"""Ten million prototypes: memory while the index is built, time of a query, recall.

Unit vectors around 50,000 centres, at a cosine of about .8 from them; queries are drawn like
them. Exact search and approximate search take turns in one process.

    python benchmarks/retrieval/large.py --folder /some/disk --out results.json
"""

import argparse
import json
import resource
import shutil
import time
from pathlib import Path

import numpy as np

from weakseg.retrieval import Index
from weakseg.retrieval.indexing import prepare_search
from weakseg.retrieval.segments import ImageSegments
from weakseg.retrieval.writer import IndexWriter

DIM, COSINE, PER_IMAGE, TOP = 64, 0.8, 144, 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--centres", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--exact-queries", type=int, default=60)
    parser.add_argument("--folder", type=Path, required=True, help="5 GB for the whole size")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(args.centres, DIM)).astype(np.float32))
    shutil.rmtree(args.folder / "index", ignore_errors=True)
    result = build(args, centres, rng)
    print(json.dumps(result), flush=True)
    result |= search(args, centres, rng)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def build(args, centres, rng):
    """Stream images with synthetic segments into an index; peak memory of this process."""
    begun, processor = time.perf_counter(), time.process_time()
    cosines, images = [], -(-args.rows // PER_IMAGE)
    with IndexWriter(args.folder / "index", dim=DIM, model="synthetic") as writer:
        for i in range(images):
            vectors, cosine = around(centres, PER_IMAGE, rng)
            cosines.append(cosine.mean())
            writer.add(image(f"{i:06d}", vectors))
        writer.commit()
        written = time.perf_counter() - begun
        recall, note = prepare_search(writer, "always")
        record, shards = writer.manifest.approximate, writer.manifest.shards
    return {
        "rows": sum(shard.segments for shard in shards),
        "shards": len(shards),
        "mean_cosine_to_centre": float(np.mean(cosines)),
        "write_s": written,
        "build_s": time.perf_counter() - begun,
        "build_processor_s": time.process_time() - processor,
        "peak_gb_while_building": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "lists": record and record.lists,
        "probes": record and record.probes,
        "own_recall": recall,
        "note": note,
        "disk_gb": sum(f.stat().st_size for f in args.folder.rglob("*") if f.is_file()) / 1e9,
    }


def search(args, centres, rng):
    """Time and recall@20 of queries that are not in the index."""
    index = Index.open(args.folder / "index")
    queries, _ = around(centres, args.queries, rng)
    for exact in (True, False):  # touch every file once
        index.nearest(queries[0], TOP, exact=exact)
    times = {"exact": [], "approximate": [], "with_columns": []}
    recalls = []
    for i, query in enumerate(queries):
        rows, seconds = timed(lambda q=query: index.nearest(q, TOP)[0])
        times["approximate"].append(seconds)
        times["with_columns"].append(timed(lambda q=query: index.search(q, TOP))[1])
        if i < args.exact_queries:
            truth, seconds = timed(lambda q=query: index.nearest(q, TOP, exact=True)[0])
            times["exact"].append(seconds)
            recalls.append(len(np.intersect1d(rows, truth)) / TOP)
    result = {"queries": args.queries, "exact_queries": args.exact_queries}
    for name, pairs in times.items():
        wall, processor = np.median(np.array(pairs), axis=0) * 1e3
        result |= {f"{name}_p50_ms": wall, f"{name}_p50_processor_ms": processor}
    return result | {
        "recall_at_20": float(np.mean(recalls)),
        "exact_over_approximate_wall": result["exact_p50_ms"] / result["approximate_p50_ms"],
        "exact_over_approximate_processor": result["exact_p50_processor_ms"]
        / result["approximate_p50_processor_ms"],
    }


def timed(function):
    wall, processor = time.perf_counter(), time.process_time()
    value = function()
    return value, (time.perf_counter() - wall, time.process_time() - processor)


def around(centres, count, rng):
    """Unit vectors (count, D) near centres drawn at random, and their cosines to them."""
    centre = centres[rng.integers(0, len(centres), count)]
    spread = np.float32((1 / COSINE**2 - 1) ** 0.5 / DIM**0.5)
    vectors = unit(centre + spread * rng.standard_normal((count, DIM), dtype=np.float32))
    return vectors, (vectors * centre).sum(1)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def image(name, vectors):
    """An image whose segments are the cells of a 12 x 12 grid."""
    number = np.arange(len(vectors), dtype=np.int32)
    corner = np.stack([number % 12, number // 12], 1) * 32
    return ImageSegments(
        name=name,
        file="",
        width=384,
        height=384,
        stamp="",
        tags=(),
        index=number.astype(np.uint16).reshape(12, 12),
        segment=number,
        vectors=vectors,
        boxes=np.hstack([corner, corner + 32]).astype(np.int32),
        areas=np.full(len(number), 1024),
        predicted=np.full(len(number), "thing", object),
        weak=np.full(len(number), None, object),
    )


if __name__ == "__main__":
    main()
