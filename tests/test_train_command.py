"""`weakseg train`, from its arguments to the run folder."""

import json
import re
from pathlib import Path

import pytest
from command_line import call
from reef import QUICK, edited

from weakseg.errors import InputError
from weakseg.training import Recipe
from weakseg.training.run_folder import RunFolder


def test_photographs_stored_in_every_way_are_trained_on(reef, trained, capsys):
    assert call("check", reef, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == {"train": 5, "val": 2}
    assert {p.name for p in trained.iterdir()} >= {
        *("config.yaml", "weights.safetensors", "model.json", "results.json", "log.jsonl"),
        "report.html",
    }
    results = json.loads((trained / "results.json").read_text())
    assert list(results["miou"]) == ["points"]
    assert 0 <= results["miou"]["points"]["weakseg"] <= 1
    assert results["protocol"]["measured_images"] == 2


def test_what_train_says(reef_copy, tmp_path, capsys):
    edited(reef_copy, 4, points=[], tags=[])
    quick = [*QUICK, "--steps", "1", "--classifier-steps", "1", "--rounds", "0"]
    assert call("train", reef_copy, "--out", tmp_path / "run", *quick, "--baselines") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "reef: 5 images to train on, 2 to measure on, 4 classes; labels: points" in said
    assert "no label: 1 image;" in said
    assert "classes without any label, never predicted: [/dead] coral" in said
    assert "mIoU on 2 images, %" in said
    assert "cross_entropy" in said
    assert "report.html" in said


def test_the_same_command_resumes_and_another_is_refused(reef, trained, capsys):
    before = (trained / "weights.safetensors").stat().st_mtime_ns
    log = (trained / "log.jsonl").read_text()
    assert call("train", reef, "--out", trained, *QUICK) == 0
    assert (trained / "log.jsonl").read_text() == log
    assert call("train", reef, "--out", trained, *QUICK, "--dim", "8") == 1
    assert "dim 64 there, 8 now" in capsys.readouterr().err
    assert (trained / "weights.safetensors").stat().st_mtime_ns >= before


def test_a_full_disk_leaves_no_half_written_model(reef, tmp_path, monkeypatch, capsys):
    import safetensors.torch

    real, out = safetensors.torch.save_file, tmp_path / "run"

    def full(tensors, path, *more):
        if Path(path).parent != out:
            return real(tensors, path, *more)
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    quick = [*QUICK, "--steps", "1", "--classifier-steps", "1", "--rounds", "0"]
    assert call("train", reef, "--out", out, *quick) == 1
    message = capsys.readouterr().err
    assert "weights.safetensors: cannot be written" in message
    assert "No space left on device" in message
    assert "Traceback" not in message
    names = {p.name for p in out.iterdir()}
    assert names == {"config.yaml", "log.jsonl", "stages"}
    assert call("predict", out, reef / "images", "--out", tmp_path / "masks") == 1
    monkeypatch.undo()
    assert call("train", reef, "--out", out, *quick) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_while_logging(tmp_path):
    run = RunFolder(tmp_path / "run", Recipe(kinds=("points",)), {})
    log = run.path / "log.jsonl"
    log.symlink_to("/dev/full")
    with pytest.raises(InputError, match=re.escape(f"{log}: cannot be written")) as refused:
        run.log("embedding", 1, {"annotation": 1.0})
    assert "No space left on device" in str(refused.value)
