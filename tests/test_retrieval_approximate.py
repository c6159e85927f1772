"""Approximate search: prepared by itself where it pays, and never wrong about what it finds."""

import numpy as np
import pytest
from made_segments import made

from weakseg.errors import InputError
from weakseg.retrieval import Index, approximate, indexing
from weakseg.retrieval.indexing import prepare_search
from weakseg.retrieval.writer import IndexWriter

pytest.importorskip("faiss")
IMAGES, COUNT = 30, 50


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(approximate, "FEWEST", 300)
    monkeypatch.setattr(approximate, "SAMPLE", 40)
    monkeypatch.setattr(approximate, "CANDIDATES", 200)
    monkeypatch.setattr(indexing, "WORTH", 1000)


def image(i):
    """Segments close to each other and to those of a few other images."""
    return made(f"{i}", i % 7, COUNT, spread=0.3)


@pytest.fixture
def folder(tmp_path):
    with IndexWriter(tmp_path / "i", dim=8, model="m") as writer:
        for i in range(IMAGES):
            writer.add(image(i))
        writer.commit()
        recall, note = prepare_search(writer, "auto")
        assert recall >= approximate.TARGET
        assert "approximate" in note
        assert "40 segments" in note
    return tmp_path / "i"


def queries():
    rng = np.random.default_rng(0)
    some = [image(i).vectors[i] for i in range(0, IMAGES, 3)]
    return [v + rng.normal(size=8).astype(np.float32) * 0.1 for v in some]


def test_most_of_the_exact_neighbours_are_found(folder):
    index = Index.open(folder)
    assert index.manifest.approximate.recall >= approximate.TARGET
    shared = []
    for query in queries():
        near = {(h.image, h.segment): h.similarity for h in index.search(query, 20)}
        exact = {(h.image, h.segment): h.similarity for h in index.search(query, 20, exact=True)}
        assert len(near) == 20
        shared.append(len(near.keys() & exact.keys()))
        for hit in near.keys() & exact.keys():
            assert near[hit] == pytest.approx(exact[hit], abs=1e-6)
    assert np.mean(shared) >= 0.9 * 20


def test_it_is_used(folder, monkeypatch):
    index = Index.open(folder)
    assert index._approximate is not None
    monkeypatch.setattr("weakseg.retrieval.index.exact_search", None)  # would raise
    assert len(index.search(queries()[0], 20)) == 20


def test_later_images_are_found_and_removed_ones_are_not(folder):
    with IndexWriter(folder, dim=8, model="m") as writer:
        writer.add(made("new", 0, COUNT, spread=0.3))
        writer.remove("3")
        writer.add(made("6", 5, COUNT, spread=0.3))  # replaced
        writer.commit()
        recall, _ = prepare_search(writer, "auto")
        assert recall is not None  # kept: little has changed
    index = Index.open(folder)
    assert index._approximate is not None
    hit = index.search(made("new", 0, COUNT, spread=0.3).vectors[4], 1)[0]
    assert (hit.image, hit.segment) == ("new", 4)
    hit = index.search(made("6", 5, COUNT, spread=0.3).vectors[4], 1)[0]
    assert (hit.image, hit.segment) == ("6", 4)
    assert all(h.image != "3" for h in index.search(image(3).vectors[0], 40))
    old = index.search(image(6).vectors[4], 40)
    assert all(h.similarity < 1 - 1e-6 or h.image != "6" for h in old)


def test_few_rows_that_count_are_searched_exactly(folder):
    index = Index.open(folder)
    others = [f"{i}" for i in range(IMAGES) if i != 7]
    found = index.search(queries()[0], COUNT, exclude=others)
    assert {hit.image for hit in found} == {"7"}
    assert len(found) == COUNT


def test_it_is_built_anew_when_much_was_added_and_dropped_when_little_is_left(folder):
    before = Index.open(folder).manifest.approximate.name
    with IndexWriter(folder, dim=8, model="m") as writer:
        for i in range(20):
            writer.add(made(f"more {i}", 0, COUNT, spread=0.3))
        writer.commit()
        prepare_search(writer, "auto")
    after = Index.open(folder).manifest.approximate
    assert after.name != before
    assert not (folder / "shards" / before).exists()
    with IndexWriter(folder, dim=8, model="m") as writer:
        for name in writer.names[5:]:
            writer.remove(name)
        writer.merge()
        recall, note = prepare_search(writer, "auto")
    assert recall is None
    assert "exact" in note
    assert not list((folder / "shards").glob("*.faiss"))
    assert len(Index.open(folder).search(queries()[0], 20)) == 20


@pytest.mark.parametrize(
    ("when", "worth", "built"),
    [("auto", 10**9, False), ("never", 1, False), ("always", 10**9, True), ("auto", 1, True)],
)
def test_when(tmp_path, monkeypatch, when, worth, built):
    monkeypatch.setattr(indexing, "WORTH", worth)
    with IndexWriter(tmp_path, dim=8, model="m") as writer:
        for i in range(IMAGES):
            writer.add(image(i))
        writer.commit()
        prepare_search(writer, when)
    assert (Index.open(tmp_path).manifest.approximate is not None) == built


def test_too_few_segments_stay_exact(tmp_path):
    with IndexWriter(tmp_path, dim=8, model="m") as writer:
        writer.add(image(0))
        writer.commit()
        recall, note = prepare_search(writer, "always")
    assert recall is None
    assert "exact" in note


def test_without_faiss(tmp_path, monkeypatch, folder):
    query = queries()[0]
    exact = Index.open(folder).search(query, 20, exact=True)
    monkeypatch.setattr("weakseg.retrieval.index.available", lambda: False)
    assert Index.open(folder).search(query, 20) == exact
    monkeypatch.setattr("weakseg.retrieval.indexing.available", lambda: False)
    with IndexWriter(tmp_path / "j", dim=8, model="m") as writer:
        for i in range(IMAGES):
            writer.add(image(i))
        writer.commit()
        assert "weakseg[faiss]" in prepare_search(writer, "auto")[1]
        with pytest.raises(InputError, match=r"weakseg\[faiss\]"):
            prepare_search(writer, "always")


def test_a_damaged_file_is_reported(folder):
    path = next((folder / "shards").glob("*.faiss"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged index"):
        Index.open(folder).search(queries()[0], 20)
