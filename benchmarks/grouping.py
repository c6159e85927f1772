"""The k-means of the grouping against its plain loop (reference/dense.py): time, memory, labels.

    uv run python benchmarks/grouping.py [--quick]
    uv run python benchmarks/grouping.py --device cuda

4 images of 128 x 128 vectors with 64 channels, 6 x 6 cells, 10 rounds, float32. How many pixels
still move in a round decides how much there is to save, so there are three problems: `photograph`,
ImageNet features of photographs with their location, as in training; `objects`, vectors round 20
random centres in patches; `noise`, where nothing ever settles. The two take turns in one process
for the times (medians of 5), wall seconds and, in brackets, processor seconds; each runs in a
process of its own for the memory at the peak beyond the inputs. `segment_pixels` is the whole
grouping: k-means, the split by seed and region, and the prototypes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from against_plain import main, memory_of
from measure import extra_memory, machine, matmul_rate, seconds, timed_on_cuda
from skimage import data
from skimage.transform import resize
from torch.nn.functional import interpolate, normalize

sys.path.insert(0, str(Path(__file__).parent / "reference"))
import dense

from weakseg.grouping import segment_pixels, unit_rows, with_location
from weakseg.grouping.kmeans import grid_start, spherical_kmeans
from weakseg.models import load_backbone
from weakseg.product import linear

IMAGES, SIDE, D, GRID, ROUNDS = 4, 128, 64, (6, 6), 10
CLUSTERS = GRID[0] * GRID[1]
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")


@torch.no_grad()
def photograph(images, side):
    """62 channels of ImageNet features at stride 4, and the location."""
    pictures = []
    for i in range(images):
        photo = resize(getattr(data, PHOTOS[i % len(PHOTOS)])(), (4 * side, 4 * side))
        pictures.append(torch.as_tensor(photo.transpose(2, 0, 1)).float() * 2 - 1)
    maps = load_backbone("tf_efficientnet_lite0").eval()(torch.stack(pictures))
    maps = torch.cat([interpolate(one, (side, side), mode="bilinear") for one in maps[:2]], 1)
    maps = maps[:, : D - 2] - maps[:, : D - 2].mean((0, 2, 3), keepdim=True)
    rows = with_location(unit_rows(maps), (images, side, side))
    return rows.view(images, side * side, D)


def objects(images, side):
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(20, D, generator=random)
    label = torch.randint(20, (images, 1, side // 8, side // 8), generator=random).float()
    label = interpolate(label, (side, side))[:, 0].long().flatten(1)
    noise = torch.randn(images, side * side, D, generator=random)
    return normalize(centres[label] + 0.7 * noise, dim=2)


def noise(images, side):
    random = torch.Generator().manual_seed(0)
    return normalize(torch.randn(images, side * side, D, generator=random), dim=2)


PROBLEMS = {"photograph": photograph, "objects": objects, "noise": noise}


def plain(vectors, side):
    start = grid_start(side, side, GRID).flatten().repeat(len(vectors), 1)
    return dense.spherical_kmeans(vectors, start, CLUSTERS, ROUNDS)


def weakseg(vectors, side):
    start = grid_start(side, side, GRID).flatten()
    valid = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
    return spherical_kmeans(vectors, valid, start, CLUSTERS, ROUNDS)


def whole(vectors, side):
    """The public function; the location is added to all 64 channels."""
    maps = vectors.mT.reshape(len(vectors), -1, side, side)
    cells = torch.arange(side, device=vectors.device) // 16
    regions = (cells[:, None] * side + cells).expand(len(vectors), side, side)
    seeds = torch.full_like(regions, 21)
    return segment_pixels(maps, seeds, regions, grid=GRID, iterations=ROUNDS)


METHODS = {"dense": plain, "weakseg": weakseg, "segment_pixels": whole}


def one(method, problem):
    METHODS[method](noise(1, 16), 16)  # what torch itself takes is not counted
    vectors = PROBLEMS[problem](IMAGES, SIDE)
    print(extra_memory(lambda: METHODS[method](vectors, SIDE)))


def on_cpu(quick):
    a, b = torch.randn(IMAGES * SIDE**2, D), torch.randn(CLUSTERS, D)
    rate = 2 * len(a) * CLUSTERS * D / seconds([lambda: linear(a, b)])[0][0] / 1e9
    print(f"{machine()}; matrix product {matmul_rate():.0f} GFLOP/s, of this shape {rate:.0f}\n")
    columns = ["vectors", "dense s", "weakseg s", "ratio", "segment_pixels s", "labels equal"]
    columns += ["dense extra MiB", "weakseg extra MiB"]
    print("| " + " | ".join(columns) + " |\n| " + " | ".join("---" for _ in columns) + " |")
    for name, make in PROBLEMS.items():
        vectors = make(IMAGES, SIDE)
        runs = [lambda m=method, v=vectors: m(v, SIDE) for method in METHODS.values()]
        theirs, ours, all_of_it = seconds(runs, 3 if quick else 5)
        equal = (plain(vectors, SIDE) == weakseg(vectors, SIDE)).float().mean()
        row = [name, *(f"{wall:.3f} ({processor:.3f})" for wall, processor in (theirs, ours))]
        row.append("{:.1f} ({:.1f})".format(*np.divide(theirs, ours)))
        row += ["{:.3f} ({:.3f})".format(*all_of_it), f"{equal:.3%}"]
        row += [f"{memory_of(__file__, method, name):,.0f}" for method in ("dense", "weakseg")]
        print("| " + " | ".join(row) + " |", flush=True)


def on_cuda():
    """All images in one product a round; the plain loop, which makes its sums on the CPU, on it."""
    print(f"{torch.cuda.get_device_name()}\n\n| vectors | weakseg ms | segment_pixels ms |")
    print("| --- | --- | --- |")
    for name, make in PROBLEMS.items():
        vectors = make(IMAGES, SIDE).cuda()
        times = [timed_on_cuda(lambda m=m, v=vectors: m(v, SIDE)) for m in (weakseg, whole)]
        print(f"| {name} | " + " | ".join(f"{1e3 * t:.2f}" for t in times) + " |", flush=True)


if __name__ == "__main__":
    main(__doc__, one=one, on_cpu=on_cpu, on_cuda=on_cuda)
