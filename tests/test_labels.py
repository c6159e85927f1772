from dataclasses import replace

import numpy as np
import pytest
from small_scenes import CLASSES, scenes

from weakseg.annotation import Annotation, Area, Box, Point, Scribble
from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.pseudo_masks import UNMARKED
from weakseg.seeds import ClassMaps
from weakseg.training.labels import Labels, chosen_kinds
from weakseg.training.recipe import Recipe

ALL = ("scribbles", "points", "boxes", "tags")
MASK = np.zeros((20, 30), np.uint8)
MASK[5:9, 5:9] = 2
FULL = Annotation(
    tags=("disc",),
    boxes=(Box("disc", (2, 2, 12, 12)),),
    points=(Point("square", (20, 10)), Point("background", (28, 18))),
    scribbles=(Scribble("disc", ((4, 4), (8, 4))),),
    mask=MASK,
    ignore=(Area(xyxy=(0, 0, 3, 20)),),
)


def labels_of(*annotations, kinds=ALL, mix=False, **rules):
    images = [np.zeros((20, 30, 3), np.uint8) for _ in annotations]
    dataset = Dataset.from_arrays(images, annotations, CLASSES, background="background", **rules)
    return Labels(dataset, Recipe(kinds=kinds, mix=mix, point_radius=2))


@pytest.mark.parametrize(
    ("asked", "in_turn", "expected"),
    [
        ((), False, ALL),
        ((), True, ALL),
        (("tags", "points"), False, ("points", "tags")),
        # Images take turns in the order in which kinds are listed.
        (("tags", "points"), True, ("tags", "points")),
        (("points", "points"), True, ("points",)),
        (("masks", "points"), False, ("masks", "points")),
    ],
)
def test_which_kinds_count_and_in_what_order(asked, in_turn, expected):
    labels = labels_of(FULL)
    assert chosen_kinds(labels.dataset, asked, in_turn=in_turn) == expected


def test_kinds_that_are_missing_are_named():
    labels = labels_of(Annotation(points=(Point("disc", (1, 1)),)))
    with pytest.raises(InputError, match=r"--kinds.*found boxes, tags; expected.*points"):
        chosen_kinds(labels.dataset, ("points", "boxes", "tags"))


@pytest.mark.parametrize(
    ("kinds", "classes", "prior"),
    [
        (("points",), {"background", "square"}, [1, UNMARKED, 1]),
        (("scribbles",), {"disc"}, [1, 1, 1]),
        (("tags",), {"disc"}, [1, 1, 0]),
        (("boxes",), {"disc"}, [1, 1, 1]),
        (ALL, {"background", "disc", "square"}, [1, 1, 1]),
        # A mask tells which classes there are by its values.
        (("masks",), {"background", "square"}, [1, 1, 1]),
    ],
)
def test_only_the_chosen_kinds_count(kinds, classes, prior):
    labels = labels_of(FULL, Annotation(), kinds=kinds)
    assert labels.annotation(0).kinds == set(kinds)
    assert {CLASSES[i] for i in np.flatnonzero(labels.tags[0])} == classes
    assert labels.prior(0).tolist() == pytest.approx(prior)
    assert not labels.tags[1].any()
    assert labels.prior(1).tolist() == [1, 1, 1]


def test_seeds_of_points_are_discs_and_ignored_areas_stay_ignored():
    seeds = labels_of(FULL, kinds=("points",)).seeds(0)
    assert seeds.shape == (20, 30)
    assert seeds[10, 20] == seeds[10, 22] == 2
    assert seeds[10, 23] == 3  # beyond the radius: unlabelled
    assert seeds[18, 28] == 0
    assert (seeds[:, :3] == 255).all()


def test_boxes_and_tags_wait_for_class_maps():
    labels = labels_of(FULL, kinds=("boxes", "tags"))
    assert labels.needs_cam()
    assert set(np.unique(labels.seeds(0))) == {3, 255}
    assert (labels.seeds(0, fill_boxes=True)[3:11, 3:11] == 1).all()
    scores = np.zeros((1, 20, 30), np.float32)
    scores[0, 4:6, 4:8] = 1
    labels.cam_of = lambda index: ClassMaps((1,), scores)
    seeds = labels.seeds(0)
    assert (seeds[4:6, 4:8] == 1).all()
    assert (seeds[15:, 15:] == 0).all()  # no tag says otherwise


def test_class_maps_are_not_asked_for_where_nothing_needs_them():
    labels = labels_of(FULL, kinds=("points", "scribbles"))
    assert not labels.needs_cam()

    def never(index):
        raise AssertionError(index)

    labels.cam_of = never
    labels.seeds(0)


