"""What prediction spends: the model alone, with the random walk, and with a dense CRF after it.

    uv run python benchmarks/prediction.py [RUN]

A photograph of 400 x 600 pixels from scikit-image; the ways take turns, medians of 5, wall seconds
and, in brackets, processor seconds. Without a run folder, models of 21 classes are new: their
embeddings are as spread out as untrained ones are.
"""

import argparse
from pathlib import Path

import torch
from measure import machine, seconds
from skimage import data

from weakseg.dataset_info import DatasetInfo
from weakseg.segmenter import Architecture, Segmenter, build_segmenter

INFO = DatasetInfo("new", tuple(f"class {i}" for i in range(21)), background="class 0")
NEW = [
    ("tf_efficientnet_lite0", 416),
    ("tf_efficientnet_lite2", 416),
    ("tf_efficientnet_lite2", 1024),
]
WAYS = {
    "model": {"walk": 0},
    "with walk": {"walk": 64},
    "with walk and CRF": {"walk": 64, "crf": True},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="folder of a trained model")
    run = parser.parse_args().run
    print(f"{machine()}\n")
    print("| backbone, long side | " + " | ".join(f"{way} s" for way in WAYS) + " | walk's share |")
    print("| --- " * (len(WAYS) + 2) + "|")
    photo = data.coffee()
    for model in [Segmenter.load(run)] if run else map(new, NEW):
        calls = [lambda m=model, w=way: m.predict(photo, **w) for way in WAYS.values()]
        taken = seconds(calls)
        share = 1 - taken[0][1] / taken[1][1]
        row = [f"{model.architecture.backbone}, {model.architecture.long_side}"]
        row += [f"{wall:.2f} ({processor:.2f})" for wall, processor in taken]
        print("| " + " | ".join([*row, f"{share:.0%}"]) + " |", flush=True)


def new(described):
    """A model with new weights in head and classifier, whose scores differ."""
    torch.manual_seed(0)
    backbone, long_side = described
    model = build_segmenter(Architecture(backbone, 16, long_side, 64), INFO)
    torch.nn.init.normal_(model.classifier.out.weight, std=0.5)
    return model


if __name__ == "__main__":
    main()
