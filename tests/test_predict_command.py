"""`weakseg predict`, from its arguments to the masks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from PIL import Image
from reef import CLASSES, edited

from weakseg.images import read_image, read_mask


def test_predict_mirrors_the_folder(trained, photos, tmp_path, capsys):
    out = tmp_path / "masks"
    assert call("predict", trained, photos, "--out", out) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        "a.png",
        "site/b.png",
    ]
    for name, source in (("a.png", "a.jpg"), ("site/b.png", "site/b.jpg")):
        mask = read_mask(out / name)
        assert mask.shape == read_image(photos / source).shape[:2] == (96, 112)
        assert mask.max() < len(CLASSES)
        assert Image.open(out / name).mode == "P"
    assert "2 of 2 images classified" in capsys.readouterr().err


def test_predict_writes_more_when_asked(trained, photos, tmp_path):
    out = tmp_path / "masks"
    more = ["--confidence", "--probabilities", "--overlays"]
    assert call("predict", trained, photos, "--out", out, *more) == 0
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*"))
    assert written == [
        *("a.png", "confidence/a.png", "confidence/site/b.png", "overlays/a.jpg"),
        *("overlays/site/b.jpg", "probabilities/a.npz", "probabilities/site/b.npz", "site/b.png"),
    ]
    probabilities = np.load(out / "probabilities/a.npz")["probabilities"]
    assert probabilities.shape == (4, 96, 112)
    assert probabilities.dtype == np.float16
    np.testing.assert_allclose(probabilities.sum(0, dtype=np.float32), 1, atol=1e-2)
    np.testing.assert_array_equal(
        probabilities.max(0),
        np.take_along_axis(probabilities, read_mask(out / "a.png")[None].astype(int), 0)[0],
    )
    confidence = read_mask(out / "confidence/a.png")
    np.testing.assert_allclose(confidence / 255, probabilities.max(0), atol=0.01)
    assert read_image(out / "overlays/site/b.jpg").shape == (96, 112, 3)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.jpg", ["a.png"]),
        ("*.jpg", ["a.png"]),
        ("**/*.jpg", ["a.png", "site/b.png"]),
        ("s?te/*", ["site/b.png"]),
        ("site/*.jpg", ["b.png"]),
    ],
)
def test_predict_takes_files_and_patterns(trained, photos, tmp_path, pattern, expected):
    out = tmp_path / "masks"
    assert call("predict", trained, photos / pattern, "--out", out) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == expected


def test_predict_averages_and_sharpens(trained, photos, tmp_path):
    assert call("predict", trained, photos / "a.jpg", "--out", tmp_path / "plain") == 0
    flags = ["--flip", "--scales", "[0.5,1]", "--crf", "--probabilities"]
    assert call("predict", trained, photos / "a.jpg", "--out", tmp_path / "sharp", *flags) == 0
    assert read_mask(tmp_path / "sharp/a.png").shape == read_mask(tmp_path / "plain/a.png").shape


def test_the_walk_can_be_left_out(trained, photos, tmp_path):
    """The run was trained with one; asking for as many steps changes nothing."""
    for name, flags in {"own": [], "64": ["--walk", "64"], "none": ["--walk", "0"]}.items():
        out = tmp_path / name
        call("predict", trained, photos / "a.jpg", "--out", out, "--probabilities", *flags)
    own, same, none = (
        np.load(tmp_path / name / "probabilities/a.npz")["probabilities"]
        for name in ("own", "64", "none")
    )
    np.testing.assert_array_equal(own, same)
    assert np.abs(own - none).max() > 1e-3


def test_an_image_that_fails_is_listed_and_the_rest_goes_on(trained, photos, tmp_path, capsys):
    (photos / "0broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:900])
    (photos / "notes.png").write_text("no image at all")
    assert call("predict", trained, photos, "--out", tmp_path / "masks") == 1
    message = capsys.readouterr().err
    assert "0broken.jpg" in message
    assert "notes.png" in message
    assert "2 of 4 images classified" in message
    assert "Traceback" not in message
    assert {p.name for p in (tmp_path / "masks").rglob("*.*")} == {"a.png", "b.png"}


def test_a_data_set_is_predicted_and_scored(trained, reef, tmp_path, capsys):
    out = tmp_path / "masks"
    assert call("predict", trained, reef, "--split", "val", "--out", out) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == [
        "site/a.png",
        "site/b.png",
    ]
    capsys.readouterr()
    yaml_file = reef / "dataset.yaml"
    assert call("evaluate", out, reef, "--classes", yaml_file, "--json", "--strict") == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"miou", "iou", "confusion", "images", "protocol"}
    assert scores["images"] == 2
    assert [*scores["iou"]] == CLASSES
    measured = json.loads((trained / "results.json").read_text())["miou"]["points"]["weakseg"]
    assert scores["miou"] == pytest.approx(measured, abs=1e-6)


def test_a_line_of_a_data_set_that_is_wrong_is_listed_too(trained, reef_copy, tmp_path, capsys):
    edited(reef_copy, 5, points=[{"class": "square", "xy": [500, 3]}])
    assert call("predict", trained, reef_copy, "--split", "val", "--out", tmp_path / "masks") == 1
    message = capsys.readouterr().err
    assert "annotations.jsonl:6" in message
    assert "1 of 2 images classified" in message


def clash(photos, case):
    if case == "two of one name":
        Image.new("RGB", (9, 9)).save(photos / "a.png")
    elif case == "reserved folder":
        (photos / "site").rename(photos / "overlays")


@pytest.mark.parametrize(
    ("case", "words"),
    [("two of one name", "two images of one name: found a"), ("reserved folder", "overlays")],
)
def test_names_that_would_collide_are_refused(trained, photos, tmp_path, capsys, case, words):
    clash(photos, case)
    assert call("predict", trained, photos, "--out", tmp_path / "masks") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "masks").exists()


def test_masks_never_replace_photographs_or_true_masks(
    trained, photos, reef_copy, tmp_path, capsys
):
    Image.new("RGB", (20, 20)).save(photos / "c.png")
    before = (photos / "c.png").read_bytes()
    assert call("predict", trained, photos, "--out", photos) == 1
    assert call("predict", trained, photos / "c.png", "--out", photos) == 1
    shutil.copy(photos / "c.png", photos / "site/a.png")
    assert call("predict", trained, photos / "a.jpg", "--out", photos / "site") == 1
    assert (photos / "c.png").read_bytes() == (photos / "site/a.png").read_bytes() == before
    assert "c.png: a mask would replace" in capsys.readouterr().err
    truth = reef_copy / "images/site/a.png"
    before = truth.read_bytes()
    assert call("predict", trained, reef_copy, "--split", "val", "--out", reef_copy / "images") == 1
    assert truth.read_bytes() == before


def test_masks_among_the_photographs_are_not_predicted_again(trained, photos, capsys):
    for _ in range(2):
        assert call("predict", trained, photos, "--out", photos / "masks") == 0
        assert "2 of 2 images" in capsys.readouterr().err
    assert not (photos / "masks/masks").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN", "nowhere"], "nowhere: no such file or folder"),
        (["RUN", "EMPTY"], "no images found"),
        (["PHOTOS", "PHOTOS"], "no trained model"),
        (["RUN", "PHOTOS", "--scales", "0"], "--scales"),
        (["RUN", "PHOTOS", "--scales", "nan"], "--scales"),
        (["RUN", "PHOTOS", "--scales", ""], "--scales"),
        (["RUN", "PHOTOS", "--walk=-1"], "--walk"),
        (["RUN", "PHOTOS", "--device", "abacus"], "--device"),
        (["RUN", "PHOTOS", "--split", "val"], "dataset.yaml"),
        (["RUN", "REEF", "--split", "test"], "one of train, val"),
    ],
)
def test_what_predict_refuses(trained, photos, reef, tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    places = {"RUN": trained, "PHOTOS": photos, "REEF": reef, "EMPTY": tmp_path / "empty"}
    given = [places.get(argument, argument) for argument in arguments]
    assert call("predict", *given, "--out", tmp_path / "masks") == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (tmp_path / "masks").exists()


def test_a_full_disk_while_predicting(trained, photos, tmp_path, monkeypatch, capsys):
    def full(image, path, *more, **options):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Image.Image, "save", full)
    assert call("predict", trained, photos, "--out", tmp_path / "masks") == 1
    assert "a.png: cannot be written: found No space left" in capsys.readouterr().err
    assert not list((tmp_path / "masks").rglob("*.png"))
