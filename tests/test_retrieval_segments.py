"""A photograph's segments, and what can be asked from a photograph."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_scenes import scenes

from weakseg.annotation import Annotation, Point
from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.retrieval import Index, QueryImage, index_images, indexed_query, segments_of
from weakseg.retrieval.queries import cell_shares
from weakseg.retrieval.segments import _extent, stamp_of, thumbnails_of
from weakseg.segmenter import Architecture, build_segmenter
from weakseg.training.grid_maps import nearest

SMALL = Architecture("tf_efficientnet_lite0", output_stride=16, long_side=96, dim=8, hidden=16)


@pytest.fixture(scope="module")
def data():
    return scenes(train=3, val=1)


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    made = build_segmenter(SMALL, data.info)
    torch.nn.init.normal_(made.classifier.out.weight, std=2)
    made.precision = "fp32"
    return made


def pixels(segments):
    """(H, W) segment of each pixel."""
    return nearest(segments.index, (segments.height, segments.width))


def test_rows_say_what_the_pictures_show(model, data):
    entry = data[0]
    found = segments_of(model, entry)
    here = pixels(found)
    assert np.unique(here).tolist() == found.segment.tolist()
    for i, number in enumerate(found.segment):
        y, x = np.nonzero(here == number)
        assert found.areas[i] == len(y)
        assert found.boxes[i].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    embeddings = model.embed(model.features(entry.read_image()))
    mean = embeddings.flatten(1)[:, found.index.ravel() == 5].sum(1)
    np.testing.assert_allclose(found.vectors[5], mean / mean.norm(), atol=1e-5)


def test_predicted_class_is_that_of_the_mean_probability(model, data):
    entry = data[0]
    found = segments_of(model, entry)
    shares = model.scores(model.features(entry.read_image())).softmax(0).flatten(1)
    for i, number in enumerate(found.segment):
        mean = shares[:, found.index.ravel() == number].mean(1)
        assert found.predicted[i] == model.info.classes[int(mean.argmax())]
    assert len(set(found.predicted)) > 1


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("points",), {"disc", "square", "background"}),
        (("scribbles", "points"), {"disc", "square", "background"}),
        (("tags",), set()),  # what is there, not where
    ],
)
def test_weak_classes_lie_where_the_labels_do(model, data, kinds, expected):
    entry = data[0]
    found = segments_of(model, entry, kinds=kinds)
    assert set(found.weak) - {None} == expected
    assert found.tags == ("disc", "square")
    if "points" in kinds:
        here = pixels(found)
        for point in entry.annotation.points:
            number = here[point.xy[1], point.xy[0]]
            assert found.weak[found.segment.tolist().index(number)] == point.label
        assert (found.weak == None).mean() > 0.5  # noqa: E711


def test_the_background_around_a_box_stays_out_of_segments_across_its_edge(model, data):
    box = data[0].annotation.boxes[0]
    entry = replace(data[0], annotation=Annotation(boxes=(box,)))
    found = segments_of(model, entry, kinds=("boxes",))
    assert set(found.weak) == {"background", None}
    here, inside = pixels(found), np.zeros((entry.height, entry.width), bool)
    x0, y0, x1, y1 = box.xyxy
    inside[y0:y1, x0:x1] = True
    for weak, number in zip(found.weak, found.segment, strict=True):
        share = inside[here == number].mean()
        if not 0.4 < share < 0.6:  # cells are coarser than pixels
            assert (weak is None) == (share > 0.5)


def test_masks_count_only_if_named(model, data):
    entry = data[3]
    assert set(segments_of(model, entry).weak) == {None}
    found = segments_of(model, entry, kinds=("masks",))
    here, truth = pixels(found), entry.read_mask()
    right = [
        model.info.classes.index(weak) == np.bincount(truth[here == number]).argmax()
        for weak, number in zip(found.weak, found.segment, strict=True)
    ]
    assert np.mean(right) > 0.9


def test_labels_do_not_move_segments(model, data):
    entry = data[0]
    bare = Entry(entry.name, entry.image, entry.width, entry.height)
    np.testing.assert_array_equal(segments_of(model, entry).index, segments_of(model, bare).index)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 5), (97, 61)])
def test_photographs_of_any_size(model, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    found = segments_of(model, Entry("x", image, size[1], size[0]))
    assert found.areas.sum() == size[0] * size[1]
    assert (found.areas > 0).all()
    assert set(np.unique(pixels(found))) == set(found.segment)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
)
def test_extent_is_that_of_the_enlarged_map(size, grid, seed):
    index = np.random.default_rng(seed).integers(0, 5, grid)
    boxes, areas = _extent(index, 5, size)
    full = nearest(index, size)
    for number in range(5):
        y, x = np.nonzero(full == number)
        assert areas[number] == len(y)
        if len(y):
            assert boxes[number].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@given(
    box=st.tuples(*[st.integers(0, 99)] * 4),
    width=st.integers(100, 300),
    height=st.integers(100, 300),
)
def test_thumbnails_lie_in_the_photograph_around_their_segment(box, width, height):
    x0, y0, w, h = box[0], box[1], box[2] % (100 - box[0]) + 1, box[3] % (100 - box[1]) + 1
    segment = np.array([[x0, y0, x0 + w, y0 + h]], np.int32)
    (a, b, c, d) = thumbnails_of(segment, width, height)[0].tolist()
    assert 0 <= a <= x0 < x0 + w <= c <= width
    assert 0 <= b <= y0 < y0 + h <= d <= height
    if max(w, h) * 2 <= min(width, height):
        assert c - a == d - b


def test_stamps_change_with_photograph_and_labels(tmp_path, data):
    image = data[0].read_image()
    entry = Entry("x", image, 160, 128, Annotation(points=(Point("disc", (3, 3)),)))
    stamps = {
        stamp_of(entry),
        stamp_of(Entry("x", image, 160, 128)),
        stamp_of(Entry("x", image[::-1].copy(), 160, 128)),
        stamp_of(Entry("x", tmp_path / "missing.png", 160, 128)),
    }
    assert len(stamps) == 4
    assert stamp_of(entry) == stamp_of(Entry("other name", image, 160, 128, entry.annotation))


@pytest.fixture(scope="module")
def asked(model, data):
    return QueryImage(model, data[0].read_image())


def test_a_query_from_the_photograph_is_one_from_the_index(model, data, asked):
    image = segments_of(model, data[0])
    x, y = data[0].annotation.points[0].xy
    number = int(pixels(image)[y, x])
    for query in (asked.at(x, y), asked.segment(number), indexed_query(image, number, "")):
        np.testing.assert_allclose(query.vector, image.vectors[number], atol=1e-5)
        np.testing.assert_array_equal(query.inside, pixels(image) == number)


def test_boxes_and_masks_are_the_mean_of_their_pixels(asked):
    query = asked.box(10, 20, 90, 70)
    assert query.inside.sum() == 80 * 50
    np.testing.assert_allclose(query.vector, asked.mask(query.inside).vector)
    weights = cell_shares(query.inside, asked.index.shape)
    assert weights.sum() == 80 * 50
    mean = (asked.embeddings.numpy() * weights).sum((1, 2))
    np.testing.assert_allclose(query.vector, mean / np.linalg.norm(mean), atol=1e-5)
    # The pixels of a segment give its prototype.
    whole = asked.segment(7)
    np.testing.assert_allclose(asked.mask(whole.inside).vector, whole.vector, atol=0.02)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda a: a.at(160, 3), "outside the photograph"),
        (lambda a: a.at(-1, 3), "outside the photograph"),
        (lambda a: a.segment(-1), "no such segment"),
        (lambda a: a.segment(10**6), "no such segment"),
        (lambda a: a.box(20, 20, 20, 30), "no box"),
        (lambda a: a.box(500, 500, 600, 600), "no box"),
        (lambda a: a.mask(np.zeros((128, 160), bool)), "empty mask"),
        (lambda a: a.mask(np.ones((5, 5), bool)), "mask of another size.*160 x 128"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, ask, message):
    with pytest.raises(InputError, match=message):
        ask(asked)


def test_a_collection_is_brought_up_to_date(model, data, tmp_path):
    done = index_images(tmp_path, model, data)
    assert done.added == [e.name for e in data]
    again = index_images(tmp_path, model, data)
    assert (again.added, again.unchanged) == ([], done.added)
    first = data[0]
    changed = Entry(first.name, first.read_image()[::-1].copy(), first.width, first.height)
    broken = Entry("broken", tmp_path / "missing.png", 5, 5)
    third = index_images(tmp_path, model, [changed, data[1], broken], prune=True)
    assert (third.replaced, third.unchanged) == ([changed.name], [data[1].name])
    assert third.removed == [data[2].name, data[3].name]
    assert third.failed[0][0] == "broken"
    assert "missing.png" in third.failed[0][1]
    index = Index.open(tmp_path)
    assert sorted(index.images) == [changed.name, data[1].name]
    np.testing.assert_array_equal(
        index.image(changed.name).vectors, segments_of(model, changed, scene=index.scene).vectors
    )
    last = index_images(tmp_path, model, data, leave_out=["*2", changed.name])
    assert last.removed == [changed.name]
    assert sorted(Index.open(tmp_path).images) == [data[1].name, data[3].name]


def test_another_model_does_not_touch_an_index(model, data, tmp_path):
    index_images(tmp_path, model, data[:1])
    torch.manual_seed(1)
    with pytest.raises(InputError, match="another model"):
        index_images(tmp_path, build_segmenter(SMALL, data.info), data)
    assert len(Index.open(tmp_path).images) == 1
