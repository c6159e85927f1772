from __future__ import annotations

import stat
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from roundtrip import annotations, assert_same, dataset_of, round_trip

from weakseg.annotation import Annotation, Area, Box, Point, Scribble
from weakseg.errors import InputError
from weakseg.formats.exporting import export_dataset
from weakseg.formats.importing import import_dataset


def test_fixture(photos: Path, fixture: Any, tmp_path: Path) -> None:
    dataset, report = import_dataset("cvat", fixture("cvat.xml"), tmp_path / "out", images=photos)
    assert dataset.info.classes == ("coral", "sponge")
    a, b, empty = dataset
    assert [entry.split for entry in dataset] == ["train", "val", "train"]

    assert a.annotation.tags == ("sponge",)
    assert a.annotation.boxes == (Box("coral", (2, 3, 8, 7.5)),)
    assert a.annotation.points == (Point("sponge", (3, 4)), Point("sponge", (6.5, 7.5)))
    assert a.annotation.scribbles == (Scribble("coral", ((1, 1), (5, 5), (9, 5))),)
    expected = np.full((16, 20), 2)
    expected[14, 1:3] = expected[15, 1:4] = 0
    expected[8:15, 11:19] = 1
    expected[9:11, 12:14] = 0  # on top
    np.testing.assert_array_equal(a.read_mask(), expected)

    assert b.annotation.ignore == (Area(xy=((-0.5, -0.5), (2.5, -0.5), (2.5, 1.5), (-0.5, 1.5))),)
    assert b.annotation.boxes == (Box("coral", (5, 1, 7, 9)),)
    assert (b.read_mask() == 1).sum() == pytest.approx(np.pi * 3 * 2, abs=2)
    assert not empty.annotation.kinds
    assert [problem.what for problem in report.problems] == [
        "turned box; read as the upright box around it",
        "shape of a kind that is not read",
    ]
    assert str(report.problems[1]).startswith(str(fixture("cvat.xml")) + ", sub/b.png: ")


def test_what_datumaro_writes(photos: Path, fixture: Any) -> None:
    dataset, report = import_dataset("cvat", fixture("cvat_datumaro.xml"), None, images=photos)
    assert dataset.info.classes == ("coral", "sponge", "crème")
    a, b = dataset
    assert a.annotation.tags == ("crème",)
    assert a.annotation.boxes == (Box("coral", (2, 3, 8, 7)),)
    assert a.annotation.points == (Point("sponge", (3, 4)), Point("sponge", (6.5, 7.5)))
    assert a.annotation.scribbles == (Scribble("coral", ((0.5, 0.5), (4.5, 4.5), (8.5, 4.5))),)
    assert (a.read_mask() == 1).sum() == 30
    assert b.annotation.boxes == (Box("sponge", (0, 0, 4, 3)),)
    assert not report.problems


@settings(max_examples=60)
@given(annotations("tags", "boxes", "points", "scribbles", "masks", "ignore"))
def test_round_trip(annotation: Annotation) -> None:
    again, _ = round_trip("cvat", annotation, "annotations.xml")
    assert_same(annotation, again)


def test_what_cvat_cannot_hold_is_listed(tmp_path: Path) -> None:
    annotation = Annotation(scribbles=(Scribble("Coral", ((1, 1), (5, 5)), 7),))
    dataset = dataset_of(annotation)
    (problem,) = export_dataset("cvat", dataset, tmp_path / "a.xml").problems
    assert problem.what == "width of strokes (import with --width)"


def test_classes_that_xml_cannot_hold_are_refused(tmp_path: Path) -> None:
    dataset = dataset_of(Annotation())
    dataset.info = replace(dataset.info, name="bell \x07")
    with pytest.raises(InputError, match="XML cannot hold"):
        export_dataset("cvat", dataset, tmp_path / "a.xml")
    assert not (tmp_path / "a.xml").exists()


