from dataclasses import replace

import numpy as np
import pytest
import torch
from small_scenes import QUICK, scenes

from weakseg import Segmenter, fit
from weakseg.training import processes


def test_features_of_a_tuned_backbone_stay_with_their_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WEAKSEG_CACHE", str(tmp_path / "cache"))
    recipe = replace(QUICK, regime="fine-tune", crop=64, steps=1, batch=2, workers=0, rounds=0)
    fit(scenes(2, 1), replace(recipe, classifier_steps=1), out=tmp_path / "run")
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == ["regions"]
    assert any((tmp_path / "run/stages/features").iterdir())


@pytest.mark.parametrize(
    ("asked", "native", "expected"),
    [("auto", "bf16", "bf16-mixed"), ("auto", "fp32", "32-true"), ("fp32", "bf16", "32-true")],
)
def test_several_processes_compute_as_one_does(asked, native, expected, monkeypatch):
    class Told(Exception):
        pass

    def fabric(**settings):
        raise Told(settings["precision"])

    def resolved(precision, device):
        return native if precision == "auto" else precision

    monkeypatch.setattr(processes, "Fabric", fabric)
    monkeypatch.setattr(processes, "resolve_precision", resolved)
    recipe = replace(QUICK, precision=asked, devices=2)
    with pytest.raises(Told, match=expected):
        processes.train_in_processes(*[None] * 2, recipe, *[None] * 2, run=0, checkpoint=0, file=0)


@pytest.mark.parametrize(("regime", "crop"), [("frozen", 8), ("fine-tune", 64)])
def test_embeddings_may_lie_closer_than_features(regime, crop, tmp_path):
    recipe = replace(QUICK, regime=regime, crop=crop, embedding_stride=4)
    recipe = replace(recipe, steps=2, batch=2, workers=0, classifier_steps=5)
    fitted = fit(scenes(4, 1), recipe, out=tmp_path / "run")
    assert fitted.miou["weakseg"] is not None


def test_fine_tuning_trains_the_backbone(tmp_path):
    recipe = replace(QUICK, regime="fine-tune", steps=3, crop=64, batch=2, workers=0)
    dataset = scenes(4, 1)
    fitted = fit(dataset, recipe, out=tmp_path / "tuned")
    frozen = fit(dataset, replace(QUICK, steps=3), out=tmp_path / "frozen")
    tuned = dict(fitted.segmenter.backbone.named_parameters())
    moved = {
        name
        for name, value in frozen.segmenter.backbone.named_parameters()
        if not torch.equal(value, tuned[name])
    }
    assert moved
    assert not any("conv_stem" in name for name in moved)
    image = dataset[0].read_image()
    loaded = Segmenter.load(tmp_path / "tuned").predict(image)
    np.testing.assert_array_equal(loaded.mask, fitted.segmenter.predict(image).mask)


def test_two_processes_train_one_embedding(tmp_path):
    recipe = replace(QUICK, kinds=("tags", "points"), devices=2, steps=4, rounds=0)
    fitted = fit(scenes(4, 1), recipe, out=tmp_path / "run")
    records = [r for r in fitted.job.run.records() if r["stage"] == "embedding"]
    assert records[-1]["step"] == 4
    assert fitted.miou["weakseg"] is not None
