"""One self-contained page of photographs with outlined segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.errors import InputError
from weakseg.files import write_text
from weakseg.images import read_image
from weakseg.report.frame import render
from weakseg.report.pictures import Picture, data_uri, draw_outline, shrink
from weakseg.retrieval.index import Hit, Index
from weakseg.retrieval.queries import Query
from weakseg.training.grid_maps import nearest

SIDE = 360
"""Pixels on the longer side of a picture."""


@dataclass(frozen=True, eq=False)
class Figure:
    """A photograph on the page.

    Attributes:
        head: what stands out in the caption.
        name: of the image.
        lines: further lines of the caption.
        picture: (h, w, 3), None where the photograph cannot be read.
        alt: what it shows, in words, or why it is missing.
    """

    head: str
    name: str
    lines: tuple[str, ...]
    picture: Picture | None
    alt: str


@dataclass(frozen=True, eq=False)
class Section:
    """A headed row of photographs."""

    title: str
    text: str
    figures: Sequence[Figure]
    wide: bool = False


def retrieval_page(
    path: Path, index: Index, query: Query, photograph: Path, hits: Sequence[Hit], name: str
) -> None:
    """Write a page with a query and the segments that were found.

    Args:
        path: the file to write; it appears whole or not at all.
        index: that was searched.
        query: what was looked for.
        photograph: that it comes from.
        hits: the nearest first.
        name: of the photograph.

    Raises:
        InputError: the photograph or the page's place is no good.
    """
    asked = outlined(read_image(photograph), query.inside)
    figures = [
        figure(index, hit.image, [hit.segment], f"{rank}. {hit.similarity:.3f}", _lines(hit))
        for rank, hit in enumerate(hits, 1)
    ]
    first = Figure("Query", name, (query.text,), asked, f"{name}, {query.text} outlined")
    write_page(
        path,
        "retrieve",
        f"Like {query.text} of {name}",
        f"The {len(hits)} nearest of {len(index):,} segments in {len(index.images):,} images.",
        [
            Section("Query", "", [first], wide=True),
            Section(
                "Nearest segments",
                "The number is the similarity, a cosine: 1 is the same. "
                "A click enlarges a picture, arrow keys go on to the next.",
                figures,
            ),
        ],
    )


def figure(
    index: Index, name: str, segments: Sequence[int], head: str, lines: Sequence[str]
) -> Figure:
    """An image of the index with some of its segments outlined."""
    image = index.image(name)
    alt = f"{name}, {head}, {', '.join(lines)}"
    try:
        if not image.file:
            raise InputError("the photograph is in no file")
        photograph = read_image(image.file)
    except InputError as error:
        return Figure(head, name, tuple(lines), None, str(error))
    inside = np.isin(nearest(image.index, photograph.shape[:2]), list(segments))
    return Figure(head, name, tuple(lines), outlined(photograph, inside), alt)


def outlined(image: Picture, inside: NDArray[np.bool_]) -> Picture:
    """A photograph at the page's size, with a part of it (H, W) outlined."""
    small = shrink(image, SIDE)
    return draw_outline(small, nearest(inside, small.shape[:2]))


def write_page(
    path: Path, command: str, title: str, lead: str, sections: Sequence[Section]
) -> None:
    """Write a page; it loads nothing.

    Raises:
        InputError: the file cannot be written.
    """
    page = render(
        Path(__file__).with_name("page.html"),
        command=command,
        title=title,
        lead=lead,
        sections=[
            {
                "title": section.title,
                "text": section.text,
                "wide": section.wide,
                "figures": [_encoded(one) for one in section.figures],
            }
            for section in sections
        ],
    )
    write_text(path, page)


def _lines(hit: Hit) -> list[str]:
    label = f"labelled {hit.weak}" if hit.weak is not None else f"predicted {hit.predicted}"
    return [label, *([f"tags: {', '.join(hit.tags)}"] if hit.tags else [])]


def _encoded(one: Figure) -> dict[str, Any]:
    picture = one.picture
    return {
        "uri": "" if picture is None else data_uri(picture),
        "width": 0 if picture is None else picture.shape[1],
        "height": 0 if picture is None else picture.shape[0],
        "head": one.head,
        "name": one.name,
        "lines": one.lines,
        "alt": one.alt,
    }
