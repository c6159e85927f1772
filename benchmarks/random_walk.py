"""The random walk against its plain formulation: time, memory and error, each in its own process.

    uv run python benchmarks/random_walk.py

Embeddings are ImageNet features of a photograph from scikit-image; 64 steps of 4 classes. `plain`
squares the transition matrix 6 times, `64 products` multiplies the scores with it. Errors are
against `plain` in float64 where that takes under a minute, else against 64 products in float64.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, resident
from skimage import data
from skimage.transform import resize
from torch.nn.functional import interpolate, normalize

from weakseg.models import load_backbone
from weakseg.propagate import random_walk

GRIDS = {"375 x 500": (47, 63), "750 x 1000": (94, 125), "1500 x 2000": (188, 250)}
PLAIN_POSITIONS, DENSE_POSITIONS = 4_000, 12_000  # larger ones take minutes, or 9 GB


@torch.no_grad()
def embeddings(grid):
    """(D, h, w) of a photograph at stride 8: 40 channels of stride 8 and 112 of stride 16."""
    photo = resize(data.coffee(), (8 * grid[0], 8 * grid[1])).transpose(2, 0, 1)[None]
    maps = load_backbone("tf_efficientnet_lite0").eval()(torch.as_tensor(photo).float() * 2 - 1)
    maps = [normalize(interpolate(one, grid, mode="bilinear"), dim=1) for one in maps[:2]]
    stacked = torch.cat(maps, 1)[0]
    return stacked - stacked.mean((1, 2), keepdim=True)


def scores(grid):
    """(4, h, w): three classes in a few marks, one with a score everywhere."""
    generator = torch.Generator().manual_seed(0)
    out = (torch.rand(4, *grid, generator=generator) > 0.99).float()
    out[3] = torch.rand(grid, generator=generator)
    return out


def transition(vectors):
    vectors = normalize(vectors.flatten(1).t(), dim=1)
    affinity = (5 * (vectors @ vectors.t() - 1)).exp() ** 20
    return affinity / affinity.sum(0)


def plain(vectors, start):
    matrix = transition(vectors)
    for _ in range(6):
        matrix = matrix @ matrix
    return (start.flatten(1) @ matrix).view_as(start)


def products(vectors, start):
    matrix, walked = transition(vectors), start.flatten(1)
    for _ in range(64):
        walked = walked @ matrix
    return walked.view_as(start)


METHODS = {"plain": plain, "64 products": products, "weakseg": random_walk}


def one(method, size, folder):
    vectors, start = (torch.load(folder / f"{size}.pt")[key] for key in ("embeddings", "scores"))
    METHODS[method](vectors[:, :8, :8], start[:, :8, :8])  # what torch itself takes is not counted
    before, seconds = resident("VmRSS"), []
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    for _ in range(5 if len(vectors[0].flatten()) < PLAIN_POSITIONS else 1):
        wall, processor = time.perf_counter(), time.process_time()
        walked = METHODS[method](vectors, start)
        seconds.append((time.perf_counter() - wall, time.process_time() - processor))
    extra = resident("VmHWM") - before
    expected = folder / f"{size} expected.pt"
    error = f"{(walked - torch.load(expected)).abs().max():.1e}" if expected.exists() else "-"
    wall, processor = np.median(seconds, axis=0)
    print(f"| {size} | {method} | {wall:.2f} ({processor:.2f}) | {extra:.0f} | {error} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SIZE", "FOLDER"))
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1], Path(options.one[2]))
        return
    print(f"{machine()}; wall seconds and, in brackets,")
    print("processor seconds; median of 5 on the smallest grid\n")
    print(
        "| image | method | seconds | extra MiB | largest error |\n| --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        for size, grid in GRIDS.items():
            positions = grid[0] * grid[1]
            problem = {"embeddings": embeddings(grid), "scores": scores(grid)}
            torch.save(problem, Path(folder) / f"{size}.pt")
            methods = ["weakseg"]
            if positions <= DENSE_POSITIONS:
                methods.insert(0, "64 products")
                exact = plain if positions <= PLAIN_POSITIONS else products
                expected = exact(*(x.double() for x in problem.values()))
                torch.save(expected, Path(folder) / f"{size} expected.pt")
            if positions <= PLAIN_POSITIONS:
                methods.insert(0, "plain")
            for method in methods:
                command = [sys.executable, __file__, "--one", method, size, folder]
                sys.stdout.flush()
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
