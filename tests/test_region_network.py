"""The contour network: its weights, its answers, and what happens without it."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from weakseg.errors import InputError
from weakseg.regions import hierarchy, network, region_map
from weakseg.regions.network import WEIGHTS, ContourNet, learned_contours

SHARED = Path(__file__).parents[2] / "shared" / "data"
BSDS = Path(os.environ.get("WEAKSEG_DATA", SHARED)) / "bsds500"


def test_weights_are_small_and_whole():
    assert WEIGHTS.stat().st_size < 2_000_000
    with safe_open(WEIGHTS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert set(tensors) == set(ContourNet().state_dict())
    for name, value in tensors.items():
        assert name.endswith("num_batches_tracked") or str(value.dtype) == "torch.float16"
        assert value.isfinite().all(), name


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (8, 8), (33, 47)])
def test_any_size_gives_strength_at_that_size(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    strength = learned_contours(image)
    assert strength.shape == shape
    assert strength.dtype == np.float32
    assert 0 <= strength.min() <= strength.max() <= 1
    assert np.array_equal(strength, learned_contours(image))


def test_texture_is_no_contour():
    """A fine chequerboard beside a flat half: the gradient is everywhere, the contour between."""
    image = np.full((96, 160, 3), 128, np.uint8)
    rows, columns = np.indices((96, 80))
    image[:, :80] = np.where((rows // 2 + columns // 2) % 2, 150, 20)[..., None]
    strength = learned_contours(image)
    assert strength[20:-20, 77:83].max(1).mean() > 2 * strength[20:-20, 15:65].mean()


def test_the_frame_is_no_contour():
    rows, columns = np.indices((120, 150))
    image = np.stack([90 + rows // 2, 60 + columns // 2, np.full_like(rows, 90)], 2)
    strength = learned_contours(image.astype(np.uint8))
    frame = np.ones(strength.shape, bool)
    frame[4:-4, 4:-4] = False
    assert strength[frame].mean() < 2 * strength[~frame].mean()


def test_missing_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(network, "WEIGHTS", tmp_path / "none.safetensors")
    network._network.cache_clear()
    image = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(InputError, match=r'none\.safetensors.*"gradient" regions need no weights'):
        region_map(image, method="learned")
    assert region_map(image, method="gradient").shape == (9, 9)
    network._network.cache_clear()


@pytest.mark.skipif(not BSDS.is_dir(), reason="BSDS500 is not there (WEAKSEG_DATA)")
def test_finds_what_people_drew():
    """On five photographs it was not trained on; where most people drew a line, and nobody."""
    on, off = [], []
    for path in sorted((BSDS / "images" / "test").glob("*.jpg"))[::40]:
        with Image.open(path) as picture:
            strength = learned_contours(np.asarray(picture.convert("RGB")))
        with np.load(BSDS / "segmentations" / "test" / f"{path.stem}.npz") as archive:
            maps = archive["segmentations"]
        drawn = (maps[:, :-1, :-1] != maps[:, 1:, :-1]) | (maps[:, :-1, :-1] != maps[:, :-1, 1:])
        share = drawn.mean(0)
        on.append(strength[:-1, :-1][share > 0.5].mean())
        off.append(strength[:-1, :-1][share == 0].mean())
    assert np.mean(on) > 3 * np.mean(off)


def test_learned_is_the_default_of_hierarchies():
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    assert np.array_equal(hierarchy(image).contours, hierarchy(image, contours="learned").contours)
    assert not np.array_equal(
        hierarchy(image).contours, hierarchy(image, contours="gradient").contours
    )
