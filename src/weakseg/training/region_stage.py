"""The low-level regions of the training images."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.regions import read_region_map, region_map_cached
from weakseg.training.recipe import Recipe
from weakseg.training.stages import Job


@dataclass
class TrainingRegions:
    """The region map of a training image, (H, W): the user's own, or computed and cached.

    Attributes:
        dataset: the training images.
        recipe: resolved; says which regions.
        cache: folder of computed maps.
        own: the user's maps by name of the image, None where they are computed.
        keys: names of computed maps by image, once they are known: to find them by the content of
            a photograph takes longer than to read them.
    """

    dataset: Dataset
    recipe: Recipe
    cache: Path
    own: dict[str, Path] | None = None
    keys: dict[int, str] = field(default_factory=dict)

    def __call__(self, index: int) -> NDArray[np.int32]:
        """The regions of image `index`.

        Raises:
            InputError: the user's map is missing or does not fit.
        """
        entry = self.dataset[index]
        size = entry.height, entry.width
        if self.own is not None:
            stem = entry.name.rpartition("/")[2]
            if stem not in self.own:
                raise InputError(
                    f"no region map for image {entry.name}",
                    file=self.recipe.region_maps,
                    rule=f"{stem}.png, .npy or .npz",
                )
            return read_region_map(self.own[stem], size=size)
        if self.recipe.regions == "none":
            return np.zeros(size, np.int32)
        if index in self.keys:
            with suppress(InputError):  # gone or damaged since: made anew
                return read_region_map(self.cache / self.keys[index], size=size)
        image, method = entry.read_image(), self.recipe.regions
        regions, file = region_map_cached(image, self.cache, method=method)
        self.keys[index] = file.name
        return regions


def region_stage(job: Job) -> TrainingRegions:
    """Compute the regions of all training images, or find them in the cache."""
    folder = job.recipe.region_maps
    own = None
    if folder is not None:
        if not Path(folder).is_dir():
            raise InputError("--region-maps", file=folder, rule="a folder of region maps")
        own = {p.stem: p for p in Path(folder).rglob("*") if p.suffix in (".png", ".npy", ".npz")}
    regions = TrainingRegions(job.dataset, job.recipe, job.cache / "regions", own)
    with job.progress.stage("regions", len(job.dataset)) as advance:
        for index in range(len(job.dataset)):
            regions(index)
            advance(index + 1, len(job.dataset))
    return regions
