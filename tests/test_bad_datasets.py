"""A data set spoiled in one way is refused by `weakseg check` and `weakseg train`, and why."""

import shutil
from pathlib import Path

import pytest
from command_line import call
from PIL import Image
from reef import QUICK, edited

from weakseg.images import read_mask


def spoil(folder, case):
    """Break a data set in one way; gives what a message has to name."""
    lines = folder / "annotations.jsonl"
    if case == "missing image":
        (folder / "images/rgb.jpg").unlink()
        return "rgb.jpg"
    if case == "truncated JPEG":
        whole = (folder / "images/rgb.jpg").read_bytes()
        (folder / "images/rgb.jpg").write_bytes(whole[: len(whole) // 2])
        return "rgb.jpg"
    if case == "image of another size":
        edited(folder, 0, width=96, height=112)
        return "96 x 112"
    if case == "mask of other size":
        Image.new("L", (96, 112)).save(folder / "masks/6.png")
        return "96 x 112"
    if case == "mask value that is no class":
        mask = read_mask(folder / "masks/6.png")
        mask[0, 0] = 77
        Image.fromarray(mask).save(folder / "masks/6.png")
        return "6.png"
    if case == "colour mask":
        Image.new("RGB", (112, 96)).save(folder / "masks/6.png")
        return "6.png"
    if case == "image listed twice":
        lines.write_text(lines.read_text() + lines.read_text().splitlines()[0] + "\n")
        return "annotations.jsonl:8: image listed twice"
    if case == "truncated image to measure on":
        whole = (folder / "images/site/b.png").read_bytes()
        (folder / "images/site/b.png").write_bytes(whole[:1000])
        return "b.png"
    if case == "class not in the list":
        edited(folder, 1, points=[{"class": "corral", "xy": [3, 3]}])
        return "corral"
    if case == "point outside":
        edited(folder, 2, points=[{"class": "square", "xy": [112, 3]}])
        return "112"
    if case == "scribble of one point":
        edited(folder, 3, scribbles=[{"class": "square", "xy": [[5, 3]]}])
        return "scribble of 1 position"
    if case == "box with x1 < x0":
        edited(folder, 4, boxes=[{"class": "square", "xyxy": [9, 3, 5, 8]}])
        return "x0 < x1"
    if case == "JSON line cut off":
        lines.write_text(lines.read_text()[:-30])
        return "annotations.jsonl:7"
    if case == "empty data set":
        lines.write_text("")
        return "empty data set"
    if case == "no annotations":
        lines.unlink()
        return "annotations.jsonl"
    if case == "no dataset.yaml":
        (folder / "dataset.yaml").unlink()
        return "dataset.yaml"
    if case == "no folder":
        folder.rename(folder.with_name("elsewhere"))
        return "no such folder"
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case",
    [
        *("missing image", "truncated JPEG", "image of another size", "mask of other size"),
        *("mask value that is no class", "colour mask", "image listed twice"),
        *("truncated image to measure on", "class not in the list", "point outside"),
        *("scribble of one point", "box with x1 < x0", "JSON line cut off", "empty data set"),
        *("no annotations", "no dataset.yaml", "no folder"),
    ],
)
def test_bad_input_is_told_apart_by_check_and_refused_by_train(reef_copy, tmp_path, capsys, case):
    named = spoil(reef_copy, case)
    assert call("check", reef_copy) == 1
    assert named in capsys.readouterr().out
    assert call("train", reef_copy, "--out", tmp_path / "run", *QUICK) == 1
    message = capsys.readouterr().err
    assert named in message
    assert "Traceback" not in message
    assert not list(tmp_path.glob("run/*.safetensors"))
    assert not (tmp_path / "run/results.json").exists()
    if not case.startswith("truncated"):  # those are seen when features are computed
        assert not (tmp_path / "run").exists()


def test_bad_data_never_throws_an_old_run_away(reef_copy, trained, tmp_path):
    old = Path(shutil.copytree(trained, tmp_path / "run"))
    spoil(reef_copy, "point outside")
    assert call("train", reef_copy, "--out", old, "--overwrite", *QUICK) == 1
    assert (old / "weights.safetensors").exists()
