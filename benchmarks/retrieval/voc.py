"""Contextual retrieval on voc-subset: foreground segments of `val` asked among those of `train`.

Class precision@20: share of the 20 nearest segments that show the query's class. Context
precision@20, for queries of images with two foreground classes or more: share of the 20 whose
image shows one of the query image's *other* foreground classes. A segment's class is that of most
of its pixels in the true mask, which serves for nothing but measuring.

    WEAKSEG_DATA=/path/above/voc-subset python benchmarks/retrieval/voc.py --out results.json

Embeddings are trained on scribbles (whose classes are the images' tags), 600 steps on frozen
EfficientNet-Lite2 features. What is in the results already is not computed again.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from weakseg.dataset import Dataset
from weakseg.files import write_json
from weakseg.retrieval.exact import exact_search
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
METHODS = ("weakseg", "without co-occurrence", "features, standardised", "features, whitened to 64")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("WEAKSEG_DATA", "data"))
    parser.add_argument("--runs", type=Path, default="runs/retrieval")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    args = parser.parse_args()
    dataset = Dataset.open(args.data / "voc-subset")
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for seed in range(args.seeds):
        for method in args.methods:
            raw = method.startswith("features")
            key = method if raw else f"{method}, seed {seed}"
            if key not in results:
                results[key] = measured(method, seed, dataset, args)
                write_json(args.out, results)
            print(key, json.dumps(results[key]), flush=True)
    summary(results)


def measured(method, seed, dataset, args):
    begun = time.process_time()
    job, segmenter = prepared(method, seed, dataset, args)
    parts = {part: dataset.split(part) for part in ("train", "val")}
    features = {
        part: stages.features_of(job, images, segmenter.backbone, part)
        for part, images in parts.items()
    }
    embed = embedder(method, job, segmenter, features["train"])
    train, val = (described(parts[part], features[part], embed) for part in ("train", "val"))
    result = precision(val, train, len(dataset.info.classes))
    return result | {"processor_s": round(time.process_time() - begun)}


def prepared(method, seed, dataset, args):
    """A job whose labels are the scribbles; the co-occurrence weight is 0 for one method."""
    relations = relations_for(KINDS)
    if method == "without co-occurrence":
        relations = replace(relations, cooccurrence=replace(relations.cooccurrence, weight=0.0))
    recipe = Recipe(
        kinds=KINDS,
        backbone="tf_efficientnet_lite2",
        regime="frozen",
        device="cpu",
        steps=args.steps,
        relations=relations,
        seed=seed,
    ).resolved(KINDS)
    train = dataset.split("train")
    run = RunFolder(args.runs / f"{method.replace(' ', '-')}-{seed}", recipe, fingerprint(dataset))
    torch.manual_seed(seed)
    job = stages.Job(
        Labels(train, recipe), recipe, run, cache_folder(), make_fabric(recipe), Progress(None)
    )
    return job, new_segmenter(job)


def embedder(method, job, segmenter, features):
    """A function from features (C, h, w) to unit vectors (D, h, w)."""
    if method.startswith("features"):
        return raw_embedder(features, 64 if "whitened" in method else None)
    network = EmbeddingNetwork(segmenter.head, len(job.labels.info.classes))
    network = stages.embedding_stage(job, network, features, region_stage(job))
    head = network.head.eval()
    return torch.inference_mode()(lambda f: head(f[None])[0])


def raw_embedder(features, dim):
    """Features with mean 0 and variance 1 by channel, or their whitened principal components."""
    rows = torch.cat(
        [
            torch.from_numpy(np.asarray(f, np.float32).reshape(len(f), -1)[:, ::16])
            for f in features
        ],
        dim=1,
    ).double()
    mean, std = rows.mean(1), rows.std(1).clamp_min(1e-6)
    basis = torch.eye(len(rows), dtype=torch.float64)
    if dim is not None:
        values, vectors = torch.linalg.eigh(torch.cov((rows - mean[:, None]) / std[:, None]))
        basis = vectors[:, -dim:] / values[-dim:].sqrt()
    scale, shift = (basis.T / std).float(), mean.float()[:, None]

    def embed(f):
        flat = scale @ (f.flatten(1) - shift)
        return torch.nn.functional.normalize(flat, dim=0).reshape(-1, *f.shape[1:])

    return embed


def described(images, features, embed):
    """Segments of a part: prototypes, true class, image; foreground classes of each image."""
    classes = len(images.info.classes)
    vectors, labels, owners = [], [], []
    present = np.zeros((len(images), classes), bool)
    for i, entry in enumerate(images):
        found = grouped(embed(stages.features_at(features, i, torch.device("cpu"))))
        index = found.index[0].numpy()
        mask = np.asarray(Image.open(entry.mask)).astype(np.int64)
        rows, columns = (
            ((np.arange(n) + 0.5) * cells / n).astype(int)
            for n, cells in zip(mask.shape, index.shape, strict=True)
        )
        segment = index[rows[:, None], columns]
        known = mask < classes
        votes = np.bincount(segment[known] * classes + mask[known], minlength=len(found) * classes)
        votes = votes.reshape(len(found), classes)
        present[i, np.unique(mask[known])] = True
        vectors.append(found.prototypes.numpy())
        labels.append(np.where(votes.any(1), votes.argmax(1), -1))
        owners.append(np.full(len(found), i))
    present[:, images.info.background_index] = False
    return np.concatenate(vectors), np.concatenate(labels), np.concatenate(owners), present


def precision(val, train, classes):
    vectors, labels, owners, present = val
    queries = np.flatnonzero(labels > 0)
    known = train[1] >= 0
    bank, bank_labels, bank_owners = (part[known] for part in train[:3])
    blocks = [(s, bank[s : s + 16384], None) for s in range(0, len(bank), 16384)]
    found = np.concatenate(
        [exact_search(blocks, vectors[q], TOP)[0] for q in np.array_split(queries, 20)]
    )
    same = (bank_labels[found] == labels[queries, None]).mean(1)
    others = present[owners[queries]].copy()
    others[np.arange(len(queries)), labels[queries]] = False
    shared = (train[3][bank_owners[found]] & others[:, None]).any(2)
    asked = others.any(1)
    both = (shared & (bank_labels[found] == labels[queries, None]))[asked].mean(1)
    by_class = [same[labels[queries] == c].mean() for c in np.unique(labels[queries])]
    return {
        "class_precision": float(same.mean()),
        "class_precision_mean_of_classes": float(np.mean(by_class)),
        "context_precision": float(shared[asked].mean()),
        "class_and_context_precision": float(both.mean()),
        "queries": len(queries),
        "context_queries": int(asked.sum()),
        "train_segments": int(known.sum()),
    }


def summary(results):
    for method in METHODS:
        runs = [r for key, r in results.items() if key.startswith(method)]
        for measure in ("class_precision", "context_precision", "class_and_context_precision"):
            values = [100 * r[measure] for r in runs]
            if values:
                spread = f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
                print(f"{method}: {measure} {np.mean(values):.1f}{spread}")


if __name__ == "__main__":
    main()
