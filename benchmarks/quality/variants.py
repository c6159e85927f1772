"""Data sets with fewer labels, made of one with all of them: a folder each, photographs linked."""

import json
import random
from itertools import pairwise


def variant(source, folder, change, kinds, parts=("train", "val")):
    """Write the data set `source` to `folder` with its training lines changed.

    Args:
        source: folder of a data set in the native format.
        folder: where the new one goes; kept if it is there.
        change: function of a line (dict), its position among the training lines and their number;
            changes its labels in place.
        kinds: what the new one is trained on; other weak labels are left out of it.
        parts: lines of other parts are left out.
    """
    if (folder / "annotations.jsonl").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("images", "masks"):
        link = folder / name
        if not link.exists():
            link.symlink_to((source / name).resolve())
    (folder / "dataset.yaml").write_text((source / "dataset.yaml").read_text())
    lines = [json.loads(line) for line in (source / "annotations.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line.get("split", "train") in parts]
    train = [line for line in lines if line.get("split", "train") == "train"]
    for position, line in enumerate(train):
        for kind in {"tags", "boxes", "points", "scribbles"} - set(kinds):
            line.pop(kind, None)
        change(line, position, len(train))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "annotations.jsonl").write_text(text)
    return folder


def held_out(source, folder, every=4):
    """Write `source` to `folder` with every fourth training image as its part val.

    Settings are chosen there; the photographs of val itself are left out, for the final tables.
    """

    def change(line, position, count):
        if position % every == 0:
            line["split"] = "val"

    kinds = ("tags", "boxes", "points", "scribbles")
    return variant(source, folder, change, kinds, parts=("train",))


def shortened(share):
    """Keep the middle of every scribble, `share` of its length; 0 makes it a point."""

    def change(line, position, count):
        for scribble in line.get("scribbles", []):
            scribble["xy"] = middle(scribble["xy"], share)
        if share == 0:
            line["points"] = [
                {"class": s["class"], "xy": [round(v) for v in s["xy"][0]]}
                for s in line.pop("scribbles", [])
            ]

    return change


def labelled(share, seed=0):
    """Keep the labels of `share` of the training images, drawn at random; the rest have none."""

    def change(line, position, count):
        order = list(range(count))
        random.Random(seed).shuffle(order)
        if position not in set(order[: round(share * count)]):
            for kind in ("tags", "boxes", "points", "scribbles"):
                line.pop(kind, None)

    return change


def middle(xy, share):
    """The middle part of a polyline, `share` of its length; its middle alone where that is 0."""
    steps = [((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 for (x0, y0), (x1, y1) in pairwise(xy)]
    total = sum(steps)
    start, stop = total * (1 - share) / 2, total * (1 + share) / 2
    if share == 0:
        return [_at(xy, steps, start)]
    inner, passed = [], 0.0
    for point, step in zip(xy, [*steps, 0.0], strict=True):
        if start < passed < stop:
            inner.append(point)
        passed += step
    return [_at(xy, steps, start), *inner, _at(xy, steps, stop)]


def _at(xy, steps, distance):
    """The position at a distance along a polyline."""
    for ((x0, y0), (x1, y1)), step in zip(pairwise(xy), steps, strict=True):
        if distance <= step and step:
            along = distance / step
            return [x0 + along * (x1 - x0), y0 + along * (y1 - y0)]
        distance -= step
    return list(xy[-1])
