import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from weakseg.annotation import Annotation
from weakseg.cli.evaluate import evaluate as evaluate_command
from weakseg.dataset import Dataset, DatasetInfo
from weakseg.errors import InputError
from weakseg.evaluation import Confusion, confusion_matrix, evaluate
from weakseg.images import palette

INFO = DatasetInfo("reef", ("water", "coral", "sand", "kelp"), background="water")
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 2, 1, 1]], np.uint8)
# water: 2 of 4 hit, none elsewhere; coral: 3 of 3 hit, 1 false (the ignored one does not count).
WATER, CORAL = 2 / 4, 3 / 4


def save(path, mask, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(mask, np.uint8))
    if mode == "P":
        image.putpalette(palette(256).tobytes())
    elif mode != "L":
        image = image.convert(mode)
    image.save(path)


@pytest.fixture
def folders(tmp_path):
    """Predictions of two images, one in a subfolder, and truth of three."""
    save(tmp_path / "pred/a.png", PREDICTED, "P")
    save(tmp_path / "pred/site/b.png", TRUTH % 255)
    save(tmp_path / "gt/a.png", TRUTH)
    save(tmp_path / "gt/site/b.png", TRUTH, "P")
    save(tmp_path / "gt/c.png", TRUTH)
    INFO.save(tmp_path / "dataset.yaml")
    return tmp_path


