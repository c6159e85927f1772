import numpy as np
import pytest
from PIL import Image
from skimage import data

from weakseg.cli.regions import regions
from weakseg.regions import hierarchy, read_region_map


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    (place / "deep").mkdir(parents=True)
    Image.fromarray(data.astronaut()[:80, :100]).save(place / "a.png")
    Image.fromarray(data.camera()[:60, :50]).save(place / "deep" / "b.jpg")
    return place


def test_writes_every_map_under_the_images_names(folder, tmp_path):
    out = tmp_path / "out"
    assert regions(folder, out, contours="gradient", count=30) == 0
    written = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    kinds = ("", "contours/", "ultrametric/", "overlays/")
    assert written == {f"{kind}{name}.png" for kind in kinds for name in ("a", "deep/b")}
    image = data.astronaut()[:80, :100]
    tree = hierarchy(image, contours="gradient")
    assert np.array_equal(read_region_map(out / "a.png"), tree.cut_to(30))
    with Image.open(out / "contours" / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), np.rint(tree.contours * 255).astype(np.uint8))
    with Image.open(out / "overlays" / "a.png") as picture:
        drawn = np.asarray(picture)
    changed = (drawn != image).any(2)
    assert changed.any()
    assert not changed.all()
    assert (drawn[changed] == (255, 220, 0)).all()


def test_threshold_and_maps_only(folder, tmp_path):
    out = tmp_path / "out"
    assert regions(folder, out, contours="gradient", threshold=1.0, pictures=False) == 0
    assert sorted(path.name for path in out.rglob("*.png")) == ["a.png", "b.png"]
    assert read_region_map(out / "a.png").max() == 0


def test_damaged_image_is_named_and_the_rest_goes_on(folder, tmp_path, capsys):
    whole = (folder / "deep" / "b.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert regions(folder, out, contours="gradient", pictures=False) == 1
    shown = capsys.readouterr()
    assert "cut.jpg" in shown.err
    assert "Traceback" not in shown.err
    assert "2 of 3" in shown.out
    assert sorted(path.name for path in out.rglob("*")) == ["a.png", "b.png", "deep"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": 0}, "--count"), ({"threshold": 1.5}, "--threshold")],
)
def test_bad_options(folder, tmp_path, capsys, options, message):
    assert regions(folder, tmp_path / "out", **options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_name_clashes_are_refused(folder, tmp_path, capsys):
    Image.new("RGB", (5, 5)).save(folder / "a.bmp")
    assert regions(folder, tmp_path / "out", contours="gradient") == 1
    assert "a.bmp" in capsys.readouterr().err
    (folder / "a.bmp").unlink()
    (folder / "overlays").mkdir()
    Image.new("RGB", (5, 5)).save(folder / "overlays" / "c.png")
    assert regions(folder, tmp_path / "out", contours="gradient") == 1
    assert "overlays" in capsys.readouterr().err


def test_nothing_there(tmp_path, capsys):
    assert regions(tmp_path / "none", tmp_path / "out") == 1
    assert "none" in capsys.readouterr().err
