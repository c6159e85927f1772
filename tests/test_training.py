import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
from small_scenes import CLASSES, QUICK, QUICK_MASKS, picture, scenes

from weakseg import Annotation, Dataset, Recipe, Segmenter, fit
from weakseg.annotation import Area
from weakseg.errors import InputError
from weakseg.images import read_mask
from weakseg.relations import RELATIONS
from weakseg.report import report_of
from weakseg.training import pixels
from weakseg.training.labels import Labels, chosen_kinds
from weakseg.training.pixels import LabelledPixels
from weakseg.training.recipe import relations_at
from weakseg.training.region_stage import TrainingRegions

training = importlib.import_module("weakseg.training.fit")  # the package's `fit` is the function


@pytest.mark.parametrize("kind", ["scribbles", "boxes", "tags"])
def test_every_kind_of_label_trains(kind, tmp_path):
    dataset = scenes()
    fitted = fit(dataset, replace(QUICK, kinds=(kind,)), out=tmp_path / kind)
    truth = np.stack([entry.read_mask() for entry in dataset.split("val")])
    only_background = (truth == 0).mean() / len(CLASSES)
    assert fitted.miou["weakseg"] > only_background + (0.03 if kind == "tags" else 0.1)


@pytest.mark.parametrize(("masked", "rounds"), [(4, 0), (3, 1)])
def test_masks_everywhere_leave_nothing_to_pseudo_masks(masked, rounds, tmp_path):
    dataset = scenes(4, 2, masked=masked)
    fitted = fit(dataset, QUICK_MASKS, out=tmp_path / "run")
    assert fitted.protocol["rounds"] == rounds
    assert (fitted.pseudo_masks is None) == (rounds == 0)


def test_masks_of_a_few_strokes_train_as_scribbles_do(tmp_path):
    made = list(scenes(6, 0, masked=6))
    masks = [np.full_like(entry.read_mask(), len(CLASSES)) for entry in made]
    for mask, entry in zip(masks, made, strict=True):
        mask[::16] = entry.read_mask()[::16]
    images = [entry.read_image() for entry in made]
    partial = Dataset.from_arrays(images, [None] * 6, CLASSES, background="background", masks=masks)
    fitted = fit(partial, QUICK_MASKS, out=tmp_path / "run")
    assert fitted.job.recipe.rounds == 1
    assert losses_of(fitted) == {"image_similarity", "cooccurrence", "cross_entropy"}
    assert (fitted.job.run.stages / "label-shift.json").exists()


def test_tags_of_one_class_are_located_by_the_images_that_lack_it(tmp_path):
    rng = np.random.default_rng(0)
    made = [picture(rng, objects=("disc",) if i % 2 else ()) for i in range(12)]
    dataset = Dataset.from_arrays(
        [image for image, _, _ in made],
        [Annotation(tags=labels.tags or ("background",)) for _, labels, _ in made],
        CLASSES[:2],
        background="background",
    )
    recipe = replace(QUICK, kinds=("tags",), steps=1, classifier_steps=1, rounds=0)
    maps = fit(dataset, recipe, out=tmp_path / "run").job.labels.cam_of
    assert maps(0) is None
    for i in range(1, 12, 2):
        inside = made[i][2] == 1
        scores = maps(i).at(1, inside.shape)
        assert scores[inside].mean() > scores[~inside].mean() + 0.05


def test_results_hold_both_methods(finished):
    results = json.loads((finished.job.run.path / "results.json").read_text())
    assert set(results["miou"]["points"]) == {"weakseg", "cross_entropy"}
    assert results["protocol"]["measured_images"] == 4
    assert finished.miou["weakseg"] > 0.35


@pytest.mark.parametrize("scores", ["classifier", "knn"])
def test_pseudo_masks_leave_ignored_areas_out(scores, tmp_path):
    dataset = scenes(4, 0)
    left = Area(xyxy=(0, 0, 40, 128))
    hidden = Dataset.from_arrays(
        [entry.read_image() for entry in dataset],
        [replace(entry.annotation, ignore=(left,)) for entry in dataset],
        CLASSES,
        background="background",
    )
    fitted = fit(hidden, replace(QUICK, scores=scores), out=tmp_path / "run")
    masks = [read_mask(path) for path in sorted(fitted.pseudo_masks.glob("*.png"))]
    assert len(masks) == 4
    for mask in masks:
        assert (mask[:, :40] == 255).all()
        assert (mask[:, 40:] != 255).all()
    assert any(len(np.unique(mask)) > 2 for mask in masks)


def test_images_without_labels_get_no_pseudo_mask_and_teach_no_class(tmp_path, monkeypatch):
    learned = []

    class Watched(LabelledPixels):
        def __init__(self, features, masks, *rest):
            learned.append([bool((masks[i] < len(CLASSES)).any()) for i in range(len(masks))])
            super().__init__(features, masks, *rest)

    monkeypatch.setattr(training, "LabelledPixels", Watched)
    made = list(scenes(4, 1))
    some = Dataset.from_arrays(
        [entry.read_image() for entry in made],
        [Annotation() if i in (1, 4) else entry.annotation for i, entry in enumerate(made)],
        CLASSES,
        background="background",
    )
    fitted = fit(some, QUICK, out=tmp_path / "run")
    assert learned == [[True, False, True, True, False]] * 2
    assert sorted(path.stem for path in fitted.pseudo_masks.glob("*.png")) == [
        "000000",
        "000002",
        "000003",
    ]
    report_of({"run": fitted}, tmp_path / "report.html")


