"""One page of two tiny runs: whole, self-contained, right."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from weakseg.annotation import Annotation, Point
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.images import palette
from weakseg.report import page as page_module
from weakseg.report import report_of
from weakseg.training import Recipe, fit

CLASSES = ("back & ground", "<b>disc</b>", 'bar "x"', "never")
VOID = {"meta", "link", "img", "br", "i"}


def scene(seed):
    """(48, 64, 3) photograph with a disc and a bar on noise, and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :64]
    mask = np.zeros((48, 64), np.uint8)
    mask[(y - 24) ** 2 + (x - 14 - seed) ** 2 < 100] = 1
    mask[8:40, 46:56] = 2
    colours = np.array([[90, 90, 90], [200, 60, 40], [40, 80, 200]])
    return (colours[mask] + rng.integers(-20, 20, (48, 64, 1))).astype(np.uint8), mask


def clicks(seed):
    return Annotation(
        points=(
            Point(CLASSES[0], (36, 3)),
            Point(CLASSES[1], (14 + seed, 24)),
            Point(CLASSES[2], (51, 20)),
        )
    )


@pytest.fixture(scope="module")
def dataset():
    images, masks = zip(*map(scene, range(6)), strict=True)
    return Dataset.from_arrays(
        images,
        [*map(clicks, range(3)), None, None, None],
        CLASSES,
        background=CLASSES[0],
        masks=[None] * 3 + [masks[3]] + [*masks[4:]],
        splits=["train"] * 4 + ["val"] * 2,
        names=[f"site/{i} <i>" for i in range(6)],
        name="discs & bars",
    )


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEAKSEG_CACHE", str(folder / "cache"))
        recipe = {
            "steps": 5,
            "classifier_steps": 10,
            "rounds": 1,
            "regions": "gradient",
            "long_side": 64,
            "backbone": "tf_efficientnet_lite0",
            "regime": "frozen",
            "device": "cpu",
            "baselines": True,
        }
        yield {
            "points": fit(dataset, Recipe(kinds=("points",), **recipe), out=folder / "a"),
            "masks": fit(dataset, Recipe(kinds=("masks",), **recipe), out=folder / "b"),
        }


class Page(HTMLParser):
    """Checks nesting; collects tags, text and images."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.attributes if name == tag]


def written(runs, path):
    report_of(runs, path)
    text = path.read_text()
    return text, Page(text)


@pytest.fixture(scope="module")
def both(runs, tmp_path_factory):
    return written(runs, tmp_path_factory.mktemp("both") / "report.html")


@pytest.fixture(scope="module")
def single(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    return written({"points": runs["points"]}, folder / "report.html")


@pytest.mark.parametrize("name", ["both", "single"])
def test_page_is_whole_and_loads_nothing(name, request):
    text, page = request.getfixturevalue(name)
    assert page.open == []
    for tag, attributes in page.attributes:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(key) or "data:").startswith("data:"), (tag, attributes)
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 8_000_000


def test_every_picture_says_what_it_is_and_is_one(both):
    pictures = [a for a in both[1].of("img") if "src" in a]
    # 3 labelled training images with points x 8 pictures or fewer, 1 with masks, 2 measured
    assert len(pictures) == 3 * 7 + 1 * 8 + 2 * 4
    for one in pictures:
        assert one["src"].startswith("data:image/jpeg;base64,/9j/")
        assert "of site/" in one["alt"]
        assert (int(one["width"]), int(one["height"])) == (64, 48)


def test_runs_and_their_figures(runs, both, single):
    text, page = both
    words = " ".join(page.words)
    for name, fitted in runs.items():
        assert name in page.words
        for value in fitted.miou.values():
            assert f"{100 * value:.1f}" in page.words
        gain = fitted.miou["weakseg"] - fitted.miou["cross_entropy"]
        assert f"{100 * gain:+.1f}".replace("-", "−") in page.words
    for value in runs["points"].iou["weakseg"].values():
        assert ("–" if value is None else f"{100 * value:.1f}") in single[1].words
    assert "Classifier, round 1" in page.words
    assert "Baseline: plain cross-entropy" in page.words
    assert "long_side: 64" in words
    assert "% right" in words
    assert text.count("<svg") == 2 * 4


def test_names_are_escaped(both):
    text, page = both
    for name in (*CLASSES[:3], "discs & bars", "site/4 <i>"):
        assert name in page.words or any(name in word for word in page.words)
    assert "<b>disc" not in text
    assert "<i>of" not in text


def test_notes_warn(both, single):
    words = " ".join(single[1].words)
    assert "No training image has a label of never" in words
    assert "1 of 4 training images without a label" in words
    assert "Measured on 2 images only" in words
    # In a page of two runs, what concerns one of them names it.
    assert "masks: 3 of 4 training images without a label" in " ".join(both[1].words)


def test_legend_lists_the_classes_on_the_pictures(single):
    text, _ = single
    legend = text[text.index('class="legend"') : text.index('id="measured"')]
    assert re.findall(r"background:#(\w{6})", legend)[:3] == [
        bytes(colour).hex() for colour in palette(3)
    ]


def test_page_of_a_run_without_truth(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("WEAKSEG_CACHE", str(tmp_path / "cache"))
    recipe = Recipe(
        steps=1, classifier_steps=1, rounds=0, regions="none", long_side=64, device="cpu",
        regime="frozen",
    )  # fmt: skip
    fitted = fit(dataset.subset(range(3)), recipe, out=tmp_path / "run")
    text, page = written({"run": fitted}, tmp_path / "report.html")
    assert page.open == []
    assert "nothing could be measured" in " ".join(page.words)
    assert "Measured images" not in page.words
    assert 'id="classes"' not in text
    assert "Pseudo-mask" not in re.findall(r"<figcaption>([\w-]+)", text)


def test_large_pages_get_smaller_pictures(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "ENCODINGS", ((64, 90), (32, 50)))
    monkeypatch.setattr(page_module, "LARGEST", 1)
    _, page = written({"points": runs["points"]}, tmp_path / "report.html")
    assert {a["width"] for a in page.of("img") if "src" in a} == {"32"}


def test_nothing_is_left_of_a_page_that_cannot_be_written(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        report_of({"points": runs["points"]}, tmp_path / "file" / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_report_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="needs a run"):
        report_of({}, tmp_path / "report.html")
