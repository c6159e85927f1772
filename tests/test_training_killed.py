"""A fine-tuning killed with SIGKILL while it saves ends, when resumed, as an unbroken one."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import torch
from small_scenes import scenes

from weakseg import Recipe, files, fit
from weakseg.training import embedding, progress

QUICK = Recipe(
    kinds=("points",),
    device="cpu",
    regime="fine-tune",
    long_side=96,
    crop=32,
    batch=2,
    workers=0,
    steps=4,
    rounds=0,
    classifier_steps=2,
    crf=False,
    regions="none",
)


def train_and_die(out):
    """Train with a checkpoint after each step; the third one is cut off in the middle."""
    embedding.SAVE_EVERY = progress.EVERY = 1
    real, saved = torch.save, []

    def dying(state, path):
        real(state, path)
        if "checkpoint" in Path(path).name:
            saved.append(path)
        if len(saved) == 3:
            os.truncate(path, 1000)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = dying
    fit(scenes(2, 0), QUICK, out=out)


def half_written_files(folder):
    return [path for path in folder.rglob(".*") if files.half_written(path)]


def test_killed_while_saving(tmp_path, monkeypatch):
    child = multiprocessing.get_context("spawn").Process(
        target=train_and_die, args=(tmp_path / "run",)
    )
    child.start()
    whole = fit(scenes(2, 0), QUICK, out=tmp_path / "whole").segmenter.state_dict()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert half_written_files(tmp_path / "run")
    monkeypatch.setattr(progress, "EVERY", 1)
    fitted = fit(scenes(2, 0), QUICK, out=tmp_path / "run")
    log = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
    assert [r["step"] for r in log if r["stage"] == "embedding"] == [1, 2, 3, 3, 4]
    for name, value in fitted.segmenter.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=0, msg=name)
    assert any("backbone" in name for name in whole)
    assert not (tmp_path / "run/stages/embedding.checkpoint").exists()
    assert not half_written_files(tmp_path / "run")
