"""Training batches of the embedding: crops of cached features, or of augmented photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms import v2

from weakseg.ahead import map_ahead
from weakseg.dataset import Dataset
from weakseg.features import FeatureCache
from weakseg.seeds import seeds_at
from weakseg.training.grid_maps import GridMaps, nearest
from weakseg.training.labels import Labels
from weakseg.training.recipe import Recipe

RegionsOf = Callable[[int], NDArray[np.int32]]


@dataclass
class Batch:
    """What a step sees.

    Attributes:
        inputs: (B, C, h, w) features (frozen), or (B, 3, H, W) images in 0..1 (fine-tune).
        seeds: (B, h', w') seed map on the grid of the embeddings.
        regions: (B, h', w') low-level regions.
        tags: (B, classes) bool, the classes of each image's weak labels.
    """

    inputs: Tensor
    seeds: Tensor
    regions: Tensor
    tags: Tensor

    def to(self, device: torch.device) -> Batch:
        """This batch on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))

    def pin_memory(self) -> Batch:
        """This batch where a GPU can fetch it by itself; `DataLoader` calls it."""
        return Batch(*(t.pin_memory() for t in vars(self).values()))


def chosen_images(
    rng: np.random.Generator, labelled: NDArray[np.bool_], batch: int
) -> NDArray[np.int64]:
    """(batch,) indices of images drawn at random, none twice if there are enough.

    Where under half of all images have labels, half of the batch has all the same: what a class
    is must be learned from few (docs/results.md).

    Args:
        rng: where chance comes from.
        labelled: (N,) whether an image has a label.
        batch: how many.
    """
    count = len(labelled)
    few = np.flatnonzero(labelled)
    if 2 * len(few) >= count or not len(few):
        return rng.choice(count, batch, replace=count < batch)
    rest, half = np.flatnonzero(~labelled), (batch + 1) // 2
    parts = [
        rng.choice(few, half, replace=len(few) < half),
        rng.choice(rest, batch - half, replace=len(rest) < batch - half),
    ]
    return np.concatenate(parts)


class FeatureBatches:
    """Random crops of cached features, mirrored at random; the same for the same seed.

    Args:
        features: of the training images, at stride 8.
        seeds: at the embedding's stride.
        regions: likewise.
        tags: (N, classes) bool.
        recipe: resolved; `crop` counts feature positions, `batch` images.
        ignore: seed value of what lies outside an image.
    """

    def __init__(
        self,
        features: FeatureCache,
        seeds: GridMaps,
        regions: GridMaps,
        tags: Tensor,
        recipe: Recipe,
        ignore: int,
    ) -> None:
        self.features, self.seeds, self.regions, self.tags = features, seeds, regions, tags
        self.recipe, self.ignore = recipe, ignore
        self.scale = 8 // recipe.embedding_stride
        self.labelled = tags.any(1).numpy()

    def at(self, step: int, rank: int = 0) -> Batch:
        """The batch of a step: a resumed run sees what an unbroken one would have seen."""
        rng = np.random.default_rng([self.recipe.seed, rank, step])
        crop, scale = self.recipe.crop, self.scale
        chosen = chosen_images(rng, self.labelled, self.recipe.batch)
        picks = []
        for index in chosen.tolist():
            h, w = self.features.size(index)
            top = int(rng.integers(0, max(0, h - crop) + 1))
            left = int(rng.integers(0, max(0, w - crop) + 1))
            picks.append((index, top, left))
        fine = [(index, top * scale, left * scale) for index, top, left in picks]
        side = crop * scale
        batch = Batch(
            self.features.crops(picks, crop, crop),
            self.seeds.crops(fine, side, side, self.ignore),
            self.regions.crops(fine, side, side, 0),
            self.tags[torch.from_numpy(chosen)],
        )
        mirror = torch.from_numpy(rng.random(len(chosen)) < 0.5)
        for maps in (batch.inputs, batch.seeds, batch.regions):
            maps[mirror] = maps[mirror].flip(-1)
        return batch

    def batches(self, start: int, steps: int, rank: int = 0) -> Iterator[Batch]:
        """The batches of steps `start` to `steps`, read while the steps before them compute."""
        return map_ahead(lambda step: self.at(step, rank), range(start, steps), share=1)