@pytest.mark.parametrize(
    ("kinds", "used"),
    [
        (("points", "tags", "masks"), ["points", "tags", "masks", "points"]),
        (("tags", "points"), ["tags", "points", "tags", "points"]),
    ],
)
def test_mixed_images_take_turns_in_the_listed_order(kinds, used):
    labels = labels_of(FULL, FULL, FULL, FULL, kinds=kinds, mix=True)
    assert [labels.annotation(i).kinds for i in range(4)] == [{kind} for kind in used]


def test_mixed_data_sets_know_each_image_by_its_own_kind():
    train = scenes(4, 0).split("train")
    labels = Labels(train, replace(Recipe(), kinds=ALL, mix=True))
    assert labels.sizes.tolist() == [[128, 160]] * 4
    assert labels.tags.shape == (4, 3)
    # Marks name the background, boxes and tags do not.
    assert labels.tags[:, 0].tolist() == [True, True, False, False]


def test_a_mask_that_does_not_fit_is_an_input_error(tmp_path):
    dataset = scenes(2, 1).save(tmp_path)
    (file,) = (tmp_path / "masks").glob("*.png")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match="masks"):
        Labels(dataset.split("val"), Recipe(kinds=("masks",)))


@pytest.mark.parametrize(
    ("kinds", "images", "lacking", "expected"),
    [
        (("tags",), 20, 0, ["disc"]),
        (("tags",), 20, 1, ["disc"]),
        (("tags",), 20, 2, []),
        (("tags",), 9, 0, []),
        (("points", "tags"), 20, 0, []),
    ],
)
def test_classes_that_every_image_has_are_known_to_be_hard(kinds, images, lacking, expected):
    common, other = Annotation(tags=("disc", "background")), Annotation(tags=("square",))
    labels = labels_of(*[other] * lacking, *[common] * (images - lacking), kinds=kinds)
    assert labels.tagged_everywhere() == expected


DISC, SQUARE, CLEAN = (Annotation(tags=(name,)) for name in ("disc", "square", "background"))
BOXED = Annotation(boxes=(Box("square", (3, 3, 9, 9)),))
MARKED = Annotation(points=(Point("disc", (9, 9)), Point("background", (1, 1))))


@pytest.mark.parametrize(
    ("annotations", "rules", "expected"),
    [
        # An image of background alone shows what the others are not.
        ((DISC, SQUARE, CLEAN, Annotation()), {}, [[1, 1], [1, 1], [1, 1], [0, 0]]),
        # Where nothing excludes a class it is taken to be absent where it has no tag.
        ((DISC, SQUARE, CLEAN), {"tags_exhaustive": False}, [[1, 1], [1, 1], [1, 1]]),
        # Tags exclude disc as often as they name it, and square in one of two images.
        ((BOXED, DISC, SQUARE, SQUARE), {}, [[0, 1], [1, 1], [1, 1], [1, 1]]),
        # Marks make what they do not name unlikely.
        ((MARKED, SQUARE, DISC), {}, [[1, 1 - UNMARKED], [1, 1], [1, 1]]),
    ],
)
def test_absence_counts_in_the_tagger_as_far_as_labels_tell(annotations, rules, expected):
    weights = labels_of(*annotations, **rules).tag_weights()
    assert weights[:, 1:].tolist() == [pytest.approx(row) for row in expected]


def masked(*shares, kinds=("masks",), extra=0):
    """Labels of images of which a mask labels these shares; ignored pixels do not count."""
    masks = []
    for share in shares:
        mask = np.full((20, 30), 3, np.uint8)
        mask.flat[: round(600 * share)] = 1
        mask[:5] = 255 if share == 1 else mask[:5]
        masks.append(mask)
    count = len(masks) + extra
    images = [np.zeros((20, 30, 3), np.uint8)] * count
    dataset = Dataset.from_arrays(
        images, [MARKED] * count, CLASSES, background="background", masks=masks + [None] * extra
    )
    return Labels(dataset, Recipe(kinds=kinds))


@pytest.mark.parametrize(
    ("labels", "complete", "marked"),
    [
        (masked(1, 1), True, False),
        (masked(1, 0.99), True, False),
        (masked(1, 0.9), False, False),
        (masked(1, 1, extra=1), False, False),
        (masked(0.1, 0.2, 1, extra=3), False, True),
        (masked(1, 1, kinds=("masks", "points")), False, True),
    ],
)
def test_masks_are_complete_or_strokes(labels, complete, marked):
    assert labels.complete is complete
    assert labels.marked is marked
