import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg import pseudo_masks
from weakseg.annotation import Annotation, Box, Point, Scribble
from weakseg.crf import dense_crf
from weakseg.dataset_info import DatasetInfo
from weakseg.propagate import random_walk
from weakseg.pseudo_masks import UNMARKED, class_places, class_prior, pseudo_mask

CLASSES = ("water", "coral", "sand", "kelp")
U = UNMARKED


def info(**rules):
    return DatasetInfo("reef", CLASSES, **({"background": "water"} | rules))


def points(*names):
    return tuple(Point(name, (i, i)) for i, name in enumerate(names))


def boxes(*names):
    return tuple(Box(name, (i, i, i + 2, i + 2)) for i, name in enumerate(names))


def scribbles(*names):
    return tuple(Scribble(name, ((0, i), (5, i))) for i, name in enumerate(names))


@pytest.mark.parametrize(
    ("labels", "rules", "expected"),
    [
        ({}, {}, [1, 1, 1, 1]),
        # Exhaustive tags exclude what they do not name; background need not be named.
        ({"tags": ("coral",)}, {}, [1, 1, 0, 0]),
        ({"tags": ("coral",)}, {"background": None}, [0, 1, 0, 0]),
        ({"tags": ("coral",)}, {"tags_exhaustive": False}, [1, 1, 1, 1]),
        ({"tags": ("water",)}, {}, [1, 0, 0, 0]),
        # So do exhaustive boxes, and boxes are not exhaustive unless the data set says so.
        ({"boxes": boxes("coral", "coral")}, {}, [1, 1, 1, 1]),
        ({"boxes": boxes("coral", "kelp")}, {"boxes_exhaustive": True}, [1, 1, 0, 1]),
        # A class that another label shows is never excluded.
        ({"tags": ("coral",), "points": points("sand")}, {}, [1, 1, 1, 0]),
        ({"tags": ("coral",), "boxes": boxes("kelp")}, {}, [1, 1, 0, 1]),
        (
            {"tags": ("coral",), "boxes": boxes("kelp")},
            {"boxes_exhaustive": True},
            [1, 1, 0, 1],
        ),
        # Marks of one class alone say nothing about the others.
        ({"points": points("coral")}, {}, [1, 1, 1, 1]),
        ({"points": points("coral", "coral")}, {}, [1, 1, 1, 1]),
        ({"scribbles": scribbles("coral"), "points": points("coral")}, {}, [1, 1, 1, 1]),
        # Marks of several make the rest unlikely, background too.
        ({"points": points("coral", "sand")}, {}, [U, 1, 1, U]),
        ({"scribbles": scribbles("water"), "points": points("coral")}, {}, [1, 1, U, U]),
        ({"points": points("water", "coral"), "boxes": boxes("kelp")}, {}, [1, 1, U, 1]),
        ({"points": points("water", "coral"), "tags": ("kelp",)}, {}, [1, 1, 0, 1]),
        (
            {"points": points("water", "coral"), "tags": ("kelp",)},
            {"tags_exhaustive": False},
            [1, 1, U, 1],
        ),
        # A full mask keeps its own pixels, it excludes nothing.
        ({"mask": np.ones((4, 4), np.uint8)}, {}, [1, 1, 1, 1]),
    ],
)
def test_what_labels_say_about_the_classes_of_an_image(labels, rules, expected):
    prior = class_prior(Annotation(**labels), info(**rules))
    assert prior.dtype == np.float32
    assert prior.tolist() == pytest.approx(expected)


names = st.lists(st.sampled_from(CLASSES), max_size=3)


@settings(deadline=None)
@given(tags=names, boxed=names, marked=names, tags_rule=st.booleans(), boxes_rule=st.booleans())
def test_a_class_that_a_label_names_is_never_held_back(tags, boxed, marked, tags_rule, boxes_rule):
    labels = Annotation(tags=tuple(tags), boxes=boxes(*boxed), points=points(*marked))
    prior = class_prior(labels, info(tags_exhaustive=tags_rule, boxes_exhaustive=boxes_rule))
    assert all(prior[CLASSES.index(name)] == 1 for name in labels.labels)
    assert ((prior >= 0) & (prior <= 1)).all()
    assert prior.any()


