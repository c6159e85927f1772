"""The commands, from their arguments to exit status and files."""

import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_scenes import picture

from weakseg import cli
from weakseg.cli import main
from weakseg.errors import InputError
from weakseg.images import read_image, read_mask
from weakseg.training import Recipe

# Brackets mean something to the library that prints tables.
CLASSES = ["background", "[live] coral", "square", "[/dead] coral"]
RENAMED = {"disc": CLASSES[1]}
QUICK = [
    *("--kinds", "points", "--regime", "frozen", "--device", "cpu", "--long-side", "96"),
    *("--steps", "10", "--crop", "6", "--classifier-steps", "30", "--rounds", "1", "--batch", "2"),
]


def write_dataset(folder):
    """Five photographs to train on, each stored in another way, and two with masks."""
    rng = np.random.default_rng(0)
    (folder / "images/site").mkdir(parents=True)
    (folder / "masks").mkdir()
    info = {"name": "reef", "classes": CLASSES, "background": "background"}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(info))
    lines = []
    for i, name in enumerate(["rgb.jpg", "alpha.png", "grey.png", "deep.png", "turned.jpg", *"ab"]):
        image, labels, mask = picture(rng, 96, 112)
        line = {"image": f"images/{name}", "width": 112, "height": 96, "split": "train"}
        if i < 5:
            line["points"] = [
                {"class": RENAMED.get(p.label, p.label), "xy": [*p.xy]} for p in labels.points
            ]
            line["tags"] = [RENAMED.get(tag, tag) for tag in labels.tags]
        else:
            name = f"site/{name}.png"
            line |= {"image": f"images/{name}", "mask": f"masks/{i}.png", "split": "val"}
            Image.fromarray(mask).save(folder / f"masks/{i}.png")
        store(Image.fromarray(image), folder / "images" / name)
        lines.append(json.dumps(line))
    (folder / "annotations.jsonl").write_text("\n".join(lines) + "\n")


def store(image, path):
    if path.stem == "alpha":
        image.putalpha(Image.new("L", image.size, 77))
    elif path.stem == "grey":
        image = image.convert("L")
    elif path.stem == "deep":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 100)
    if path.stem == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its left side
        image.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    else:
        image.save(path)


