from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.crf import dense_crf, gaussian, lattice
from weakseg.crf.gaussian import build_gaussian
from weakseg.crf.lattice import build_lattice
from weakseg.errors import InputError

GOLDEN = Path(__file__).parent / "golden" / "crf.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def random_problem(classes, height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(classes), (height, width)).transpose(2, 0, 1)
    return image, probabilities.astype(np.float32)


# --- against the compiled library --------------------------------------------------------------


def test_golden(golden):
    marginals = dense_crf(golden["image"], golden["probabilities"])
    assert marginals.dtype == torch.float32
    assert np.mean(marginals.argmax(0).numpy() == golden["labels"]) >= 0.995
    assert np.abs(marginals.numpy() - golden["marginals"]).mean() < 1e-3


def test_appearance_kernel_alone_is_the_librarys(golden):
    # With both kernels on the lattice, as the library has them, marginals agree to its float16.
    height, width = golden["labels"].shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    colour = golden["image"].transpose(2, 0, 1) / 3
    near = np.stack([x, y]).reshape(2, -1)
    alike = np.concatenate([np.stack([x, y]) / 67, colour]).reshape(5, -1)
    kernels = [
        build_lattice(torch.as_tensor(positions, dtype=torch.float32)).normalised(weight)
        for positions, weight in ((near, 3), (alike, 4))
    ]
    unary = torch.as_tensor(golden["probabilities"]).float().clamp(1e-5, 1).log().flatten(1).t()
    marginals = unary.softmax(1)
    for _ in range(10):
        marginals = (unary + sum(kernel.filter(marginals) for kernel in kernels)).softmax(1)
    found = marginals.t().reshape(golden["marginals"].shape).numpy()
    assert np.abs(found - golden["marginals"]).max() < 1e-3


# --- the two kernels ---------------------------------------------------------------------------


def plain_lattice_kernel(positions):
    """The N x N kernel of the permutohedral lattice, point by point (Adams et al., 2010)."""
    count, dims = positions.shape
    values = [{} for _ in range(count)]  # vertex -> weight, for each point
    for i, position in enumerate(positions):
        scaled = (
            position
            * np.sqrt(2 / 3)
            * (dims + 1)
            / np.sqrt(np.arange(1, dims + 1) * np.arange(2, dims + 2))
        )
        elevated = np.array(
            [scaled[j:].sum() - (j * scaled[j - 1] if j else 0) for j in range(dims + 1)]
        )
        base = np.round(elevated / (dims + 1)) * (dims + 1)
        excess = round(base.sum() / (dims + 1))
        by_distance = np.argsort(-(elevated - base), kind="stable")
        for coordinate in by_distance[dims + 1 - excess :] if excess > 0 else []:
            base[coordinate] -= dims + 1
        for coordinate in by_distance[:-excess] if excess < 0 else []:
            base[coordinate] += dims + 1
        falling = np.argsort(-(elevated - base), kind="stable")
        vertex, left = base.copy(), 1.0
        steps = np.sort((elevated - base) / (dims + 1))[::-1]
        for remainder in range(dims + 1):
            if remainder:
                vertex = vertex + 1
                vertex[falling[dims + 1 - remainder]] -= dims + 1
                weight = steps[dims - remainder] - steps[dims + 1 - remainder]
                left -= weight
                values[i][tuple(vertex)] = weight
        values[i][tuple(base)] = left
    vertices = sorted({vertex for corners in values for vertex in corners})
    number = {vertex: n for n, vertex in enumerate(vertices)}
    splat = np.zeros((len(vertices), count))
    for i, corners in enumerate(values):
        for vertex, weight in corners.items():
            splat[number[vertex], i] = weight
    blurred = splat
    for direction in range(dims + 1):
        step = -np.ones(dims + 1)
        step[direction] += dims + 1
        blur = np.eye(len(vertices))
        for vertex, sign in product(vertices, (-1, 1)):
            neighbour = tuple(np.array(vertex) + sign * step)
            if neighbour in number:
                blur[number[vertex], number[neighbour]] = 0.5
        blurred = blur @ blurred
    return splat.T @ blurred / (1 + 2.0**-dims)


