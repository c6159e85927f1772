from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg import propagate
from weakseg.errors import InputError
from weakseg.propagate import random_walk

GOLDEN = Path(__file__).parent / "golden"


def plain_walk(embeddings, scores, steps=64, sharpness=100):
    vectors = embeddings.reshape(len(embeddings), -1).T
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    affinity = np.exp(sharpness * (vectors @ vectors.T - 1))
    transition = np.linalg.matrix_power(affinity / affinity.sum(0), steps)
    return (scores.reshape(len(scores), -1) @ transition).reshape(scores.shape)


def smooth_problem(channels, classes, height, width, seed=0):
    """Embeddings that vary smoothly, so that the walk neither stays nor forgets."""
    rng = np.random.default_rng(seed)
    coarse = torch.as_tensor(rng.normal(size=(1, channels, 2, 2)))
    embeddings = torch.nn.functional.interpolate(
        coarse, (height, width), mode="bilinear", align_corners=True
    )[0]
    return embeddings, torch.as_tensor(rng.random((classes, height, width)))


@pytest.fixture(params=["whole", "sparse", "tiles"])
def storage(request, monkeypatch):
    """Run with the affinity kept whole, or sparse, or made again tile by tile.

    Sizes that divide no grid. The sparse form keeps everything here; what it leaves out by default
    has a test of its own.
    """
    monkeypatch.setattr(propagate, "_TILE", 37)
    monkeypatch.setattr(propagate, "_ROWS", 11)
    monkeypatch.setattr(propagate, "_NEGLIGIBLE", 1e-30)
    if request.param != "whole":
        monkeypatch.setattr(propagate, "_DENSE_BYTES", 0)
    if request.param == "tiles":
        monkeypatch.setattr(propagate, "_SPARSE_ENTRIES", 100)


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize("name", ["small", "medium"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_golden(name, dtype, rtol):
    with np.load(GOLDEN / f"{name}.npz") as golden:
        walked = random_walk(
            torch.as_tensor(golden["walk_embeddings"]).to(dtype),
            torch.as_tensor(golden["walk_seeds"]).to(dtype),
        )
        assert walked.dtype == dtype
        np.testing.assert_allclose(walked.numpy(), golden["walk_result"], rtol=rtol)


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize("steps", [0, 1, 2, 7, 64, 500])
@pytest.mark.parametrize("sharpness", [2.0, 100.0])
def test_equals_the_matrix_power(steps, sharpness):
    embeddings, scores = smooth_problem(6, 3, 9, 14)
    walked = random_walk(embeddings, scores, steps=steps, sharpness=sharpness)
    expected = plain_walk(embeddings.numpy(), scores.numpy(), steps, sharpness)
    np.testing.assert_allclose(walked.numpy(), expected, rtol=1e-9)


def test_what_the_sparse_form_leaves_out(monkeypatch):
    embeddings, scores = smooth_problem(24, 3, 40, 50, seed=3)
    embeddings += 0.2 * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    exact = random_walk(embeddings, scores)
    monkeypatch.setattr(propagate, "_DENSE_BYTES", 0)
    kept = []
    times = propagate.SparseRows.times
    monkeypatch.setattr(
        propagate.SparseRows,
        "times",
        lambda rows, x: kept.append(len(rows.column)) or times(rows, x),
    )
    walked = random_walk(embeddings, scores)
    assert sum(kept[: 2000 // propagate._ROWS + 1]) < 0.9 * 2000**2  # it does leave something out
    assert torch.allclose(walked, exact, atol=5e-4)
    assert not torch.equal(walked, exact)


def test_few_products_stand_for_many_steps():
    calls = []

    def times(x):
        calls.append(1)
        return x

    propagate.power(times, torch.ones(1, 3), 64)
    assert len(calls) == 29


def test_no_product_of_subnormal_numbers(monkeypatch):
    """They take ten times as long; a class that cannot occur keeps scores of 0."""
    seen, power = [], propagate.power
    monkeypatch.setattr(
        propagate, "power", lambda times, x, steps: seen.append(x) or power(times, x, steps)
    )
    embeddings, _ = smooth_problem(6, 3, 9, 14)
    scores = torch.full((4, 9, 14), 1e-40)
    scores[0, :5] = scores[1, 5:] = 1
    scores[2] = 0
    walked = random_walk(embeddings.float(), scores)
    (start,) = seen
    assert start[[0, 1, 3]].min() > 1e-13
    assert not start[2].any()
    assert not walked[2].any()
    assert walked[3].max() < 1e-39  # as before


def test_scores_stay_within_like_embeddings():
    embeddings = torch.zeros(2, 4, 6)
    embeddings[0, :, :3] = 1
    embeddings[1, :, 3:] = 1
    scores = torch.zeros(2, 4, 6)
    scores[0, 1, 1] = 1  # one labelled position on the left, one on the right
    scores[1, 2, 5] = 1
    walked = random_walk(embeddings, scores)
    assert torch.allclose(walked[0, :, :3], torch.full((4, 3), 1 / 12), atol=1e-6)
    assert torch.allclose(walked[1, :, 3:], torch.full((4, 3), 1 / 12), atol=1e-6)
    assert walked[0, :, 3:].max() < 1e-6
    assert walked[1, :, :3].max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 8),
    classes=st.integers(1, 4),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    seed=st.integers(0, 99),
    smooth=st.booleans(),
)
def test_every_score_is_a_mean_of_its_class(channels, classes, height, width, seed, smooth):
    embeddings, scores = smooth_problem(channels, classes, height, width, seed)
    if not smooth:
        rng = torch.Generator().manual_seed(seed)
        embeddings = torch.randn(channels, height, width, generator=rng)
    walked = random_walk(embeddings.float(), scores.float())
    low, high = scores.float().aminmax(dim=2)
    assert (walked.amin((1, 2)) >= low.amin(1)).all()
    assert (walked.amax((1, 2)) <= high.amax(1)).all()
    level = torch.full_like(scores, 0.3)
    assert torch.allclose(random_walk(embeddings, level), level)


@pytest.mark.usefixtures("storage")
def test_zero_vectors_exchange_with_each_other_only():
    embeddings, scores = smooth_problem(4, 2, 6, 8)
    embeddings[:, :, :2] = 0
    walked = random_walk(embeddings.float(), scores.float())
    assert walked.isfinite().all()
    mean = scores[:, :, :2].float().mean((1, 2))[:, None, None].expand(2, 6, 2)
    assert torch.allclose(walked[:, :, :2], mean, atol=1e-5)
    rest = random_walk(embeddings[:, :, 2:].float(), scores[:, :, 2:].float())
    assert torch.allclose(walked[:, :, 2:], rest, atol=1e-5)


def test_length_of_the_vectors_does_not_matter():
    embeddings, scores = smooth_problem(5, 2, 6, 5)
    lengths = 0.1 + torch.rand(6, 5, dtype=torch.float64)
    assert torch.allclose(
        random_walk(embeddings * lengths, scores), random_walk(embeddings, scores)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_walked_in_float32(dtype):
    embeddings, scores = smooth_problem(8, 2, 10, 8)
    embeddings, scores = embeddings.to(dtype), scores.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        walked = random_walk(embeddings, scores)
    assert walked.dtype == torch.float32
    expected = plain_walk(embeddings.double().numpy(), scores.double().numpy())
    np.testing.assert_allclose(walked.numpy(), expected, rtol=1e-3)


def test_neither_input_changes_nor_gradients_flow():
    embeddings, scores = smooth_problem(5, 2, 6, 5)
    before = embeddings.clone(), scores.clone()
    walked = random_walk(embeddings.requires_grad_(), scores.requires_grad_())
    assert not walked.requires_grad
    assert torch.equal(embeddings, before[0])
    assert torch.equal(scores, before[1])


FIVE = torch.ones(5, 3, 4)
TWO = torch.ones(2, 3, 4)


@pytest.mark.parametrize(
    ("embeddings", "scores", "options", "message"),
    [
        (FIVE[0], TWO, {}, r"embeddings.*\(3, 4\)"),
        (FIVE, TWO[0], {}, "scores.*channels, h, w"),
        (FIVE, TWO[:, :, :3], {}, r"another grid.*\(3, 3\).*\(3, 4\)"),
        (FIVE.long(), TWO, {}, "int64.*floating point"),
        (FIVE, TWO[:, :0], {}, "not empty"),
        (FIVE * torch.nan, TWO, {}, "embeddings hold NaN"),
        (FIVE, TWO * torch.inf, {}, "scores hold NaN or infinity"),
        (FIVE, TWO, {"steps": -1}, "steps.*-1"),
        (FIVE, TWO, {"sharpness": 0.0}, "sharpness"),
        (FIVE, TWO, {"sharpness": float("nan")}, "sharpness"),
    ],
)
def test_bad_input(embeddings, scores, options, message):
    with pytest.raises(InputError, match=message):
        random_walk(embeddings, scores, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("storage")
def test_cuda_equals_cpu():
    embeddings, scores = (x.float() for x in smooth_problem(16, 4, 20, 30))
    there = random_walk(embeddings.cuda(), scores.cuda())
    assert there.is_cuda
    assert torch.allclose(there.cpu(), random_walk(embeddings, scores), atol=1e-4)
