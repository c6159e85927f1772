"""What `suggest` is worth: 10% of the images with points, and 10% more that it proposes.

Starting from 10% of voc-subset's `train` with points, drawn at random, a model is trained on them;
then 10% of the images are added, those that it proposes or as many at random, and models are
trained on both. mIoU on `val`, 21 classes, no CRF, single scale.

    WEAKSEG_DATA=/path/above/voc-subset python benchmarks/retrieval/suggest.py --out results.json

Reduced, so that a run takes minutes: EfficientNet-Lite2 frozen, trained on the labelled images
alone, 200 steps of the embedding, 300 of the classifier, one round of pseudo-masks without CRF.
What is in the results already is not computed again.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from weakseg.dataset import Dataset, Entry
from weakseg.features import extract_features
from weakseg.files import write_json
from weakseg.retrieval import Index, index_images, segments_of
from weakseg.retrieval.suggestions import to_label
from weakseg.training import Recipe, fit
from weakseg.training.setup import cache_folder
from weakseg.training.stages import features_at

SHARE, KINDS = 0.1, ("points",)
RECIPE = {
    "kinds": KINDS,
    "backbone": "tf_efficientnet_lite2",
    "regime": "frozen",
    "device": "cpu",
    "steps": 200,
    "classifier_steps": 300,
    "rounds": 1,
    "crf": False,
    "validation": 0.0,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("WEAKSEG_DATA", "data"))
    parser.add_argument("--runs", type=Path, default="runs/suggest")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    dataset = Dataset.open(args.data / "voc-subset")
    train, val = dataset.split("train"), dataset.split("val")
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for seed in range(args.seeds):
        order = np.random.default_rng(seed).permutation(len(train))
        count = round(SHARE * len(train))
        start, at_random = order[:count], order[: 2 * count]
        for name in ("at random", "proposed"):
            key = f"{name}, seed {seed}"
            if key in results:
                continue
            begun = time.process_time()
            chosen = at_random
            if name == "proposed":
                chosen = [*start, *proposed(train, start, count, seed, args.runs)]
            results[key] = trained(train, val, chosen, seed, args.runs / key.replace(", ", "-"))
            results[key]["processor_s"] = round(time.process_time() - begun)
            write_json(args.out, results)
            print(key, results[key], flush=True)
    summary(results, args.seeds)


def trained(train, val, chosen, seed, out):
    """Train on some images, measure on all of `val`."""
    both = joined(train, chosen, val)
    fitted = fit(both, Recipe(**RECIPE, seed=seed), out=out)
    points = [p.label for i in chosen for p in train[int(i)].annotation.points]
    return {
        "miou": fitted.miou["weakseg"],
        "images": len(chosen),
        "points": len(points),
        "classes": len(set(points)),
    }


def joined(train, chosen, val):
    rows = np.concatenate([train._rows[np.sort(np.asarray(chosen, np.int64))], val._rows])
    return Dataset(train.info, train._source, train.folder, rows)


def proposed(train, start, count, seed, runs):
    """Positions of the images that a model trained on `start` proposes."""
    model = fit(
        train.subset(np.sort(start)), Recipe(**RECIPE, seed=seed), out=runs / f"start-{seed}"
    ).segmenter
    features = extract_features(train, model.backbone, cache_dir=cache_folder() / "features")
    at = {entry.name: i for i, entry in enumerate(train)}
    labelled = {train[int(i)].name for i in start}
    entries = [
        e if e.name in labelled else Entry(e.name, e.image, e.width, e.height) for e in train
    ]
    folder = runs / f"index-{seed}"
    index_images(
        folder,
        model,
        entries,
        kinds=KINDS,
        embed=lambda entry: segments_of(
            model,
            entry,
            train.info,
            KINDS,
            features_at(features, at[entry.name], torch.device("cpu")),
        ),
    )
    chosen = [at[s.image] for s in to_label(Index.open(folder), count)]
    assert not set(chosen) & set(start.tolist())
    return chosen


def summary(results, seeds):
    gains = []
    for name in ("at random", "proposed"):
        values = [100 * results[f"{name}, seed {s}"]["miou"] for s in range(seeds)]
        print(f"{name}: {np.mean(values):.1f} +- {np.std(values, ddof=1):.1f}", values)
        gains.append(values)
    gain = np.subtract(gains[1], gains[0])
    print(f"gain: {gain.mean():+.1f} +- {gain.std(ddof=1):.1f}", gain.tolist())


if __name__ == "__main__":
    main()
