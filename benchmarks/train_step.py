"""A whole fine-tune step and its parts, ours and with the plain contrast and k-means.

    uv run python benchmarks/train_step.py [--output-stride 8] [--device cuda]

EfficientNet-Lite0 and the MLP head with vectors of 64 channels at stride 4, a 6x6 grid, all four
relations, a memory of two batches; photographs of scikit-image with their regions and a few
strokes of 21 classes. Medians of 5 steps; wall seconds and, in brackets, processor seconds.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine
from skimage import data
from skimage.transform import resize

sys.path.insert(0, str(Path(__file__).parent / "reference"))
import dense

from weakseg import relations
from weakseg.grouping import segment_pixels
from weakseg.models import EmbeddingHead, freeze_stem, load_backbone, stack_features
from weakseg.regions import region_map
from weakseg.relations import MemoryBank, Relation, RelationSettings, relation_losses, total_loss

CLASSES, STRIDE, GRID, ITERATIONS = 21, 4, (6, 6), 10
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
SETTINGS = RelationSettings(
    image_similarity=Relation(0.1, 16.0),
    annotation=Relation(0.3, 6.0),
    cooccurrence=Relation(0.3, 8.0),
    affinity=Relation(0.3, 12.0),
    affinity_cosine=0.9,  # the head is untrained: so that some pixels find neighbours
)


def batch(images, size, seed):
    """Crops of photographs, their regions, strokes of two classes and background, and tags."""
    random = np.random.default_rng(seed)
    pixels, regions, seeds, tags = [], [], [], torch.zeros(images, CLASSES, dtype=torch.bool)
    cells = size // STRIDE
    for i in range(images):
        photo = getattr(data, PHOTOS[i % len(PHOTOS)])()
        scale = 1.25 * size / min(photo.shape[:2])
        shape = [round(side * scale) for side in photo.shape[:2]]
        photo = (resize(photo, shape) * 255).astype(np.uint8)
        y, x = (random.integers(side - size + 1) for side in photo.shape[:2])
        crop = np.ascontiguousarray(photo[y : y + size, x : x + size])
        pixels.append(torch.as_tensor(crop).permute(2, 0, 1) / 255)
        regions.append(torch.as_tensor(region_map(crop)[STRIDE // 2 :: STRIDE, 2::STRIDE]).long())
        strokes = torch.full((cells, cells), CLASSES)
        for label in (0, *random.choice(np.arange(1, 6), 2, replace=False).tolist()):
            y, x = random.integers(0, cells - 12, 2)
            strokes[y : y + 2, x : x + 12] = label
            tags[i, label] = True
        seeds.append(strokes)
    return torch.stack(pixels), torch.stack(regions), torch.stack(seeds), tags


def plain_contrast(
    pixels,
    prototypes,
    *,
    own,
    pixel_group,
    prototype_group,
    relation,
    concentration,
    learned=None,
):
    table = relation.to(torch.int8)
    return dense.contrast(
        pixels, prototypes, own, pixel_group, prototype_group, table, concentration
    )


def plain_kmeans(vectors, valid, start, clusters, iterations):
    labels = start.repeat(len(vectors), 1)
    return dense.spherical_kmeans(vectors, labels, clusters, iterations)


class Clock:
    """Sums the seconds of the parts of a step."""

    def __init__(self):
        self.parts = {}
        self.last = self.now()

    def now(self):
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return np.array([time.perf_counter(), time.process_time()])

    def lap(self, part):
        now = self.now()
        self.parts[part] = self.parts.get(part, 0) + now - self.last
        self.last = now


def step(network, optimizer, inputs, memory):
    """One step, in parts: gradients stop at the backbone's maps and the vectors, and go on."""
    backbone, head = network
    pixels, regions, seeds, tags = inputs
    clock = Clock()
    maps = backbone(pixels)
    clock.lap("backbone forward")
    leaves = [one.detach().requires_grad_() for one in maps]
    embeddings = head(stack_features(leaves, backbone.strides, 8))
    clock.lap("head")
    vectors = embeddings.detach().requires_grad_()
    segments = segment_pixels(vectors, seeds, regions, grid=GRID, iterations=ITERATIONS)
    clock.lap("grouping")
    losses = relation_losses(
        vectors,
        segments,
        seeds,
        tags,
        classes=CLASSES,
        background=0,
        settings=SETTINGS,
        memory=memory,
    )
    assert len(losses) == 4, "every relation should cover some pixels"
    clock.lap("relations")
    total_loss(losses, SETTINGS).backward()
    clock.lap("relations")
    embeddings.backward(vectors.grad)
    clock.lap("head")
    torch.autograd.backward(maps, [leaf.grad for leaf in leaves])
    clock.lap("backbone backward")
    optimizer.step()
    optimizer.zero_grad()
    memory.push(segments, tags)
    clock.lap("optimizer, memory")
    return clock.parts, len(segments)


def run(network, inputs, repeats):
    optimizer = torch.optim.AdamW([p for part in network for p in part.parameters()], lr=1e-4)
    memory = MemoryBank(2)
    for one in inputs:
        step(network, optimizer, one, memory)
    taken = [step(network, optimizer, inputs[i % len(inputs)], memory) for i in range(repeats)]
    parts = {part: np.median([times[part] for times, _ in taken], axis=0) for part in taken[0][0]}
    return parts, statistics.median(segments for _, segments in taken), len(memory)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-stride", type=int, default=16)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-plain", action="store_true", help="leave out the plain step")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    backbone = load_backbone("tf_efficientnet_lite0", output_stride=options.output_stride)
    freeze_stem(backbone)
    head = EmbeddingHead(sum(backbone.channels), 64, scale=8 / STRIDE)
    network = backbone.train().to(options.device), head.train().to(options.device)
    inputs = [batch(options.images, options.size, seed) for seed in range(3)]
    inputs = [tuple(tensor.to(options.device) for tensor in one) for one in inputs]

    columns = [run(network, inputs, options.repeats)]
    if not options.no_plain and options.device == "cpu":  # the plain k-means knows no other
        relations.segment_contrast = plain_contrast
        kmeans_module = sys.modules["weakseg.grouping"]
        kmeans_module.spherical_kmeans = plain_kmeans
        columns.append(run(network, inputs, options.repeats))
    where = machine() if options.device == "cpu" else torch.cuda.get_device_name()
    print(f"{where}; output stride {options.output_stride}, ", end="")
    print(
        f"{options.images} x {options.size} x {options.size}, {columns[0][1]:.0f} segments ", end=""
    )
    print(f"and {columns[0][2]} in memory\n")
    print("| part | weakseg s | share | plain s |\n| --- | --- | --- | --- |")
    totals = [sum(parts.values()) for parts, _, _ in columns]
    rows = [(part, [parts[part] for parts, _, _ in columns]) for part in columns[0][0]]
    inside = [times for part, times in rows if part.startswith("backbone")]
    outside = [total - sum(times[i] for times in inside) for i, total in enumerate(totals)]
    for part, times in [*rows, ("all", totals), ("outside the backbone", outside)]:
        cells = [f"{wall:.3f} ({processor:.3f})" for wall, processor in times]
        share = times[0] / totals[0]
        print(f"| {part} | {cells[0]} | {share[0]:.0%} ({share[1]:.0%}) | {'| '.join(cells[1:])} |")


if __name__ == "__main__":
    main()
