"""Time and memory of importing a large COCO file.

    python benchmarks/import_coco.py --images 100000 --folder /tmp/coco

writes a file like COCO's train2017 (8.6 objects an image, each with box, area and a polygon of 24
corners) with hard links to a few photographs of 640 x 480, imports it with `weakseg import` in a
process of its own, and prints that process's peak memory (resident set) and time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, CLASSES = 640, 480, 80
_RUN = "import sys; from weakseg.cli import main; sys.exit(main())"


def write_images(folder: Path, count: int) -> None:
    """`count` names for pictures of noise; a file system allows some 65,000 names for one."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"{i:012d}.jpg"
        if i % 50_000 == 0:
            first = path
            coarse = rng.integers(0, 256, (HEIGHT // 32, WIDTH // 32, 3), np.uint8)
            Image.fromarray(coarse).resize((WIDTH, HEIGHT)).save(path, quality=80)
        else:
            os.link(first, path)


def shape(rng: np.random.Generator) -> str:
    """A polygon with its box, the JSON of an annotation after its ids."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = np.exp(rng.normal(3.5, 0.8)) * rng.uniform(0.7, 1.3, len(angles))
    centre = rng.uniform((0, 0), (WIDTH, HEIGHT))
    ring = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ring = np.clip(ring, 0, (WIDTH, HEIGHT)).round(2)
    (x0, y0), (x1, y1) = ring.min(0).tolist(), ring.max(0).tolist()
    annotation = {
        "segmentation": [ring.ravel().tolist()],
        "area": round((x1 - x0) * (y1 - y0) * 0.7, 2),
        "iscrowd": 0,
        "bbox": [x0, y0, max(x1 - x0, 0.01), max(y1 - y0, 0.01)],
        "category_id": int(rng.integers(CLASSES)) + 1,
    }
    return json.dumps(annotation)[1:]


def write_annotations(path: Path, count: int) -> int:
    """A COCO file of `count` images; returns the number of its annotations."""
    rng = np.random.default_rng(1)
    number = 0
    with path.open("w") as file:
        file.write('{"info": {"description": "synthetic"}, "licenses": [], "images": [')
        for i in range(count):
            image = {"id": i, "file_name": f"{i:012d}.jpg", "width": WIDTH, "height": HEIGHT}
            file.write(("," if i else "") + json.dumps(image))
        file.write('], "annotations": [')
        # In the order of the annotations' ids, not of the images, as in COCO.
        owners = rng.permutation(np.repeat(np.arange(count), rng.poisson(8.6, count)))
        objects = [shape(rng) for _ in range(5000)]
        for owner in owners.tolist():
            ids = f'{{"id": {number}, "image_id": {owner}, '
            file.write((", " if number else "") + ids + objects[number % len(objects)])
            number += 1
        categories = [{"id": i + 1, "name": f"class {i:02d}"} for i in range(CLASSES)]
        file.write('], "categories": ' + json.dumps(categories) + "}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True, help="is made and stays")
    parser.add_argument("--kinds", default="", help="as for weakseg import; default: all")
    args = parser.parse_args()
    file, photos = args.folder / "instances.json", args.folder / "photos"
    if not file.exists():
        write_images(photos, args.images)
        write_annotations(file, args.images)
    print(f"{file.stat().st_size / 1e6:.0f} MB of JSON, {args.images} images", flush=True)
    command = [sys.executable, "-c", _RUN, "import", "coco", str(file), "--images", str(photos)]
    command += ["--out", str(args.folder / "out"), "--overwrite"]
    command += ["--kinds", args.kinds] if args.kinds else []
    start = time.perf_counter()
    subprocess.run(command, check=True)
    wall = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    print(f"peak memory {usage.ru_maxrss / 1e6:.2f} GB, {wall:.0f} s ({cpu:.0f} s of CPU)")


if __name__ == "__main__":
    main()
