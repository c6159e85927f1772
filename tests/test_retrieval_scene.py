"""The scene beside the prototype: similarity with it, and indexes with and without it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_scenes import scenes
from torch.nn.functional import normalize

from weakseg.errors import InputError
from weakseg.retrieval import Index, QueryImage, index_images, indexed_query, segments_of
from weakseg.retrieval.scene import CONTEXT, scene_of, with_scene
from weakseg.segmenter import Architecture, build_segmenter

SMALL = Architecture("tf_efficientnet_lite0", output_stride=16, long_side=96, dim=8, hidden=16)


@pytest.fixture(scope="module")
def data():
    return scenes(train=3, val=0)


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    made = build_segmenter(SMALL, data.info)
    made.precision = "fp32"
    return made


@given(context=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_similarity_is_a_weighted_mean_of_two_cosines(context, seed):
    torch.manual_seed(seed)
    prototypes = normalize(torch.randn(2, 3, 5), dim=2)
    scenes_ = normalize(torch.randn(2, 5), dim=1)
    a, b = (with_scene(p, s, context) for p, s in zip(prototypes, scenes_, strict=True))
    wanted = (1 - context) * prototypes[0] @ prototypes[1].T + context * scenes_[0] @ scenes_[1]
    torch.testing.assert_close(a @ b.T, wanted)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(3))


def test_no_share_leaves_the_prototypes():
    prototypes = torch.eye(3)
    assert with_scene(prototypes, prototypes[0], 0) is prototypes


def test_scene_is_the_mean_embedding(model, data):
    embeddings = model.embed(model.features(data[0].read_image()))
    mean = embeddings.flatten(1).sum(1)
    torch.testing.assert_close(scene_of(embeddings), mean / mean.norm())
    found = segments_of(model, data[0], context=0.3)
    bare = segments_of(model, data[0])
    np.testing.assert_allclose(found.vectors[:, :8], 0.7**0.5 * bare.vectors, atol=1e-5)
    np.testing.assert_allclose(
        found.vectors[:, 8:], np.tile(0.3**0.5 * (mean / mean.norm()), (len(bare), 1)), atol=1e-5
    )


def test_queries_carry_the_scene_of_their_photograph(model, data, tmp_path):
    index_images(tmp_path, model, data)
    index = Index.open(tmp_path)
    assert index.context == CONTEXT
    assert index.manifest.dim == 16
    asked = QueryImage(model, data[1].read_image(), index.context)
    image = index.image(data[1].name)
    for query in (asked.segment(5), indexed_query(image, 5, "")):
        np.testing.assert_allclose(query.vector, image.vectors[5], atol=1e-5)
    assert index.search(asked.segment(5).vector, 1)[0].similarity == pytest.approx(1, abs=1e-5)
    query = asked.box(0, 0, 160, 128)  # everything: its own scene
    np.testing.assert_allclose(query.vector[:8] / (1 - CONTEXT) ** 0.5, asked.scene, atol=0.02)
    assert np.linalg.norm(query.vector) == pytest.approx(1, abs=1e-5)


def test_an_index_keeps_its_share(model, data, tmp_path):
    index_images(tmp_path, model, data[:1], context=0.5)
    index_images(tmp_path, model, data[:2])
    index_images(tmp_path, model, data, context=0.5)
    index = Index.open(tmp_path)
    assert index.context == 0.5
    assert len(index.images) == 3
    for other in (0, 0.4):
        with pytest.raises(InputError, match=r"another share of the scene.*0\.5, or another"):
            index_images(tmp_path, model, data, context=other)
    assert Index.open(tmp_path).manifest == index.manifest


def test_an_index_of_the_first_version_goes_on_without_scene(model, data, tmp_path):
    index_images(tmp_path, model, data[:1], context=0)
    file = tmp_path / "index.json"
    written = json.loads(file.read_text())
    del written["context"]
    file.write_text(json.dumps(written | {"format": 1}))
    assert Index.open(tmp_path).context == 0
    index_images(tmp_path, model, data)
    index = Index.open(tmp_path)
    assert (index.context, index.manifest.dim, len(index.images)) == (0, 8, 3)
    assert json.loads(file.read_text())["format"] == 2


@pytest.mark.parametrize("context", [-0.1, 1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(model, data, tmp_path, context):
    with pytest.raises(InputError, match="--context"):
        index_images(tmp_path / "i", model, data, context=context)
    assert not (tmp_path / "i").exists()
