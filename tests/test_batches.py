from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_scenes import CLASSES

from weakseg.annotation import Annotation
from weakseg.dataset import Dataset
from weakseg.features import FeatureCache
from weakseg.training.batches import FeatureBatches, ImageBatches, chosen_images
from weakseg.training.grid_maps import GridMaps
from weakseg.training.labels import Labels
from weakseg.training.recipe import Recipe

SIZES = [(6, 9), (12, 5), (3, 3)]
CHANNELS = 8
IGNORE = 255


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Features whose first channels tell image, row and column of every position, from 1."""
    cache = FeatureCache(tmp_path_factory.mktemp("features"), CHANNELS)
    with cache.writing():
        for index, (h, w) in enumerate(SIZES):
            features = torch.zeros(CHANNELS, h, w)
            features[0] = index + 1
            features[1] = torch.arange(1, h + 1)[:, None]
            features[2] = torch.arange(1, w + 1)
            cache.append(str(index), features, None)
    return cache.select(["0", "1", "2"])


def feature_batches(cache, stride=8, **settings):
    """Seeds hold the row of a position, regions its column, on a grid `8 // stride` finer."""
    scale = 8 // stride
    rows = [np.tile(np.arange(h * scale)[:, None], (1, w * scale)) for h, w in SIZES]
    columns = [np.tile(np.arange(w * scale), (h * scale, 1)) for h, w in SIZES]
    recipe = Recipe(embedding_stride=stride, **({"crop": 4, "batch": 8} | settings))
    tags = torch.eye(3, dtype=torch.bool)
    return FeatureBatches(cache, GridMaps(rows), GridMaps(columns), tags, recipe, IGNORE)


@pytest.mark.parametrize("stride", [8, 4])
@pytest.mark.parametrize("crop", [4, 11])
def test_features_seeds_and_regions_stay_together(cache, stride, crop):
    batches, scale = feature_batches(cache, stride, crop=crop), 8 // stride
    mirrored = set()
    for step in range(6):
        batch = batches.at(step)
        assert batch.inputs.shape == (8, CHANNELS, crop, crop)
        assert batch.seeds.shape == batch.regions.shape == (8, crop * scale, crop * scale)
        image, row, column = (
            batch.inputs[:, k].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            for k in range(3)
        )
        inside = image > 0
        # Beyond the image: no features, ignored.
        assert torch.equal(batch.seeds != IGNORE, inside)
        assert torch.equal(batch.seeds[inside] // scale + 1, row[inside].long())
        assert torch.equal(batch.regions[inside] // scale + 1, column[inside].long())
        assert torch.equal(batch.tags.float().argmax(1) + 1, image.amax((1, 2)).long())
        for first, within in zip(column[:, 0], inside[:, 0], strict=True):
            mirrored.add(bool((first[within].diff() < 0).any()))
    assert mirrored == {True, False}


def test_the_batch_of_a_step_is_always_the_same(cache):
    a, b, c = feature_batches(cache), feature_batches(cache), feature_batches(cache, seed=1)
    list(a.batches(0, 3))
    assert torch.equal(a.at(5).inputs, b.at(5).inputs)
    assert not torch.equal(a.at(5).inputs, a.at(6).inputs)
    assert not torch.equal(a.at(5).inputs, c.at(5).inputs)


def test_a_resumed_run_sees_the_steps_that_are_left(cache):
    batches = feature_batches(cache)
    whole = [batch.inputs for batch in batches.batches(0, 4)]
    rest = [batch.inputs for batch in batches.batches(2, 4)]
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
    assert list(batches.batches(4, 4)) == []


def test_processes_see_different_batches(cache):
    batches = feature_batches(cache)
    first, second = (next(batches.batches(0, 1, rank)) for rank in (0, 1))
    assert not torch.equal(first.inputs, second.inputs)


def test_no_image_twice_while_there_are_enough(cache):
    batches = feature_batches(cache, batch=3)
    for step in range(5):
        assert batches.at(step).tags.sum(0).tolist() == [1, 1, 1]


COLOURS = np.array([(30, 30, 30), (220, 40, 40), (40, 200, 60)], np.uint8)


def painted(sizes, **settings):
    """Image batches of photographs painted in the colours of their masks, region = class."""
    masks = []
    for height, width in sizes:
        mask = np.zeros((height, width), np.uint8)
        mask[: height // 2, : width // 3] = 1
        mask[height // 2 :, width // 2 :] = 2
        masks.append(mask)
    dataset = Dataset.from_arrays(
        [COLOURS[mask] for mask in masks], [Annotation()] * len(masks), CLASSES, masks=masks
    )
    given = {"long_side": 128, "crop": 64, "batch": 4, "workers": 0, "device": "cpu"}
    recipe = Recipe(kinds=("masks",), regime="fine-tune", **(given | settings))
    recipe = recipe.resolved(("masks",))
    return ImageBatches(
        dataset, Labels(dataset, recipe), lambda i: masks[i].astype(np.int32), recipe
    )


@pytest.mark.parametrize("stride", [8, 4])
@pytest.mark.parametrize("sizes", [[(96, 128), (128, 70)], [(20, 30)], [(3, 200)], [(1, 1)]])
def test_photographs_seeds_and_regions_stay_together(sizes, stride):
    batches = painted(sizes, embedding_stride=stride)
    right = []
    for step in range(3):
        batch = batches.at(step)
        side = 64 // stride
        assert batch.inputs.shape == (4, 3, 64, 64)
        assert batch.seeds.shape == batch.regions.shape == (4, side, side)
        assert 0 <= batch.inputs.min() <= batch.inputs.max() <= 1
        # The colour in the middle of a cell, however jittered, is nearest to that of its class.
        middle = batch.inputs[:, :, stride // 2 :: stride, stride // 2 :: stride]
        chroma = middle - middle.mean(1, keepdim=True)
        found = torch.where(chroma.abs().amax(1) < 0.1, 0, 1 + (chroma[:, 1] > chroma[:, 0]).int())
        inside = batch.seeds != IGNORE
        assert inside.any()
        assert batch.seeds[inside].max() < 3
        right += (found == batch.seeds)[inside].tolist()
        agree = (batch.regions == batch.seeds)[inside].float().mean()
        assert agree > 0.85  # a cell's class is that of most pixels, its region its middle's
    if min(sizes[0]) >= 20:  # in a thinner one, the middle of a cell may lie outside
        assert np.mean(right) > 0.85


def test_image_batches_repeat_by_step_and_differ_by_process():
    batches = painted([(96, 128), (80, 80)])
    again = list(batches.batches(1, 3))
    assert len(again) == 2
    assert torch.equal(again[0].inputs, batches.at(1).inputs)
    other = next(iter(batches.batches(1, 2, rank=1)))
    assert not torch.equal(other.inputs, again[0].inputs)


def test_a_crop_that_is_no_whole_number_of_cells_is_refused():
    from weakseg.errors import InputError

    with pytest.raises(InputError, match="--crop: found 100; expected a multiple of"):
        painted([(96, 128)], crop=100)
    frozen = replace(Recipe(crop=9, device="cpu"), regime="frozen")
    assert frozen.resolved(("points",)).crop == 9


@settings(max_examples=80, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 16), st.integers(0, 99))
def test_half_of_a_batch_has_labels_however_few_images_do(labelled, batch, seed):
    labelled = np.array(labelled)
    chosen = chosen_images(np.random.default_rng(seed), labelled, batch)
    assert len(chosen) == batch
    few, rest = labelled.sum(), (~labelled).sum()
    if 0 < few < rest:
        assert labelled[chosen].sum() == (batch + 1) // 2
        for group, size in ((labelled, few), (~labelled, rest)):
            drawn = chosen[group[chosen]]
            assert len(set(drawn)) == len(drawn) or size < len(drawn)
    elif batch <= len(labelled):
        assert len(set(chosen)) == batch


def test_where_most_images_have_labels_each_is_drawn_as_often():
    rng, labelled = np.random.default_rng(0), np.arange(10) < 5
    drawn = np.concatenate([chosen_images(rng, labelled, 4) for _ in range(2000)])
    assert np.bincount(drawn) == pytest.approx(np.full(10, 800), abs=80)
