"""Steps of the frozen regime: how long, and how much of it is the reading of cached features.

    uv run python benchmarks/frozen_steps.py

A cache of 520 channels (EfficientNet-Lite2) and 39 x 52 positions an image, which a training reads
through its memory map while the step before computes: a step of the embedding (8 crops of 28 x 28,
four relations, two batches of memory) and one of the pixel classifier (1,024 positions). Seconds on
the clock and, in brackets, processor seconds of all threads; of the former, seconds that the step
waits for its data. Means over the steps after the first few; memory is what the process itself
allocated (RssAnon), without the pages of the file that the system may take back. The file lies in
the system's own cache, as it does in a training that fits there.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, resident
from torch.nn.functional import interpolate

from weakseg.classifier import PixelClassifier
from weakseg.features import FeatureCache
from weakseg.models import EmbeddingHead
from weakseg.training import batches as training_batches
from weakseg.training import pixels as training_pixels
from weakseg.training.batches import FeatureBatches
from weakseg.training.embedding import EmbeddingNetwork, train_embedding
from weakseg.training.grid_maps import GridMaps
from weakseg.training.pixels import LabelledPixels, train_classifier
from weakseg.training.recipe import Recipe
from weakseg.training.setup import make_fabric
from weakseg.training.stages import contexts

CHANNELS, HEIGHT, WIDTH, CLASSES, WARM = 520, 39, 52, 21, 5


def fill(folder, images):
    cache = FeatureCache(folder, CHANNELS)
    random = torch.Generator().manual_seed(0)
    with cache.writing():
        for i in range(images):
            coarse = torch.randn(1, CHANNELS, 5, 7, generator=random)
            smooth = interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0]
            cache.append(f"{i}", smooth + 0.3 * torch.randn(smooth.shape, generator=random))
    return FeatureCache(folder, CHANNELS)


def maps(images):
    """Seeds (a few strokes of two classes and background), regions of 5 x 5 or so, tags."""
    rng = np.random.default_rng(0)
    tags = np.zeros((images, CLASSES), bool)
    seeds, regions = [], []
    for i in range(images):
        one = np.full((HEIGHT, WIDTH), CLASSES)
        for label in (0, *rng.choice(np.arange(1, CLASSES), 2, replace=False)):
            y, x = rng.integers(0, HEIGHT - 2), rng.integers(0, WIDTH - 8)
            one[y : y + 2, x : x + 8] = label
            tags[i, label] = True
        seeds.append(one)
        regions.append(np.arange(HEIGHT)[:, None] // 5 * 11 + np.arange(WIDTH) // 5)
    return GridMaps(seeds), GridMaps(regions), torch.from_numpy(tags)


class Waits:
    """Seconds that a training waits for what `map_ahead` reads for it, and seconds in all."""

    def __init__(self, module):
        self.waited, map_ahead = [], module.map_ahead

        def timed(*arguments, **named):
            items = map_ahead(*arguments, **named)
            while True:
                before = time.perf_counter()
                if len(self.waited) == WARM:
                    self.start, self.used = before, time.process_time()
                    self.memory = resident("RssAnon")
                try:
                    item = next(items)
                except StopIteration:
                    return
                self.waited.append(time.perf_counter() - before)
                yield item

        module.map_ahead = timed

    def row(self, what):
        steps = len(self.waited) - WARM
        step = (time.perf_counter() - self.start) / steps
        used = (time.process_time() - self.used) / steps
        data = sum(self.waited[WARM:]) / steps
        grown = max(0, resident("RssAnon") - self.memory)
        print(
            f"| {what} | {step:.4f} ({used:.4f}) | {data:.5f} | {data / step:.1%} | {grown:,.0f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40, help="of the embedding")
    parser.add_argument(
        "--classifier-steps",
        type=int,
        default=Recipe().classifier_steps,
        help="default: those of a whole training",
    )
    options = parser.parse_args()
    recipe = Recipe(
        kinds=("scribbles",),
        regime="frozen",
        steps=options.steps,
        classifier_steps=options.classifier_steps,
    ).resolved(("scribbles",))
    fabric = make_fabric(recipe)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        features = fill(folder / "cache", options.images)
        size = features.data_path.stat().st_size / 2**20
        print(f"{machine()}; {options.images} images, {size:,.0f} MiB of features\n")
        print("| step of | seconds | of which waiting for data | share | memory it grew by, MiB |")
        print("| --- | --- | --- | --- | --- |")
        seeds, regions, tags = maps(options.images)
        batches = FeatureBatches(features, seeds, regions, tags, recipe, 255)
        network = EmbeddingNetwork(EmbeddingHead(CHANNELS, recipe.dim), CLASSES)
        waits = Waits(training_batches)
        rules, log = (0, 255), lambda step, losses: None
        checkpoint = folder / "checkpoint"
        train_embedding(
            network,
            batches,
            recipe,
            CLASSES,
            rules,
            fabric=fabric,
            checkpoint=checkpoint,
            log=log,
        )
        waits.row("the embedding")
        pixels = LabelledPixels(features, seeds, contexts(features), CLASSES)
        classifier = PixelClassifier(CHANNELS, recipe.dim, CLASSES, dropout=0.5)
        waits = Waits(training_pixels)
        train_classifier(classifier, pixels, recipe, head=network.head, fabric=fabric, log=log)
        waits.row("the classifier")


if __name__ == "__main__":
    main()