def _file(
    folder: Path, shapes: str, image: str = 'name="sub/b.png" width="12" height="10"'
) -> Path:
    path = folder / "a.xml"
    path.write_text(f"<annotations><image {image}>{shapes}</image></annotations>")
    return path


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<box label="x" xtl="1" ytl="2" xbr="3"/>', "box: ybr: found nothing; expected a number"),
        (
            '<box label="x" xtl="1" ytl="2" xbr="3" ybr="nan"/>',
            "box: ybr that is not usable: found nan",
        ),
        ('<box label="x" xtl="1" ytl="2" xbr="3" ybr="1e30"/>', "not usable: found 1e+30"),
        ('<box label="x" xtl="5" ytl="2" xbr="3" ybr="4"/>', "box with x1 <= x0"),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "box without a label"),
        (
            '<box label="x" xtl="1" ytl="2" xbr="3" ybr="4" rotation="inf"/>',
            "box: rotation that is not usable",
        ),
        ('<points label="x" points="1,2;3"/>', "points: points: found nothing; expected a number"),
        ('<points label="x"/>', "points: points"),
        ('<points label="x" points="90,2"/>', "point outside the image"),
        ('<polyline label="x" points="1,2"/>', "scribble of 1 position"),
        ('<polyline label="x" points="1,2;40,2"/>', "stroke cut at the border"),
        ('<polyline label="x" points="30,2;40,2"/>', "stroke outside the image"),
        ('<polygon label="x" points="1,2;3,4"/>', "polygon of too few positions"),
        ('<polygon label="x" points="1,2;3,4;inf,3"/>', "not usable"),
        ('<ellipse label="x" cx="1" cy="2" rx="nan" ry="1"/>', "not usable"),
        ('<mask label="x" rle="1,2" left="0" top="0" width="2" height="2"/>', "do not fill"),
        ('<mask label="x" rle="1,3" left="11" top="0" width="2" height="2"/>', "outside the image"),
        ('<mask label="x" rle="1,3" left="0.5" top="0" width="2" height="2"/>', "whole numbers"),
        ('<mask label="x" rle="a" left="0" top="0" width="2" height="2"/>', "mask: rle"),
        ('<mask label="x" rle="1" left="0" top="0" width="1e6" height="1e6"/>', "outside the im"),
        ('<skeleton label="x"/>', "shape of a kind that is not read: found skeleton"),
    ],
)
def test_a_bad_shape_is_listed_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, shape: str, message: str
) -> None:
    path = _file(tmp_path, shape + '<tag label="x"/>')
    dataset, report = import_dataset("cvat", path, None, images=photos)
    assert dataset[0].annotation.tags == ("x",)
    assert message in "\n".join(map(str, report.problems))
    assert len(report.problems) == 1


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid XML"),
        ("<annotations><image", "not valid XML"),
        ("<annotations><image name='a.jpg'>", "not valid XML"),
        ("<annotation/>", "another kind of XML file: found annotation"),
        (BOMB + "<annotations><image name='&b;'/></annotations>", "XML that is refused"),
        (OUTSIDE + "<annotations><image name='&a;'/></annotations>", "XML that is refused"),
        ("<annotations><track id='0' label='x'/></annotations>", "tracks of a video"),
        ("<?xml version='1.0' encoding='nonsense'?><annotations/>", "not valid XML"),
        ("<annotations/>", "no labels found"),
    ],
)
def test_a_bad_file_is_refused(photos: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=message):
        import_dataset("cvat", tmp_path / "a.xml", tmp_path / "out", images=photos)


def test_a_zip_with_its_images(photos: Path, fixture: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.write(fixture("cvat.xml"), "annotations.xml")
        for path in photos.rglob("*.*"):
            archive.write(path, f"images/{path.relative_to(photos)}")
    dataset, _ = import_dataset("cvat", tmp_path / "task.zip", tmp_path / "out")
    assert [entry.name for entry in dataset] == ["a", "sub/b", "empty"]
    assert dataset[0].read_image().shape == (16, 20, 3)
    assert not dataset[0].image.is_symlink()
    assert not [*(tmp_path / "out").glob(".unpacked*")]


IMAGE = '<image name="{}" width="20" height="16">{}</image>'
STROKE = '<polyline label="x" points="1,2;3,4"/>'


@pytest.mark.parametrize(
    ("image", "strict", "messages"),
    [
        (
            IMAGE.format("a.jpg", STROKE + "<cuboid/>") + IMAGE.format("b.jpg", STROKE),
            False,
            [
                "{0}/annotations.xml, a.jpg: shape of a kind that is not read: found cuboid",
                "{0}/annotations.xml, b.jpg: image left out: no such image: found b.jpg; "
                "expected an image in {0}/images",
            ],
        ),
        (
            IMAGE.format("a.jpg", STROKE + "<cuboid/>"),
            True,
            ["{0}/annotations.xml, a.jpg: shape of a kind that is not read"],
        ),
        ("", False, ["no labels found: expected a source with labels"]),
        ("<image", False, ["{0}/annotations.xml:1: not valid XML"]),
    ],
)
def test_messages_name_the_zip(
    photos: Path, tmp_path: Path, image: str, strict: bool, messages: list[str]
) -> None:
    path = tmp_path / "task.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations.xml", f"<annotations>{image}</annotations>")
        archive.write(photos / "a.jpg", "images/a.jpg")
    try:
        _, report = import_dataset("cvat", path, tmp_path / "out", strict=strict)
        found = [str(problem) for problem in report.problems]
    except InputError as error:
        found = str(error).splitlines()
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert line.startswith(message.format(path))
        assert ".unpacked" not in line


def _member(name: str, mode: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (_member("../outside.txt"), "reaches outside its folder"),
        (_member("/tmp/outside.txt"), "reaches outside its folder"),
        (_member("a/../../outside.txt"), "reaches outside its folder"),
        (_member("C:\\outside.txt"), "reaches outside its folder"),
        (_member("link", stat.S_IFLNK | 0o777), "archive holds a link"),
    ],
)
def test_a_zip_that_reaches_outside_is_refused(
    tmp_path: Path, member: zipfile.ZipInfo, message: str
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with zipfile.ZipFile(inner / "task.zip", "w") as archive:
        archive.writestr("annotations.xml", "<annotations/>")
        archive.writestr(member, "/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        import_dataset("cvat", inner / "task.zip", inner / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_bomb_and_a_damaged_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", b"\0" * 60_000_000)
    with pytest.raises(InputError, match="grows suspiciously"):
        import_dataset("cvat", tmp_path / "bomb.zip", tmp_path / "out")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "bomb.zip").read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be unpacked"):
        import_dataset("cvat", tmp_path / "cut.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()