def losses_of(fitted):
    """Names of the losses in the embedding's last record."""
    return set([r for r in fitted.job.run.records() if r["stage"] == "embedding"][-1]["losses"])


def test_the_relations_that_pay_are_trained_and_logged_without_being_asked_for(finished):
    assert losses_of(finished) == {"image_similarity", "cooccurrence", "cross_entropy"}


def test_all_four_relations_are_trained_and_logged(tmp_path):
    recipe = replace(QUICK, relations=relations_at(0.1), rounds=0)
    fitted = fit(scenes(4, 2), recipe, out=tmp_path / "run")
    assert losses_of(fitted) == {*RELATIONS, "cross_entropy"}


def test_full_masks_train_by_cross_entropy_alone(tmp_path):
    fitted = fit(scenes(4, 2, masked=4), QUICK_MASKS, out=tmp_path / "run")
    assert losses_of(fitted) == {"cross_entropy"}


def test_only_the_classifier_that_predicts_favours_rare_classes(tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(pixels, "favour_rare", lambda _, found, strength: shares.append(found))
    fit(scenes(4, 2), replace(QUICK, baselines=True), out=tmp_path / "run")
    assert len(shares) == 1  # of classifier-0, classifier-1 and plain cross-entropy
    assert float(shares[0].sum()) == pytest.approx(1)


def test_a_loaded_run_predicts_as_the_fitted_one(finished):
    fitted = finished
    loaded = Segmenter.load(finished.job.run.path)
    image = scenes().split("val")[0].read_image()
    a, b = fitted.segmenter.predict(image), loaded.predict(image)
    assert a.mask.shape == image.shape[:2]
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-5)


def test_mixing_gives_each_image_one_kind(small_dataset):
    train = small_dataset.split("train")
    recipe = replace(QUICK, kinds=("scribbles", "points", "boxes", "tags"), mix=True)
    labels = Labels(train, recipe)
    used = [labels.annotation(i).kinds for i in range(5)]
    assert used == [{"scribbles"}, {"points"}, {"boxes"}, {"tags"}, {"scribbles"}]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), ("scribbles", "points", "boxes", "tags")),
        (("tags", "points"), ("points", "tags")),
    ],
)
def test_kinds_come_in_order_of_certainty(small_dataset, asked, expected):
    assert chosen_kinds(small_dataset.split("train"), asked) == expected


def test_masks_are_used_where_there_is_nothing_else():
    rng = np.random.default_rng(0)
    image, _, mask = picture(rng)
    only = Dataset.from_arrays([image], [None], CLASSES, masks=[mask])
    assert chosen_kinds(only, ()) == ("masks",)


def test_a_kind_that_is_not_there_is_an_error(small_dataset):
    with pytest.raises(InputError, match="--kinds names what the data set does not have"):
        chosen_kinds(small_dataset.split("train"), ("masks",))


def test_no_label_at_all_is_an_error(tmp_path):
    image = np.zeros((32, 32, 3), np.uint8)
    empty = Dataset.from_arrays([image], [None], CLASSES)
    with pytest.raises(InputError, match="no image to train on has a label"):
        fit(empty, QUICK, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_without_labels_take_part(tmp_path):
    rng = np.random.default_rng(0)
    made = [picture(rng) for _ in range(6)]
    half = Dataset.from_arrays(
        [image for image, _, _ in made],
        [labels if i % 2 else Annotation() for i, (_, labels, _) in enumerate(made)],
        CLASSES,
        background="background",
    )
    fitted = fit(half, QUICK, out=tmp_path / "run")
    assert fitted.miou == {"weakseg": None}
    assert json.loads((tmp_path / "run" / "results.json").read_text())["miou"] == {
        "points": {"weakseg": None}
    }


def test_regions_are_found_again_without_their_photograph(tmp_path, monkeypatch):
    dataset = scenes(2, 0)
    regions = TrainingRegions(dataset, QUICK, tmp_path)
    first = regions(0)
    assert len(np.unique(first)) > 5
    monkeypatch.setattr(type(dataset[0]), "read_image", lambda entry: pytest.fail("read again"))
    np.testing.assert_array_equal(regions(0), first)
    monkeypatch.undo()
    (tmp_path / regions.keys[0]).write_bytes(b"half of it")
    np.testing.assert_array_equal(regions(0), first)


@pytest.mark.parametrize("unmasked", [0, 2])
def test_images_with_masks_are_held_out_where_no_validation_image_has_one(unmasked, tmp_path):
    rng = np.random.default_rng(0)
    made = [picture(rng) for _ in range(10 + unmasked)]
    whole = Dataset.from_arrays(
        [image for image, _, _ in made],
        [labels for _, labels, _ in made],
        CLASSES,
        background="background",
        masks=[mask for _, _, mask in made[:10]] + [None] * unmasked,
        splits=["train"] * 10 + ["val"] * unmasked,
    )
    fitted = fit(whole, replace(QUICK, validation=0.2), out=tmp_path / "run")
    assert len(fitted.evaluated) == 2
    assert "held out" in fitted.protocol["measured_on"]
    assert len(fitted.job.dataset) == 8
    held = {entry.name for entry in fitted.evaluated}
    assert not held & {entry.name for entry in fitted.job.dataset}
    assert fitted.miou["weakseg"] is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "--steps"),
        ({"kinds": ("clicks",)}, "clicks"),
        ({"embedding_stride": 5}, "--embedding-stride"),
        ({"foreground": 0.1, "background": 0.2}, "--background"),
        ({"batch": 0}, "--batch"),
    ],
)
def test_a_recipe_names_the_setting_that_is_wrong(settings, message):
    with pytest.raises(InputError, match=message):
        Recipe(**settings)
