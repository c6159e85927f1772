import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from weakseg import contrast
from weakseg.contrast import segment_contrast, tiled

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


def load_reference():
    path = ROOT / "benchmarks" / "reference" / "dense.py"
    spec = importlib.util.spec_from_file_location("dense", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dense = load_reference()


def problem(n, s, d, pixel_groups, prototype_groups, *, dtype=torch.float64, seed=0, own=None):
    """A random call: (pixels, prototypes) and the rest as keywords."""
    random = torch.Generator().manual_seed(seed)

    def units(count):
        return normalize(torch.randn(count, d, generator=random, dtype=torch.float64), dim=1)

    def integers(high, size):
        return torch.randint(high, size, generator=random)

    pixels = units(n).to(dtype).requires_grad_()
    prototypes = units(s).to(dtype).requires_grad_()
    return (pixels, prototypes), {
        "own": integers(s, (n,)) if own is None else own,
        "pixel_group": integers(pixel_groups, (n,)),
        "prototype_group": integers(prototype_groups, (s,)),
        "relation": integers(3, (pixel_groups, prototype_groups)) - 1,
        "concentration": 8.0,
    }


def reference(vectors, *, own, pixel_group, prototype_group, relation, concentration):
    return dense.contrast(*vectors, own, pixel_group, prototype_group, relation, concentration)


def gradients(loss, vectors, weight=None):
    total = (loss if weight is None else loss * weight).sum()
    return torch.autograd.grad(total, vectors, retain_graph=True)


def assert_same(vectors, keywords, weight=None, rtol=1e-9):
    ours = segment_contrast(*vectors, **keywords)
    theirs = reference(vectors, **keywords)
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)
    for our, their in zip(
        gradients(ours, vectors, weight), gradients(theirs, vectors, weight), strict=True
    ):
        torch.testing.assert_close(our, their, rtol=rtol, atol=rtol)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 300),
    s=st.integers(1, 140),
    d=st.integers(1, 9),
    groups=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    concentration=st.sampled_from([0.5, 6.0, 16.0, 50.0, 90.0]),
    weighted=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_equals_the_dense_formulation(n, s, d, groups, concentration, weighted, seed):
    vectors, keywords = problem(n, s, d, *groups, seed=seed)
    keywords["concentration"] = concentration
    weight = torch.rand(n, dtype=torch.float64) if weighted else None
    assert_same(vectors, keywords, weight, rtol=1e-7)


@pytest.mark.parametrize("tile_bytes", [1, 1 << 12, 1 << 30])
def test_does_not_depend_on_the_tiles(monkeypatch, tile_bytes):
    monkeypatch.setattr(tiled, "_CPU_TILE_BYTES", tile_bytes)
    vectors, keywords = problem(257, 91, 6, 5, 4)
    assert_same(vectors, keywords, torch.rand(257, dtype=torch.float64))


def test_float32_is_as_good_as_the_dense_formulation():
    vectors, keywords = problem(900, 300, 32, 5, 5, dtype=torch.float32)
    keywords["concentration"] = 16.0
    assert_same(vectors, keywords, rtol=2e-5)


@pytest.mark.parametrize("seed", range(4))
def test_gradcheck(seed):
    """Random tables leave pixels with several, one and no positive beside their own segment."""
    vectors, keywords = problem(12, 7, 3, 4, 4, seed=seed)

    def contrast(pixels, prototypes):
        return segment_contrast(pixels, prototypes, **keywords)

    assert torch.autograd.gradcheck(contrast, vectors)


def tiny(relation, own, pixel_group, prototype_group):
    """Pixels along x, prototypes at 0, 60, 90 and 180 degrees; k = 1."""
    pixels = torch.tensor([[1.0, 0.0]] * len(own), dtype=torch.float64).requires_grad_()
    angles = torch.tensor([0.0, 60.0, 90.0, 180.0], dtype=torch.float64).deg2rad()
    prototypes = torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()
    loss = segment_contrast(
        pixels,
        prototypes,
        own=torch.tensor(own),
        pixel_group=torch.tensor(pixel_group),
        prototype_group=torch.tensor(prototype_group),
        relation=torch.tensor(relation),
        concentration=1.0,
    )
    return loss, torch.autograd.grad(loss.sum(), (pixels, prototypes))


def expected(positive, negative):
    positive, negative = np.exp(positive).sum(), np.exp(negative).sum()
    return -np.log(positive / (positive + negative))


