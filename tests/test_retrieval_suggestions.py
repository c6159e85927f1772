"""What an index suggests: doubtful labels, images to label next, near-duplicates."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_segments import made
from PIL import Image

from weakseg.retrieval import Index
from weakseg.retrieval.duplicates import near_duplicates
from weakseg.retrieval.label_errors import label_errors
from weakseg.retrieval.label_next import greedy, label_next, nearest_cosine
from weakseg.retrieval.suggestions import (
    DUPLICATE,
    ERROR,
    NEXT,
    suggestions_of,
    suggestions_page,
)
from weakseg.retrieval.writer import IndexWriter


def around(centre, count, rng, spread=0.1):
    vectors = np.eye(8)[centre] + spread * rng.normal(size=(count, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_wrong_label_among_right_ones_is_found():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([around(0, 40, rng), around(1, 40, rng)])
    labels = np.repeat([3, 5], 40)
    labels[[7, 60]] = 5, 3
    images = np.arange(80) % 20
    first, second, *rest = label_errors(vectors, labels, images)
    assert {first.row, second.row} == {7, 60}
    assert rest == []
    wrong = first if first.row == 7 else second
    assert (wrong.label, wrong.instead) == (5, 3)
    assert wrong.own <= 0.05 < 0.9 <= wrong.other


def test_an_image_does_not_vouch_for_itself():
    rng = np.random.default_rng(0)
    vectors = around(0, 60, rng)
    labels = np.full(60, 1)
    labels[:10] = 2  # one image, wrong throughout
    images = np.concatenate([np.zeros(10, int), np.arange(1, 51)])
    assert {doubt.row for doubt in label_errors(vectors, labels, images)} == set(range(10))


@pytest.mark.parametrize("count", [0, 1])
def test_few_labels_raise_no_doubt(count):
    assert (
        label_errors(np.eye(8, dtype=np.float32)[:count], np.arange(count), np.arange(count)) == []
    )


def test_what_no_label_is_near_to_is_proposed_one_of_each():
    rng = np.random.default_rng(0)
    # Images 0..4 are labelled and show 0; of the others, eight show 0 too, four each 1, 2 and 3.
    shows = [0] * 13 + [1] * 4 + [2] * 4 + [3] * 4
    vectors = np.concatenate([around(s, 12, rng, 0.05) for s in shows])
    images = np.repeat(np.arange(len(shows)), 12)
    labelled = (images < 5) & (np.arange(len(images)) % 12 == 0)
    proposals = label_next(vectors, np.ones(len(images), int), images, labelled, 3)
    assert sorted(shows[p.image] for p in proposals) == [1, 2, 3]
    for p in proposals:
        assert {int(images[row]) for row in p.rows} == {p.image}
        assert p.distance > 0.5
    gains = [p.gain for p in proposals]
    assert gains == sorted(gains, reverse=True)
    everything = label_next(vectors, np.ones(len(images), int), images, labelled, 1000)
    assert sorted(p.image for p in everything) == list(range(5, len(shows)))


def test_where_every_image_has_a_label_any_is_proposed():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([around(0, 12, rng), around(0, 6, rng), around(1, 6, rng)])
    images = np.repeat([0, 1], 12)
    labelled = np.arange(24) % 12 == 0
    (proposal,) = label_next(vectors, np.ones(24, int), images, labelled, 1)
    assert proposal.image == 1
    assert min(proposal.rows) >= 18
    assert label_next(vectors, np.ones(24, int), images, np.ones(24, bool), 1) == []


def test_without_any_label_proposals_differ():
    rng = np.random.default_rng(0)
    shows = [0] * 10 + [1] * 3 + [2] * 3
    vectors = np.concatenate([around(s, 12, rng, 0.05) for s in shows])
    images = np.repeat(np.arange(len(shows)), 12)
    proposals = label_next(
        vectors, np.ones(len(images), int), images, np.zeros(len(images), bool), 3
    )
    assert len({shows[p.image] for p in proposals}) == 3


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 12), st.integers(0, 50))
def test_greedy_takes_the_largest_gain_each_time(images, clusters, top, seed):
    shown = np.random.default_rng(seed).random((images, clusters))
    chosen = greedy(shown, top)
    assert len({image for image, _, _ in chosen}) == min(top, images)
    have = np.zeros(clusters)
    left = set(range(images))
    for image, gain, parts in chosen:
        best = max(np.sqrt(have + shown[i]).sum() for i in left) - np.sqrt(have).sum()
        assert gain == pytest.approx(best)
        assert parts.sum() == pytest.approx(gain)
        have += shown[image]
        left.remove(image)


def test_nearest_cosine():
    rng = np.random.default_rng(0)
    a, b = around(0, 30, rng, 1), around(1, 5, rng, 1)
    np.testing.assert_allclose(nearest_cosine(a, b), (a @ b.T).max(1).clip(0), atol=1e-6)
    assert (nearest_cosine(a, b[:0]) == 0).all()


def photograph(seed, size=(90, 120)):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.fixture
def album(tmp_path):
    """Eight photographs: `again` is `0` recompressed, `turned` is `1` mirrored."""
    pictures = {f"{i}": photograph(i) for i in range(6)}
    pictures["again"] = pictures["0"].resize((80, 60))
    pictures["turned"] = pictures["1"].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    like = {"again": "0", "turned": "1"}
    with IndexWriter(tmp_path / "i", dim=8, model="m") as writer:
        for name, picture in pictures.items():
            picture.save(tmp_path / f"{name}.jpg", quality=80)
            image = vars(made(like.get(name, name))) | {"name": name, "stamp": ""}
            image["file"] = str(tmp_path / f"{name}.jpg")
            if name == "turned":
                image["index"] = image["index"][:, ::-1]
            writer.add(type(made("x"))(**image))
    return tmp_path


def test_near_duplicates_are_found_mirrored_ones_too(album):
    pairs = near_duplicates(Index.open(album / "i"), 10)
    assert {frozenset(pair[:2]) for pair in pairs} == {
        frozenset({"0", "again"}),
        frozenset({"1", "turned"}),
    }
    assert all(pair.correlation > 0.95 for pair in pairs)


def test_photographs_that_are_gone_are_left_out(album):
    (album / "again.jpg").unlink()
    (album / "1.jpg").write_bytes(b"?")
    assert near_duplicates(Index.open(album / "i"), 10) == []


def test_one_image_has_no_duplicate(tmp_path):
    with IndexWriter(tmp_path, dim=8, model="m") as writer:
        writer.add(made("a"))
    assert near_duplicates(Index.open(tmp_path), 10) == []


def test_suggestions_name_segments_of_their_images(album):
    index = Index.open(album / "i")
    suggestions = suggestions_of(index, 3)
    assert {s.kind for s in suggestions} >= {NEXT, DUPLICATE}
    for kind in (NEXT, ERROR, DUPLICATE):
        assert sum(s.kind == kind for s in suggestions) <= 3
    for s in suggestions:
        assert set(s.segments) <= set(index.image(s.image).segment.tolist())
        assert json.loads(json.dumps(s.to_dict()))["image"] == s.image
        assert s.segments
        assert s.reason


def test_suggestions_of_an_empty_index(tmp_path):
    with IndexWriter(tmp_path / "i", dim=8, model="m"):
        pass
    index = Index.open(tmp_path / "i")
    assert suggestions_of(index) == []
    suggestions_page(tmp_path / "page.html", index, [])
    assert "None were found" in (tmp_path / "page.html").read_text()


def test_the_page_shows_them(album):
    index = Index.open(album / "i")
    suggestions = suggestions_of(index, 3)
    (album / f"{suggestions[0].image}.jpg").unlink()
    suggestions_page(album / "page.html", index, suggestions)
    page = (album / "page.html").read_text()
    for s in suggestions:
        assert s.reason.partition("(")[0] in page
    assert page.count("data:image/jpeg") >= len(suggestions) - 1
    assert "no such file" in page
    assert 'src="http' not in page
