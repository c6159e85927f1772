"""Segmentation from tags, boxes, points and scribbles, in one method.

>>> from weakseg import Dataset, Recipe, Segmenter, fit
>>> fitted = fit(Dataset.open("reef"), Recipe(kinds=("points",)), out="runs/reef")
>>> fitted.segmenter.predict(image).mask  # (H, W, 3) uint8 in, (H, W) class indices out
>>> Segmenter.load("runs/reef")  # later, elsewhere
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weakseg.annotation import Annotation, Area, Box, Point, Scribble
    from weakseg.dataset import Dataset, DatasetInfo
    from weakseg.errors import InputError
    from weakseg.evaluation import evaluate
    from weakseg.formats import annotation_from_layers, export_dataset, import_dataset
    from weakseg.hub import pull, push
    from weakseg.portable import export_model
    from weakseg.segmenter import Prediction, Segmenter
    from weakseg.simulate import simulate_dataset, simulate_labels
    from weakseg.training import Fitted, Recipe, fit

# OpenMP threads that wait for each other spin, and on a machine with other work spin away the time
# of those they wait for: a dense CRF took fifty times as long. Read when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_HOMES = {
    "Annotation": "annotation",
    "Area": "annotation",
    "Box": "annotation",
    "Point": "annotation",
    "Scribble": "annotation",
    "Dataset": "dataset",
    "DatasetInfo": "dataset",
    "InputError": "errors",
    "annotation_from_layers": "formats",
    "evaluate": "evaluation",
    "export_dataset": "formats",
    "import_dataset": "formats",
    "export_model": "portable",
    "pull": "hub",
    "push": "hub",
    "Prediction": "segmenter",
    "Segmenter": "segmenter",
    "simulate_dataset": "simulate",
    "simulate_labels": "simulate",
    "Fitted": "training",
    "Recipe": "training",
    "fit": "training",
}

__all__ = [
    "Annotation",
    "Area",
    "Box",
    "Dataset",
    "DatasetInfo",
    "Fitted",
    "InputError",
    "Point",
    "Prediction",
    "Recipe",
    "Scribble",
    "Segmenter",
    "annotation_from_layers",
    "evaluate",
    "export_dataset",
    "export_model",
    "fit",
    "import_dataset",
    "pull",
    "push",
    "simulate_dataset",
    "simulate_labels",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: reading labels should not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'weakseg' has no attribute {name!r}")
    return getattr(importlib.import_module(f"weakseg.{_HOMES[name]}"), name)