class ImageBatches(IterableDataset[Batch]):
    """Photographs scaled by .5 to 1.5, cropped, mirrored, with colours jittered.

    Args:
        dataset: the training images.
        labels: their labels.
        regions: the region map of image i, (H, W).
        recipe: resolved; `crop` counts pixels.
    """

    def __init__(
        self, dataset: Dataset, labels: Labels, regions: RegionsOf, recipe: Recipe
    ) -> None:
        self.dataset, self.labels, self.regions, self.recipe = dataset, labels, regions, recipe
        self.jitter = v2.ColorJitter(0.3, 0.3, 0.3, 0.05)
        self.start, self.steps, self.rank = 0, 0, 0

    def batches(self, start: int, steps: int, rank: int = 0) -> Iterator[Batch]:
        """The batches of steps `start` to `steps`, made by worker processes."""
        self.start, self.steps, self.rank = start, steps, rank
        loader = DataLoader(
            self,
            batch_size=None,
            num_workers=min(self.recipe.workers, max(0, steps - start)),
            pin_memory=torch.device(self.recipe.device).type == "cuda",
        )
        yield from loader

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in range(self.start + first, self.steps, stride):
            yield self.at(step)

    def at(self, step: int) -> Batch:
        """The batch of a step, the same for the same seed."""
        rng = np.random.default_rng([self.recipe.seed, self.rank, step])
        # Colour jitter draws from torch's generator.
        torch.manual_seed(int(rng.integers(2**31)))
        chosen = chosen_images(rng, self.labels.labelled, self.recipe.batch)
        samples = [self._sample(int(index), rng) for index in chosen]
        images, seeds, regions = (torch.stack(column) for column in zip(*samples, strict=True))
        return Batch(images, seeds, regions, self.labels.tags[torch.from_numpy(chosen)])

    def _sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        info, side = self.labels.info, self.recipe.crop
        image = torch.from_numpy(self.dataset[index].read_image().copy()).permute(2, 0, 1)
        maps = np.stack([self.labels.seeds(index), self.regions(index)])
        height, width = image.shape[-2:]
        scale = self.recipe.long_side / max(height, width) * float(rng.uniform(0.5, 1.5))
        window = [min(n, max(1, round(side / scale))) for n in (height, width)]
        top, left = (
            int(rng.integers(0, n - m + 1)) for n, m in zip((height, width), window, strict=True)
        )
        rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
        size = [min(side, max(1, round(n * scale))) for n in window]
        small = v2.functional.resize(image[:, rows, columns], size, antialias=True)
        picture = torch.zeros(3, side, side, dtype=torch.uint8)
        picture[:, : size[0], : size[1]] = self.jitter(small)

        stride = self.recipe.embedding_stride
        grid = [-(-n // stride) for n in size]
        seed_crop, region_crop = maps[:, rows, columns]
        seeds = torch.full((side // stride,) * 2, info.ignore)
        regions = torch.zeros((side // stride,) * 2, dtype=torch.long)
        inside = seeds_at(
            seed_crop, (grid[0], grid[1]), classes=info.unlabelled, ignore=info.ignore
        )
        seeds[: grid[0], : grid[1]] = torch.from_numpy(inside).long()
        regions[: grid[0], : grid[1]] = torch.from_numpy(nearest(region_crop, grid)).long()
        tensors = picture.float() / 255, seeds, regions
        if rng.random() < 0.5:
            return tensors[0].flip(-1), tensors[1].flip(-1), tensors[2].flip(-1)
        return tensors
