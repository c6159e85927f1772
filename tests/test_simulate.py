from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.draw import line

from weakseg.annotation import Annotation
from weakseg.dataset import Dataset, DatasetInfo
from weakseg.errors import InputError
from weakseg.seeds import seed_map
from weakseg.simulate import Annotator, simulate_dataset, simulate_labels

CLASSES = ("background", "coral", "sponge")
INFO = DatasetInfo("reef", CLASSES, "background")
ALL = ("scribbles", "points", "boxes", "tags")


def _scene() -> np.ndarray:
    """A disc, a bent bar, a small blob, an ignored strip and an unlabelled corner."""
    y, x = np.mgrid[:120, :160]
    mask = np.zeros((120, 160), np.uint8)
    mask[(x - 40) ** 2 + (y - 40) ** 2 < 25**2] = 1
    mask[20:28, 90:150] = 2
    mask[20:90, 142:150] = 2
    mask[100:104, 20:24] = 2
    mask[110:120] = 255
    mask[:10, :10] = 3
    return mask


def test_each_piece_gets_its_labels() -> None:
    made = simulate_labels(_scene(), INFO, ALL)
    assert made.tags == ("coral", "sponge")
    found = sorted((box.label, box.xyxy) for box in made.boxes)
    assert found == [
        ("coral", (16, 16, 65, 65)),
        ("sponge", (20, 100, 24, 104)),
        ("sponge", (90, 20, 150, 90)),
    ]
    # The small blob is not worth a mark, as its class has a larger piece.
    assert sorted(p.label for p in made.points) == ["background", "coral", "sponge"]
    assert sorted(s.label for s in made.scribbles) == ["background", "coral", "sponge"]
    every = simulate_labels(_scene(), INFO, ALL, annotator=Annotator(smallest=0))
    assert len(every.points) == len(every.scribbles) == 4


def _leaves_its_class(made: Annotation, mask: np.ndarray) -> bool:
    """Whether a point or the middle of a stroke lies on a pixel of another class."""
    lines = [(p.label, p.xy, p.xy) for p in made.points]
    lines += [(s.label, a, b) for s in made.scribbles for a, b in pairwise(s.xy)]
    return any(
        (mask[line(int(y0), int(x0), int(y1), int(x1))] != CLASSES.index(label)).any()
        for label, (x0, y0), (x1, y1) in lines
    )


@given(st.integers(0, 10**6), st.floats(0.01, 1), st.floats(0, 5), st.floats(0, 1))
@settings(max_examples=12, deadline=None)
def test_marks_stay_in_their_pieces(seed: int, length: float, wobble: float, centre: float) -> None:
    annotator = Annotator(length=length, wobble=wobble, centre=centre, width=1, smallest=0)
    made = simulate_labels(_scene(), INFO, ALL, annotator=annotator, seed=seed)
    assert not made.validate(160, 120, CLASSES)
    assert not _leaves_its_class(made, _scene())


@given(st.integers(0, 10**6), st.floats(0.2, 0.95))
@settings(max_examples=12, deadline=None)
def test_any_mask_will_do(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(30, 40)), 2)
    mask = np.where(smooth > np.quantile(smooth, share), 1, 0).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.02] = 2
    made = simulate_labels(mask, INFO, ALL, annotator=Annotator(width=1, smallest=0), seed=seed)
    assert not made.validate(40, 30, CLASSES)
    assert not _leaves_its_class(made, mask)


def test_the_longer_the_stroke_the_more_it_labels() -> None:
    def labelled(length: float) -> int:
        made = simulate_labels(_scene(), INFO, ["scribbles"], annotator=Annotator(length))
        return int((seed_map(made, INFO, (120, 160)) < 3).sum())

    counts = [labelled(length) for length in (0.1, 0.3, 0.6, 1.0)]
    assert counts == sorted(counts)
    assert counts[-1] > 3 * counts[0]


def test_strokes_wobble_about_the_medial_line() -> None:
    mask = np.zeros((60, 400), np.uint8)
    mask[10:50, 5:395] = 1
    for wobble, low, high in ((0, 0, 0.5), (2, 0.8, 4)):
        annotator = Annotator(length=1, wobble=wobble)
        made = simulate_labels(mask, INFO, ["scribbles"], annotator=annotator)
        (stroke,) = [s for s in made.scribbles if s.label == "coral"]
        x, y = np.array(stroke.xy).T
        order = np.argsort(x, kind="stable")
        rows = np.interp(np.arange(60, 340), x[order], y[order])
        assert low <= np.std(rows) <= high