@pytest.mark.parametrize(("dims", "spread"), [(1, 3.0), (2, 2.0), (3, 1.0), (5, 0.6), (5, 4.0)])
def test_lattice_equals_the_plain_one(dims, spread):
    positions = np.random.default_rng(dims).normal(size=(40, dims)) * spread
    built = build_lattice(torch.as_tensor(positions.T, dtype=torch.float32))
    assert built.filter(torch.eye(40)) == pytest.approx(plain_lattice_kernel(positions), abs=2e-5)


def test_lattice_resembles_the_gaussian():
    positions = np.random.default_rng(0).normal(size=(400, 2)) * 1.5
    kernel = build_lattice(torch.as_tensor(positions.T, dtype=torch.float32)).filter(torch.eye(400))
    exact = np.exp(-((positions[:, None] - positions) ** 2).sum(-1) / 2)
    assert np.corrcoef(kernel.numpy().ravel(), exact.ravel())[0, 1] > 0.98


def test_lattice_in_channel_chunks(monkeypatch):
    positions = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    values = torch.rand(50, 19, generator=torch.Generator().manual_seed(1))
    built = build_lattice(positions)
    whole = built.filter(values)
    monkeypatch.setattr(lattice, "_LARGE", 0)
    assert torch.allclose(built.filter(values), whole, atol=1e-6)