def test_confusion_counts_truth_in_rows_and_skips_ignored_pixels():
    expected = [[2, 1, 1, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert confusion_matrix(PREDICTED, TRUTH, 4).tolist() == expected


def test_iou_and_which_classes_the_mean_takes():
    confusion = Confusion(INFO)
    confusion.add(PREDICTED, TRUTH)
    scores = confusion.scores(scales=[1])
    # sand is predicted but never true: 0 in the table, not in the mean; kelp occurs nowhere.
    assert scores.iou == {"water": WATER, "coral": CORAL, "sand": 0.0, "kelp": None}
    assert scores.miou == pytest.approx((WATER + CORAL) / 2)
    assert scores.protocol["classes_averaged"] == 2
    assert scores.protocol["classes_predicted_but_never_true"] == ["sand"]
    assert scores.protocol["classes_in_neither"] == ["kelp"]
    assert scores.protocol["pixels_scored"] == 7
    assert scores.protocol["pixels_not_scored"] == 1
    assert scores.protocol["scales"] == [1]
    assert "classes that occur in the truth" in scores.protocol["miou"]


def test_nothing_to_score_gives_null_not_nan():
    confusion = Confusion(INFO)
    confusion.add(PREDICTED, np.full_like(TRUTH, 255))
    scores = confusion.scores()
    assert scores.miou is None
    assert set(scores.iou.values()) == {None}
    json.dumps(scores.to_dict(), allow_nan=False)


def test_unlabelled_pixels_of_a_partial_mask_are_not_scored():
    confusion = Confusion(INFO)
    partial = np.where(TRUTH == 0, INFO.unlabelled, TRUTH).astype(np.uint8)
    confusion.add(PREDICTED, partial)
    scores = confusion.scores()
    assert scores.iou["coral"] == 1
    assert scores.protocol["pixels_not_scored"] == 5


@settings(deadline=None, max_examples=50)
@given(data=st.data(), classes=st.integers(1, 6), ignore=st.sampled_from([255, 254, 7]))
def test_confusion_is_what_a_loop_counts(data, classes, ignore):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    values = st.integers(0, classes - 1)
    prediction = data.draw(hnp.arrays(np.uint8, shape, elements=values))
    truth = data.draw(hnp.arrays(np.uint8, shape, elements=values | st.just(ignore)))
    expected = np.zeros((classes, classes), int)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != ignore:
            expected[t, p] += 1
    np.testing.assert_array_equal(confusion_matrix(prediction, truth, classes, ignore), expected)


@settings(deadline=None, max_examples=25)
@given(hnp.arrays(np.uint8, (2, 5, 7), elements=st.integers(0, 3)))
def test_images_add_up_and_a_perfect_prediction_scores_one(pair):
    together, both = Confusion(INFO), Confusion(INFO)
    together.add(np.hstack(pair), np.hstack(pair[::-1]))
    both.add(*pair)
    both.add(*pair[::-1])
    np.testing.assert_array_equal(together.matrix, both.matrix)
    perfect = Confusion(INFO)
    perfect.add(pair[0], pair[0])
    assert perfect.scores().miou == 1


def test_folders_are_matched_by_path_whatever_the_mode(folders):
    scores = evaluate(folders / "pred", folders / "gt", INFO)
    assert scores.images == 2
    assert scores.confusion.tolist()[0][:2] == [6, 1]
    assert scores.protocol["truth_without_prediction"] == 1


def test_a_data_set_is_truth_by_image_name(folders):
    data = Dataset.from_arrays(
        [np.zeros((2, 4, 3), np.uint8)] * 3,
        [Annotation()] * 3,
        INFO.classes,
        background="water",
        masks=[TRUTH, TRUTH, None],
        splits=["val", "val", "train"],
        names=["a", "site/b", "c"],
    )
    in_memory = evaluate(folders / "pred", data, INFO)
    stored = data.save(folders / "data")
    assert stored.folder is not None
    on_disk = evaluate(folders / "pred", stored.folder, INFO, strict=True)
    by_folder = evaluate(folders / "pred", folders / "gt", INFO)
    for scores in (in_memory, on_disk):
        assert scores.confusion.tolist() == by_folder.confusion.tolist()
        assert scores.protocol["truth_without_prediction"] == 0


def test_folders_that_predict_writes_beside_masks_are_passed_over(folders):
    for extra in ("overlays", "confidence"):
        save(folders / "pred" / extra / "a.png", PREDICTED * 100)
    assert evaluate(folders / "pred", folders / "gt", INFO).images == 2


def spoil(folders, case):
    if case == "no folder":
        (folders / "pred").rename(folders / "elsewhere")
    elif case == "a file":
        (folders / "pred").rename(folders / "elsewhere")
        (folders / "pred").write_text("")
    elif case == "empty":
        (folders / "pred").rename(folders / "elsewhere")
        (folders / "pred").mkdir()
    elif case == "no truth":
        save(folders / "pred/zebra.png", TRUTH)
    elif case == "no truth folder":
        (folders / "gt").rename(folders / "elsewhere")
    elif case == "size":
        save(folders / "pred/a.png", np.zeros((2, 5)))
    elif case == "prediction value":
        save(folders / "pred/a.png", PREDICTED + 9)
    elif case == "predicts ignored":
        save(folders / "pred/a.png", np.where(TRUTH == 1, 255, 0))
    elif case == "truth value":
        save(folders / "gt/a.png", np.where(TRUTH == 1, 77, 0))
    elif case == "one class too many":
        save(folders / "gt/a.png", np.where(TRUTH == 1, 4, 0))
    elif case == "rgb":
        save(folders / "pred/a.png", PREDICTED, "RGB")
    elif case == "damaged":
        whole = (folders / "pred/a.png").read_bytes()
        (folders / "pred/a.png").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no folder", ["pred", "no such folder"]),
        ("a file", ["pred", "not a folder"]),
        ("empty", ["pred", "no predictions"]),
        ("no truth", ["zebra", "1 of 3 predictions without truth", "gt"]),
        ("no truth folder", ["gt", "no such folder"]),
        ("size", ["pred/a.png", "5 x 2", "4 x 2", "gt/a.png"]),
        ("prediction value", ["pred/a.png", "prediction is not a class", "9", "0..3"]),
        ("predicts ignored", ["pred/a.png", "255", "0..3"]),
        ("truth value", ["gt/a.png", "truth is not a class", "77", "0..3"]),
        ("one class too many", ["gt/a.png", "truth is not a class", "4", "0..3"]),
        ("rgb", ["pred/a.png", "mode RGB"]),
        ("damaged", ["pred/a.png", "cannot be read"]),
    ],
)
def test_bad_input_names_the_file_and_what_is_wrong(folders, case, words):
    spoil(folders, case)
    with pytest.raises(InputError) as caught:
        evaluate(folders / "pred", folders / "gt", INFO)
    for word in words:
        assert word in str(caught.value)


def test_strict_refuses_truth_without_prediction(folders):
    with pytest.raises(InputError, match=r"1 mask of .*gt without a prediction: found c;"):
        evaluate(folders / "pred", folders / "gt", INFO, strict=True)


def test_the_command_prints_json(folders, capsys):
    status = evaluate_command(folders / "pred", folders / "gt", folders / "dataset.yaml", json=True)
    printed = json.loads(capsys.readouterr().out)
    assert status == 0
    assert set(printed) == {"miou", "iou", "confusion", "images", "protocol"}
    assert printed["images"] == 2
    assert printed["iou"]["kelp"] is None
    assert np.array(printed["confusion"]).shape == (4, 4)


def test_the_command_prints_the_protocol(folders, capsys):
    assert evaluate_command(folders / "pred", folders / "gt", folders) == 0
    printed = capsys.readouterr().out
    for words in ("mIoU", "coral", "truth without prediction: 1", "occur in the truth"):
        assert words in printed
