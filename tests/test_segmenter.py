import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from weakseg.classifier import PixelClassifier
from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError
from weakseg.segmenter import Architecture, Segmenter, _enlarged, build_segmenter

INFO = DatasetInfo("reef", ("water", "coral", "sand"), background="water", ignore=250)
SMALL = Architecture("tf_efficientnet_lite0", output_stride=16, long_side=96, dim=8, hidden=16)


@pytest.fixture(scope="module")
def model():
    """Untrained, but every layer has something to say."""
    torch.manual_seed(0)
    made = build_segmenter(SMALL, INFO)
    torch.nn.init.normal_(made.classifier.out.weight, std=2)
    made.precision = "fp32"  # whatever this processor prefers
    return made


def photograph(height=72, width=96, seed=0):
    """Smooth blobs of colour."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 4, 5)) * 255)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0]
    return smooth.permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (3, 400), (2000, 30), (97, 61)])
def test_images_of_any_size(model, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    prediction = model.predict(image, flip=True, scales=(0.5, 1), probabilities=True)
    assert prediction.mask.shape == prediction.confidence.shape == size
    assert prediction.mask.dtype == np.uint8
    assert prediction.confidence.dtype == np.float32
    assert prediction.probabilities.shape == (3, *size)


@pytest.mark.parametrize("crf", [False, True])
def test_probabilities_sum_to_one_and_agree_with_the_mask(model, crf):
    prediction = model.predict(photograph(), crf=crf, probabilities=True)
    p = prediction.probabilities
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-4)
    np.testing.assert_array_equal(p.argmax(0), prediction.mask)
    np.testing.assert_allclose(p.max(0), prediction.confidence, atol=1e-6)
    assert len(np.unique(prediction.mask)) > 1  # a test of something


def test_probabilities_are_given_only_when_asked_for(model):
    assert model.predict(photograph()).probabilities is None


def test_the_crf_follows_the_photograph(model):
    image = photograph()
    image[:, 50:] = 255 - image[:, 50:]
    plain, sharp = model.predict(image), model.predict(image, crf=True)
    assert plain.mask.shape == sharp.mask.shape
    assert (plain.mask != sharp.mask).any()


@pytest.mark.parametrize(
    ("scores", "present"),
    [((0, 0, 0), {0, 1, 2}), ((2, 0, 0), {0, 1, 2}), ((6, 5, 0), {0, 1}), ((9, 0, 0), {0})],
)
def test_the_crf_sees_the_classes_that_the_image_may_show(model, monkeypatch, scores, present):
    constant = torch.tensor(scores).float()[:, None, None].expand(-1, 9, 12)
    monkeypatch.setattr(model, "scores", lambda features: constant)
    prediction = model.predict(photograph(), crf=True, probabilities=True)
    assert set(np.flatnonzero(prediction.probabilities.max((1, 2)))) == present


@pytest.mark.parametrize(
    "convert",
    [
        lambda grey: grey,
        lambda grey: grey[:, :, None],
        lambda grey: np.dstack([grey, grey, grey, np.full_like(grey, 7)]),
        lambda grey: grey / np.float64(255),
        # Deep images are stretched from their own range; this one has 0 and 65535 in it.
        lambda grey: grey.astype(np.uint16) * 257,
    ],
    ids=["grey", "one channel", "RGBA", "float", "16 bit"],
)
def test_what_is_not_rgb_is_read_as_the_file_would_be(model, convert):
    grey = photograph()[:, :, 0]
    grey.flat[:2] = 0, 255
    expected = model.predict(np.dstack([grey] * 3))
    np.testing.assert_array_equal(model.predict(convert(grey)).mask, expected.mask)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_image_is_refused(model, bad):
    with pytest.raises(InputError, match="not an image array"):
        model.predict(bad)


def test_the_mirror_image_has_the_mirrored_mask(model):
    image = photograph()
    a = model.predict(image, flip=True, probabilities=True)
    b = model.predict(image[:, ::-1], flip=True, probabilities=True)
    np.testing.assert_allclose(a.probabilities, b.probabilities[:, :, ::-1], atol=1e-5)
    assert not np.allclose(
        model.predict(image, probabilities=True).probabilities, a.probabilities, atol=1e-3
    )


def test_the_order_of_scales_does_not_matter(model):
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    a, b = (model.predict(image, scales=s, probabilities=True) for s in ((0.5, 1), (1, 0.5)))
    np.testing.assert_array_equal(a.probabilities, b.probabilities)


def test_scales_are_averaged(model):
    image = photograph()
    # Where the grids are equal the mean is exact: 0.5 of 192 is 96.
    one = model.predict(image, probabilities=True).probabilities
    twice = model.predict(image, scales=(1, 1), probabilities=True).probabilities
    np.testing.assert_allclose(one, twice, atol=1e-6)
    half = model.predict(image, scales=(0.5,), probabilities=True).probabilities
    both = model.predict(image, scales=(1, 0.5), probabilities=True).probabilities
    assert np.abs(one - half).max() > 1e-3
    np.testing.assert_allclose(both, (one + half) / 2, atol=0.12)
    assert np.abs(both - (one + half) / 2).mean() < 0.02


def test_features_may_be_computed_once(model):
    image = photograph(60, 96)
    features = model.features(image)
    assert features.shape[1:] == (8, 12)
    vectors = model.embed(features)
    torch.testing.assert_close(vectors.norm(dim=0), torch.ones(vectors.shape[1:]))
    again = model.predict_features(features, (60, 96))
    np.testing.assert_array_equal(again.mask, model.predict(image).mask)


def with_walk(model, steps):
    walking = copy.deepcopy(model)
    walking.architecture = replace(SMALL, walk=steps)
    return walking


def test_prediction_walks_along_the_embedding(model):
    """Where the embedding has two values, each half comes to one mean; classes keep their mass."""
    walking, features = with_walk(model, 32), model.features(photograph())
    halves = torch.zeros(1, 8, *features.shape[1:])
    halves[:, 0, :, :6], halves[:, 1, :, 6:] = 1, 1
    walking.head.forward = lambda features: halves
    given = torch.rand(3, *features.shape[1:]).softmax(0)
    spread = walking.spread(features, given)
    for half in (slice(None, 6), slice(6, None)):
        mean = given[:, :, half].mean((1, 2), keepdim=True)
        torch.testing.assert_close(spread[:, :, half], mean.expand(-1, len(given[0]), 6))


def test_the_walk_is_the_models_own_unless_asked_for(model):
    image = photograph(60, 96)
    walking, features = with_walk(model, 32), model.features(image)
    own = walking.predict(image, probabilities=True)
    np.testing.assert_array_equal(own.mask, walking.predict_features(features, (60, 96)).mask)
    for predicted, walked in (
        (model.predict(image, walk=32, probabilities=True), True),
        (walking.predict(image, walk=0, probabilities=True), False),
        (model.predict(image, probabilities=True), False),
    ):
        same = np.allclose(own.probabilities, predicted.probabilities, atol=1e-6)
        assert same is walked


def test_without_an_embedding_there_is_no_walk(model):
    walking, features = with_walk(model, 32), model.features(photograph())
    walking.classifier = PixelClassifier(len(features), 0, 3)
    given = torch.rand(3, *features.shape[1:])
    assert walking.spread(features, given) is given


@pytest.mark.parametrize("size", [(600, 512), (7, 5), (1, 1), (33, 4000)])
def test_strips_are_the_whole_interpolation(size):
    torch.manual_seed(0)
    total = torch.rand(64, 9, 13).softmax(0)
    assert size != (600, 512) or 2**24 // (64 * size[1]) < size[0]  # more than one strip
    strips = _enlarged(total, size, True)
    whole = F.interpolate(total[None], size, mode="bilinear", align_corners=False)[0].numpy()
    np.testing.assert_allclose(strips.probabilities, whole, atol=1e-6)
    np.testing.assert_allclose(strips.confidence, whole.max(0), atol=1e-6)
    chosen = np.take_along_axis(whole, strips.mask[None].astype(np.int64), 0)[0]
    np.testing.assert_allclose(chosen, whole.max(0), atol=1e-6)


def test_a_saved_model_is_loaded_bit_for_bit(model, tmp_path):
    model.save(tmp_path / "run", {"kinds": ["points"]})
    loaded = Segmenter.load(str(tmp_path / "run"))
    loaded.precision = model.precision
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.architecture == model.architecture
    assert (loaded.info.classes, loaded.info.background, loaded.info.ignore) == (
        INFO.classes,
        "water",
        250,
    )
    assert not loaded.training
    a, b = (m.predict(photograph(), probabilities=True).probabilities for m in (model, loaded))
    np.testing.assert_array_equal(a, b)


def spoil(run, case):
    weights, description = run / "weights.safetensors", run / "model.json"
    data = json.loads(description.read_text())
    if case == "no model.json":
        description.unlink()
    elif case == "no weights":
        weights.unlink()
    elif case == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif case == "empty weights":
        weights.write_bytes(b"")
    elif case == "garbage weights":
        weights.write_bytes(b"\xff" * 5000)
    elif case == "json cut off":
        description.write_text(description.read_text()[:-20])
    elif case == "no json":
        description.write_bytes(b"\xff\xfe\x00garbage")
    elif case == "a list":
        description.write_text("[1, 2]")
    else:
        changed = {
            "no architecture": {"architecture": None},
            "architecture of numbers": {"architecture": {"backbone": 5}},
            "unknown part": {"architecture": data["architecture"] | {"magic": 1}},
            "no such backbone": {"architecture": data["architecture"] | {"backbone": "nosuchnet"}},
            "another backbone": {
                "architecture": data["architecture"] | {"backbone": "tf_efficientnet_lite1"}
            },
            "another size": {"architecture": data["architecture"] | {"dim": 16}},
            "other classes": {"classes": ["a", "b"], "background": None},
            "classes twice": {"classes": ["a", "a"], "background": None},
            "no classes": {"classes": None},
            "class of numbers": {"classes": 7},
        }[case]
        description.write_text(json.dumps(data | changed))


@pytest.mark.parametrize(
    "case",
    [
        *("no model.json", "no weights", "truncated weights", "empty weights", "garbage weights"),
        *("json cut off", "no json", "a list", "no architecture", "architecture of numbers"),
        *("unknown part", "no such backbone", "another backbone", "another size"),
        *("other classes", "classes twice", "no classes", "class of numbers"),
    ],
)
def test_a_damaged_run_is_refused_by_name(model, tmp_path, case):
    run = tmp_path / "run"
    model.save(run)
    spoil(run, case)
    with pytest.raises(InputError, match=r"(no trained|damaged) model.*weakseg train") as caught:
        Segmenter.load(run)
    assert str(run) in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="nowhere: no trained model"):
        Segmenter.load(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_old_model_whole(model, tmp_path, monkeypatch):
    import safetensors.torch

    model.save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(tensors, path):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(InputError, match=r"weights.safetensors: cannot be written.*No space left"):
        model.save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def peak():
    """Peak resident memory in bytes since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_photograph_does_not_fill_the_memory(model):
    image = np.tile(photograph(40, 60), (100, 100, 1))
    assert image.shape == (4000, 6000, 3)
    Path("/proc/self/clear_refs").write_text("5")  # peak = now
    before = peak()
    prediction = model.predict(image)
    assert prediction.mask.shape == (4000, 6000)
    assert peak() - before < 1.5e9
