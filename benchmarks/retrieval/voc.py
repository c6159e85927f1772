"""Contextual retrieval on voc-subset: foreground segments of `val` asked among those of `train`.

Class precision@20: share of the 20 nearest segments that show the query's class. Context
precision@20, for queries of images with two foreground classes or more: share of the 20 whose
image shows one of the query image's *other* foreground classes. A segment's class is that of most
of its pixels in the true mask, which serves for nothing but measuring.

    export WEAKSEG_DATA=/path/above/voc-subset
    python benchmarks/retrieval/voc.py --held-out --out held-out.json   # how much scene
    python benchmarks/retrieval/voc.py --out results.json

Embeddings are trained on scribbles (whose classes are the images' tags) over frozen
EfficientNet-Lite2 features. A seed's embedding cuts the segments, and every method describes these
same segments: by the mean unit vector of their pixels and, for a share of the similarity, by their
scene: that of the whole image, less what the first images have in common. With --held-out a quarter
of `train` asks among the other three, which the embedding is trained on, and many such shares are
tried. What is in the results already is not computed again.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from weakseg.dataset import Dataset
from weakseg.files import write_json
from weakseg.grouping import segment_means, unit_rows
from weakseg.retrieval.scene import CONTEXT, IMAGES, common_part
from weakseg.retrieval.segments import grouped
from weakseg.training import Recipe, stages
from weakseg.training.embedding import EmbeddingNetwork
from weakseg.training.fit import new_segmenter
from weakseg.training.labels import Labels
from weakseg.training.progress import Progress
from weakseg.training.recipe import relations_for
from weakseg.training.region_stage import region_stage
from weakseg.training.run_folder import RunFolder
from weakseg.training.setup import cache_folder, fingerprint, make_fabric

TOP = 20
KINDS = ("scribbles",)
OURS, WITHOUT = "weakseg", "without co-occurrence"
RAW = ("features as they are", "features, standardised", "features, whitened to 64")
METHODS = (OURS, WITHOUT, *RAW)
TRIED = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
MEASURES = ("class_precision", "context_precision", "class_and_context_precision")

Embed = Callable[[Tensor], Tensor]
"""Features (C, h, w) to unit vectors (D, h, w)."""


@dataclass
class Part:
    """The segments of some images.

    Attributes:
        vectors: (n, D) by method.
        scenes: (images, D) by method, the mean unit vector of each image.
        labels: (n,) true class, -1 where every pixel is ignored.
        owners: (n,) image.
        present: (images, C) foreground classes in the true masks.
    """

    vectors: dict[str, Tensor]
    scenes: dict[str, Tensor]
    labels: np.ndarray
    owners: np.ndarray
    present: np.ndarray


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("WEAKSEG_DATA", "data"))
    parser.add_argument("--runs", type=Path, default="runs/retrieval")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    dataset = Dataset.open(args.data / "voc-subset")
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for seed in args.seeds:
        missing = [m for m in args.methods if not any(k.startswith(key(m, seed)) for k in results)]
        if missing:
            bank, asking = parts_of(dataset, seed, args.held_out)
            results |= measured(missing, seed, bank, asking, args)
            write_json(args.out, results)
    summary(results)


def key(method, seed, context=None):
    return f"{method}, seed {seed}" + ("" if context is None else f", context {context:g}")


def parts_of(dataset, seed, held_out):
    """Images to search in (and to train on), and images to ask from."""
    train = dataset.split("train")
    if not held_out:
        return train, dataset.split("val")
    order = np.random.default_rng(seed).permutation(len(train))
    quarter = len(train) // 4
    return train.subset(np.sort(order[quarter:])), train.subset(np.sort(order[:quarter]))


def measured(methods, seed, bank, asking, args):
    begun = time.process_time()
    embeds = {}
    for method in (OURS, WITHOUT):
        if method == OURS or method in methods:
            job, segmenter = prepared(method, seed, bank, args)
            features = stages.features_of(job, bank, segmenter.backbone, "train")
            embeds[method] = trained(job, segmenter, features)
    print(f"seed {seed}: trained in {time.process_time() - begun:.0f} processor s", flush=True)
    embeds |= raw_embeds(features, [m for m in methods if m in RAW])
    asked = stages.features_of(job, asking, segmenter.backbone, "val")
    described = [described_by(embeds, *part) for part in ((bank, features), (asking, asked))]
    print(f"seed {seed}: described by {time.process_time() - begun:.0f}", flush=True)
    shares = TRIED if args.held_out else (0.0, CONTEXT)
    results = {}
    for method in methods:
        for share, result in zip(shares, precision(*described, method, shares), strict=True):
            name = key(method, seed, share)
            results[name] = result | {"processor_s": round(time.process_time() - begun)}
            print(name, json.dumps(results[name]), flush=True)
    return results


def prepared(method, seed, images, args):
    """A job whose labels are the scribbles; the co-occurrence weight is 0 for one method."""
    relations = relations_for(KINDS)
    if method == WITHOUT:
        relations = relations.weighted(cooccurrence=0.0)
    recipe = Recipe(
        kinds=KINDS,
        backbone="tf_efficientnet_lite2",
        regime="frozen",
        device="cpu",
        steps=args.steps,
        relations=relations,
        seed=seed,
    ).resolved(KINDS)
    part = "held-out-" if args.held_out else ""
    run = RunFolder(
        args.runs / f"{part}{method.replace(' ', '-')}-{seed}", recipe, fingerprint(images)
    )
    torch.manual_seed(seed)
    job = stages.Job(
        Labels(images, recipe), recipe, run, cache_folder(), make_fabric(recipe), Progress(None)
    )
    return job, new_segmenter(job)


def trained(job, segmenter, features) -> Embed:
    job.seed("embedding weights")
    network = EmbeddingNetwork(segmenter.head, len(job.labels.info.classes))
    network = stages.embedding_stage(job, network, features, region_stage(job))
    head = network.head.eval()
    return torch.inference_mode()(lambda f: head(f[None])[0])


def raw_embeds(features, methods) -> dict[str, Embed]:
    """Features as they are, with mean 0 and variance 1 by channel, or their whitened directions."""
    rows = torch.cat(
        [
            torch.from_numpy(np.asarray(f, np.float32).reshape(len(f), -1)[:, ::16])
            for f in features
        ],
        dim=1,
    ).double()
    mean, std = rows.mean(1), rows.std(1).clamp_min(1e-6)
    values, directions = torch.linalg.eigh(torch.cov((rows - mean[:, None]) / std[:, None]))
    shift = mean.float()[:, None, None]
    whiten = (directions[:, -64:] / values[-64:].sqrt() / std[:, None]).T.float()
    every = {
        RAW[0]: lambda f: normalize(f, dim=0),
        RAW[1]: lambda f: normalize((f - shift) / std.float()[:, None, None], dim=0),
        RAW[2]: lambda f: normalize(torch.einsum("dc,chw->dhw", whiten, f - shift), dim=0),
    }
    return {method: every[method] for method in methods}


def described_by(embeds: dict[str, Embed], images, features) -> Part:
    """Every method's view of the segments that our embedding cuts."""
    classes = len(images.info.classes)
    vectors, scenes = {m: [] for m in embeds}, {m: [] for m in embeds}
    labels, owners = [], []
    present = np.zeros((len(images), classes), bool)
    for i, entry in enumerate(images):
        one = stages.features_at(features, i, torch.device("cpu"))
        maps = {method: embed(one) for method, embed in embeds.items()}
        found = grouped(maps[OURS])
        for method, pixels in maps.items():
            rows = unit_rows(pixels[None])
            vectors[method].append(segment_means(rows, found.index.flatten(), len(found)))
            scenes[method].append(normalize(rows.mean(0), dim=0))
        mask = np.asarray(Image.open(entry.mask)).astype(np.int64)
        votes = votes_of(found.index[0].numpy(), mask, len(found), classes)
        present[i] = votes.any(0)
        labels.append(np.where(votes.any(1), votes.argmax(1), -1))
        owners.append(np.full(len(found), i))
    present[:, images.info.background_index] = False
    return Part(
        {method: torch.cat(parts) for method, parts in vectors.items()},
        {method: torch.stack(parts) for method, parts in scenes.items()},
        np.concatenate(labels),
        np.concatenate(owners),
        present,
    )


