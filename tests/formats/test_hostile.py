"""Files made to do harm: they are refused or listed, quickly, with a message that says why."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weakseg.errors import InputError
from weakseg.formats.importing import import_dataset
from weakseg.formats.rasters import fill_rings

XML_BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
LINE = "0 .5 .5 .1 .1"


def _yaml_bomb() -> str:
    """Nine lines that name nine to the power of nine values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines) + "\n"


def _png(width: int, height: int) -> bytes:
    """A small file that claims to be a large picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _npy() -> bytes:
    stream = io.BytesIO()
    shape = {"descr": "<i8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(stream, shape)
    return stream.getvalue() + b"\0" * 64


def _coco(name: str = "x", file: str = "a.jpg", **annotation: Any) -> str:
    given = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], **annotation}
    images = [{"id": 1, "file_name": file}]
    categories = [{"id": 1, "name": name}]
    return json.dumps({"images": images, "categories": categories, "annotations": [given]})


def _nested(depth: int) -> str:
    inner = '{"type": "Point", "coordinates": [1, 1]}'
    outer = '{"type": "GeometryCollection", "geometries": ['
    geometry = outer * depth + inner + "]}" * depth
    feature = '{"type": "Feature", "properties": {"label": "x"}, "geometry": ' + geometry + "}"
    return '{"type": "FeatureCollection", "features": [' + feature + "]}"


def _labelme(data: bytes) -> str:
    mask = base64.b64encode(data).decode()
    shape = {"label": "x", "shape_type": "mask", "points": [[0, 0], [5, 5]], "mask": mask}
    return json.dumps({"imagePath": "a.jpg", "shapes": [shape]})


Files = dict[str, "str | bytes"]
REFUSED: list[tuple[str, str, Files, str]] = [
    ("yolo", "s", {"s/data.yaml": _yaml_bomb() + "names: *i", "s/a.txt": LINE}, "names: found"),
    ("yolo", "s", {"s/data.yaml": _yaml_bomb() + "names: {0: *i}", "s/a.txt": LINE}, "names: fo"),
    ("yolo", "s", {"s/data.yaml": "names: " + "[" * 3000, "s/a.txt": LINE}, "not valid YAML"),
    ("yolo", "s", {"s/data.yaml": "names: {0: x, 0: y}", "s/a.txt": LINE}, "key 0 given twice"),
    (
        "yolo",
        "s",
        {"s/data.yaml": "names: !!python/object/apply:os.mkdir [pwned]", "s/a.txt": LINE},
        "not valid YAML",
    ),
    (
        "voc",
        "s",
        {"s/Annotations/a.xml": f"{XML_BOMB}<annotation><object>&b;</object></annotation>"},
        "a.xml, a.jpg: XML that is refused",
    ),
    (
        "scribblesup",
        "s",
        {"s/a.xml": f"{OUTSIDE}<annotation><filename>&b;</filename></annotation>"},
        "a.xml, a.jpg: XML that is refused",
    ),
    ("labelme", "s", {"s/a.json": "[" * 100_000}, "a.json, a: not valid JSON"),
    ("geojson", "a.geojson", {"a.geojson": "[" * 100_000}, "not valid JSON"),
    ("geojson", "a.geojson", {"a.geojson": _nested(20_000)}, "not valid JSON"),
    ("geojson", "a.geojson", {"a.geojson": _nested(150)}, "kind that is not read: found Geometry"),
    ("masks", "m", {"m/a.png": _png(10**6, 10**6)}, "m/a.png, a.png: "),
    ("masks", "m", {"m/a.png": _png(40_000, 40_000)}, "m/a.png, a.png: "),
    ("masks", "m", {"m/a.npy": _npy()}, "m/a.npy, a.png: cannot be read"),
    ("points", "p.csv", {"p.csv": "Name,Row,Column,Label\na.jpg,1,1," + "x" * 200_000}, "field"),
    ("tags", "t.csv", {"t.csv": b"image,tags\na.jpg,\xed\xa0\x80\n"}, "expected a CSV file in UT"),
    ("coco", "c.json", {"c.json": _coco("\ud800")}, "class name: found \\ud800"),
    ("coco", "c.json", {"c.json": _coco(file="a\ud800.jpg")}, "no such image: found a\\ud800"),
    ("coco", "c.json", {"c.json": _coco(file="a" * 99_999)}, "no such image"),
]


def _write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("format", "source", "files", "message"), REFUSED)
def test_refused(
    photos: Path, tmp_path: Path, format: str, source: str, files: Files, message: str
) -> None:
    _write(tmp_path / "in", files)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        import_dataset(format, tmp_path / "in" / source, tmp_path / "out", images=photos)
    assert message in str(caught.value)
    str(caught.value).encode()  # may be printed
    after = {p for p in tmp_path.rglob("*") if tmp_path / "out" not in [p, *p.parents]}
    assert after == {*before}
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


LISTED: list[tuple[str, str, Files, str]] = [
    ("labelme", "s", {"s/a.json": _labelme(_png(60_000, 60_000))}, "mask: found Image size"),
    ("labelme", "s", {"s/a.json": _labelme(_png(500, 500))}, "mask larger than the image"),
    (
        "points",
        "p.csv",
        {"p.csv": "Name,Row,Column,Label\na.jpg,nan,1,x\na.jpg,1e400,1,x\na.jpg,1,1,x\n"},
        "row that is not usable: found inf",
    ),
    ("coco", "c.json", {"c.json": _coco(segmentation=[[-1e7, -1e7, 1e7, -1e7, 1e7, 1e7]])}, ""),
    ("coco", "c.json", {"c.json": _coco("..")}, ""),
    ("coco", "c.json", {"c.json": _coco("a\0b\nc: d")}, ""),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("format", "source", "files", "message"), LISTED)
def test_listed(
    photos: Path, tmp_path: Path, format: str, source: str, files: Files, message: str
) -> None:
    _write(tmp_path / "in", files)
    dataset, report = import_dataset(
        format, tmp_path / "in" / source, tmp_path / "out", images=photos
    )
    assert [entry.name for entry in dataset] == ["a"]
    assert message in "\n".join(map(str, report.problems))


@pytest.mark.timeout(20)
def test_a_map_that_explodes(photos: Path, tmp_path: Path) -> None:
    _write(tmp_path, {"t.csv": "image,tags\na.jpg,x\n", "map.yaml": _yaml_bomb() + "x: *i\n"})
    with pytest.raises(InputError, match="class name: found a: list"):
        import_dataset("tags", tmp_path / "t.csv", None, images=photos, map=tmp_path / "map.yaml")


@pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere refuse such names")
def test_a_photograph_whose_name_is_not_utf_8(photos: Path, tmp_path: Path) -> None:
    os.rename(os.fsencode(photos / "a.jpg"), os.fsencode(photos) + b"/b\xfcse.jpg")
    _write(tmp_path, {"t.csv": "image,tags\nempty.png,x\n"})
    dataset, report = import_dataset(
        "tags", tmp_path / "t.csv", tmp_path / "out", images=photos, all_images=True
    )
    assert [entry.name for entry in dataset] == ["empty", "sub/b"]
    assert "image left out: its name: found b\\udcfcse.jpg" in "\n".join(map(str, report.problems))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_zigzag_over_a_large_image_needs_little_memory() -> None:
    zigzag = np.stack([np.linspace(0, 3000, 8_001), np.arange(8_001) % 2 * 3000.0], axis=1)
    Path("/proc/self/clear_refs").write_text("5")  # peak = now
    before = _peak()
    patch = fill_rings([zigzag], (3000, 3000))
    assert 0.4 < patch.inside.mean() < 0.6
    assert _peak() - before < 300e6


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
