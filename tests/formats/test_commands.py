"""`weakseg import`, `weakseg export` and `weakseg simulate`, as they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_files import save_image
from PIL import Image

from weakseg.cli import main
from weakseg.cli.import_ import parse_sources
from weakseg.dataset import Dataset
from weakseg.formats import READERS


def test_there_and_back(
    photos: Path, fixture: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reef, out = str(tmp_path / "reef"), str(tmp_path / "out.xml")
    source = str(fixture("coco.json"))
    assert main(["import", "coco", source, "--images", str(photos), "--out", reef]) == 0
    text = capsys.readouterr().out
    assert f"{reef}: 3 images; 2 masks, 1 points, 3 boxes, 1 tags" in text
    assert "keypoints hidden behind something else: found 1" in text
    assert main(["check", reef]) == 0
    assert main(["export", "cvat", reef, "--out", out, "--kinds", "boxes,tags"]) == 0
    assert main(["export", "cvat", reef, "--out", out]) == 1
    assert "exists already" in capsys.readouterr().err
    assert Path(out).read_text().count("<box") == 3


def test_unknown_classes_are_named_at_once(
    photos: Path, fixture: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["import", "coco", str(fixture("coco.json")), "--images", str(photos)]
    command += ["--out", str(tmp_path / "reef"), "--classes", "coral,sand"]
    assert main(command) == 1
    text = capsys.readouterr().err
    assert "unknown class 'sponge': found 2 labels" in text
    assert "unknown class 'crème'" not in text  # nothing but a tag of image 9 has it
    (tmp_path / "map.yaml").write_text("sponge: sand\n3: null\n")
    assert main([*command, "--map", str(tmp_path / "map.yaml")]) == 0
    assert Dataset.open(tmp_path / "reef").info.classes == ("coral", "sand")


def test_several_sources_become_the_parts(photos: Path, fixture: Any, tmp_path: Path) -> None:
    data = json.loads(fixture("coco.json").read_text())
    for part, chosen in (("train", slice(0, 1)), ("val", slice(1, 3))):
        images = data["images"][chosen]
        ids = [image["id"] for image in images]
        annotations = [a for a in data["annotations"] if a["image_id"] in ids]
        content = data | {"images": images, "annotations": annotations}
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    source = f"train={tmp_path / 'train.json'},val={tmp_path / 'val.json'}"
    command = ["import", "coco", source, "--images", str(photos), "--out", str(tmp_path / "reef")]
    assert main(command) == 0
    assert Dataset.open(tmp_path / "reef").splits() == {"train": 1, "val": 2}


def test_sources_are_told_from_paths(tmp_path: Path) -> None:
    assert parse_sources("a,b.json") == "a,b.json"
    assert parse_sources("train=a.json,val=b=c.json") == {"train": "a.json", "val": "b=c.json"}
    odd = tmp_path / "a=b.json"
    odd.touch()
    assert parse_sources(str(odd)) == str(odd)


def test_findings_are_cut_short(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"a.jpg,{i},100,coral\n" for i in range(12)) + "a.jpg,1,1,coral\n"
    (tmp_path / "p.csv").write_text("Name,Row,Column,Label\n" + rows)
    command = ["import", "points", str(tmp_path / "p.csv"), "--images", str(photos)]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    text = capsys.readouterr().out
    assert text.count("point outside the image: found") == 5
    assert "... and 7 more like it: point outside the image" in text
    assert "2 images of the folder not in the source" in text
    assert main([*command, "--out", str(tmp_path / "two"), "--verbose", "--all-images"]) == 0
    text = capsys.readouterr().out
    assert text.count("point outside the image: found") == 12
    assert "3 images" in text
    assert main([*command, "--out", str(tmp_path / "three"), "--strict"]) == 1
    assert not (tmp_path / "three" / "dataset.yaml").exists()


def test_images_are_linked_or_copied(photos: Path, fixture: Any, tmp_path: Path) -> None:
    command = ["import", "coco", str(fixture("coco.json")), "--images", str(photos)]
    assert main([*command, "--out", str(tmp_path / "linked")]) == 0
    assert main([*command, "--out", str(tmp_path / "copied"), "--copy"]) == 0
    assert (tmp_path / "linked" / "images" / "a.jpg").samefile(photos / "a.jpg")
    assert not (tmp_path / "copied" / "images" / "a.jpg").samefile(photos / "a.jpg")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["import", "nonsense", "x", "--out", "y"], 1),
        (["import", "coco", "no/such/file", "--out", "y"], 1),
        (["import", "masks", ".", "--out", "y"], 1),
        (["export", "nonsense", "x", "--out", "y"], 1),
        (["export", "coco", "no/such/folder", "--out", "y"], 1),
        (["simulate", "no/such/folder", "--kind", "points"], 1),
    ],
)
def test_bad_input_ends_with_1(arguments: list[str], status: int, tmp_path: Path) -> None:
    assert main(arguments) == status


@pytest.mark.parametrize("arguments", [["import"], ["export", "coco"], ["simulate", "x"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:40, 10:40] = 1
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    save_image(tmp_path / "photos" / "a.png", (60, 60))
    command = ["import", "masks", str(tmp_path / "a_mask.png"), "--images"]
    command += [str(tmp_path / "photos"), "--out", str(tmp_path / "reef")]
    assert main([*command, "--classes", "background,coral"]) == 0
    simulate = ["simulate", str(tmp_path / "reef"), "--kind", "points,boxes", "--length", ".5"]
    assert main(simulate) == 0
    (entry,) = Dataset.open(tmp_path / "reef-points-boxes")
    assert entry.annotation.kinds == {"masks", "points", "boxes"}
    assert "boxes_exhaustive is false" in capsys.readouterr().out
    assert main(simulate) == 1
    assert main([*simulate, "--overwrite"]) == 0
    assert "tags_exhaustive" not in capsys.readouterr().out
    assert main(["simulate", str(tmp_path / "reef"), "--kind", "tags", "--missed", ".2"]) == 0
    assert "tags_exhaustive is true" in capsys.readouterr().out


def test_the_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("import", "export"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
        assert all(name in text for name in READERS), command
