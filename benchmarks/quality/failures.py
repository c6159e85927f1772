"""A picture of a run's worst photographs: photograph, truth, prediction, a row each.

    uv run python benchmarks/quality/failures.py RUN DATASET --out failures.png

The images of val with the smallest share of pixels right, one for each class that is most of the
truth beside the background, so that one class does not fill the picture.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from weakseg.dataset import Dataset
from weakseg.images import palette
from weakseg.segmenter import Segmenter

WIDTH = 200


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--top", type=int, default=8)
    args = parser.parse_args()
    dataset = Dataset.open(args.data).split("val")
    found = judged(Segmenter.load(args.run), dataset)
    shown = worst(found, args.top)
    for right, label, index, _ in shown:
        print(f"{dataset[index].name}: {100 * right:.0f} % right, mostly {label}")
    tiles = [row(dataset[index], prediction) for _, _, index, prediction in shown]
    half = (len(tiles) + 1) // 2
    sheet([tiles[:half], tiles[half:]]).save(args.out)


def judged(segmenter, dataset):
    """(share right, main class, index, prediction) of every image."""
    found = []
    background = dataset.info.background_index
    for index, entry in enumerate(dataset):
        truth = entry.read_mask()
        prediction = segmenter.predict(entry.read_image()).mask
        counted = truth < len(dataset.info.classes)
        votes = np.bincount(truth[counted], minlength=len(dataset.info.classes))
        if background is not None:
            votes[background] = 0
        label = dataset.info.classes[votes.argmax()]
        found.append(((prediction == truth)[counted].mean(), label, index, prediction))
    return found


def worst(found, count):
    """The worst image of each main class, worst first."""
    shown, seen = [], set()
    for one in sorted(found, key=lambda one: one[0]):
        if one[1] not in seen:
            seen.add(one[1])
            shown.append(one)
    return shown[:count]


def row(entry, prediction):
    """Photograph, truth and prediction side by side."""
    colours = palette(256)
    pictures = [entry.read_image()]
    pictures += [colours[mask] for mask in (entry.read_mask(), prediction)]
    height = round(WIDTH * entry.height / entry.width)
    size = (WIDTH, height)
    strip = Image.new("RGB", (3 * WIDTH + 8, height + 4), "white")
    for i, picture in enumerate(pictures):
        how = Image.Resampling.BICUBIC if i == 0 else Image.Resampling.NEAREST
        strip.paste(Image.fromarray(picture).resize(size, how), (i * (WIDTH + 4), 2))
    return strip


def sheet(columns):
    """Columns of strips on white."""
    height = max(sum(tile.height for tile in column) for column in columns)
    width = max(tile.width for column in columns for tile in column) + 12
    picture = Image.new("RGB", (width * len(columns), height), "white")
    for i, column in enumerate(columns):
        top = 0
        for tile in column:
            picture.paste(tile, (i * width, top))
            top += tile.height
    return picture


if __name__ == "__main__":
    main()
