from importlib.metadata import files
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from weakseg.check import check_dataset
from weakseg.demo import make_demo_dataset, photographs
from weakseg.demo.labels import simulate_labels
from weakseg.demo.make import COUNTS, INFO, demo_scenes
from weakseg.demo.photographs import MATERIALS, SPLITS
from weakseg.demo.scenes import CLASSES, SIZE
from weakseg.images import read_image
from weakseg.seeds import seed_map


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_demo_dataset(tmp_path_factory.mktemp("demo") / "data")


def first_scenes(split, count, seed=0):
    return list(islice(demo_scenes(split, seed=seed), count))


def test_photographs_come_with_the_installed_package_and_are_not_fetched():
    installed = {file.as_posix() for file in files("scikit-image")}
    assert {f"skimage/data/{p.file}" for p in MATERIALS.values()} <= installed


@pytest.mark.parametrize("name", MATERIALS)
def test_parts_are_disjoint_with_a_gap_and_inside_the_photograph(name):
    photograph = MATERIALS[name]
    x0, y0, x1, y1 = photograph.train
    u0, v0, u1, v1 = photograph.val
    assert max(u0 - x1, x0 - u1, v0 - y1, y0 - v1) >= 10
    folder = photographs.Path(photographs.skimage.__file__).parent / "data"
    height, width = read_image(folder / photograph.file).shape[:2]
    for left, top, right, bottom in (photograph.train, photograph.val):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    others = [p for n, p in MATERIALS.items() if n != name]
    assert photograph.file not in [p.file for p in others]


def poison(monkeypatch, keep, *, spare):
    """Replace photographs by noise: outside the parts of split `keep`, or inside of them."""

    def read(path):
        image = read_image(path)
        noise = np.random.default_rng(1).integers(0, 256, image.shape, np.uint8)
        for photograph in MATERIALS.values():
            if photograph.file == path.name:
                x0, y0, x1, y1 = getattr(photograph, keep)
                part = np.zeros(image.shape[:2], bool)
                part[y0:y1, x0:x1] = True
                image[part != spare] = noise[part != spare]
        return image

    monkeypatch.setattr(photographs, "read_image", read)


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_use_no_pixel_of_the_other_split(split, monkeypatch):
    clean = first_scenes(split, 4)
    poison(monkeypatch, split, spare=True)
    for (a, _), (b, _) in zip(clean, first_scenes(split, 4), strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    # The poison works: put on the split's own parts, it changes every scene.
    poison(monkeypatch, split, spare=False)
    for (a, _), (b, _) in zip(clean, first_scenes(split, 4), strict=True):
        assert (a.image != b.image).any()


def test_the_seed_decides_everything():
    for (a, labels), (b, again), (other, _) in zip(
        first_scenes("train", 3), first_scenes("train", 3), first_scenes("train", 3, 1), strict=True
    ):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert labels == again
        assert (a.image != other.image).any()


def test_the_data_set_on_disk_is_whole_and_free_of_problems(dataset):
    report = check_dataset(dataset.folder)
    assert not report.problems
    assert dataset.splits() == COUNTS
    assert dataset.kinds("train") == ("masks", "scribbles", "points", "boxes", "tags")
    assert dataset.kinds("val") == ("masks",)
    for entry, (scene, labels) in zip(dataset, first_scenes("train", 3), strict=False):
        np.testing.assert_array_equal(entry.read_image(), scene.image)
        np.testing.assert_array_equal(entry.read_mask(), scene.mask)
        assert entry.annotation.boxes == labels.boxes
    assert entry.read_image().shape == (*SIZE, 3)


def test_every_class_occurs_often_but_tags_still_tell_images_apart(dataset):
    for split, count in COUNTS.items():
        present = np.array(
            [np.isin(range(len(CLASSES)), e.read_mask()) for e in dataset.split(split)]
        )
        assert present[:, 0].all()
        per_class = present[:, 1:].sum(axis=0)
        assert per_class.min() >= count / 6
        assert per_class.max() <= count / 2
        per_image = present[:, 1:].sum(axis=1)
        assert per_image.min() >= 1
        assert per_image.max() <= 3


def test_labels_follow_from_the_mask(dataset):
    for entry in dataset.split("train"):
        mask, labels = entry.read_mask(), entry.annotation
        assert labels.kinds == {"masks", "scribbles", "points", "boxes", "tags"}
        assert set(labels.tags) == {CLASSES[c] for c in np.unique(mask) if c}
        assert {box.label for box in labels.boxes} == set(labels.tags)
        for point in labels.points:
            assert CLASSES[mask[point.xy[1], point.xy[0]]] == point.label
        outside = np.ones(mask.shape, bool)
        for box in labels.boxes:
            x0, y0, x1, y1 = box.xyxy
            outside[y0:y1, x0:x1] = False
            inside = mask[y0:y1, x0:x1] == CLASSES.index(box.label)
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
        assert (mask[outside] == 0).all()


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("points", 0.002, 0.02), ("scribbles", 0.003, 0.03)]
)
def test_marks_are_sparse_and_right(dataset, kind, least, most):
    shares, wrong = [], []
    for entry in dataset.split("train"):
        mask = entry.read_mask()
        seeds = seed_map(entry.annotation, INFO, mask.shape, kinds=[kind])
        labelled = seeds < len(CLASSES)
        shares.append(labelled.mean())
        wrong.append((seeds != mask)[labelled].mean())
        # One mark for each piece of a class that is large enough to see.
        names = [m.label for m in getattr(entry.annotation, kind)]
        for c in np.unique(mask):
            _, pieces = ndimage.label(mask == c, np.ones((3, 3)))
            assert 1 <= names.count(CLASSES[c]) <= pieces
    assert least < np.mean(shares) < most
    assert np.mean(wrong) < 0.01


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(24, 60), st.integers(24, 60)),
    radius=st.floats(2, 30),
)
def test_labels_of_any_disc_lie_on_it(seed, size, radius):
    y, x = np.mgrid[: size[0], : size[1]]
    mask = (np.hypot(y - size[0] / 3, x - size[1] / 2) < radius).astype(np.uint8)
    labels = simulate_labels(mask, mask, ["other", "disc"], np.random.default_rng(seed))
    assert labels.tags == (("disc",) if mask.any() else ())
    assert not labels.validate(size[1], size[0], ["other", "disc"])
    for mark in (*labels.points, *labels.scribbles):
        for px, py in [mark.xy] if hasattr(mark.xy[0], "__index__") else mark.xy:
            assert mask[py, px] == (mark.label == "disc")
