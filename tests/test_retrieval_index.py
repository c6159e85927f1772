"""The index on disk: what is added, replaced and removed, and what is found in it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_segments import made, same

from weakseg.errors import InputError
from weakseg.retrieval import Index, writer
from weakseg.retrieval.exact import exact_search
from weakseg.retrieval.writer import IndexWriter

NAMES = ("a", "b/c", "Größe 1", "d", "e")


def opened(folder, dim=8, model="m", run=""):
    return IndexWriter(folder, dim=dim, model=model, run=run)


def brute_force(images, query, top, label=None, exclude=()):
    """(image, segment, cosine) of the nearest, by one product over everything."""
    found = []
    for image in images.values():
        for i in range(len(image)):
            known = image.weak[i] if image.weak[i] is not None else image.predicted[i]
            if image.name not in exclude and label in (None, known):
                found.append((image.name, int(image.segment[i]), float(image.vectors[i] @ query)))
    return sorted(found, key=lambda hit: -hit[2])[:top]


def check(folder, images):
    """The index holds these images and nothing else, and answers accordingly."""
    index = Index.open(folder)
    assert sorted(index.images) == sorted(images)
    assert len(index) == sum(map(len, images.values()))
    for name, image in images.items():
        assert same(index.image(name), image)
    for seed in range(3):
        query = np.random.default_rng(seed).normal(size=8).astype(np.float32)
        query /= np.linalg.norm(query)
        wanted = brute_force(images, query, 7)
        found = index.search(query, 7)
        assert [(hit.image, hit.segment) for hit in found] == [hit[:2] for hit in wanted]
        np.testing.assert_allclose([h.similarity for h in found], [h[2] for h in wanted], atol=1e-6)


changes = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(-1, 3)),  # -1: remove
    max_size=12,
)


@settings(max_examples=25)
@given(sessions=st.lists(changes, max_size=4))
def test_an_index_is_what_was_last_said_of_each_image(tmp_path_factory, sessions):
    folder, images = tmp_path_factory.mktemp("index") / "i", {}
    for session in [[], *sessions]:
        with opened(folder) as index:
            for name, version in session:
                if version >= 0:
                    images[name] = made(name, version)
                    index.add(images[name])
                elif name in images:
                    del images[name]
                    index.remove(name)
                assert (name in index) == (name in images)
        check(folder, images)


def test_small_shards_are_merged_and_what_was_removed_leaves_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SMALL_SHARDS", 3)
    images = {}
    for i in range(8):
        with opened(tmp_path / "i") as index:
            images[f"{i}"] = made(f"{i}")
            index.add(images[f"{i}"])
            index.merge()
        check(tmp_path / "i", images)
        assert len(list((tmp_path / "i/shards").glob("*.npy"))) <= 4
    with opened(tmp_path / "i") as index:
        for i in range(6):
            index.remove(f"{i}")
            del images[f"{i}"]
        index.merge()
    check(tmp_path / "i", images)
    rows = sum(len(np.load(path)) for path in (tmp_path / "i/shards").glob("*.npy"))
    assert rows == 12


def test_large_additions_are_cut_into_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_ROWS", 20)
    images = {f"{i}": made(f"{i}") for i in range(10)}
    with opened(tmp_path / "i") as index:
        for image in images.values():
            index.add(image)
    check(tmp_path / "i", images)
    assert len(list((tmp_path / "i/shards").glob("*.npy"))) == 3


def test_what_was_added_is_kept_when_the_block_raises(tmp_path):
    def interrupted():
        with opened(tmp_path / "i") as index:
            index.add(made("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    check(tmp_path / "i", {"a": made("a")})


def test_a_reader_goes_on_with_what_it_opened(tmp_path):
    with opened(tmp_path / "i") as index:
        index.add(made("a"))
    before = Index.open(tmp_path / "i")
    with opened(tmp_path / "i") as index:
        index.add(made("a", 1))
        index.add(made("b"))
    hit = before.search(made("a").vectors[2], 1)[0]
    assert (hit.image, hit.segment) == ("a", 2)
    assert before.images == ["a"]
    check(tmp_path / "i", {"a": made("a", 1), "b": made("b")})


def test_only_one_writer(tmp_path):
    with (
        opened(tmp_path / "i"),
        pytest.raises(InputError, match="being written to"),
        opened(tmp_path / "i"),
    ):
        pass
    with opened(tmp_path / "i") as index:
        index.add(made("a"))
    check(tmp_path / "i", {"a": made("a")})


@pytest.mark.parametrize("other", [{"model": "n"}, {"dim": 9}])
def test_another_model_is_refused(tmp_path, other):
    with opened(tmp_path / "i"):
        pass
    with pytest.raises(InputError, match="another model"), opened(tmp_path / "i", **other):
        pass


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match=r"not an index.*thesis.tex"), opened(tmp_path):
        pass


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "index.json").unlink(), "no index"),
        (lambda f: (f / "index.json").write_text("{"), "damaged index"),
        (lambda f: (f / "index.json").write_text("[]"), "another version"),
        (lambda f: edit(f, format=99), "another version"),
        (lambda f: edit(f, shards=[{"name": "x"}]), "damaged index"),
        (lambda f: cut(f, "*.npy"), "damaged index"),
        (lambda f: cut(f, "*.segments.arrow"), "damaged index"),
        (lambda f: cut(f, "*.images.arrow"), "damaged index"),
        (lambda f: next(f.glob("shards/*.npy")).unlink(), "damaged index"),
        (lambda f: next(f.glob("shards/*.images.arrow")).write_bytes(b"?"), "damaged index"),
    ],
)
def test_damage_is_reported(tmp_path, spoil, message):
    with opened(tmp_path / "i") as index:
        index.add(made("a"))
    spoil(tmp_path / "i")
    with pytest.raises(InputError, match=message):
        Index.open(tmp_path / "i")


def edit(folder, **changes):
    data = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(data | changes))


def cut(folder, pattern):
    path = next((folder / "shards").glob(pattern))
    path.write_bytes(path.read_bytes()[:-20])


def test_removing_what_is_not_there(tmp_path):
    with opened(tmp_path / "i") as index, pytest.raises(InputError, match="no such image"):
        index.remove("a")


@pytest.fixture
def horses(tmp_path):
    """An index of six images, and the images."""
    images = {f"{i}": made(f"{i}", i) for i in range(6)}
    with opened(tmp_path / "i") as index:
        for image in images.values():
            index.add(image)
    with opened(tmp_path / "i") as index:
        index.remove("0")
        del images["0"]
    return Index.open(tmp_path / "i"), images


@pytest.mark.parametrize("label", [None, "horse", "sky"])
@pytest.mark.parametrize("exclude", [(), ("1", "3"), ("no such image",)])
def test_filters(horses, label, exclude):
    index, images = horses
    query = images["1"].vectors[0]
    found = index.search(query * 7, 5, label=label, exclude=exclude)
    wanted = brute_force(images, query, 5, label, exclude)
    assert [(hit.image, hit.segment) for hit in found] == [hit[:2] for hit in wanted]
    if label is None and not exclude:
        assert found[0].similarity == pytest.approx(1)


@pytest.mark.parametrize("top", [1, 3, 5, 9])
def test_one_per_image(horses, top):
    index, images = horses
    query = images["2"].vectors[1]
    found = index.search(query, top, one_per_image=True)
    every = brute_force(images, query, 1000)
    nearest = {hit[0]: hit for hit in reversed(every)}
    wanted = sorted(nearest.values(), key=lambda hit: -hit[2])[:top]
    assert [(hit.image, hit.segment) for hit in found] == [hit[:2] for hit in wanted]


def test_a_hit_says_what_is_known_of_its_segment(horses):
    index, images = horses
    image = replace(images["4"])
    (hit,) = index.search(image.vectors[3], 1)
    assert (hit.image, hit.segment, hit.area) == ("4", 3, 36)
    assert hit.box == (12, 0, 16, 9)
    assert hit.thumbnail == (5, 0, 23, 9)
    assert (hit.predicted, hit.weak) == (image.predicted[3], image.weak[3])
    assert hit.tags == image.tags
    assert json.loads(json.dumps(hit.to_dict()))["box"] == [12, 0, 16, 9]


def test_more_than_there_is(horses):
    index, images = horses
    found = index.search(images["1"].vectors[0], 1000)
    assert len(found) == len(index) == 30


@pytest.mark.parametrize("query", [np.ones(7), np.ones((1, 8)), np.full(8, np.nan)])
def test_what_is_no_query_is_refused(horses, query):
    with pytest.raises(InputError, match="not a query"):
        horses[0].search(query)


def test_an_unknown_class_is_refused(horses):
    with pytest.raises(InputError, match=r"no segment of this class.*horse"):
        horses[0].search(np.ones(8), label="hrose")


def test_an_empty_index_finds_nothing(tmp_path):
    with opened(tmp_path / "i"):
        pass
    index = Index.open(tmp_path / "i")
    assert (len(index), index.images, index.search(np.ones(8))) == (0, [], [])


@settings(max_examples=60)
@given(
    rows=st.integers(1, 60),
    cut=st.integers(1, 30),
    queries=st.integers(1, 4),
    top=st.integers(1, 70),
    levels=st.integers(1, 5),
    masked=st.booleans(),
    seed=st.integers(0, 9),
)
def test_exact_search_is_a_sort(rows, cut, queries, top, levels, masked, seed):
    rng = np.random.default_rng(seed)
    # Few different values: many rows are equally near.
    vectors = rng.integers(-levels, levels + 1, (rows, 3)).astype(np.float32)
    asked = rng.integers(-levels, levels + 1, (queries, 3)).astype(np.float32)
    counts = rng.random(rows) < 0.6 if masked else np.ones(rows, bool)
    blocks = [
        (s, vectors[s : s + cut], counts[s : s + cut] if masked else None)
        for s in range(0, rows, cut)
    ]
    found, scores = exact_search(blocks, asked, top)
    products = np.where(counts, asked @ vectors.T, -np.inf)
    order = np.argsort(-products, axis=1, kind="stable")[:, :top]
    for q in range(queries):
        wanted = [row for row in order[q] if counts[row]]
        assert found[q][: len(wanted)].tolist() == wanted
        assert (found[q][len(wanted) :] == -1).all()
        np.testing.assert_array_equal(scores[q][: len(wanted)], products[q][wanted])
        assert (scores[q][len(wanted) :] == -np.inf).all()


def test_released_rows_are_read_again(tmp_path):
    with opened(tmp_path / "i") as index:
        index.add(made("a"))
    (shard,) = Index.open(tmp_path / "i").shards
    shard.vectors.sum()
    shard.release()
    np.testing.assert_array_equal(shard.vectors, made("a").vectors)