# Cosines with the four prototypes: 1, 1/2, 0, -1.
@pytest.mark.parametrize(
    ("relation", "own", "prototype_group", "value"),
    [
        # own segment excluded from its positives
        ([[1, -1]], 0, [0, 0, 1, 1], expected([0.5], [0, -1])),
        # own segment elsewhere: all positives count
        ([[1, -1]], 3, [0, 0, 1, 1], expected([1, 0.5], [0, -1])),
        # no other positive: own segment after all
        ([[1, -1]], 0, [0, 1, 1, 1], expected([1], [0.5, 0, -1])),
        # own segment not compared and no positive: it counts all the same
        ([[0, -1]], 0, [0, 1, 1, 1], expected([1], [0.5, 0, -1])),
        # own segment negative and no positive: both
        ([[-1, -1]], 0, [0, 1, 1, 1], expected([1], [1, 0.5, 0, -1])),
        # nothing negative: nothing to lose
        ([[1, 0]], 0, [0, 0, 1, 1], 0.0),
        # nothing compared at all
        ([[0, 0]], 0, [0, 0, 1, 1], 0.0),
        # no own segment, positives
        ([[1, -1]], -1, [0, 0, 1, 1], expected([1, 0.5], [0, -1])),
        # no own segment, no positive: sits out
        ([[0, -1]], -1, [0, 0, 1, 1], 0.0),
    ],
)
def test_who_is_positive(relation, own, prototype_group, value):
    loss, _ = tiny(relation, [own], [0], prototype_group)
    assert loss.item() == pytest.approx(value, abs=1e-12)


def test_a_pixel_that_sits_out_moves_nothing():
    loss, (by_pixels, by_prototypes) = tiny([[0, -1], [1, -1]], [-1, -1], [0, 0], [0, 0, 1, 1])
    assert loss.tolist() == [0, 0]
    assert not by_pixels.any()
    assert not by_prototypes.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("concentration", [6.0, 50.0])
def test_half_precision_is_safe_and_close(dtype, concentration):
    vectors, keywords = problem(200, 60, 16, 3, 3, dtype=dtype)
    keywords["concentration"] = concentration
    # Opposite and equal vectors: exponents from -k to k in one row.
    with torch.no_grad():
        vectors[1][:2] = torch.stack([vectors[0][0], -vectors[0][0]])
    loss = segment_contrast(*vectors, **keywords)
    by_pixels, by_prototypes = gradients(loss, vectors)
    exact = [v.detach().double().requires_grad_() for v in vectors]
    true = reference(exact, **keywords)
    true_by_pixels, true_by_prototypes = gradients(true, exact)
    assert loss.dtype == torch.float32
    assert by_pixels.dtype == by_prototypes.dtype == dtype
    torch.testing.assert_close(loss.double(), true, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_pixels.double(), true_by_pixels, rtol=2e-2, atol=1e-2)
    torch.testing.assert_close(by_prototypes.double(), true_by_prototypes, rtol=2e-2, atol=1e-2)


def test_exponents_too_large_for_any_type():
    """Lengths and a concentration that nothing keeps from reaching exp(+-1000)."""
    vectors, keywords = problem(50, 20, 4, 3, 3, dtype=torch.float32)
    keywords["concentration"] = 1000.0
    loss = segment_contrast(*vectors, **keywords)
    exact = [v.detach().double().requires_grad_() for v in vectors]
    similarity = exact[0] @ exact[1].T * 1000
    table = keywords["relation"][keywords["pixel_group"]][:, keywords["prototype_group"]]
    own = keywords["own"][:, None]
    positive = (table > 0).scatter(1, own, False)
    positive = positive.scatter(1, own, ~positive.any(1, keepdim=True) | positive.gather(1, own))

    def lse(keep):
        return similarity.masked_fill(~keep, -torch.inf).logsumexp(1)

    negative = lse(table < 0)
    true = torch.logaddexp(lse(positive), negative) - lse(positive)
    torch.testing.assert_close(loss.double(), true, rtol=1e-4, atol=1e-3)
    for gradient, true_gradient in zip(
        gradients(loss, vectors), gradients(true, exact), strict=True
    ):
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient.double(), true_gradient, rtol=1e-2, atol=0.5)


@pytest.mark.parametrize("learned", [0, 1, 17, 40])
def test_only_the_first_prototypes_learn(learned):
    vectors, keywords = problem(150, 40, 5, 4, 4)
    weight = torch.rand(150, dtype=torch.float64)
    loss = segment_contrast(*vectors, **keywords, learned=learned)
    true = reference(vectors, **keywords)
    torch.testing.assert_close(loss, true)
    for each in (None, weight):
        by_pixels, by_prototypes = gradients(loss, vectors, each)
        true_by_pixels, true_by_prototypes = gradients(true, vectors, each)
        torch.testing.assert_close(by_pixels, true_by_pixels)
        torch.testing.assert_close(by_prototypes[:learned], true_by_prototypes[:learned])
        assert not by_prototypes[learned:].any()


