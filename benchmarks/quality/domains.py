"""The defaults on pictures of other kinds: drawn street scenes and tissue slides, see `drawn.py`.

    uv run python benchmarks/quality/domains.py --out RESULTS

60 pictures to train on, 30 to measure on, in each domain; the labels are simulated from the masks.
`weakseg demo`'s steps and sizes, for one kind of label after another, beside plain cross-entropy.
Results are kept one by one; prints a table of mIoU.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from drawn import DOMAINS
from protocols import Predicting, measured

from weakseg.annotation import KINDS
from weakseg.dataset import Dataset, DatasetInfo, DatasetWriter
from weakseg.demo.run import RECIPE
from weakseg.files import write_json
from weakseg.simulate import simulate_labels
from weakseg.training import fit

COUNTS = {"train": 60, "val": 30}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of data, runs and results")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    print("| domain | label | seed | cross-entropy | weakseg without a walk | weakseg |")
    print("| --- | --- | --- | --- | --- | --- |")
    for domain in DOMAINS:
        dataset = drawn(args.out / domain / "data", domain)
        for seed in args.seeds:
            for kind in args.kinds:
                file = args.out / domain / f"{kind}-seed{seed}.json"
                if not file.exists():
                    write_json(file, figures(dataset, kind, seed, args.out / domain / "runs"))
                found = json.loads(file.read_text())
                row = " | ".join(f"{100 * value:.1f}" for value in found["miou"].values())
                print(f"| {domain} | {kind} | {seed} | {row} |", flush=True)


def drawn(folder, domain):
    """The data set of a domain, made where it is not there yet."""
    if (folder / "annotations.jsonl").exists():
        return Dataset.open(folder)
    draw, classes, background = DOMAINS[domain]
    # Streets: nobody boxes the sky, so boxes name some of what is there.
    info = DatasetInfo(domain, classes, background, boxes_exhaustive=background is not None)
    with DatasetWriter(folder, info, overwrite=True) as writer:
        for part, count in COUNTS.items():
            for i in range(count):
                image, mask = draw(np.random.default_rng([len(part), i]))
                kinds = KINDS[1:] if part == "train" else ()
                labels = simulate_labels(mask, info, kinds, seed=i)
                writer.add(image, labels, name=f"{part}_{i:03d}", mask=mask, split=part)
    return Dataset.open(folder)


def figures(dataset, kind, seed, runs):
    """mIoU by method, and the protocol."""
    recipe = replace(RECIPE, kinds=(kind,), seed=seed)
    fitted = fit(dataset, recipe, out=runs / f"{kind}-seed{seed}")
    still = measured(Predicting(fitted.segmenter, {"walk": 0}), fitted.evaluated)
    miou = {
        "cross_entropy": fitted.miou["cross_entropy"],
        "without a walk": still["miou"],
        "weakseg": fitted.miou["weakseg"],
    }
    return {"miou": miou, "protocol": fitted.protocol}


if __name__ == "__main__":
    main()
