"""What low-level regions do for the segmenter: mIoU on voc-subset's val, by kind of regions.

    uv run python benchmarks/regions/effect.py --out effect.json

A reduced run of the published recipe, the same but for `regions`: frozen tf_efficientnet_lite2,
every second training image, 300 steps of the embedding, 600 of each classifier, one round of
pseudo-masks; measured on all of val, single scale. Figures already in the file are kept, so that
a stopped run goes on and another seed can be added.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

from bsds import DATA

from weakseg.dataset import Dataset
from weakseg.files import write_json
from weakseg.training import Recipe, fit


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kinds", nargs="+", default=["scribbles", "points"])
    parser.add_argument("--regions", nargs="+", default=["none", "gradient", "learned", "slic"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--every", type=int, default=2, help="only every n-th training image")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--classifier-steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    dataset = reduced(Dataset.open(DATA / "voc-subset"), args.every)
    protocol = f"every={args.every} {args.steps}+{args.classifier_steps} rounds={args.rounds}"
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    for seed, kind, regions in itertools.product(args.seeds, args.kinds, args.regions):
        name = f"{protocol} seed={seed} {kind} {regions}"
        if name not in found:
            recipe = Recipe(
                kinds=(kind,),
                backbone="tf_efficientnet_lite2",
                regime="frozen",
                regions=regions,
                steps=args.steps,
                classifier_steps=args.classifier_steps,
                rounds=args.rounds,
                seed=seed,
            )
            begun = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                fitted = fit(dataset, recipe, out=Path(folder) / "run")
            found[name] = {
                "miou": fitted.miou["weakseg"],
                "processor_seconds": round(time.process_time() - begun),
            }
            write_json(args.out, found)
        print(f"{name}: {100 * found[name]['miou']:.1f}", flush=True)


def reduced(dataset, every):
    """Every n-th training image and all of val."""
    train = [i for i, entry in enumerate(dataset) if entry.split == "train"][::every]
    return dataset.subset(train + [i for i, e in enumerate(dataset) if e.split == "val"])


if __name__ == "__main__":
    main()
