"""Models as ONNX and TorchScript files, beside the model they were made from."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_readme import ROOT, blocks
from test_segmenter import INFO, SMALL, photograph

from weakseg.errors import InputError
from weakseg.features.extract import _resize, resized_size
from weakseg.images import read_image
from weakseg.portable import FORMATS, Parity, PortableSegmenter, export_model, files
from weakseg.portable.resizing import resize_bicubic
from weakseg.segmenter import Architecture, build_segmenter

pytest.importorskip("onnxruntime")

RUNNERS = {"onnx": files.onnx_runner, "torchscript": files.torchscript_runner}


def untrained(architecture):
    """Every layer has something to say, and batch norms have their own statistics."""
    torch.manual_seed(0)
    made = build_segmenter(architecture, INFO)
    torch.nn.init.normal_(made.classifier.out.weight, std=2)
    for name, buffer in made.classifier.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    made.precision = "fp32"
    return made


@pytest.fixture(scope="module", params=[0, 32], ids=["no walk", "walk"])
def model(request):
    return untrained(replace(SMALL, walk=request.param))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """A file of each format."""
    folder = tmp_path_factory.mktemp("exported")
    paths = {format: folder / f"model.{format}" for format in FORMATS}
    for format, path in paths.items():
        parity = export_model(model, path, format=format)
        assert parity.scores < 1e-4
        assert parity.mask < 1e-3
    return paths


def largest_difference(model, run, images):
    """Of probabilities; masks may differ only where two classes are as likely."""
    masks, scores = run(np.stack(images))
    assert masks.dtype == np.uint8
    assert scores.dtype == np.float32
    largest = 0.0
    for image, mask, found in zip(images, masks, scores, strict=True):
        wanted = model.predict(image, probabilities=True)
        assert mask.shape == wanted.mask.shape
        largest = max(largest, float(np.abs(found - wanted.probabilities).max()))
        ordered = np.sort(wanted.probabilities, 0)
        assert ((ordered[-1] - ordered[-2])[mask != wanted.mask] < 1e-3).all()
    return largest


# Ratios that round to even, images smaller and larger than the training size, long and thin.
SIZES = [(72, 96), (96, 72), (1, 1), (1, 9), (47, 64), (470, 640), (31, 400), (300, 20), (97, 61)]


@pytest.mark.parametrize("format", FORMATS)
def test_files_give_what_the_model_gives(model, exported, format):
    run = RUNNERS[format](exported[format].read_bytes())
    for i, (height, width) in enumerate(SIZES):
        images = [photograph(height, width, seed) for seed in range(1 + i % 3)]
        assert largest_difference(model, run, images) < 1e-4


def test_onnx_on_twenty_photographs(voc_subset, tmp_path):
    photographs = {}
    for path in sorted((voc_subset / "images").rglob("*.jpg")):
        with Image.open(path) as picture:
            photographs.setdefault(picture.size, path)
        if len(photographs) == 20:
            break
    assert len(photographs) == 20
    trained_size = Architecture("tf_efficientnet_lite0", 16, 416, 8, 16, walk=32)
    model = untrained(trained_size)
    export_model(model, tmp_path / "model.onnx")
    run = files.onnx_runner((tmp_path / "model.onnx").read_bytes())
    for path in photographs.values():
        assert largest_difference(model, run, [read_image(path)]) < 1e-3


def test_torchscript_takes_floats_as_well(exported):
    module = torch.jit.load(exported["torchscript"])
    image = torch.from_numpy(photograph()[None])
    for ours, theirs in zip(module(image), module(image.float()), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_files_know_their_classes(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported["onnx"])
    extra = {"weakseg.json": ""}
    torch.jit.load(exported["torchscript"], _extra_files=extra)
    written = (session.get_modelmeta().custom_metadata_map["weakseg"], extra["weakseg.json"])
    for description in map(json.loads, written):
        assert description["classes"] == [*INFO.classes]
        assert description["background"] == "water"
        assert description["ignore"] == 250
    shapes = {port.name: port.shape for port in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "image": ["batch", "height", "width", 3],
        "mask": ["batch", "height", "width"],
        "scores": ["batch", 3, "height", "width"],
    }


@given(*[st.integers(1, 120)] * 4)
@settings(max_examples=60)
@example(300, 200, 96, 64)
@example(1, 1, 7, 5)
def test_resizing_is_pillows_to_the_bit(height, width, new_height, new_width):
    image = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(image).resize((new_width, height), Image.Resampling.BICUBIC)
    expected = np.array(picture.resize((new_width, new_height), Image.Resampling.BICUBIC))
    size = torch.tensor([new_height]), torch.tensor([new_width])
    cells = torch.tensor([new_height + 3]), torch.tensor([new_width + 2])
    found = resize_bicubic(torch.from_numpy(image).permute(2, 0, 1)[None], size, cells)
    padded = np.pad(expected, ((0, 3), (0, 2), (0, 0)), mode="edge")
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), padded)


@given(st.integers(1, 5000), st.integers(1, 5000))
@example(470, 640)  # 470 * (96 / 640) is 70.5
def test_sizes_are_those_of_the_model(model, height, width):
    network = PortableSegmenter.__new__(PortableSegmenter)
    torch.nn.Module.__init__(network)
    network.long_side = 96
    sizes = (torch.tensor([n]) for n in (max(height, width), height, width))
    assert tuple(int(n) for n in network._resized(*sizes)) == resized_size(height, width, 96)


def test_features_see_the_same_pixels(model):
    image = photograph(133, 40)
    size = torch.tensor([96]), torch.tensor([29])
    found = resize_bicubic(torch.from_numpy(image).permute(2, 0, 1)[None], size, size)
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), _resize(image, 96))


def test_the_model_itself_is_left_as_it_was(model, tmp_path):
    before = model.predict(photograph(), probabilities=True).probabilities
    model.precision = "auto"
    export_model(model, tmp_path / "model.pt", format="torchscript")
    assert model.precision == "auto"
    model.precision = "fp32"
    again = model.predict(photograph(), probabilities=True).probabilities
    np.testing.assert_array_equal(before, again)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("format", "unknown format of model: found tflite; expected onnx or torchscript"),
        ("package", r"found no onnxruntime; expected pip install weakseg\[onnx\]"),
        ("one size", r"insists on images of \(224, 224\)"),
        ("differs", "cannot be exported as onnx with free sizes: found probabilities that differ"),
        ("NaN", "cannot be exported as onnx with free sizes"),
        ("fails", "cannot be exported as onnx with free sizes: found no such operator; expected"),
    ],
)
def test_what_cannot_be_exported(model, tmp_path, monkeypatch, case, words):
    format = "tflite" if case == "format" else "onnx"
    if case == "package":
        find = files.importlib.util.find_spec
        monkeypatch.setattr(
            files.importlib.util, "find_spec", lambda n: None if n == "onnxruntime" else find(n)
        )
    elif case == "one size":
        monkeypatch.setattr(model.backbone, "fixed_size", (224, 224))
    elif case in ("differs", "NaN"):
        found = 0.25 if case == "differs" else float("nan")
        monkeypatch.setattr(files, "compare", lambda *_: Parity(found, 0.0))
    elif case == "fails":

        def fail(*args):
            raise RuntimeError("no such operator\nand its graph")

        monkeypatch.setattr(files, "_to_onnx", fail)
    with pytest.raises(InputError, match=words):
        export_model(model, tmp_path / "out.onnx", format=format)
    assert not [*tmp_path.iterdir()]


# --- the command


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "reef"
    model.save(folder)
    return folder


def test_the_command_writes_and_says_what(run, tmp_path, capsys):
    out = tmp_path / "there/model.pt"
    assert call("export", "model", run, "--format", "torchscript", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "3 classes" in printed
    assert "scores (batch, 3, height, width)" in printed
    assert torch.jit.load(out)(torch.zeros(1, 5, 7, 3, dtype=torch.uint8))[0].shape == (1, 5, 7)


def test_what_the_command_refuses(run, tmp_path, capsys):
    assert call("export", "model", tmp_path / "nowhere", "--out", tmp_path / "m.onnx") == 1
    assert "no trained model" in capsys.readouterr().err
    assert call("export", "model", run, "--out", tmp_path / "m.pt") == 1
    assert "expected --format torchscript, or another name" in capsys.readouterr().err
    assert call("export", "model", run, "--out", tmp_path / "m.tflite") == 1
    assert "expected a name ending in .onnx" in capsys.readouterr().err
    assert not (tmp_path / "m.tflite").exists()
    (tmp_path / "file").touch()
    assert call("export", "model", run, "--out", tmp_path / "file/m.onnx") == 1
    assert "cannot be written" in capsys.readouterr().err
    for wrong in (["--format", "tflite", "--out", "m"], []):
        with pytest.raises(SystemExit) as caught:
            call("export", "model", run, *wrong)
        assert caught.value.code == 2


def test_labels_are_still_exported(capsys):
    with pytest.raises(SystemExit):
        call("export", "--help")
    assert "labels of a data set" in capsys.readouterr().out


def test_the_example_runs_without_weakseg(model, exported, tmp_path, monkeypatch):
    (code,) = blocks(ROOT / "docs/models.md", "python")
    assert "weakseg" not in {*code.replace(".", " ").split()} - {'["weakseg"]'}
    assert len(code.strip().splitlines()) <= 15
    shutil.copy(exported["onnx"], tmp_path / "model.onnx")
    image = photograph(60, 90)
    Image.fromarray(image).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("photo.jpg", "photo.png"), "models.md", "exec"), {})
    written = np.array(Image.open(Path("mask.png")))
    np.testing.assert_array_equal(written, model.predict(image).mask)
