"""Rows of a table that mean one image under several names: its labels are joined.

People put tables together whose rows name an image once by its path and once by its bare name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from weakseg.errors import InputError
from weakseg.formats.image_index import ImageIndex, clean_reference
from weakseg.formats.records import Reading, Record
from weakseg.images import IMAGE_SUFFIXES


def joined(reading: Reading, index: ImageIndex) -> Reading:
    """The same source with one record for each image, as far as its names allow.

    Names are joined where they are found to be one image and one only says less than the other:
    of `x/a.jpg` and `y/a.jpg`, one may well be an image that is missing in the folder.

    Args:
        reading: of a format in which each record is made of rows, which are held in memory.
        index: the photographs.
    """
    return replace(reading, records=lambda: _joined(reading.records(), index))


def _joined(records: Iterable[Record], index: ImageIndex) -> Iterator[Record]:
    kept: list[Record] = []
    first: dict[str, Record] = {}
    for record in records:
        try:
            known = first.setdefault(index.find(record.image), record)
        except InputError:  # is listed when the image is to be used
            known = record
        if known is record or not _may_be_one(known.image, record.image):
            kept.append(record)
        else:
            _add(known, record)
    yield from kept


def _add(record: Record, other: Record) -> None:
    record.tags += other.tags
    record.boxes += other.boxes
    record.points += other.points
    record.scribbles += other.scribbles
    record.regions += other.regions
    record.problems += other.problems
    record.split = other.split or record.split


def _may_be_one(name: str, other: str) -> bool:
    """Whether two names differ at most in case, and in folders or a suffix that one leaves out."""
    (parts, suffix), (others, other_suffix) = _split(name), _split(other)
    same = all(a == b for a, b in zip(reversed(parts), reversed(others), strict=False))
    return same and (not suffix or not other_suffix or suffix == other_suffix)


def _split(name: str) -> tuple[tuple[str, ...], str]:
    path = PurePosixPath(clean_reference(name).casefold())
    if path.suffix in IMAGE_SUFFIXES:
        return path.with_suffix("").parts, path.suffix
    return path.parts, ""