@pytest.fixture(scope="module")
def reef(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "reef"
    write_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def run(reef, tmp_path_factory):
    """A run folder that the command wrote."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", str(reef), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture
def data(reef, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(reef, tmp_path / "reef"))


@pytest.fixture
def photos(reef, tmp_path):
    """A folder of photographs with a subfolder."""
    (tmp_path / "photos/site").mkdir(parents=True)
    shutil.copy(reef / "images/rgb.jpg", tmp_path / "photos/a.jpg")
    shutil.copy(reef / "images/turned.jpg", tmp_path / "photos/site/b.jpg")
    return tmp_path / "photos"


def call(*arguments):
    return main([str(argument) for argument in arguments])


def usage_error(*arguments):
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    return caught.value.code


def edited(folder, number, **changes):
    """Change keys of a line of annotations.jsonl, counted from 0."""
    path = folder / "annotations.jsonl"
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | changes)
    path.write_text("\n".join(lines) + "\n")


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
def test_bad_input_is_told_apart_by_check_and_refused_by_train(data, tmp_path, capsys, case):
    named = spoil(data, case)
    assert call("check", data) == 1
    assert named in capsys.readouterr().out
    assert call("train", data, "--out", tmp_path / "run", *QUICK) == 1
    message = capsys.readouterr().err
    assert named in message
    assert "Traceback" not in message
    assert not list(tmp_path.glob("run/*.safetensors"))
    assert not (tmp_path / "run/results.json").exists()
    if not case.startswith("truncated"):  # those are seen when features are computed
        assert not (tmp_path / "run").exists()


def test_bad_data_never_throws_an_old_run_away(data, run, tmp_path):
    old = Path(shutil.copytree(run, tmp_path / "run"))
    spoil(data, "point outside")
    assert call("train", data, "--out", old, "--overwrite", *QUICK) == 1
    assert (old / "weights.safetensors").exists()


def test_photographs_stored_in_every_way_are_trained_on(reef, run, capsys):
    assert call("check", reef, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == {"train": 5, "val": 2}
    assert {p.name for p in run.iterdir()} >= {
        *("config.yaml", "weights.safetensors", "model.json", "results.json", "log.jsonl"),
        "report.html",
    }
    results = json.loads((run / "results.json").read_text())
    assert list(results["miou"]) == ["points"]
    assert 0 <= results["miou"]["points"]["weakseg"] <= 1
    assert results["protocol"]["measured_images"] == 2


def test_what_train_says(data, tmp_path, capsys):
    edited(data, 4, points=[], tags=[])
    quick = [*QUICK, "--steps", "1", "--classifier-steps", "1", "--rounds", "0"]
    assert call("train", data, "--out", tmp_path / "run", *quick, "--baselines") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "reef: 5 images to train on, 2 to measure on, 4 classes; labels: points" in said
    assert "1 images have no label" in said
    assert "classes without any label, never predicted: [/dead] coral" in said
    assert "mIoU on 2 images, %" in said
    assert "cross_entropy" in said
    assert "report.html" in said


def test_the_same_command_resumes_and_another_is_refused(reef, run, capsys):
    before = (run / "weights.safetensors").stat().st_mtime_ns
    log = (run / "log.jsonl").read_text()
    assert call("train", reef, "--out", run, *QUICK) == 0
    assert (run / "log.jsonl").read_text() == log
    assert call("train", reef, "--out", run, *QUICK, "--dim", "8") == 1
    assert "dim 64 there, 8 now" in capsys.readouterr().err
    assert (run / "weights.safetensors").stat().st_mtime_ns >= before


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


def test_a_full_disk_while_logging(reef, tmp_path, monkeypatch, capsys):
    from weakseg.training.run_folder import RunFolder

    def full(*args, **more):
        raise OSError(28, "No space left on device", "log.jsonl")

    monkeypatch.setattr(RunFolder, "log", full)
    assert call("train", reef, "--out", tmp_path / "run", *QUICK) == 1
    assert "No space left on device" in capsys.readouterr().err


# --- predict


def test_predict_mirrors_the_folder(run, photos, tmp_path, capsys):
    out = tmp_path / "masks"
    assert call("predict", run, photos, "--out", out) == 0
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


def test_predict_writes_more_when_asked(run, photos, tmp_path):
    out = tmp_path / "masks"
    more = ["--confidence", "--probabilities", "--overlays"]
    assert call("predict", run, photos, "--out", out, *more) == 0
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
def test_predict_takes_files_and_patterns(run, photos, tmp_path, pattern, expected):
    out = tmp_path / "masks"
    assert call("predict", run, photos / pattern, "--out", out) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == expected


def test_predict_averages_and_sharpens(run, photos, tmp_path):
    assert call("predict", run, photos / "a.jpg", "--out", tmp_path / "plain") == 0
    flags = ["--flip", "--scales", "[0.5,1]", "--crf", "--probabilities"]
    assert call("predict", run, photos / "a.jpg", "--out", tmp_path / "sharp", *flags) == 0
    assert read_mask(tmp_path / "sharp/a.png").shape == read_mask(tmp_path / "plain/a.png").shape


def test_an_image_that_fails_is_listed_and_the_rest_goes_on(run, photos, tmp_path, capsys):
    (photos / "0broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:900])
    (photos / "notes.png").write_text("no image at all")
    assert call("predict", run, photos, "--out", tmp_path / "masks") == 1
    message = capsys.readouterr().err
    assert "0broken.jpg" in message
    assert "notes.png" in message
    assert "2 of 4 images classified" in message
    assert "Traceback" not in message
    assert {p.name for p in (tmp_path / "masks").rglob("*.*")} == {"a.png", "b.png"}


def test_a_data_set_is_predicted_and_scored(run, reef, tmp_path, capsys):
    out = tmp_path / "masks"
    assert call("predict", run, reef, "--split", "val", "--out", out) == 0
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
    measured = json.loads((run / "results.json").read_text())["miou"]["points"]["weakseg"]
    assert scores["miou"] == pytest.approx(measured, abs=1e-6)


def test_a_line_of_a_data_set_that_is_wrong_is_listed_too(run, data, tmp_path, capsys):
    edited(data, 5, points=[{"class": "square", "xy": [500, 3]}])
    assert call("predict", run, data, "--split", "val", "--out", tmp_path / "masks") == 1
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
def test_names_that_would_collide_are_refused(run, photos, tmp_path, capsys, case, words):
    clash(photos, case)
    assert call("predict", run, photos, "--out", tmp_path / "masks") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "masks").exists()


def test_masks_never_replace_photographs_or_true_masks(run, photos, data, tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(photos / "c.png")
    before = (photos / "c.png").read_bytes()
    assert call("predict", run, photos, "--out", photos) == 1
    assert call("predict", run, photos / "c.png", "--out", photos) == 1
    shutil.copy(photos / "c.png", photos / "site/a.png")
    assert call("predict", run, photos / "a.jpg", "--out", photos / "site") == 1
    assert (photos / "c.png").read_bytes() == (photos / "site/a.png").read_bytes() == before
    assert "c.png: a mask would replace" in capsys.readouterr().err
    truth = data / "images/site/a.png"
    before = truth.read_bytes()
    assert call("predict", run, data, "--split", "val", "--out", data / "images") == 1
    assert truth.read_bytes() == before


def test_masks_among_the_photographs_are_not_predicted_again(run, photos, capsys):
    for _ in range(2):
        assert call("predict", run, photos, "--out", photos / "masks") == 0
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
        (["RUN", "PHOTOS", "--device", "abacus"], "--device"),
        (["RUN", "PHOTOS", "--split", "val"], "dataset.yaml"),
        (["RUN", "REEF", "--split", "test"], "one of train, val"),
    ],
)
def test_what_predict_refuses(run, photos, reef, tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    places = {"RUN": run, "PHOTOS": photos, "REEF": reef, "EMPTY": tmp_path / "empty"}
    given = [places.get(argument, argument) for argument in arguments]
    assert call("predict", *given, "--out", tmp_path / "masks") == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (tmp_path / "masks").exists()


def test_a_full_disk_while_predicting(run, photos, tmp_path, monkeypatch, capsys):
    def full(image, path, *more, **options):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Image.Image, "save", full)
    assert call("predict", run, photos, "--out", tmp_path / "masks") == 1
    assert "a.png: cannot be written: found No space left" in capsys.readouterr().err
    assert not list((tmp_path / "masks").rglob("*.png"))


# --- evaluate


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


# --- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "reef"],
        ["train", "reef", "--out", "run", "--magic"],
        ["train", "reef", "--out", "run", "--steps", "many"],
        ["train", "reef", "--out", "run", "--steps", "-1"],
        ["train", "reef", "--out", "run", "--kinds", "clicks"],
        ["train", "reef", "--out", "run", "--regime", "thawed"],
        ["train", "reef", "--out", "run", "--grid", "6"],
        ["train", "reef", "--out", "run", "--lr", "0"],
        ["predict", "run", "--out", "masks"],
        ["predict", "run", "photos", "--out", "masks", "--scales", "big"],
        ["evaluate", "pred", "gt"],
        ["check"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert usage_error(*arguments) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "usage"),
        (["trian"], 2, "did you mean train?"),
        (["--help"], 0, "weakseg COMMAND --help"),
        (["--version"], 0, "weakseg 0"),
    ],
)
def test_the_overview(arguments, status, words, capsys):
    assert call(*arguments) == status
    printed = capsys.readouterr()
    assert words in (printed.err if status else printed.out)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_flag_of_every_command_is_explained(command, capsys):
    assert usage_error(*command.split(), "--help") == 0
    printed = capsys.readouterr().out
    assert "<weakseg" not in printed  # the name of an object
    assert "None" not in printed
    assert set(cli.COMMANDS) == set(cli.SUMMARIES)


def test_help_of_train_explains_every_setting(capsys):
    assert usage_error("train", "--help") == 0
    printed = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    texts = {p.name: p.help for p in cli._parameters(Recipe)}
    assert [*texts] == [f.name for f in fields(Recipe)]
    for name, text in texts.items():
        assert f"--{name.replace('_', '-')}" in printed
        assert len(text) > 5
        assert "".join(text.split()) in printed.replace(" ", "")


class Captured(Exception):
    """Carries what the command would train with."""


def recipe_of(monkeypatch, *arguments):
    """The recipe that `weakseg train` makes of its arguments."""
    from weakseg.cli import train
    from weakseg.dataset import Dataset

    def capture(dataset, recipe, **options):
        raise Captured(recipe)

    monkeypatch.setattr(train, "fit", capture)
    monkeypatch.setattr(Dataset, "open", lambda folder: None)
    with pytest.raises(Captured) as caught:
        call("train", "reef", "--out", "run", *arguments)
    return caught.value.args[0]


def test_without_flags_a_recipe_has_its_defaults(monkeypatch):
    assert recipe_of(monkeypatch) == Recipe()


def test_flags_of_every_type(monkeypatch):
    recipe = recipe_of(
        monkeypatch,
        *("--kinds", "tags,points", "--mix", "--no-crf", "--grid", "[3,4]", "--lr", "1e-2"),
        *("--regions", "none", "--relations.affinity.weight", "0.7", "--seed", "5"),
    )
    assert recipe.kinds == ("tags", "points")
    assert recipe.mix
    assert not recipe.crf
    assert recipe.grid == (3, 4)
    assert recipe.lr == 0.01
    assert recipe.regions == "none"
    assert recipe.relations.affinity.weight == 0.7
    assert recipe.seed == 5


def test_the_settings_of_a_run_can_be_used_again(run, monkeypatch):
    used = recipe_of(monkeypatch, "--config", run / "config.yaml")
    stored = yaml.safe_load((run / "config.yaml").read_text())["recipe"]
    assert json.loads(json.dumps(asdict(used), default=str)) == stored
    assert used.kinds == ("points",)
    assert used.steps == 10


def test_resuming_by_the_settings_of_the_run_itself(reef, run):
    log = (run / "log.jsonl").read_text()
    assert call("train", reef, "--config", run / "config.yaml", "--out", run) == 0
    assert (run / "log.jsonl").read_text() == log


@pytest.mark.parametrize("order", ["before", "after", "joined"])
def test_flags_go_before_the_file_wherever_it_stands(tmp_path, monkeypatch, order):
    file = tmp_path / "recipe.yaml"
    file.write_text("steps: 7\nlong-side: 96\ngrid: [2, 3]\nkinds: tags\ncrf: false\n")
    config = [f"--config={file}"] if order == "joined" else ["--config", file]
    flags = ["--steps", "9"]
    recipe = recipe_of(
        monkeypatch, *([*config, *flags] if order == "before" else [*flags, *config])
    )
    expected = Recipe(steps=9, long_side=96, grid=(2, 3), kinds=("tags",), crf=False)
    assert recipe == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "recipe.yaml: no such file"),
        ("steps: [1, 2", "recipe.yaml:1: not valid YAML"),
        ("just words", "recipe.yaml: no settings"),
        ("", "recipe.yaml: no settings"),
        ("recipe: 5", "recipe.yaml: no settings"),
        ("stepz: 5", "recipe.yaml: unknown setting: found stepz; expected steps, perhaps"),
        ("recipe: {stepz: 5}", "unknown setting: found stepz"),
        (b"\xff\xfe\x00", "recipe.yaml: cannot be read"),
    ],
)
def test_a_file_of_settings_that_is_wrong(tmp_path, capsys, text, words):
    file = tmp_path / "recipe.yaml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert call("train", "reef", "--out", tmp_path / "run", "--config", file) == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_a_value_of_the_wrong_type_in_a_file(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("steps: many\n")
    status = usage_error("train", "reef", "--out", "run", "--config", tmp_path / "recipe.yaml")
    assert status == 2
    assert "steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("bad [red]thing"), 1, "bad [red]thing"),
        (PermissionError(13, "Permission denied", "reef/x"), 1, "Permission denied: 'reef/x'"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
    ],
)
def test_what_stops_a_command_gives_a_status_and_no_traceback(
    monkeypatch, capsys, error, status, words
):
    from weakseg.cli import check

    def stop(*args, **more):
        raise error

    monkeypatch.setattr(check, "check_dataset", stop)
    assert call("check", "reef") == status
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regime": "thawed"}, "--regime: found thawed; expected one of auto, frozen, fine-tune"),
        ({"regions": "voronoi"}, "--regions"),
        ({"scores": "oracle"}, "--scores"),
        ({"precision": "fp8"}, "--precision"),
        ({"weight_decay": -1}, "--weight-decay"),
        ({"cross_entropy": float("nan")}, "--cross-entropy"),
        ({"grid": (1, 2, 3)}, "--grid"),
    ],
)
def test_a_recipe_made_in_python_is_checked_as_well(settings, message):
    with pytest.raises(InputError, match=message):
        Recipe(**settings)


def test_a_recipe_takes_what_yaml_gives():
    recipe = Recipe(kinds="points", grid=[3, 4])
    assert recipe == replace(Recipe(), kinds=("points",), grid=(3, 4))