def halves(height=24, width=36):
    """A photograph with a dark left and a bright right half, a bit noisy."""
    rng = np.random.default_rng(0)
    image = np.full((height, width, 3), 60.0)
    image[:, width // 2 :] = 190
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def left_right(height, width, left, right):
    """(2, h, w) scores: these two vectors in the left and right halves."""
    scores = torch.tensor(left, dtype=torch.float32)[:, None, None].repeat(1, height, width)
    scores[:, :, width // 2 :] = torch.tensor(right, dtype=torch.float32)[:, None, None]
    return scores


def test_scores_on_a_coarse_grid_become_a_mask_of_full_size():
    scores = left_right(3, 4, [0.9, 0.1], [0.2, 0.8])
    mask, confidence = pseudo_mask(halves(), scores, crf=False)
    assert mask.shape == confidence.shape == (24, 36)
    assert mask.dtype == np.uint8
    assert confidence.dtype == np.float32
    assert (mask[:, :13] == 0).all()
    assert (mask[:, 23:] == 1).all()
    assert confidence[0, 0] == pytest.approx(0.9)
    assert confidence[0, -1] == pytest.approx(0.8)


def test_the_crf_moves_the_border_to_the_edge_of_the_photograph():
    image = halves()
    scores = left_right(6, 9, [0.7, 0.3], [0.3, 0.7])  # 9 columns: 4 to the left, 5 to the right
    coarse, _ = pseudo_mask(image, scores, crf=False)
    sharp, confidence = pseudo_mask(image, scores, crf=True)
    truth = np.repeat([[0] * 18 + [1] * 18], 24, axis=0)
    assert (coarse != truth).mean() > 0.03
    assert (sharp == truth).all()
    assert ((confidence > 0.5) & (confidence <= 1)).all()


@pytest.mark.parametrize(
    ("size", "seen"), [((240, 360), (167, 250)), ((600, 300), (250, 125)), ((24, 36), (24, 36))]
)
def test_the_crf_sees_a_photograph_of_250_pixels_at_most(monkeypatch, size, seen):
    shapes = []

    def watched(image, probabilities, **settings):
        shapes.append((image.shape, tuple(probabilities.shape)))
        return dense_crf(image, probabilities, **settings)

    monkeypatch.setattr(pseudo_masks, "dense_crf", watched)
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 200
    scores = left_right(6, 9, [0.7, 0.3], [0.3, 0.7])
    mask, _ = pseudo_mask(image, scores)
    assert shapes == [((*seen, 3), (2, *seen))]
    assert mask.shape == size
    wrong = mask != (np.arange(width) >= width // 2)
    assert wrong.mean() < 0.01, "the border follows the edge, to a pixel of the small photograph"


def test_the_walk_carries_scores_to_where_the_embedding_is_alike():
    scores = torch.zeros(2, 6, 8)
    scores[0, 2, 1] = scores[1, 3, 6] = 1
    embeddings = left_right(6, 8, [1, 0], [0, 1])
    mask, _ = pseudo_mask(halves(), scores, embeddings=embeddings, crf=False)
    assert (mask[:, :15] == 0).all()
    assert (mask[:, 21:] == 1).all()


def test_scores_and_embedding_may_be_on_other_grids():
    scores = left_right(3, 4, [0.9, 0.1], [0.1, 0.9])
    embeddings = left_right(7, 11, [1, 0], [0, 1])
    mask, _ = pseudo_mask(halves(), scores, embeddings=embeddings)
    assert (mask[:, 2] == 0).all()
    assert (mask[:, -3] == 1).all()


@pytest.mark.parametrize("crf", [True, False])
def test_seeds_keep_their_class(crf):
    seeds = np.full((24, 36), 2, np.int32)  # unlabelled
    seeds[3:6, 20:30] = 0
    seeds[10, 0] = 1
    seeds[20:, :] = 255  # ignored: not a class either
    scores = left_right(3, 4, [0.9, 0.1], [0.1, 0.9])
    mask, confidence = pseudo_mask(halves(), scores, seeds=seeds, crf=crf)
    assert (mask[3:6, 20:30] == 0).all()
    assert mask[10, 0] == 1
    assert (confidence[seeds < 2] == 1).all()
    assert set(np.unique(mask)) <= {0, 1}


CORAL = Box("coral", (4, 2, 20, 12))


@pytest.mark.parametrize(
    ("boxes", "exhaustive", "expected"),
    [
        ((CORAL,), True, {1: 16 * 10}),
        ((CORAL, Box("coral", (10, 2, 30, 12))), True, {1: 26 * 10}),
        ((CORAL, Box("kelp", (0, 0, 36, 24))), True, {1: 16 * 10, 3: 36 * 24}),
        ((CORAL,), False, {}),
        ((), True, {}),
    ],
)
def test_boxes_say_where_their_classes_can_be(boxes, exhaustive, expected):
    labels = Annotation(boxes=boxes)
    places = class_places(labels, info(boxes_exhaustive=exhaustive), (24, 36))
    assert {index: int(place.sum()) for index, place in places.items()} == expected
    assert all(place.shape == (24, 36) for place in places.values())


@pytest.mark.parametrize("crf", [True, False])
def test_a_class_appears_nowhere_but_where_it_can_be(crf):
    scores = torch.ones(4, 6, 9)
    scores[1] = 20  # coral everywhere
    places = class_places(Annotation(boxes=(CORAL,)), info(boxes_exhaustive=True), (24, 36))
    mask, confidence = pseudo_mask(halves(), scores, places=places, crf=crf)
    assert (mask[places[1]] == 1).mean() > 0.7
    assert not (mask[~places[1]] == 1).any()
    assert (confidence > 0).all()


@pytest.mark.parametrize("embeddings", [None, torch.ones(2, 6, 9)])
def test_the_class_of_a_box_reaches_its_sides_however_unlikely_it_was(embeddings):
    scores = torch.full((40, 6, 9), 0.98 / 39)
    scores[1] = 0.02
    given = {"embeddings": embeddings, "crf": False}
    assert not (pseudo_mask(halves(), scores, **given)[0] == 1).any()
    box = (1, slice(4, 20), slice(8, 28))
    mask, _ = pseudo_mask(halves(), scores, boxes=[box], **given)
    assert (mask[4:20, 8:28] == 1).any(axis=1).mean() >= 0.7  # the edges of the grid are blurred
    assert (mask[4:20, 8:28] == 1).any(axis=0).mean() >= 0.7
    assert not (mask[:, :4] == 1).any()


def test_pixels_where_no_class_can_be_are_unlabelled():
    place = np.zeros((24, 36), bool)
    place[:, :10] = True
    mask, confidence = pseudo_mask(halves(), torch.ones(1, 3, 4), places={0: place})
    np.testing.assert_array_equal(mask, np.where(place, 0, 1))
    assert (confidence[~place] == 0).all()


def test_classes_without_a_score_do_not_appear():
    scores = torch.zeros(5, 3, 4)
    scores[[1, 3]] = left_right(3, 4, [0.6, 0.4], [0.4, 0.6])
    mask, confidence = pseudo_mask(halves(), scores)
    assert set(np.unique(mask)) == {1, 3}
    assert confidence.min() >= 0.5


def test_tiny_scores_still_say_which_class_is_likeliest():
    scores = torch.full((3, 3, 4), 1e-6)
    scores[2] = 1e-5
    mask, _ = pseudo_mask(halves(), scores)
    assert (mask == 2).all()


def test_an_image_of_which_nothing_is_known_stays_unlabelled():
    seeds = np.full((24, 36), 3, np.int32)
    seeds[1, 2] = 1
    for embeddings in (None, left_right(3, 4, [1, 0], [0, 1])):
        mask, confidence = pseudo_mask(
            halves(), torch.zeros(3, 3, 4), embeddings=embeddings, seeds=seeds
        )
        assert mask[1, 2] == 1
        assert confidence[1, 2] == 1
        assert (np.delete(mask, 1 * 36 + 2) == 3).all()
        assert confidence.sum() == 1


def test_one_class_needs_no_crf():
    mask, confidence = pseudo_mask(halves(), torch.rand(1, 3, 4) + 0.1)
    assert (mask == 0).all()
    assert confidence == pytest.approx(1)


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (2, 500)])
@pytest.mark.parametrize("grid", [(1, 5), (5, 1), (1, 1)])
def test_thin_images(size, grid):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    scores, embeddings = torch.rand(3, *grid), torch.randn(4, *grid)
    mask, confidence = pseudo_mask(image, scores, embeddings=embeddings)
    assert mask.shape == confidence.shape == size
    assert mask.max() < 3
    assert np.isfinite(confidence).all()


@pytest.mark.parametrize("classes", [3, 30, 200])
def test_no_class_that_could_win_is_left_out_early(classes):
    random = torch.Generator().manual_seed(classes)
    scores = torch.rand(classes, 6, 9, generator=random) ** 4 * 0.01
    embeddings = torch.randn(3, 6, 9, generator=random)
    walked = random_walk(embeddings, scores)
    full = F.interpolate(walked[None], (24, 36), mode="bilinear")[0]
    mask, _ = pseudo_mask(halves(), scores, embeddings=embeddings, crf=False)
    best = full.gather(0, torch.from_numpy(mask).long()[None])[0]
    assert torch.allclose(best, full.amax(0), rtol=1e-4)
    assert len(np.unique(mask)) > 1
