"""`weakseg retrieve`: segments like this one, in scenes like this one."""

from __future__ import annotations

import json as json_
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weakseg.errors import InputError
from weakseg.images import read_image, read_mask
from weakseg.retrieval import Hit, Index, Query, QueryImage, indexed_query
from weakseg.retrieval.indexing import fingerprint
from weakseg.retrieval.page import retrieval_page
from weakseg.retrieval.queries import segment_at
from weakseg.retrieval.scene import Scene
from weakseg.segmenter import Segmenter
from weakseg.training.recipe import resolve_device


def retrieve(
    index: Path,
    image: str,
    at: tuple[float, ...] = (),
    box: tuple[float, ...] = (),
    mask: Path | None = None,
    segment: int | None = None,
    class_: str | None = None,
    exclude_same_image: bool = False,
    one_per_image: bool = False,
    top: int = 20,
    html: Path | None = None,
    json: bool = False,
    exact: bool = False,
    run: Path | None = None,
    device: str = "auto",
) -> int:
    """Find the segments of an index that are most like one of a photograph.

    Say what to look for by one of --at, --box, --mask and --segment.

    Args:
        index: Folder that `weakseg index` wrote.
        image: The photograph to ask from: a file, or the name of an image of the index.
        at: The segment at this pixel: x,y.
        box: The pixels in this box: x0,y0,x1,y1, the last two exclusive.
        mask: The pixels that are not 0 in this PNG, as large as the photograph.
        segment: The segment of this number.
        class_: Only segments of this class: that of their weak label, or else the predicted one.
        exclude_same_image: Leave out segments of the photograph itself.
        one_per_image: Of each image only the nearest segment.
        top: How many to find.
        html: Write a page with the photographs to this file.
        json: Print what was found as JSON.
        exact: Compare with every segment even where approximate search is prepared.
        run: Run folder of the model that made the index; default: where it was then.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Returns:
        0 if the search was done; bad input raises.
    """
    _check(at, box, mask, segment, top)
    opened = Index.open(index)
    name = opened.find(image)
    if name is not None and (at or segment is not None):
        query = _from_index(opened, name, at, segment)
        file = opened.image(name).file
    else:
        file = image if name is None else opened.image(name).file
        model = _model(opened, run, device)
        query = _from_photograph(model, opened.scene, Path(file), at, box, mask, segment)
    exclude = [name] if exclude_same_image and name is not None else []
    hits = opened.search(
        query.vector,
        top,
        label=class_,
        exclude=exclude,
        one_per_image=one_per_image,
        exact=exact,
    )
    if html is not None:
        retrieval_page(html, opened, query, Path(file), hits, name or Path(image).stem)
    if json:
        print(json_.dumps([hit.to_dict() for hit in hits], ensure_ascii=False))
    else:
        Console(soft_wrap=True).print(_table(hits))
    if html is not None:
        Console(stderr=True, soft_wrap=True).print(f"page: {html}", markup=False)
    return 0


def _check(
    at: tuple[float, ...],
    box: tuple[float, ...],
    mask: Path | None,
    segment: int | None,
    top: int,
) -> None:
    given = [bool(at), bool(box), mask is not None, segment is not None]
    if sum(given) != 1:
        rule = "one of --at, --box, --mask, --segment"
        raise InputError("what to look for", found=f"{sum(given)} of them", rule=rule)
    for flag, values, count in (("--at", at, 2), ("--box", box, 4)):
        if values and (len(values) != count or not np.isfinite(values).all()):
            rule = "x,y" if count == 2 else "x0,y0,x1,y1"
            raise InputError(flag, found=list(values), rule=rule)
    if top < 1:
        raise InputError("--top", found=top, rule="1 or more")


def _from_index(index: Index, name: str, at: tuple[float, ...], segment: int | None) -> Query:
    """A segment of an indexed image: no model is needed."""
    image = index.image(name)
    if segment is not None:
        return indexed_query(image, segment, f"segment {segment}")
    number = segment_at(image.index, (image.height, image.width), at[0], at[1])
    return indexed_query(image, number, f"the segment at ({at[0]:g}, {at[1]:g})")


def _from_photograph(
    model: Segmenter,
    scene: Scene | None,
    file: Path,
    at: tuple[float, ...],
    box: tuple[float, ...],
    mask: Path | None,
    segment: int | None,
) -> Query:
    asked = QueryImage(model, read_image(file), scene)
    if at:
        return asked.at(at[0], at[1])
    if box:
        return asked.box(box[0], box[1], box[2], box[3])
    if mask is not None:
        return asked.mask(_inside(mask, asked.size), f"the mask {mask.name}")
    assert segment is not None
    return asked.segment(segment)


def _inside(mask: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = read_mask(mask, size[::-1]) != 0
    if not inside.any():
        raise InputError("empty mask", file=mask, rule="pixels that are not 0")
    return inside


def _model(index: Index, run: Path | None, device: str) -> Segmenter:
    """The model that made the index."""
    folder = run or Path(index.manifest.run or ".")
    try:
        model = Segmenter.load(folder, device=resolve_device(device))
    except InputError as error:
        if run is not None:
            raise
        rule = "--run with the run folder that the index was made with"
        raise InputError("the model of the index is gone", file=folder, rule=rule) from error
    if fingerprint(model) != index.manifest.model:
        rule = "the run that the index was made with, or the images indexed anew"
        raise InputError("another model than that of the index", file=folder, rule=rule)
    return model


def _table(hits: list[Hit]) -> Table:
    table = Table("", "similarity", "image", "segment", "class", "box")
    for rank, hit in enumerate(hits, 1):
        label = f"{hit.weak} (labelled)" if hit.weak is not None else hit.predicted
        table.add_row(
            str(rank), f"{hit.similarity:.3f}", escape(hit.image), str(hit.segment),
            escape(label), ",".join(map(str, hit.box)),
        )  # fmt: skip
    return table