def test_autocast_changes_nothing():
    vectors, keywords = problem(100, 40, 8, 3, 3, dtype=torch.float32)
    plain = segment_contrast(*vectors, **keywords)
    with torch.autocast("cpu", torch.bfloat16):
        cast = segment_contrast(*vectors, **keywords)
        by_pixels, by_prototypes = gradients(cast, vectors)
    assert torch.equal(plain, cast)
    for ours, theirs in zip((by_pixels, by_prototypes), gradients(plain, vectors), strict=True):
        assert torch.equal(ours, theirs)


def test_is_deterministic():
    vectors, keywords = problem(3000, 500, 16, 6, 6, dtype=torch.float32)
    weight = torch.rand(3000)
    first = segment_contrast(*vectors, **keywords)
    second = segment_contrast(*vectors, **keywords)
    assert torch.equal(first, second)
    for one, two in zip(
        gradients(first, vectors, weight), gradients(second, vectors, weight), strict=True
    ):
        assert torch.equal(one, two)


def test_keeps_nothing_of_size_n_times_s(monkeypatch):
    n, s, d = 2000, 500, 8
    monkeypatch.setattr(tiled, "_CPU_TILE_BYTES", 4 * 80_000)
    tiles, saved = [], []

    def watched(x, weight):
        tiles.append(linear(x, weight))
        return tiles[-1]

    def save(tensor):
        saved.append(tensor.numel())
        return tensor

    linear = tiled.linear
    monkeypatch.setattr(tiled, "linear", watched)
    vectors, keywords = problem(n, s, d, 4, 4, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = segment_contrast(*vectors, **keywords)
    (loss * torch.rand(n)).sum().backward()
    assert max(tile.numel() for tile in tiles) <= 80_000
    assert sum(saved) <= 2 * (n + s) * (d + 2)


def test_cost_is_the_sum_of_the_blocks(monkeypatch):
    """Pixels of image b meet only the prototypes of image b."""
    images, per_image, segments = 5, 640, 64
    products = []

    def counting(x, weight):
        products.append(len(x) * len(weight))
        return linear(x, weight)

    linear = tiled.linear
    monkeypatch.setattr(tiled, "linear", counting)
    vectors, keywords = problem(images * per_image, images * segments, 8, images, images)
    keywords["pixel_group"] = torch.arange(images).repeat_interleave(per_image).flip(0) * 2
    keywords["prototype_group"] = torch.arange(2 * images).repeat_interleave(segments // 2)
    keywords["relation"] = torch.block_diag(*[torch.tensor([[1, -1], [-1, 1]])] * images)
    with torch.no_grad():
        loss = segment_contrast(*vectors, **keywords)
    torch.testing.assert_close(loss, reference(vectors, **keywords))
    padded = segments + tiled._COLUMN_MULTIPLE
    assert sum(products) <= images * per_image * padded


@pytest.mark.parametrize(("n", "s"), [(0, 5), (4, 0), (0, 0)])
def test_empty(n, s):
    pixels = torch.randn(n, 3, requires_grad=True)
    prototypes = torch.randn(s, 3, requires_grad=True)
    loss = segment_contrast(
        pixels,
        prototypes,
        own=torch.full((n,), -1),
        pixel_group=torch.zeros(n, dtype=torch.long),
        prototype_group=torch.zeros(s, dtype=torch.long),
        relation=torch.ones(1, 1, dtype=torch.long),
        concentration=6.0,
    )
    loss.sum().backward()
    assert loss.shape == (n,)
    assert not loss.any()
    assert pixels.grad.shape == (n, 3)
    assert prototypes.grad.shape == (s, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own": torch.zeros(3, dtype=torch.long)}, r"own must have shape \(4,\), got \(3,\)"),
        ({"pixel_group": torch.zeros(4, 1)}, r"pixel_group must have shape \(4,\)"),
        ({"prototype_group": torch.zeros(4)}, r"prototype_group must have shape \(5,\)"),
        ({"relation": torch.zeros(3)}, r"relation must be a table"),
    ],
)
def test_shapes_that_do_not_fit(change, message):
    vectors, keywords = problem(4, 5, 2, 2, 2)
    with pytest.raises(ValueError, match=message):
        segment_contrast(*vectors, **(keywords | change))


def test_vectors_of_different_length():
    _, keywords = problem(4, 5, 2, 2, 2)
    with pytest.raises(ValueError, match="must share D"):
        segment_contrast(torch.zeros(4, 2), torch.zeros(5, 3), **keywords)


def golden_call(name, relation, dtype):
    """Inputs of relation (b) or (c) from the golden numbers, pixels and prototypes free."""
    golden = {k: torch.as_tensor(v) for k, v in np.load(GOLDEN / f"{name}.npz").items()}
    inside = golden["segments"] >= 0
    pixels = normalize(golden["embeddings"].double(), dim=1).permute(0, 2, 3, 1)[inside]
    prototypes = torch.cat([golden["prototypes"], golden["memory_prototypes"]])
    own = golden["segments"][inside]
    seed = torch.cat([golden["segment_semantic"], golden["memory_semantic"]])
    image = torch.cat([golden["segment_image"], golden["memory_image"]])
    if relation == "annotation":
        keep = (seed[own] < 21).nonzero()[:, 0]
        table = 2 * torch.eye(22, dtype=torch.long) - 1
        table[:, 21] = 0
        groups = seed[own], seed
    else:
        keep = torch.arange(len(own))
        tags = golden["image_tags"][:, 1:].double()
        table = torch.where(tags @ tags.T > 0, 1, -1)
        groups = image[own], image
    vectors = [v.to(dtype).requires_grad_() for v in (pixels[keep], prototypes)]
    keywords = {
        "own": own[keep],
        "pixel_group": groups[0][keep],
        "prototype_group": groups[1],
        "relation": table,
        "concentration": golden[f"{relation}_kappa"].item(),
    }
    return golden, keep, vectors, keywords


@pytest.mark.parametrize("name", ["small", "medium"])
@pytest.mark.parametrize("relation", ["annotation", "cooccurrence"])
@pytest.mark.parametrize(
    ("dtype", "loss_tolerance", "tolerance"),
    [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-10, 1e-6)],
)
def test_golden(name, relation, dtype, loss_tolerance, tolerance):
    golden, keep, vectors, keywords = golden_call(name, relation, dtype)
    loss = segment_contrast(*vectors, **keywords).mean()
    by_pixels, by_prototypes = torch.autograd.grad(loss, vectors)
    assert loss.item() == pytest.approx(golden[f"{relation}_loss"].item(), rel=loss_tolerance)

    norms = torch.zeros(len(golden[f"{relation}_grad_pixels_norm"]), dtype=torch.float64)
    norms[keep] = by_pixels.double().norm(dim=1)
    for ours, theirs in (
        (norms, golden[f"{relation}_grad_pixels_norm"].double()),
        (by_prototypes.double(), golden[f"{relation}_grad_prototypes"]),
    ):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.max())


