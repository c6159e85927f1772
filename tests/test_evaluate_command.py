"""`weakseg evaluate`, on two predictions."""

import shutil

import numpy as np
import pytest
from command_line import call
from PIL import Image


@pytest.fixture
def masks(tmp_path):
    """Two predictions and three true masks."""
    for name, value in (("pred/a", 1), ("pred/site/b", 2), ("gt/a", 1), ("gt/site/b", 1)):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6), value, np.uint8)).save(path)
    shutil.copy(tmp_path / "gt/a.png", tmp_path / "gt/c.png")
    return tmp_path


def test_evaluate_prints_names_as_they_are(masks, reef, capsys):
    assert call("evaluate", masks / "pred", masks / "gt", "--classes", reef) == 0
    printed = capsys.readouterr().out
    assert "[live] coral" in printed
    assert "[/dead] coral" in printed
    assert "truth without prediction: 1" in printed
    assert "mIoU 50.0 on 2 images" in printed


def test_evaluate_says_what_is_wrong(masks, reef, capsys):
    evaluate = ["evaluate", masks / "pred", masks / "gt", "--classes", reef]
    assert call(*evaluate, "--strict") == 1
    assert "without a prediction" in capsys.readouterr().err
    Image.new("L", (5, 5)).save(masks / "pred/a.png")
    assert call(*evaluate) == 1
    assert "pred/a.png: prediction and truth differ in size" in capsys.readouterr().err
    assert call("evaluate", masks / "pred", masks / "gt", "--classes", masks / "gt") == 1
    assert "dataset.yaml" in capsys.readouterr().err