def votes_of(index, mask, count, classes):
    """(S, C) pixels of a true mask in each segment."""
    rows, columns = (
        ((np.arange(n) + 0.5) * cells / n).astype(int)
        for n, cells in zip(mask.shape, index.shape, strict=True)
    )
    segment = index[rows[:, None], columns]
    known = mask < classes
    votes = np.bincount(segment[known] * classes + mask[known], minlength=count * classes)
    return votes.reshape(count, classes)


def precision(bank: Part, asking: Part, method, shares):
    """A result for each share of the scene in the similarity."""
    queries = np.flatnonzero(asking.labels > 0)
    known = bank.labels >= 0
    found = neighbours(bank, asking, method, shares, queries, known)
    return [judged(bank, asking, queries, rows) for rows in found]


def neighbours(bank, asking, method, shares, queries, known):
    """(shares, Q, 20) rows of the nearest segments."""
    vectors, owners = bank.vectors[method][known], torch.from_numpy(bank.owners[known])
    centre = common_part(bank.scenes[method][:IMAGES])
    around, scenes = (normalize(p.scenes[method] - centre, dim=1) for p in (asking, bank))
    alike = around @ scenes.T
    rows = torch.from_numpy(np.flatnonzero(known))
    found = [[] for _ in shares]
    for some in np.array_split(queries, max(1, len(queries) // 128)):
        cosine = asking.vectors[method][some] @ vectors.T
        scene = alike[torch.from_numpy(asking.owners[some])].index_select(1, owners)
        for share, parts in zip(shares, found, strict=True):
            mixed = torch.lerp(cosine, scene, share) if share else cosine
            parts.append(rows[mixed.topk(TOP, dim=1).indices].numpy())
    return [np.concatenate(parts) for parts in found]


def judged(bank, asking, queries, found):
    labels, owners = asking.labels[queries], asking.owners[queries]
    right = bank.labels[found] == labels[:, None]
    others = asking.present[owners]
    others[np.arange(len(queries)), labels] = False
    shared = (bank.present[bank.owners[found]] & others[:, None]).any(2)
    asked = others.any(1)
    same = right.mean(1)
    return {
        "class_precision": float(same.mean()),
        "class_precision_mean_of_classes": float(
            np.mean([same[labels == c].mean() for c in np.unique(labels)])
        ),
        "context_precision": float(shared[asked].mean()),
        "class_and_context_precision": float((shared & right)[asked].mean()),
        "queries": len(queries),
        "context_queries": int(asked.sum()),
        "searched": int((bank.labels >= 0).sum()),
    }


def summary(results):
    """Mean and spread over the seeds."""
    groups = {}
    for name, result in results.items():
        method, _, rest = name.partition(", seed ")
        groups.setdefault((method, rest.partition(", context ")[2]), []).append(result)
    for (method, context), runs in groups.items():
        cells = []
        for measure in MEASURES:
            values = [100 * r[measure] for r in runs]
            spread = f" +- {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            cells.append(f"{measure} {np.mean(values):.2f}{spread}")
        print(f"{method}, context {context} ({len(runs)}): {'; '.join(cells)}")


if __name__ == "__main__":
    main()
