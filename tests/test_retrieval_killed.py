"""Indexing that is killed at any moment leaves an index that answers rightly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from indexing_server import COUNT
from made_segments import made

from weakseg.retrieval import Index

KILLS = 20
NAMES = [f"{i}" for i in range(12)]


class Server:
    """Children that index, see `indexing_server`."""

    def __init__(self, folder):
        command = [sys.executable, str(Path(__file__).parent / "indexing_server.py"), str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, order, kill_after=None):
        """Index; killed after so many seconds. Gives the status that the child ended with."""
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline().split()[1])


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path / "index")
    yield made
    made.process.stdin.close()
    made.process.wait(20)


def states(before, order):
    """Every state (versions by name) that an index may be in while it is brought up to date."""
    state = dict(before)
    possible = [dict(state)]
    for name, version in order["images"]:
        if name not in order["remove"]:
            state[name] = version
            possible.append(dict(state))
    for name in order["remove"]:
        state.pop(name, None)
    return [*possible, state]


def held(folder):
    """The versions of the images in the index, every one of them whole."""
    if not (folder / "index.json").exists():  # killed before it began
        return {}
    index, found = Index.open(folder), {}
    for name in index.images:
        image = index.image(name)
        (found[name],) = (
            version
            for version in range(KILLS + 2)
            if np.array_equal(image.vectors, made(name, version, COUNT).vectors)
        )
    return found


def answers_rightly(folder, versions):
    index = Index.open(folder)
    images = {name: made(name, version, COUNT) for name, version in versions.items()}
    rows = [(name, i) for name, image in images.items() for i in range(COUNT)]
    everything = np.concatenate([image.vectors for image in images.values()])
    for seed in range(4):
        query = np.random.default_rng(seed).normal(size=8).astype(np.float32)
        query /= np.linalg.norm(query)
        scores = everything @ query
        wanted = [rows[i] for i in np.argsort(-scores)[:10]]
        exact = index.search(query, 10, exact=True)
        assert [(hit.image, hit.segment) for hit in exact] == wanted
        # By the approximate index, if there is one: perhaps not all, but nothing wrong.
        similarity = dict(zip(rows, scores.tolist(), strict=True))
        near = index.search(query, 10)
        assert len({(hit.image, hit.segment) for hit in near}) == 10
        for hit in near:
            assert hit.similarity == pytest.approx(similarity[hit.image, hit.segment], abs=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(server, tmp_path):
    rng = np.random.default_rng(0)
    folder, state = tmp_path / "index", {}
    killed, outcomes = 0, set()
    begun = time.monotonic()
    assert server.run(plan(rng, 0)) == 0
    whole = time.monotonic() - begun  # a first run also starts threads
    state = held(folder)
    for turn in range(1, KILLS + 1):
        order = plan(rng, turn)
        begun = time.monotonic()
        status = server.run(order, kill_after=rng.uniform(0, whole))
        if status == 0:  # so that the next ones are killed in time
            whole = min(whole, time.monotonic() - begun)
        killed += status == signal.SIGKILL
        assert status in (0, signal.SIGKILL)
        possible = states(state, order)
        state = held(folder)
        assert state in possible
        outcomes.add((possible.index(state) > 0) + (state == possible[-1]))
        if state:
            answers_rightly(folder, state)
    # It goes on where it was, and cleans up.
    last = plan(rng, KILLS + 1)
    assert server.run(last) == 0
    assert held(folder) == states(state, last)[-1]
    answers_rightly(folder, held(folder))
    named = (folder / "index.json").read_text()
    assert all(path.name.partition(".")[0] in named for path in (folder / "shards").iterdir())
    assert killed >= KILLS // 4, "the moments were no test"
    assert len(outcomes) > 1


def plan(rng, turn):
    """Some images in their version of this turn, some to remove."""
    chosen = rng.permutation(NAMES)[: rng.integers(6, 13)].tolist()
    remove = [name for name in NAMES if name not in chosen and rng.random() < 0.3]
    return {
        "images": [[name, turn] for name in chosen],
        "remove": remove,
        "approximate": bool(turn % 2),
    }
