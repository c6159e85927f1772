import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_scenes import QUICK, QUICK_MASKS, scenes

from weakseg import fit
from weakseg.errors import InputError
from weakseg.images import palette, read_mask, write_mask
from weakseg.training import embedding, progress
from weakseg.training.run_folder import RunFolder


def test_the_same_seed_gives_the_same_model(small_dataset, finished, tmp_path):
    a = finished.segmenter.state_dict()
    b = fit(small_dataset, QUICK, out=tmp_path / "b").segmenter.state_dict()
    c = fit(small_dataset, replace(QUICK, seed=1), out=tmp_path / "c").segmenter.state_dict()
    name = "classifier.out.weight"
    torch.testing.assert_close(a[name], b[name])
    assert not torch.allclose(a[name], c[name])


def test_a_finished_run_is_resumed_without_training_again(finished):
    run = finished.job.run.path
    lines = len((run / "log.jsonl").read_text().splitlines())
    again = fit(scenes(), replace(QUICK, baselines=True), out=run)
    assert again.job.run.resumed
    assert again.miou == finished.miou
    assert len((run / "log.jsonl").read_text().splitlines()) == lines


def test_a_run_stopped_in_every_stage_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 1)
    monkeypatch.setattr(embedding, "SAVE_EVERY", 2)
    recipe = replace(
        QUICK, kinds=("boxes", "points"), baselines=True, long_side=96, crop=6, batch=2, steps=8
    )
    recipe = replace(recipe, classifier_steps=4)
    dataset = scenes(4, 1)
    whole = fit(dataset, recipe, out=tmp_path / "whole").segmenter.state_dict()

    real, stops = RunFolder.log, []

    def stopping(run, stage, step, losses, **more):
        real(run, stage, step, losses, **more)
        if (stage, step) in stops:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "log", stopping)
    places = [("tagger", 9), ("embedding", 3), ("embedding", 7), ("classifier-0", 2)]
    for place in [*places, ("classifier-1", 3), ("cross-entropy-classifier", 1)]:
        stops[:] = [place]
        with pytest.raises(KeyboardInterrupt):
            fit(dataset, recipe, out=tmp_path / "run")
    stops.clear()
    fitted = fit(dataset, recipe, out=tmp_path / "run")
    # From the last checkpoint of the embedding on.
    log = (tmp_path / "run/log.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, log) if r["stage"] == "embedding"]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 7, 7, 8]
    for name, value in fitted.segmenter.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=0, msg=name)
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("run", "whole")]
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["embedding.safetensors", "classifier-1.safetensors"])
def test_a_damaged_stage_is_named(finished, tmp_path, name):
    run = Path(shutil.copytree(finished.job.run.path, tmp_path / "run"))
    file = run / "stages" / name
    file.write_bytes(file.read_bytes()[:200])
    recipe = replace(QUICK, baselines=True)
    with pytest.raises(InputError, match=rf"{name}: damaged file of an earlier run.*deleted"):
        fit(scenes(), recipe, out=run)
    file.unlink()
    assert fit(scenes(), recipe, out=run).miou == finished.miou


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    run = Path(shutil.copytree(finished.job.run.path, tmp_path / "run"))
    (run / "stages/embedding.safetensors").unlink()
    (run / "stages/embedding.checkpoint").write_bytes(b"PK half of it")
    with pytest.raises(InputError, match=r"embedding\.checkpoint: damaged file"):
        fit(scenes(), replace(QUICK, baselines=True), out=run)


def test_another_run_in_the_folder_is_refused_and_can_be_overwritten(small_dataset, tmp_path):
    fit(small_dataset, QUICK, out=tmp_path / "run")
    with pytest.raises(InputError, match="steps 30 there, 40 now"):
        fit(small_dataset, replace(QUICK, steps=40), out=tmp_path / "run")
    fit(small_dataset, replace(QUICK, steps=40), out=tmp_path / "run", overwrite=True)


def test_overwriting_a_run_with_the_same_settings_goes_on_with_it(finished, tmp_path):
    run = Path(shutil.copytree(finished.job.run.path, tmp_path / "run"))
    again = fit(scenes(), replace(QUICK, baselines=True), out=run, overwrite=True)
    assert again.job.run.resumed
    assert again.job.run.records() == finished.job.run.records()


def test_a_run_does_not_go_on_with_masks_that_were_corrected(tmp_path):
    dataset = scenes(2, 1, masked=2).save(tmp_path / "data")
    recipe = replace(QUICK_MASKS, steps=1, classifier_steps=1)
    fit(dataset, recipe, out=tmp_path / "run")
    fit(dataset, recipe, out=tmp_path / "run")
    mask = dataset[0].mask
    write_mask(mask, np.flipud(read_mask(mask)), palette(256))
    with pytest.raises(InputError, match="photographs, masks, weights or region maps have changed"):
        fit(dataset, recipe, out=tmp_path / "run")


def test_a_folder_with_something_else_is_never_overwritten(small_dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="something else"):
        fit(small_dataset, QUICK, out=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