def test_gpu_kernels_under_interpretation():
    """The fused form in Triton's interpreter, which needs no GPU."""
    pytest.importorskip("triton")
    script = Path(__file__).with_name("fused_under_interpretation.py")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "the kernels agree" in run.stdout


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_cuda
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.float64, 1e-9)]
)
def test_cuda_equals_cpu(dtype, tolerance):
    vectors, keywords = problem(3000, 700, 64, 8, 8)
    weight = torch.rand(3000, dtype=torch.float64)
    true = reference(vectors, **keywords)
    there = [v.detach().to("cuda", dtype).requires_grad_() for v in vectors]
    keywords = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in keywords.items()}
    loss = segment_contrast(*there, **keywords)
    torch.testing.assert_close(loss.cpu().double(), true, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(
        gradients(loss, there, weight.cuda()), gradients(true, vectors, weight), strict=True
    ):
        torch.testing.assert_close(ours.cpu().double(), theirs, rtol=tolerance, atol=tolerance)


@needs_cuda
def test_cuda_is_deterministic():
    vectors, keywords = problem(5000, 900, 64, 8, 8, dtype=torch.bfloat16)
    vectors = [v.detach().cuda().requires_grad_() for v in vectors]
    keywords = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in keywords.items()}
    runs = [segment_contrast(*vectors, **keywords) for _ in range(2)]
    assert torch.equal(*runs)
    for one, two in zip(*[gradients(loss, vectors) for loss in runs], strict=True):
        assert torch.equal(one, two)


def test_says_so_where_the_kernels_do_not_work():
    """On a CPU, uninterpreted, Triton finds no device to compile for."""
    with pytest.warns(UserWarning, match="fused contrast does not work here"):
        assert not contrast._fused_works.__wrapped__(torch.device("cpu"))
