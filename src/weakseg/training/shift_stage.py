"""Scores at the shares that classes have in images, not in labels."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from weakseg.files import write_json
from weakseg.label_shift import shift_weights
from weakseg.training.run_folder import damaged_as_input
from weakseg.training.stages import Job, ScoresOf

IMAGES, POSITIONS = 500, 200
"""How many images, and positions of each, the shares are estimated from at most."""


def shifted_scores(job: Job, scores_of: ScoresOf, shares: Tensor) -> ScoresOf:
    """Scores (C, h, w) of training image i, weighted by `shift_weights`.

    Points and scribbles are drawn from an object's pixels without a view to its size, which is
    what the estimate supposes. Seeds that class maps give are not, and keep their shares.

    Args:
        job: the run.
        scores_of: class probabilities (C, h, w) of image i.
        shares: (C,) shares of the classes in the labels that the classifier learned from.
    """
    if not job.labels.marked:
        return scores_of
    file = job.run.stages / "label-shift.json"
    if file.exists():
        with damaged_as_input(file):
            weights = torch.tensor(json.loads(file.read_text()))
    else:
        weights = shift_weights(_drawn(job, scores_of), shares)
        write_json(file, weights.tolist())

    def scores(index: int) -> Tensor:
        found = scores_of(index)
        return found * weights.to(found)[:, None, None]

    return scores


def _drawn(job: Job, scores_of: ScoresOf) -> Tensor:
    """(N, C) scores at positions drawn from all images."""
    rng = np.random.default_rng([job.recipe.seed, len(job.dataset)])
    rows = []
    for index in np.linspace(0, len(job.dataset) - 1, min(IMAGES, len(job.dataset))).astype(int):
        flat = scores_of(int(index)).flatten(1).cpu()
        rows.append(flat[:, torch.from_numpy(rng.integers(0, flat.shape[1], POSITIONS))].t())
    return torch.cat(rows)