def test_clicks_favour_the_centre() -> None:
    mask = np.zeros((81, 81), np.uint8)
    mask[1:80, 1:80] = 1

    def distance(centre: float) -> float:
        clicks = [
            simulate_labels(mask, INFO, ["points"], annotator=Annotator(centre=centre), seed=s)
            for s in range(40)
        ]
        xy = np.array([p.xy for c in clicks for p in c.points if p.label == "coral"])
        return float(np.abs(xy - 40).max(axis=1).mean())

    anywhere, often, always = (distance(centre) for centre in (0, 0.7, 1))
    assert anywhere > 20
    assert 3 < often < 15
    assert always == 0


def test_boxes_may_be_loose() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[50:150, 80:120] = 1
    sizes = []
    for seed in range(40):
        annotator = Annotator(loose=0.2)
        made = simulate_labels(mask, INFO, ["boxes"], annotator=annotator, seed=seed)
        x0, y0, x1, y1 = made.boxes[0].xyxy
        assert 72 <= x0 <= 82
        assert 30 <= y0 <= 54
        sizes.append((x1 - x0, y1 - y0))
    assert np.mean(sizes, axis=0) == pytest.approx([40 * 1.16, 100 * 1.16], rel=0.05)


def test_tags_may_be_missed_those_of_small_objects_first() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:, :81] = 1
    mask[:2, 90:92] = 2
    tags = [
        tag
        for seed in range(200)
        for tag in simulate_labels(
            mask, INFO, ["tags"], annotator=Annotator(missed=0.3), seed=seed
        ).tags
    ]
    assert tags.count("coral") > 170
    assert 110 < tags.count("sponge") < 165


def test_kinds_do_not_influence_each_other() -> None:
    alone = simulate_labels(_scene(), INFO, ["points"], seed=5)
    together = simulate_labels(_scene(), INFO, ALL, seed=5)
    assert alone.points == together.points
    assert simulate_labels(_scene(), INFO, ["points"], seed=6).points != alone.points


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "stroke without width or length"),
        ({"length": 1.5}, r"length: found 1.5; expected 0..1"),
        ({"wobble": -1}, "wobble: found -1; expected 0 or more"),
        ({"centre": float("nan")}, "centre: found nan"),
        ({"missed": 2}, "missed"),
        ({"width": 0}, "stroke without width"),
    ],
)
def test_impossible_annotators(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Annotator(**change)  # type: ignore[arg-type]


def _dataset(folder: Path) -> Path:
    picture = np.zeros((120, 160, 3), np.uint8)
    Dataset.from_arrays(
        [picture] * 4,
        [Annotation(tags=("coral",), points=()), Annotation(), Annotation(), Annotation()],
        CLASSES,
        background="background",
        masks=[_scene(), _scene(), None, _scene()],
        splits=["train", "train", "train", "val"],
    ).save(folder)
    return folder


def test_a_data_set(tmp_path: Path) -> None:
    source = _dataset(tmp_path / "reef")
    made, without = simulate_dataset(source, tmp_path / "a", ["points", "boxes"], seed=3)
    assert without == 1
    first, second, third, val = made
    assert first.annotation.tags == ("coral",)  # stays
    assert first.annotation.kinds == {"masks", "tags", "points", "boxes"}
    assert first.annotation.points != second.annotation.points
    assert not third.annotation.kinds
    assert val.annotation.kinds == {"masks"}
    again, _ = simulate_dataset(source, tmp_path / "b", ["boxes", "points"], seed=3, split=None)
    assert again[1].annotation.to_dict() == second.annotation.to_dict()
    assert again[3].annotation.kinds == {"masks", "points", "boxes"}


def test_what_cannot_be_simulated_is_refused(tmp_path: Path) -> None:
    source = _dataset(tmp_path / "reef")
    for kinds in ([], ["masks"], ["lines"]):
        with pytest.raises(InputError):
            simulate_dataset(source, tmp_path / "out", kinds)
    with pytest.raises(InputError, match="no masks to simulate"):
        simulate_dataset(source, tmp_path / "out", ["points"], split="test")
    with pytest.raises(InputError, match="cannot replace itself"):
        simulate_dataset(source, source, ["points"], overwrite=True)
    assert not (tmp_path / "out").exists()
