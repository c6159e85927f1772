"""Writing COCO JSON: boxes, masks as compressed run lengths, points as keypoints, tags."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.annotation import Area
from weakseg.dataset import Entry
from weakseg.files import atomic_path
from weakseg.formats.coco import compress
from weakseg.formats.rasters import run_lengths
from weakseg.formats.writing import WriteOptions, image_name, lose, mask_shapes


def write_coco(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a COCO file; annotations go to disk as they come.

    Each component of a mask is one annotation, marked with `"source": "mask"` so that its
    bounding box is not taken for a label when the file is read again. A tag is an annotation
    without geometry.
    """
    info = options.info
    ids = {name: i for i, name in enumerate(info.classes, 1)}
    if options.ignore_label is not None:
        ids[options.ignore_label] = len(ids) + 1
    used, clicked = {*info.classes}, set()
    images: list[dict[str, Any]] = []
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"info": ' + json.dumps({"description": info.name}, ensure_ascii=False))
        file.write(',\n"annotations": [')
        count = 0
        for image, entry in enumerate(entries, 1):
            images.append(
                {
                    "id": image,
                    "file_name": options.prefix + image_name(entry, options),
                    "width": entry.width,
                    "height": entry.height,
                }
            )
            for label, annotation in _annotations(entry, options):
                used.add(label)
                if "keypoints" in annotation:
                    clicked.add(label)
                count += 1
                line = {"id": count, "image_id": image, "category_id": ids[label], **annotation}
                file.write(("," if count > 1 else "") + "\n" + json.dumps(line))
        categories = [
            {"id": i, "name": name}
            | ({"keypoints": ["point"], "skeleton": []} if name in clicked else {})
            for name, i in ids.items()
            if name in used
        ]
        for key, value in (("categories", categories), ("images", images)):
            file.write(f'],\n"{key}": [')
            file.write(",".join("\n" + json.dumps(v, ensure_ascii=False) for v in value))
        file.write("]}\n")


def _annotations(entry: Entry, options: WriteOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    size, annotation = (entry.height, entry.width), entry.annotation
    for tag in annotation.tags:
        yield tag, {}
    for box in annotation.boxes:
        yield box.label, _box(box.xyxy)
    for point in annotation.points:
        yield point.label, {"keypoints": [*point.xy, 2], "num_keypoints": 1, "iscrowd": 0}
    for label, patch in mask_shapes(entry, options):
        yield label, _mask(patch.on(size), patch.corner, patch.inside)
    lose(entry, options, "scribbles")
    for area in annotation.ignore:
        if options.ignore_label is None:
            lose(entry, options, "ignore")
            break
        yield options.ignore_label, _area(area)


def _box(xyxy: tuple[float, ...]) -> dict[str, Any]:
    x0, y0, x1, y1 = xyxy
    width, height = x1 - x0, y1 - y0
    return {"bbox": [x0, y0, width, height], "area": width * height, "iscrowd": 0}


def _mask(
    whole: NDArray[np.bool_], corner: tuple[int, int], inside: NDArray[np.bool_]
) -> dict[str, Any]:
    counts = compress(run_lengths(whole, by_columns=True))
    return {
        "segmentation": {"size": [*whole.shape], "counts": counts},
        "area": int(inside.sum()),
        "bbox": [*corner, inside.shape[1], inside.shape[0]],
        "iscrowd": 0,
        "source": "mask",
    }


def _area(area: Area) -> dict[str, Any]:
    if area.xyxy is not None:
        return _box(area.xyxy)
    xy = np.array(area.xy, float) + 0.5  # to edge coordinates
    (x0, y0), (x1, y1) = xy.min(0).tolist(), xy.max(0).tolist()
    box = _box((x0, y0, x1, y1)) | {"source": "mask"}
    return {"segmentation": [xy.reshape(-1).tolist()], **box}
