"""Data sets written in the native format, whole or not at all."""

import os
import resource

import numpy as np
import pytest
from made_datasets import INFO, PHOTO
from PIL import Image

from weakseg.annotation import KINDS, Annotation, Area, Box, Point, Scribble
from weakseg.dataset import Dataset, DatasetWriter
from weakseg.errors import InputError
from weakseg.images import read_image


def test_save_and_open_round_trip(tmp_path):
    annotation = Annotation(
        tags=("coral",),
        boxes=(Box("coral", (0.5, 0, 6, 4)),),
        points=(Point("sea", (5.25, 3)),),
        scribbles=(Scribble("sand", ((0, 0), (5, 0)), 2.5),),
        mask=np.arange(24).reshape(4, 6) % 4,
        ignore=(Area(xy=((0, 0), (1, 0), (0, 1.5))),),
    )
    memory = Dataset.from_arrays(
        [PHOTO, PHOTO[::-1]],
        [annotation, None],
        INFO.classes,
        background="sea",
        names=["site1/a", "site2/a"],
        splits=["train", "val"],
        boxes_exhaustive=True,
    )
    once = memory.save(tmp_path / "one")
    twice = once.save(tmp_path / "two")
    for dataset in (once, twice):
        assert dataset.info == memory.info
        for entry, original in zip(dataset, memory, strict=True):
            assert (entry.name, entry.split) == (original.name, original.split)
            assert np.array_equal(entry.read_image(), original.read_image())
            kinds = {*KINDS} - {"masks"}
            assert entry.annotation.restrict(kinds) == original.annotation.restrict(kinds)
        assert np.array_equal(dataset[0].read_mask(), annotation.mask)
        assert dataset[1].mask is None
    with pytest.raises(InputError, match="exists already and is not overwritten"):
        memory.save(tmp_path / "one")
    memory.subset([1]).save(tmp_path / "one", overwrite=True)
    assert len(Dataset.open(tmp_path / "one")) == 1


@pytest.mark.parametrize("link", [False, True])
def test_writer_takes_files(tmp_path, link):
    source = tmp_path / "photo.jpg"
    Image.fromarray(PHOTO).save(source)
    mask = tmp_path / "mask.png"
    Image.fromarray(PHOTO[:, :, 0] % 3).save(mask)
    with DatasetWriter(tmp_path / "out", INFO, link=link) as writer:
        writer.add(source, mask=mask, meta={"id": 3})
    entry = Dataset.open(tmp_path / "out")[0]
    assert entry.image == tmp_path / "out" / "images" / "photo.jpg"
    assert entry.meta == {"id": 3}
    assert np.array_equal(entry.read_image(), read_image(source))
    assert np.array_equal(entry.read_mask(), PHOTO[:, :, 0] % 3)
    assert os.path.samefile(source, entry.image) == link


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "missing.png"}, "missing.png: no such file"),
        ({"annotation": Annotation(tags=("x",))}, "class 'x' is not in the list"),
        ({"annotation": Annotation(points=(Point("sea", (6, 0)),))}, "point outside the image"),
        ({"mask": np.zeros((3, 3), int)}, "mask of another size"),
        ({"mask": np.full((4, 6), 300)}, "not a mask"),
        ({"name": "../x"}, "path leaves the data set's folder"),
        ({"name": "first"}, "two images share a name: found first"),
    ],
)
def test_a_failed_write_leaves_no_data_set(tmp_path, arguments, message):
    def write():
        with DatasetWriter(tmp_path / "out", INFO) as writer:
            writer.add(PHOTO, name="first")
            writer.add(**({"image": PHOTO} | arguments))

    with pytest.raises(InputError) as caught:
        write()
    assert message in str(caught.value)
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left <= {"images", "masks"}
    assert not list(tmp_path.rglob(".*"))


def test_a_full_disk_leaves_no_data_set(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write():
        with DatasetWriter(tmp_path / "out", INFO) as writer:
            for _ in range(50):
                writer.add(PHOTO, meta={"note": "x" * 1000})

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # acts as a full disk would
    try:
        with pytest.raises(InputError, match=r"annotations\.jsonl: cannot be written"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["images"]


@pytest.mark.parametrize("there", [True, False])
def test_a_write_that_fails_before_its_first_image_leaves_no_new_folder(tmp_path, there):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()

    def write():
        with DatasetWriter(folder, INFO) as writer:
            writer.add(PHOTO, name="../x")

    with pytest.raises(InputError):
        write()
    assert folder.exists() == there
