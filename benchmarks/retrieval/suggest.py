"""What `suggest` is worth: 10% of the images with points, and 10% more that it proposes.

Starting from 10% of voc-subset's `train` with points, drawn at random, a model is trained on them;
then 10% of the images are added, those that it proposes or as many at random, and a classifier is
trained on the points of both. mIoU on `val`, 21 classes, full size, no CRF, single scale.

    WEAKSEG_DATA=/path/above/voc-subset python benchmarks/retrieval/suggest.py --out results.json

Reduced, so that a seed takes minutes: EfficientNet-Lite2 frozen; 200 steps of the embedding on 4
crops each, on the first 10%, which the start and both arms share; 300 steps of each classifier; no
pseudo-masks. With --held-out a quarter of `train` takes the place of `val`, for choosing settings.
What is in the results already is not computed again.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from weakseg.dataset import Dataset, Entry
from weakseg.evaluation import Confusion
from weakseg.features import extract_features
from weakseg.files import write_json
from weakseg.retrieval import Index, index_images, segments_of
from weakseg.retrieval.suggestions import to_label
from weakseg.training import Recipe, fit, stages
from weakseg.training.fit import new_classifier, seed_grid
from weakseg.training.labels import Labels
from weakseg.training.pixels import LabelledPixels, train_classifier
from weakseg.training.setup import cache_folder

SHARE, KINDS = 0.1, ("points",)
ARMS = ("at random", "proposed")
RECIPE = {
    "kinds": KINDS,
    "backbone": "tf_efficientnet_lite2",
    "regime": "frozen",
    "device": "cpu",
    "steps": 200,
    "batch": 4,
    "classifier_steps": 300,
    "rounds": 0,
    "validation": 0.0,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("WEAKSEG_DATA", "data"))
    parser.add_argument("--runs", type=Path, default="runs/suggest")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=range(5))
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    dataset = Dataset.open(args.data / "voc-subset")
    train, measured = parts_of(dataset, args.held_out)
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for seed in args.seeds:
        if all(f"{arm}, seed {seed}" in results for arm in ARMS):
            continue
        order = np.random.default_rng(seed).permutation(len(train))
        count = round(SHARE * len(train))
        start = order[:count]
        fitted = fit(
            train.subset(np.sort(start)), Recipe(**RECIPE, seed=seed), out=args.runs / f"{seed}"
        )
        added = {
            "start": start[:0],
            "at random": order[count : 2 * count],
            "proposed": proposed(train, start, count, fitted.segmenter, args.runs / f"{seed}"),
        }
        for arm, images in added.items():
            key = f"{arm}, seed {seed}"
            results[key] = trained(train, measured, start, images, fitted)
            results[key]["processor_s"] = round(time.process_time())
            write_json(args.out, results)
            print(key, {k: v for k, v in results[key].items() if k != "added"}, flush=True)
    summary(results)


def parts_of(dataset, held_out):
    """Images to label, images to measure on."""
    train = dataset.split("train")
    if not held_out:
        return train, dataset.split("val")
    order = np.random.default_rng(0).permutation(len(train))
    quarter = len(train) // 4
    return train.subset(np.sort(order[quarter:])), train.subset(np.sort(order[:quarter]))


def trained(train, measured, start, added, fitted):
    """Train a classifier on the labels of some images, measure on all of `measured`."""
    chosen = train.subset(np.sort(np.concatenate([start, added]).astype(np.int64)))
    model, job = fitted.segmenter, fitted.job
    job = replace(job, labels=Labels(chosen, job.recipe))
    features = extract_features(chosen, model.backbone, cache_dir=cache_folder() / "features")
    job.seed("arm")
    model.classifier = new_classifier(model)
    train_classifier(
        model.classifier,
        LabelledPixels(
            features, seed_grid(job, features), stages.contexts(features), len(train.info.classes)
        ),
        job.recipe,
        head=model.head,
        fabric=job.fabric,
        log=lambda step, losses: None,
    )
    labels = [train[int(i)].annotation.labels - {train.info.background} for i in added]
    return {
        "miou": miou(model.eval(), measured),
        "labelled": len(chosen),
        "points_added": sum(len(train[int(i)].annotation.points) for i in added),
        "classes_an_image": sum(map(len, labels)) / max(1, len(labels)),
        "classes_added": len(frozenset().union(*labels)),
        "added": [train[int(i)].name for i in added],
    }


def proposed(train, start, count, model, runs):
    """Positions of the images that a model trained on `start` proposes."""
    features = extract_features(train, model.backbone, cache_dir=cache_folder() / "features")
    at = {entry.name: i for i, entry in enumerate(train)}
    labelled = {train[int(i)].name for i in start}
    entries = [
        e if e.name in labelled else Entry(e.name, e.image, e.width, e.height) for e in train
    ]

    def embed(entry):
        one = stages.features_at(features, at[entry.name], torch.device("cpu"))
        return segments_of(model, entry, train.info, KINDS, one)

    index_images(runs / "index", model, entries, kinds=KINDS, embed=embed, context=0)
    chosen = [at[s.image] for s in to_label(Index.open(runs / "index"), count)]
    assert len(chosen) == count
    assert not set(chosen) & set(start.tolist())
    return np.array(chosen)


def miou(model, images):
    """Of predictions at full size."""
    features = extract_features(images, model.backbone, cache_dir=cache_folder() / "features")
    confusion = Confusion(images.info)
    for i, entry in enumerate(images):
        one = stages.features_at(features, i, torch.device("cpu"))
        prediction = model.predict_features(one, (entry.height, entry.width))
        confusion.add(prediction.mask, entry.read_mask())
    return confusion.scores().miou


def summary(results):
    seeds = sorted({key.partition(", seed ")[2] for key in results}, key=int)
    values = {
        arm: np.array([100 * results[f"{arm}, seed {s}"]["miou"] for s in seeds]) for arm in ARMS
    }
    for arm, of in (*values.items(), ("gain", values[ARMS[1]] - values[ARMS[0]])):
        spread = f" +- {of.std(ddof=1):.2f}" if len(of) > 1 else ""
        print(f"{arm}: {of.mean():.2f}{spread}", np.round(of, 2).tolist())


if __name__ == "__main__":
    main()
