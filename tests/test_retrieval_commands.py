"""The commands index, retrieve and suggest, from arguments to exit status and files."""

import json
import shutil

import numpy as np
import pytest
import torch
from command_line import call, usage_error
from PIL import Image
from reef import CLASSES

from weakseg.dataset import Dataset
from weakseg.retrieval import Index
from weakseg.segmenter import Architecture, build_segmenter

SMALL = Architecture("tf_efficientnet_lite0", output_stride=16, long_side=96, dim=8, hidden=16)


@pytest.fixture(scope="module")
def run(reef, tmp_path_factory):
    """A model that was never trained."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    build_segmenter(SMALL, Dataset.open(reef).info).save(folder)
    return folder


@pytest.fixture(scope="module")
def index(reef, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "index"
    assert call("index", run, reef, "--out", folder) == 0
    return folder


def test_a_data_set_with_its_labels(index, reef):
    opened = Index.open(index)
    assert sorted(opened.images) == ["alpha", "deep", "grey", "rgb", "site/a", "site/b", "turned"]
    image = opened.image("rgb")
    assert set(image.weak) - {None} <= set(CLASSES)
    assert len(set(image.weak)) > 1
    assert set(image.tags) == {"[live] coral", "square"}
    assert image.file == str((reef / "images/rgb.jpg").resolve())
    assert set(opened.image("site/a").weak) == {None}  # its mask is no weak label


def test_part_of_a_data_set(run, reef, tmp_path):
    assert call("index", run, reef, "--out", tmp_path / "i", "--split", "val") == 0
    assert sorted(Index.open(tmp_path / "i").images) == ["site/a", "site/b"]


def test_a_folder_is_brought_up_to_date(run, photos, tmp_path, capsys):
    out = tmp_path / "i"
    assert call("index", run, photos, "--out", out) == 0
    assert "2 added" in capsys.readouterr().err
    assert call("index", run, photos, "--out", out) == 0
    assert "2 unchanged" in capsys.readouterr().err
    shutil.copy(photos / "a.jpg", photos / "c.jpg")
    (photos / "site/b.jpg").unlink()
    (photos / "bad.jpg").write_bytes(b"no image")
    assert call("index", run, photos, "--out", out, "--prune") == 1
    said = capsys.readouterr().err
    assert "1 added, 1 unchanged, 1 removed, 1 failed" in said
    assert "bad.jpg" in said
    assert sorted(Index.open(out).images) == ["a", "c"]
    (photos / "bad.jpg").unlink()
    assert call("index", run, photos, "--out", out, "--remove", "c,x*") == 0
    assert Index.open(out).images == ["a"]


def test_two_images_of_one_name(run, photos, tmp_path, capsys):
    shutil.copy(photos / "a.jpg", photos / "a.jpeg")
    assert call("index", run, photos, "--out", tmp_path / "i") == 1
    assert "two images of one name" in capsys.readouterr().err
    (photos / "a.jpeg").unlink()
    assert call("index", run, photos, "--out", tmp_path / "i") == 0
    shutil.copytree(photos, tmp_path / "other")
    assert call("index", run, tmp_path / "other", "--out", tmp_path / "i") == 1
    assert "two images of one name" in capsys.readouterr().err


def found(capsys, *arguments):
    assert call("retrieve", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_nearest_segment_is_the_one_asked_for(index, reef, capsys):
    capsys.readouterr()
    for image in ("rgb", reef / "images/rgb.jpg"):
        hits = found(capsys, index, "--image", image, "--at", "50,40", "--top", "4")
        assert len(hits) == 4
        assert hits[0]["image"] == "rgb"
        assert hits[0]["similarity"] == pytest.approx(1)
        x0, y0, x1, y1 = hits[0]["box"]
        assert x0 <= 50 < x1
        assert y0 <= 40 < y1
        number = hits[0]["segment"]
        again = found(capsys, index, "--image", image, "--segment", number, "--top", "4")
        assert again == hits


def test_same_image_class_and_page(index, tmp_path, capsys):
    capsys.readouterr()
    arguments = [index, "--image", "rgb", "--at", "50,40", "--exclude-same-image"]
    opened = Index.open(index)
    (label,) = {str(opened.image("rgb").weak[0])} - {"None"} or {"background"}
    page = tmp_path / "page.html"
    hits = found(capsys, *arguments, "--class", label, "--top", "6", "--html", page)
    assert len(hits) == 6
    for hit in hits:
        assert hit["image"] != "rgb"
        assert (hit["weak"] or hit["predicted"]) == label
    text = page.read_text()
    assert text.count("data:image/jpeg") == 7
    for hit in hits:
        assert f"{hit['similarity']:.3f}" in text
    assert 'src="http' not in text


def test_boxes_and_masks(index, reef, tmp_path, capsys):
    capsys.readouterr()
    box = found(capsys, index, "--image", "rgb", "--box", "10,20,60,70", "--top", "5")
    mask = np.zeros((96, 112), np.uint8)
    mask[20:70, 10:60] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_mask = found(capsys, index, "--image", "rgb", "--mask", tmp_path / "mask.png", "--top", "5")
    assert by_mask == box
    shutil.copy(reef / "images/grey.png", tmp_path / "elsewhere.png")
    hits = found(capsys, index, "--image", tmp_path / "elsewhere.png", "--at", "50,40")
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert hits[0]["image"] == "grey"


def test_the_share_of_the_scene(run, photos, tmp_path, capsys):
    out = tmp_path / "i"
    assert call("index", run, photos, "--out", out, "--context", "0.5") == 0
    assert Index.open(out).scene.context == 0.5
    capsys.readouterr()
    hits = found(capsys, out, "--image", photos / "a.jpg", "--box", "5,5,60,60", "--top", "200")
    assert max(hit["similarity"] for hit in hits) <= 1 + 1e-5
    assert {hit["image"] for hit in hits[:20]} == {"a"}  # its own scene is half of it
    assert call("index", run, photos, "--out", out, "--context", "0") == 1
    assert "counts scenes otherwise" in capsys.readouterr().err
    assert call("index", run, photos, "--out", tmp_path / "j", "--context", "1") == 1
    assert "--context" in capsys.readouterr().err


def test_a_table_is_printed(index, capsys):
    assert call("retrieve", index, "--image", "rgb", "--at", "50,40", "--top", "3") == 0
    assert "1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of --at, --box, --mask, --segment"),
        (("--at", "1,2", "--segment", "3"), "one of --at, --box, --mask, --segment"),
        (("--at", "1,2,3"), "--at"),
        (("--at", "nan,2"), "--at"),
        (("--at", "5000,2"), "outside the photograph"),
        (("--segment", "5000"), "no such segment"),
        (("--box", "9,9,3,3"), "no box"),
        (("--box", "9,9,3"), "--box"),
        (("--at", "5,5", "--top", "0"), "--top"),
        (("--at", "5,5", "--class", "coral reef"), "no segment of this class"),
        (("--mask", "missing.png"), "no such file"),
        (("--at", "5,5", "--html", "/dev/null/page.html"), "page.html"),
    ],
)
def test_bad_questions(index, arguments, message, capsys):
    assert call("retrieve", index, "--image", "rgb", *arguments) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err + said.out


def test_an_image_that_is_nowhere(index, capsys):
    assert call("retrieve", index, "--image", "nowhere", "--at", "5,5") == 1
    assert "nowhere" in capsys.readouterr().err
    assert call("retrieve", index.parent, "--image", "rgb", "--at", "5,5") == 1
    assert "no index" in capsys.readouterr().err
    assert usage_error("retrieve", index, "--at", "5,5") == 2


def test_the_model_is_needed_only_for_new_photographs(run, photos, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    assert call("index", moved, photos, "--out", tmp_path / "i") == 0
    shutil.rmtree(moved)
    ask = ["retrieve", tmp_path / "i", "--image", "a"]
    assert call(*ask, "--at", "5,5") == 0
    assert call(*ask, "--box", "5,5,20,20") == 1
    assert "--run" in capsys.readouterr().err
    assert call(*ask, "--box", "5,5,20,20", "--run", run) == 0
    torch.manual_seed(1)
    build_segmenter(SMALL, Dataset.from_arrays([np.zeros((9, 9, 3))], [None], CLASSES).info).save(
        tmp_path / "other"
    )
    assert call(*ask, "--box", "5,5,20,20", "--run", tmp_path / "other") == 1
    assert "another model" in capsys.readouterr().err


def test_suggest(run, reef, tmp_path, capsys):
    assert call("suggest", reef, run, "--top", "3", "--out", tmp_path / "s") == 0
    lines = (tmp_path / "s/suggestions.jsonl").read_text().splitlines()
    suggestions = [json.loads(line) for line in lines]
    kinds = [s["kind"] for s in suggestions]
    assert set(kinds) <= {"label next", "label error", "near duplicate"}
    assert kinds.count("label next") == 3
    opened = Index.open(tmp_path / "s/index")
    assert "site/a" not in opened.images  # of the other part
    for s in suggestions:
        assert set(s["segments"]) <= set(opened.image(s["image"]).segment.tolist())
    assert (tmp_path / "s/suggestions.html").read_text().count("<section") == 3
    said = capsys.readouterr().err
    assert "label next: 3 images" in said
    assert call("suggest", reef, run, "--top", "3", "--out", tmp_path / "s") == 0
    assert "5 unchanged" in capsys.readouterr().err
    assert call("suggest", reef, run, "--top", "0") == 1
    assert call("suggest", reef, run, "--split", "tset") == 1
    assert "no image in part" in capsys.readouterr().err
