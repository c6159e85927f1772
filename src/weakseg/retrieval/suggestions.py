"""What an index suggests: labels to look at again, images to label next, near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weakseg.retrieval.duplicates import near_duplicates
from weakseg.retrieval.index import Index
from weakseg.retrieval.label_errors import Doubt, label_errors
from weakseg.retrieval.label_next import label_next
from weakseg.retrieval.page import Figure, Section, figure, write_page

NEXT, ERROR, DUPLICATE = "label next", "label error", "near duplicate"
SHOWN = 3
"""Segments that are named of an image with several doubtful labels."""

KINDS = (NEXT, ERROR, DUPLICATE)


@dataclass(frozen=True)
class Suggestion:
    """An image to look at.

    Attributes:
        kind: "label next", "label error" or "near duplicate".
        image: its name.
        segments: the segments that speak for it.
        score: of two of one kind the larger comes first.
        reason: in words.
        other: name of the image that it nearly equals, else None.
    """

    kind: str
    image: str
    segments: tuple[int, ...]
    score: float
    reason: str
    other: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def suggestions_of(index: Index, top: int = 50) -> list[Suggestion]:
    """Up to `top` suggestions of each kind, the best of a kind first.

    Args:
        index: of a data set, its weak labels included.
        top: images of each kind.
    """
    return [*to_label(index, top), *to_check(index, top), *nearly_equal(index, top)]


def suggestions_page(path: Path, index: Index, suggestions: Sequence[Suggestion]) -> None:
    """Write suggestions as one page, the segments outlined in their images.

    Raises:
        InputError: the file cannot be written.
    """
    texts = {
        NEXT: "Images that show most of what no label is near to; the outlined segments say "
        "why. The number is what an image adds to those before it.",
        ERROR: "Labelled segments whose nearest labelled neighbours in other images have another "
        "class. Not every one is wrong: rare views of a class have such neighbours, too.",
        DUPLICATE: "Photographs that nearly equal another. In training and measuring alike they "
        "count twice. The number is the correlation of the two.",
    }
    titles = {NEXT: "Label next", ERROR: "Labels to look at again", DUPLICATE: "Near-duplicates"}
    sections = [
        Section(
            titles[kind],
            texts[kind],
            [f for s in suggestions if s.kind == kind for f in _figures(index, s)],
        )
        for kind in KINDS
    ]
    lead = f"{len(index.images):,} images with {len(index):,} segments were looked at."
    write_page(path, "suggest", "What to look at next", lead, sections)


def _figures(index: Index, suggestion: Suggestion) -> Iterator[Figure]:
    head = f"{suggestion.score:.2f}"
    yield figure(index, suggestion.image, suggestion.segments, head, [suggestion.reason])
    if suggestion.other is not None:
        every = index.image(suggestion.other).segment.tolist()
        yield figure(index, suggestion.other, every, "", [f"nearly {suggestion.image}"])


def to_label(index: Index, top: int) -> list[Suggestion]:
    """Images to label next."""
    rows = np.flatnonzero(index.live)
    images, names = index.codes("image")
    labelled = _labelled(index)[rows]
    proposals = label_next(
        index.vectors(rows), index.column("area")[rows], images[rows], labelled, top
    )
    segments = index.column("segment")
    return [
        Suggestion(
            NEXT,
            names[p.image],
            tuple(int(segments[rows[row]]) for row in p.rows),
            p.gain,
            f"unlike what is labelled (distance {p.distance:.2f})",
        )
        for p in proposals
    ]


def to_check(index: Index, top: int) -> list[Suggestion]:
    """Images whose labels are doubtful."""
    codes, classes = index.codes("weak")
    images, names = index.codes("image")
    segments = index.column("segment")
    rows = np.flatnonzero(_labelled(index))
    by_image: dict[int, list[Doubt]] = {}
    for doubt in label_errors(index.vectors(rows), codes[rows], images[rows]):
        by_image.setdefault(int(images[rows[doubt.row]]), []).append(doubt)
    suggestions = []
    for image, doubts in list(by_image.items())[:top]:
        worst = doubts[0]
        suggestions.append(
            Suggestion(
                ERROR,
                names[image],
                tuple(int(segments[rows[d.row]]) for d in doubts[:SHOWN]),
                worst.other - worst.own,
                f"labelled {classes[worst.label]}, {100 * worst.other:.0f} % of its neighbours "
                f"are {classes[worst.instead]}",
            )
        )
    return suggestions


def nearly_equal(index: Index, top: int) -> list[Suggestion]:
    """Images that nearly equal another."""
    return [
        Suggestion(
            DUPLICATE,
            pair.first,
            tuple(index.image(pair.first).segment.tolist()),
            pair.correlation,
            f"nearly {pair.second}",
            pair.second,
        )
        for pair in near_duplicates(index, top)
    ]


def _labelled(index: Index) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Rows of live segments with a weak label."""
    return index.live & (index.codes("weak")[0] >= 0)
