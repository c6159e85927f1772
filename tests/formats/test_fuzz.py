"""Damaged files: a clear error or a listed skip, and nothing outside the target is touched."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import FIXTURES, save_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from weakseg.annotation import Annotation
from weakseg.check import check_dataset
from weakseg.errors import InputError
from weakseg.formats.importing import import_dataset

SOURCES = {
    "coco": "coco.json",
    "coralnet": "coralnet.csv",
    "cvat": "cvat.xml",
    "geojson": "geojson.geojson",
    "ilastik": "ilastik",
    "label-studio": "label_studio.json",
    "labelme": "labelme",
    "napari": "napari/labels",
    "nnunet": "nnunet",
    "points": "napari/points",
    "scribblesup": "scribblesup",
    "tags": "tags.csv",
    "voc": "voc",
    "yolo": "yolo",
}

ODD = [
    *(None, True, -1, 0, 1e308, 10**40, float("nan"), float("inf"), "", "x", "../../etc/passwd"),
    *("/etc/passwd", [], {}, [[]], [None] * 3, {"a": 1}, "\x00", "9" * 400, [[0, 0], [1, "y"]]),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for name, size in (("a.jpg", (20, 16)), ("sub/b.png", (12, 10)), ("a_0000.png", (20, 16))):
        save_image(folder / "photos" / name, size)
    return folder


def _tree(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _try(format: str, source: Path, photos: Path) -> None:
    """Import; whatever comes out must be a valid data set."""
    with tempfile.TemporaryDirectory() as inner:
        out = Path(inner) / "out"
        before = _tree(photos)
        try:
            _, report = import_dataset(format, source, out, images=photos)
        except InputError:
            assert not (out / "dataset.yaml").exists()
        else:
            assert all(str(problem) for problem in report.problems)
            found = check_dataset(out)
            assert not found.fatal, [str(p) for p in found.problems if p.fatal]
        assert [p.name for p in Path(inner).iterdir()] in ([], ["out"])
        assert _tree(photos) == before


def _damage(data: bytes, rng: random.Random) -> bytes:
    """Cut off, overwrite, insert or repeat something."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.randrange(1, 12))
    noise = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5)))
    numbers = rng.choice(
        [b"-1", b"1e400", b"NaN", b"99999999999", b"\xff", b'"', b"<", b"]", b",,"]
    )
    kinds = [
        data[:at],
        data[:at] + data[end:],
        data[:at] + noise + data[end:],
        data[:at] + numbers + data[end:],
        data[:end] + data[at:],
    ]
    return rng.choice(kinds)


@pytest.mark.parametrize("format", SOURCES)
def test_damaged_bytes(format: str, place: Path) -> None:
    @settings(max_examples=10)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / Path(SOURCES[format]).name
            original = FIXTURES / SOURCES[format]
            (shutil.copytree if original.is_dir() else shutil.copy)(original, source)
            files = [p for p in sorted(source.rglob("*")) if p.is_file()] or [source]
            chosen = rng.choice(files)
            chosen.write_bytes(_damage(chosen.read_bytes(), rng))
            _try(format, source, place / "photos")

    check()


def _mutate(value: Any, rng: random.Random) -> Any:
    """Replace one member somewhere by something odd, leave it out, or double it."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice([*value])
        change = rng.random()
        if change < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: _mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        i = rng.randrange(len(value))
        if rng.random() < 0.15:
            return [*value, value[i]]
        return [*value[:i], _mutate(value[i], rng), *value[i + 1 :]]
    return rng.choice(ODD)


@pytest.mark.parametrize(
    ("format", "file"),
    [
        ("coco", "coco.json"),
        ("label-studio", "label_studio.json"),
        ("labelme", "labelme/a.json"),
        ("geojson", "geojson.geojson"),
    ],
)
def test_odd_values_in_json(format: str, file: str, place: Path) -> None:
    data = json.loads((FIXTURES / file).read_text())

    @settings(max_examples=30)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / Path(file).name
            source.write_text(json.dumps(_mutate(data, random.Random(seed))))
            _try(format, source, place / "photos")

    check()


@pytest.mark.parametrize("format", ["ilastik", "masks", "napari"])
def test_odd_label_images(format: str, place: Path, tmp_path: Path) -> None:
    source = tmp_path / "labels"
    source.mkdir()
    np.save(source / "a.npy", np.zeros((16, 20)) + 0.5)
    with pytest.raises(InputError):
        import_dataset(format, source, tmp_path / "out", images=place / "photos")
    np.save(source / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError):
        import_dataset(format, source, tmp_path / "out", images=place / "photos")
    np.save(source / "a.npy", np.arange(320).reshape(16, 20))
    with pytest.raises(InputError, match="too many classes"):
        import_dataset(format, source, tmp_path / "out", images=place / "photos")
    (source / "a.npy").unlink()
    Image.fromarray(np.ones((3, 3), np.uint8)).save(source / "a.png")
    Image.fromarray(np.ones((10, 12), np.uint8)).save(source / "b.png")
    dataset, report = import_dataset(format, source, None, images=place / "photos")
    assert str(report.problems[0]).endswith(
        "label image of another size: found 3 x 3; expected 20 x 16 as the image"
    )
    assert [entry.annotation.kinds for entry in dataset] == [set(), {"masks"}]


def test_an_image_that_is_damaged_is_left_out(tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "good.png", (4, 4))
    (tmp_path / "photos" / "bad.png").write_bytes(b"not an image")
    (tmp_path / "t.csv").write_text("image,tags\nbad.png,coral\ngood.png,coral\n")
    dataset, report = import_dataset("tags", tmp_path / "t.csv", None, images=tmp_path / "photos")
    assert [entry.name for entry in dataset] == ["good"]
    assert dataset[0].annotation == Annotation(tags=("coral",))
    assert "image left out: not an image" in str(report.problems[0])


def test_images_that_share_a_name_are_listed(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "x/b.png", "y/b.png"):
        save_image(tmp_path / "photos" / name, (4, 4))
    rows = "a.png,coral\na.jpg,coral\nb.png,coral\nx/b.png,coral\nX/Y/b.png,coral\n"
    (tmp_path / "t.csv").write_text("image,tags\n" + rows)
    dataset, report = import_dataset("tags", tmp_path / "t.csv", None, images=tmp_path / "photos")
    assert [entry.name for entry in dataset] == ["a", "x/b"]
    assert [problem.what for problem in report.problems] == [
        "image left out: another has this name",
        "image left out: several images fit",
        "image left out: several images fit",
    ]
