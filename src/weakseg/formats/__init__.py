"""Labels in from the tools that people use, and out to them.

    dataset = Dataset.from_coco("instances.json", images="photos")      # in memory
    dataset = Dataset.from_cvat("task.zip", out="reef")                 # on disk, for large ones
    report = export_dataset("label-studio", dataset, "tasks.json")

Each `from_...` takes the keywords of `import_dataset` and returns the data set alone; what was
left out goes to `warnings`, one line for each kind of finding.
"""

from __future__ import annotations

from weakseg.formats.arrays import annotation_from_layers
from weakseg.formats.exporting import WRITERS, ExportReport, export_dataset
from weakseg.formats.importing import READERS, ImportReport, import_dataset
from weakseg.formats.shortcuts import (
    from_coco,
    from_coralnet,
    from_cvat,
    from_folders,
    from_geojson,
    from_ilastik,
    from_label_studio,
    from_labelme,
    from_masks,
    from_napari,
    from_nnunet,
    from_points,
    from_scribblesup,
    from_tags,
    from_voc,
    from_yolo,
)

__all__ = [
    "READERS",
    "WRITERS",
    "ExportReport",
    "ImportReport",
    "annotation_from_layers",
    "export_dataset",
    "from_coco",
    "from_coralnet",
    "from_cvat",
    "from_folders",
    "from_geojson",
    "from_ilastik",
    "from_label_studio",
    "from_labelme",
    "from_masks",
    "from_napari",
    "from_nnunet",
    "from_points",
    "from_scribblesup",
    "from_tags",
    "from_voc",
    "from_yolo",
    "import_dataset",
]
