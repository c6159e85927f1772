"""The scene beside the prototype: similarity with it, and indexes with and without it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_scenes import scenes
from torch.nn.functional import normalize

from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.retrieval import Index, QueryImage, index_images, indexed_query, segments_of
from weakseg.retrieval.scene import CONTEXT, WEIGHT, Scene, common_part, mean_embedding
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


def embedded(model, entry):
    return model.embed(model.features(entry.read_image()))


@given(context=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_similarity_is_a_weighted_mean_of_two_cosines(context, seed):
    torch.manual_seed(seed)
    prototypes = normalize(torch.randn(2, 3, 5), dim=2)
    means = normalize(torch.randn(2, 5), dim=1)
    centre = torch.randn(5) / 9
    scene = Scene(context, tuple(centre.tolist()))
    a, b = (scene.beside(p, m) for p, m in zip(prototypes, means, strict=True))
    around = torch.cosine_similarity(means[0] - centre, means[1] - centre, dim=0)
    wanted = (1 - context) * prototypes[0] @ prototypes[1].T + context * around
    torch.testing.assert_close(a @ b.T, wanted)
    torch.testing.assert_close(a.norm(dim=1), torch.ones(3))


def test_mean_and_common_part(model, data):
    embeddings = embedded(model, data[0])
    mean = embeddings.flatten(1).sum(1)
    torch.testing.assert_close(mean_embedding(embeddings), mean / mean.norm())
    means = torch.eye(3)[[0, 0, 1]]
    torch.testing.assert_close(common_part(means), torch.tensor([2.0, 1, 0]) / (3 + WEIGHT))


def test_what_all_images_have_in_common_does_not_count(model, data, tmp_path):
    index_images(tmp_path, model, data)
    index = Index.open(tmp_path)
    means = torch.stack([mean_embedding(embedded(model, entry)) for entry in data])
    np.testing.assert_allclose(index.scene.centre, common_part(means), atol=1e-6)
    scene = normalize(means[1] - common_part(means), dim=0).numpy()
    stored, bare = index.image(data[1].name).vectors, segments_of(model, data[1]).vectors
    np.testing.assert_allclose(stored[:, :8], (1 - CONTEXT) ** 0.5 * bare, atol=1e-5)
    for row in stored[:, 8:]:
        np.testing.assert_allclose(row, CONTEXT**0.5 * scene, atol=1e-5)


def test_no_photograph_is_embedded_twice(model, data, tmp_path, monkeypatch):
    real, calls = type(model).features, []

    def counted(self, image):
        calls.append(image.shape)
        return real(self, image)

    monkeypatch.setattr(type(model), "features", counted)
    done = index_images(tmp_path, model, data)
    assert len(done.added) == len(calls) == len(data)


def test_queries_carry_the_scene_of_their_photograph(model, data, tmp_path):
    index_images(tmp_path, model, data)
    index = Index.open(tmp_path)
    asked = QueryImage(model, data[1].read_image(), index.scene)
    image = index.image(data[1].name)
    for query in (asked.segment(5), indexed_query(image, 5, "")):
        np.testing.assert_allclose(query.vector, image.vectors[5], atol=1e-5)
    hit = index.search(asked.segment(5).vector, 1)[0]
    assert (hit.image, hit.segment) == (data[1].name, 5)
    assert hit.similarity == pytest.approx(1, abs=1e-5)
    vector = asked.box(10, 10, 90, 90).vector
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(vector[8:], image.vectors[5][8:], atol=1e-5)


def test_an_index_keeps_its_share_and_centre(model, data, tmp_path):
    index_images(tmp_path, model, data[:1], context=0.5)
    first = Index.open(tmp_path).scene
    index_images(tmp_path, model, data[:2])
    index_images(tmp_path, model, data, context=0.5)
    index = Index.open(tmp_path)
    assert index.scene == first
    assert first.context == 0.5
    assert len(index.images) == 3
    for other in (0, 0.4):
        with pytest.raises(InputError, match=r"counts scenes otherwise.*0\.5, or another"):
            index_images(tmp_path, model, data, context=other)
    assert Index.open(tmp_path).manifest == index.manifest


def test_an_index_of_the_first_version_goes_on_without_scenes(model, data, tmp_path):
    index_images(tmp_path, model, data[:1], context=0)
    file = tmp_path / "index.json"
    written = json.loads(file.read_text())
    del written["scene"]
    file.write_text(json.dumps(written | {"format": 1}))
    assert Index.open(tmp_path).scene is None
    index_images(tmp_path, model, data)
    index = Index.open(tmp_path)
    assert (index.scene, index.manifest.dim, len(index.images)) == (None, 8, 3)
    assert json.loads(file.read_text())["format"] == 2


@pytest.mark.parametrize("scene", [{}, {"context": 0.4}, 7, {"context": "x", "centre": []}])
def test_a_damaged_scene_is_reported(model, data, tmp_path, scene):
    index_images(tmp_path, model, data[:1])
    file = tmp_path / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scene": scene}))
    with pytest.raises(InputError, match="damaged index"):
        Index.open(tmp_path)


def test_the_first_image_need_not_be_readable(model, data, tmp_path):
    broken = Entry("broken", tmp_path / "missing.png", 5, 5)
    done = index_images(tmp_path / "i", model, [broken, data[0]])
    assert (done.failed[0][0], done.added) == ("broken", [data[0].name])
    index_images(tmp_path / "j", model, [broken])
    assert Index.open(tmp_path / "j").scene.centre == (0.0,) * 8


@pytest.mark.parametrize("context", [-0.1, 1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(model, data, tmp_path, context):
    with pytest.raises(InputError, match="--context"):
        index_images(tmp_path / "i", model, data, context=context)
    assert not (tmp_path / "i").exists()
