import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate, normalize

from weakseg.grouping import kmeans, segment_means, segment_pixels, unit_rows, with_location

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
IGNORED = 255


def load_reference():
    path = ROOT / "benchmarks" / "reference" / "dense.py"
    spec = importlib.util.spec_from_file_location("dense", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dense = load_reference()


def maps(batch, height, width, *, seed=0, ignored=0.0):
    """Seed map with a class, unlabelled (2) and ignored pixels, and square regions."""
    random = torch.Generator().manual_seed(seed)
    seeds = torch.full((batch, height, width), 2)
    seeds[torch.rand(batch, height, width, generator=random) < 0.1] = 1
    seeds[torch.rand(batch, height, width, generator=random) < ignored] = IGNORED
    y, x = torch.arange(height)[:, None] // 5, torch.arange(width) // 4
    return seeds, (y * 100 + x).expand(batch, height, width)


def smooth_embeddings(batch, channels, height, width, *, dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, channels, 4, 4, generator=random, dtype=dtype)
    return interpolate(coarse, (height, width), mode="bilinear", align_corners=True) * 3


def plain_clusters(embeddings, seeds, grid, iterations):
    """Clusters by the plain loop, image by image on the pixels that are not ignored."""
    batch, _, height, width = embeddings.shape
    y = torch.linspace(0, 1, height, dtype=embeddings.dtype) - 0.5
    x = torch.linspace(0, 1, width, dtype=embeddings.dtype) - 0.5
    unit = normalize(embeddings, dim=1)
    y, x = torch.broadcast_tensors(y[:, None], x)
    location = torch.stack([y, x]).expand(batch, 2, height, width)
    vectors = normalize(torch.cat([unit, location], 1), dim=1).flatten(2).mT
    ky, kx = grid
    rows = torch.linspace(0, ky - 1, height).round().long()
    columns = torch.linspace(0, kx - 1, width).round().long()
    start = (rows[:, None] + ky * columns).flatten()
    labels = torch.full((batch, height * width), -1)
    for image in range(batch):
        inside = seeds[image].flatten() != IGNORED
        if inside.any():
            labels[image, inside] = dense.spherical_kmeans(
                vectors[image : image + 1, inside], start[None, inside], ky * kx, iterations
            )[0]
    return labels.view(batch, height, width)


def numbered(clusters, seeds, regions):
    """Segments by a dictionary, in raster order."""
    numbers, out = {}, torch.full_like(clusters, -1)
    for place in torch.cartesian_prod(*map(torch.arange, clusters.shape)).tolist():
        b, i, j = place
        if seeds[b, i, j] != IGNORED:
            key = b, *(array[b, i, j].item() for array in (clusters, seeds, regions))
            out[b, i, j] = numbers.setdefault(key, len(numbers))
    return out, torch.tensor(list(numbers)).reshape(-1, 4)


@pytest.mark.parametrize("name", ["small", "medium"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden(name, dtype):
    golden = {k: torch.as_tensor(v) for k, v in np.load(GOLDEN / f"{name}.npz").items()}
    segments = segment_pixels(
        golden["embeddings"].to(dtype),
        golden["semantic"],
        golden["regions"],
        grid=tuple(golden["grid"].tolist()),
        iterations=int(golden["iterations"]),
    )
    assert (segments.index == golden["segments"]).double().mean() >= 0.999
    assert len(segments) == len(golden["prototypes"])
    for ours, theirs in (
        (segments.prototypes, golden["prototypes"]),
        (segments.prototypes_with_location, golden["prototypes_with_location"]),
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-6)
    assert torch.equal(segments.seed, golden["segment_semantic"])
    assert torch.equal(segments.region, golden["segment_region"])
    assert torch.equal(segments.image, golden["segment_image"])


@pytest.mark.parametrize(
    ("shape", "grid", "iterations", "ignored"),
    [
        ((2, 5, 23, 31), (3, 3), 10, 0.0),
        ((3, 4, 30, 17), (2, 5), 7, 0.2),
        ((1, 8, 12, 40), (6, 2), 3, 0.5),
        ((2, 3, 9, 9), (1, 1), 4, 0.1),
        ((1, 3, 4, 3), (6, 6), 5, 0.0),  # more cells than pixels: clusters without a pixel
        ((2, 3, 8, 8), (4, 4), 0, 0.0),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_plain_loop(shape, grid, iterations, ignored, seed):
    embeddings = smooth_embeddings(*shape, seed=seed)
    seeds, regions = maps(shape[0], *shape[2:], ignored=ignored, seed=seed)
    segments = segment_pixels(embeddings, seeds, regions, grid=grid, iterations=iterations)
    clusters = plain_clusters(embeddings, seeds, grid, iterations)
    index, attributes = numbered(clusters, seeds, regions)
    assert torch.equal(segments.index, index)
    assert torch.equal(segments.image, attributes[:, 0])
    assert torch.equal(segments.seed, attributes[:, 2])
    assert torch.equal(segments.region, attributes[:, 3])


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_does_not_depend_on_what_is_taken_together(ignored):
    embeddings = smooth_embeddings(3, 5, 16, 20)
    seeds, regions = maps(3, 16, 20, ignored=ignored)
    together = segment_pixels(embeddings, seeds, regions, grid=(3, 4), iterations=8)
    before = 0
    for i in range(3):
        one = slice(i, i + 1)
        alone = segment_pixels(embeddings[one], seeds[one], regions[one], grid=(3, 4), iterations=8)
        assert torch.equal(
            together.index[one], torch.where(alone.index < 0, -1, alone.index + before)
        )
        before += len(alone)


@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
def test_the_form_for_devices_gives_the_same(ignored):
    embeddings = smooth_embeddings(3, 5, 24, 20)
    valid = (maps(3, 24, 20, ignored=ignored)[0] != IGNORED).flatten(1)
    vectors = with_location(unit_rows(embeddings), (3, 24, 20)).reshape(3, 480, -1)
    start = kmeans.grid_start(24, 20, (4, 3)).flatten()
    on_cpu = kmeans.spherical_kmeans(vectors, valid, start, 12, 10)
    batched = kmeans._batched(vectors, valid, start.repeat(3, 1), 12, 10)
    assert torch.equal(on_cpu[valid], batched[valid])


def test_the_form_for_devices_never_waits_for_one(monkeypatch):
    def look(*args):
        raise AssertionError("looked at a value")

    vectors = normalize(torch.randn(2, 100, 6), dim=2)
    valid, label = torch.ones(2, 100, dtype=torch.bool), torch.randint(9, (2, 100))
    for name in ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, look)
    assert kmeans._batched(vectors, valid, label, 9, 10).shape == (2, 100)


def test_identical_pixels_stay_together_by_place():
    """Without any contrast the location decides, and nothing is divided by zero."""
    embeddings = torch.ones(1, 4, 12, 12)
    seeds = torch.full((1, 12, 12), 2)
    segments = segment_pixels(embeddings, seeds, seeds * 0, grid=(2, 2), iterations=10)
    assert len(segments) == 4
    assert segments.prototypes.isfinite().all()
    assert (segments.index.flatten().bincount() == 36).all()


def test_an_image_that_is_ignored_altogether_has_no_segments():
    embeddings = smooth_embeddings(3, 4, 10, 12)
    seeds, regions = maps(3, 10, 12)
    seeds[1] = IGNORED
    segments = segment_pixels(embeddings, seeds, regions, grid=(3, 3), iterations=5)
    assert (segments.index[1] == -1).all()
    assert segments.image.unique().tolist() == [0, 2]


def test_everything_ignored():
    seeds = torch.full((2, 5, 6), IGNORED)
    embeddings = torch.randn(2, 4, 5, 6, requires_grad=True)
    segments = segment_pixels(embeddings, seeds, seeds, grid=(2, 2), iterations=3)
    assert len(segments) == 0
    assert (segments.index == -1).all()
    assert segments.prototypes.shape == (0, 4)
    assert segments.prototypes_with_location.shape == (0, 6)
    segments.prototypes.sum().backward()


def test_another_ignore_index_and_ids_of_any_size():
    embeddings = smooth_embeddings(1, 4, 6, 6)
    seeds, regions = maps(1, 6, 6)
    regions = regions * 1_000_003 + 7
    seeds[0, 0] = 99
    segments = segment_pixels(
        embeddings, seeds, regions, grid=(2, 2), iterations=2, ignore_index=99
    )
    assert ((segments.index == -1) == (seeds == 99)).all()
    assert set(segments.region.tolist()) == set(regions[0, 1:].flatten().tolist())


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    ignored=st.sampled_from([0.0, 0.2, 0.9]),
    seed=st.integers(0, 1000),
)
def test_segments_cross_nothing(batch, height, width, grid, ignored, seed):
    embeddings = torch.randn(batch, 3, height, width)
    seeds, regions = maps(batch, height, width, seed=seed, ignored=ignored)
    segments = segment_pixels(embeddings, seeds, regions, grid=grid, iterations=4)
    inside = segments.index >= 0
    assert torch.equal(inside, seeds != IGNORED)
    own = segments.index[inside]
    image = torch.arange(batch)[:, None, None].expand_as(seeds)
    assert torch.equal(segments.seed[own], seeds[inside])
    assert torch.equal(segments.region[own], regions[inside])
    assert torch.equal(segments.image[own], image[inside])
    # Numbers appear in order: each new one is one more than the largest before.
    if len(own):
        largest = own.cummax(0).values
        assert own[0] == 0
        assert (largest.diff() <= 1).all()
        assert largest[-1] == len(segments) - 1


def test_prototypes_are_differentiable():
    embeddings = smooth_embeddings(2, 3, 6, 7)
    seeds, regions = maps(2, 6, 7, ignored=0.2)
    first = segment_pixels(embeddings, seeds, regions, grid=(2, 2), iterations=5)

    def prototypes(embeddings):
        segments = segment_pixels(embeddings, seeds, regions, grid=(2, 2), iterations=5)
        assert torch.equal(segments.index, first.index)
        return segments.prototypes, segments.prototypes_with_location

    assert torch.autograd.gradcheck(prototypes, embeddings.requires_grad_())


def test_prototypes_are_normalised_sums():
    embeddings = smooth_embeddings(1, 3, 8, 8)
    seeds, regions = maps(1, 8, 8)
    segments = segment_pixels(embeddings, seeds, regions, grid=(2, 2), iterations=3)
    unit = normalize(embeddings, dim=1)[0].flatten(1)
    for number in range(len(segments)):
        inside = segments.index[0].flatten() == number
        mean = normalize(unit[:, inside].sum(1), dim=0)
        torch.testing.assert_close(segments.prototypes[number], mean)


def test_location_comes_after_the_vector_as_y_then_x():
    rows = with_location(torch.tensor([[1.0, 0.0]] * 6), (1, 2, 3))
    length = (1 + 0.5**2 + 0.5**2) ** 0.5
    torch.testing.assert_close(rows[2] * length, torch.tensor([1.0, 0.0, -0.5, 0.5]))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))


def test_segment_means_of_a_segment_without_vectors_is_zero():
    means = segment_means(torch.tensor([[3.0, 4.0]]), torch.tensor([1]), 3)
    assert means.tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


@pytest.mark.parametrize("wrong", ["seeds", "regions"])
def test_maps_of_another_size(wrong):
    seeds, regions = maps(1, 8, 8)
    arrays = {"seeds": seeds, "regions": regions, wrong: torch.zeros(1, 8, 9)}
    with pytest.raises(ValueError, match=rf"{wrong} must be \(1, 8, 8\)"):
        segment_pixels(torch.zeros(1, 3, 8, 8), **arrays, grid=(2, 2), iterations=1)
