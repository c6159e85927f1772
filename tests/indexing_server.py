"""A process that indexes in children, one for each line of input, so that they can be killed.

    python indexing_server.py FOLDER

A line is JSON: images, as [name, version]; remove, names; sparse, whether approximate search is
prepared. The child's process id is printed when it begins, "ended" when it is gone. Starting a
child costs nothing: what takes long to import is there already.
"""

import json
import os
import sys
import traceback
from types import SimpleNamespace

import numpy as np
from made_segments import made
from torch import nn

from weakseg.dataset import Entry
from weakseg.dataset_info import DatasetInfo
from weakseg.retrieval import approximate, index_images, writer

MODEL = SimpleNamespace(
    architecture=SimpleNamespace(dim=8),
    backbone=nn.Identity(),
    head=nn.Identity(),
    info=DatasetInfo("made", ("sky", "horse", "fence")),
)
COUNT = 60
"""Segments of an image."""


def index(folder, order):
    entries = [
        Entry(name, np.full((9, 9, 3), version, np.uint8), 9, 9)
        for name, version in order["images"]
    ]
    versions = dict(order["images"])
    index_images(
        folder,
        MODEL,
        entries,
        leave_out=order["remove"],
        approximate="always" if order["approximate"] else "never",
        embed=lambda entry: stamped(entry, versions[entry.name]),
        context=0,
    )


def stamped(entry, version):
    """The segments of an image, under the stamp by which it is known again."""
    from dataclasses import replace

    from weakseg.retrieval.segments import stamp_of

    return replace(made(entry.name, version, COUNT), stamp=stamp_of(entry))


def main():
    writer.COMMIT_EVERY = 0.0  # after every image
    writer.SMALL_SHARDS = 3
    writer.os.fsync = lambda descriptor: None  # what is killed leaves its pages to the system
    approximate.FEWEST, approximate.SAMPLE = 300, 20
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                index(sys.argv[1], json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print("ended", status, flush=True)


if __name__ == "__main__":
    main()