@pytest.mark.parametrize("entries", [2**24, 300])  # in one piece, and band by band
@pytest.mark.parametrize(("height", "width", "std"), [(7, 11, 1.0), (1, 9, 2.0), (13, 1, 0.5)])
def test_smoothness_is_a_normalised_gaussian(monkeypatch, entries, height, width, std):
    monkeypatch.setattr(gaussian, "_ENTRIES", entries)
    monkeypatch.setattr(gaussian, "_CUT", 20)
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    kernel = np.exp(-((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2) / (2 * std**2))
    scale = kernel.sum(1) ** -0.5
    built = build_gaussian(height, width, std, 3.0, torch.device("cpu"))
    found = built.filter(torch.eye(height * width))
    assert found.numpy() == pytest.approx(3 * scale[:, None] * kernel * scale, abs=1e-5)


# --- the whole ---------------------------------------------------------------------------------


def test_labels_snap_to_the_edge():
    rng = np.random.default_rng(0)
    image = np.full((40, 60, 3), 60, np.uint8)
    image[:, 33:] = 190
    truth = np.zeros((40, 60), int)
    truth[:, 33:] = 1
    score = np.where(truth, 0.6, 0.4) + rng.normal(size=truth.shape) * 0.2
    score[:, 28:33] = 0.55  # the scores spill over the edge
    score = score.clip(0.01, 0.99)
    before = np.mean((score > 0.5) == truth)
    labels = dense_crf(image, np.stack([1 - score, score])).argmax(0).numpy()
    assert before < 0.8
    assert np.mean(labels == truth) == 1


@pytest.mark.parametrize("absent", [1, 2, 17])
def test_absent_classes_are_carried_once_and_exactly(absent):
    image, present = random_problem(4, 12, 15)
    probabilities = np.concatenate([present, np.zeros((absent, 12, 15), np.float32)])
    together = dense_crf(image, probabilities)
    probabilities[4:, 0, 0] = 1.001e-5  # just over the floor: now each is carried by itself
    assert torch.allclose(together, dense_crf(image, probabilities), atol=1e-5)
    assert (together[4:] == together[4]).all()
    assert (together[4:] > 0).all()


def test_order_of_classes_does_not_matter():
    image, probabilities = random_problem(5, 10, 12)
    probabilities[3] = 0
    order = [3, 1, 4, 0, 2]
    permuted = dense_crf(image, probabilities[order])
    assert torch.allclose(permuted, dense_crf(image, probabilities)[order], atol=1e-5)


def test_no_iterations_or_no_weights_give_the_input():
    image, probabilities = random_problem(3, 6, 8)
    expected = pytest.approx(probabilities, abs=1e-4)
    assert dense_crf(image, probabilities, iterations=0).numpy() == expected
    plain = dense_crf(image, probabilities, smoothness_weight=0, appearance_weight=0)
    assert plain.numpy() == expected


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    classes=st.integers(1, 18),
    seed=st.integers(0, 99),
    uniform=st.booleans(),
)
def test_any_shape_gives_probabilities(height, width, classes, seed, uniform):
    image, probabilities = random_problem(classes, height, width, seed)
    if uniform:
        image[:] = 77
    probabilities[:, 0, 0] = 0  # a pixel where every class is excluded
    marginals = dense_crf(image, probabilities)
    assert marginals.shape == (classes, height, width)
    assert (marginals >= 0).all()
    assert torch.allclose(marginals.sum(0), torch.ones(height, width), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_thin_images(height, width):
    image, probabilities = random_problem(3, height, width)
    assert dense_crf(image, probabilities).isfinite().all()


def test_huge_weights_do_not_overflow():
    image, probabilities = random_problem(3, 8, 8)
    strong = dense_crf(image, probabilities, smoothness_weight=1e4, appearance_weight=1e4)
    assert strong.isfinite().all()


def test_layouts_and_types_of_input():
    image, probabilities = random_problem(3, 9, 14)
    expected = dense_crf(image, probabilities)
    read_only = image.copy()
    read_only.flags.writeable = False
    same = [
        (torch.as_tensor(image), torch.as_tensor(probabilities)),
        (image[::-1].copy()[::-1], np.asfortranarray(probabilities)),
        (read_only, probabilities.astype(np.float64)),
        (torch.as_tensor(image).permute(2, 0, 1).contiguous().permute(1, 2, 0), probabilities),
        (image, torch.as_tensor(probabilities).permute(1, 2, 0).contiguous().permute(2, 0, 1)),
    ]
    for one, other in same:
        assert torch.allclose(dense_crf(one, other), expected, atol=1e-5)
    half = dense_crf(image, torch.as_tensor(probabilities).bfloat16())
    assert half.dtype == torch.float32
    assert torch.allclose(half, expected, atol=0.05)


def test_inputs_are_left_alone():
    image, probabilities = random_problem(3, 9, 14)
    before = image.copy(), probabilities.copy()
    dense_crf(image, probabilities)
    assert (image == before[0]).all()
    assert (probabilities == before[1]).all()


GREY = np.zeros((4, 5, 3), np.uint8)
HALF = np.full((2, 4, 5), 0.5, np.float32)
NAN = np.where(np.arange(5) == 3, np.nan, HALF)


@pytest.mark.parametrize(
    ("image", "probabilities", "options", "message"),
    [
        (GREY[..., 0], HALF, {}, r"image: found '?\(4, 5\).*\(H, W, 3\) uint8"),
        (GREY.astype(np.float32), HALF, {}, "float32.*uint8"),
        (GREY, HALF[0], {}, r"fit the image.*\(C, 4, 5\)"),
        (GREY, HALF[:, :, :4], {}, r"found '?\(2, 4, 4\)"),
        (GREY, HALF[:0], {}, "C >= 1"),
        (GREY[:0], HALF[:, :0], {}, "H, W >= 1"),
        (GREY, (HALF * 255).astype(np.uint8), {}, "floating-point"),
        (GREY, NAN, {}, "NaN"),
        (GREY, HALF * np.inf, {}, "inf"),
        (GREY, HALF * 14 - 4, {}, "softmax"),
        (GREY, -HALF, {}, "-0.5"),
        (GREY, HALF.astype(object), {}, "object"),
        (GREY, HALF, {"appearance_rgb": 0}, "appearance_rgb.*over 0"),
        (GREY, HALF, {"smoothness_xy": float("nan")}, "smoothness_xy"),
        (GREY, HALF, {"iterations": -1}, "iterations"),
        (GREY, HALF, {"appearance_xy": 1e-20}, "larger standard deviations"),
    ],
)
def test_bad_input(image, probabilities, options, message):
    with pytest.raises(InputError, match=message):
        dense_crf(image, probabilities, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu(golden):
    probabilities = torch.as_tensor(golden["probabilities"])
    there = dense_crf(golden["image"], probabilities.cuda())
    assert there.is_cuda
    here = dense_crf(golden["image"], probabilities)
    assert (there.cpu().argmax(0) == here.argmax(0)).float().mean() > 0.999
