import numpy as np
import pytest
from PIL import Image

from weakseg.annotation import Annotation
from weakseg.check import check_dataset
from weakseg.cli.init import init
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.scaffold import init_dataset

PHOTO = np.zeros((4, 6, 3), np.uint8)


def photos(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PHOTO).save(folder / name)
    return folder


def test_a_folder_of_images_becomes_a_data_set_beside_it(tmp_path):
    source = photos(tmp_path / "photos", "a.jpg", "site1/b.png", "site2/b.png")
    dataset = init_dataset(source, classes="background, coral,sand")
    assert dataset.folder == tmp_path / "photos-weakseg"
    assert dataset.info.name == "photos-weakseg"
    assert dataset.info.classes == ("background", "coral", "sand")
    assert dataset.info.background == "background"
    assert [entry.name for entry in dataset] == ["a", "site1/b", "site2/b"]
    assert dataset.splits() == {"train": 3}
    assert all(entry.read_image().shape == (4, 6, 3) for entry in dataset)
    assert not check_dataset(dataset.folder).fatal
    assert sorted(p.name for p in source.rglob("*.*")) == ["a.jpg", "b.png", "b.png"]


def test_a_folder_with_images_in_it_is_used_as_it_is(tmp_path):
    photos(tmp_path / "reef", "images/a.jpg", "images/b.jpg")
    before = (tmp_path / "reef" / "images" / "a.jpg").stat()
    dataset = init_dataset(tmp_path / "reef", classes=["coral"])
    assert dataset.folder == tmp_path / "reef"
    assert dataset.info.background is None
    after = (tmp_path / "reef" / "images" / "a.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_out_names_the_folder(tmp_path):
    photos(tmp_path / "p", "images/a.jpg")
    dataset = init_dataset(tmp_path / "p", classes="coral", out=tmp_path / "new" / "x")
    assert dataset.folder == tmp_path / "new" / "x"
    assert (tmp_path / "new" / "x" / "images" / "a.jpg").is_file()


@pytest.mark.parametrize("existing", ["dataset.yaml", "annotations.jsonl"])
def test_nothing_is_overwritten(tmp_path, existing):
    photos(tmp_path, "images/a.jpg")
    (tmp_path / existing).write_text("mine")
    with pytest.raises(InputError, match=f"{existing}: exists already"):
        init_dataset(tmp_path, classes="coral")
    assert (tmp_path / existing).read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["images", existing])


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,coral;sand\nb.jpg,sand\n",
        "image,tags\na.jpg,coral; sand\nb.jpg,sand\n",
        "image,tag\na.jpg,coral\nb.jpg,sand\na.jpg,sand\n",
        "a,coral,sand\n\nb,sand",
        "\ufeffFilename,Label\r\nimages/a.jpg,coral;sand;coral\r\nsub/b.jpg,sand\r\nsub/c.jpg,\r\n",
    ],
)
def test_tags_from_csv(tmp_path, text):
    photos(tmp_path / "p", "a.jpg", "sub/b.jpg", "sub/c.jpg")
    (tmp_path / "tags.csv").write_text(text, newline="")
    dataset = init_dataset(tmp_path / "p", classes="coral,sand", tags=tmp_path / "tags.csv")
    assert [entry.annotation for entry in dataset] == [
        Annotation(tags=("coral", "sand")),
        Annotation(tags=("sand",)),
        Annotation(),
    ]


def test_everything_unknown_in_a_csv_is_listed(tmp_path):
    photos(tmp_path / "p", "a.jpg", "x/b.jpg", "y/b.jpg")
    path = tmp_path / "tags.csv"
    path.write_text("image,tags\na.jpg,coral;kelp\nz.jpg,coral\n\nb.jpg,coral\na.jpg,weed\n")
    with pytest.raises(InputError) as caught:
        init_dataset(tmp_path / "p", classes="coral,sand", tags=path)
    assert str(caught.value).splitlines() == [
        f"{path}:2: unknown tag: found kelp; expected one of coral, sand",
        f"{path}:3: no such image: found z.jpg; expected a file in the folder",
        f"{path}:5: several images of that name: found b.jpg; expected a file in the folder",
        f"{path}:6: unknown tag: found weed; expected one of coral, sand",
    ]
    assert not (tmp_path / "p-weakseg").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.jpg\n", r"tags\.csv:1: row without tags: found a\.jpg; expected image,tag;tag"),
        (b"a.jpg,\xff\n", r"tags\.csv: cannot be read"),
        (b"a.jpg,co\0ral\n", "unknown tag|cannot be read"),
        (None, r"tags\.csv: no such file"),
    ],
)
def test_what_is_no_csv_of_tags(tmp_path, content, message):
    photos(tmp_path / "p", "a.jpg")
    if content is not None:
        (tmp_path / "tags.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        init_dataset(tmp_path / "p", classes="coral", tags=tmp_path / "tags.csv")


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        ((), "coral", "no such folder"),
        (("a.jpg",), "", "classes: found ()"),
        (("a.jpg",), "coral,coral", "class listed twice: found coral"),
        (("a.jpg", "a.png"), "coral", "a.png: two images share a name"),
    ],
)
def test_what_cannot_become_a_data_set(tmp_path, names, classes, message):
    photos(tmp_path / "p", *names)
    with pytest.raises(InputError) as caught:
        init_dataset(tmp_path / "p", classes=classes)
    assert message in str(caught.value)
    assert not (tmp_path / "p-weakseg").exists()


def test_a_damaged_image_leaves_no_data_set(tmp_path):
    photos(tmp_path / "p", "a.jpg")
    (tmp_path / "p" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"p/b\.jpg: not an image"):
        init_dataset(tmp_path / "p", classes="coral")
    assert not (tmp_path / "p-weakseg" / "dataset.yaml").exists()


def test_the_command(tmp_path, capsys):
    source = photos(tmp_path / "p", "a.jpg", "b.jpg")
    (tmp_path / "tags.csv").write_text("a.jpg,coral")
    assert init(source, "coral", tags=tmp_path / "tags.csv", out=tmp_path / "out") == 0
    assert "out: 2 images, 1 with tags" in capsys.readouterr().out
    assert len(Dataset.open(tmp_path / "out")) == 2
    assert init(source, "coral", out=tmp_path / "out") == 1
    assert "exists already" in capsys.readouterr().err
