"""Importing: from any format to a data set, with a list of everything that was left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.progress import track

from weakseg.annotation import KINDS, Annotation, check_kinds
from weakseg.dataset import Dataset, DatasetInfo, DatasetWriter, Entry
from weakseg.dataset_info import is_writable
from weakseg.entries import EntryList
from weakseg.errors import InputError, InputErrors, Problem
from weakseg.formats.archives import packed, unpacked
from weakseg.formats.class_map import ClassMap, check_map, load_map, map_classes, match_class
from weakseg.formats.coco import read_coco
from weakseg.formats.convert import Rules, convert
from weakseg.formats.cvat import read_cvat
from weakseg.formats.geojson import read_geojson
from weakseg.formats.image_index import ImageIndex, leaves_folder
from weakseg.formats.label_images import read_masks, read_napari, read_nnunet
from weakseg.formats.label_studio import read_label_studio
from weakseg.formats.labelme import read_labelme
from weakseg.formats.points import read_points
from weakseg.formats.records import Reading, ReadOptions, Record
from weakseg.formats.same_image import joined
from weakseg.formats.scribblesup import read_scribblesup
from weakseg.formats.tags import read_folders, read_tags
from weakseg.formats.voc import read_voc
from weakseg.formats.yolo import read_yolo
from weakseg.images import image_size

READERS: dict[str, Callable[[Path, ReadOptions], Reading]] = {
    "coco": read_coco,
    "coralnet": read_points,
    "cvat": read_cvat,
    "folders": read_folders,
    "geojson": read_geojson,
    "ilastik": read_napari,
    "label-studio": read_label_studio,
    "labelme": read_labelme,
    "masks": read_masks,
    "napari": read_napari,
    "nnunet": read_nnunet,
    "points": read_points,
    "scribblesup": read_scribblesup,
    "tags": read_tags,
    "voc": read_voc,
    "yolo": read_yolo,
}
"""The formats that can be imported."""

_IMAGE_FOLDERS = {
    "cvat": "images",
    "nnunet": "imagesTr",
    "voc": "JPEGImages",
    "yolo": "images",
}

_PICTURES = frozenset({"ilastik", "masks", "napari"})
"""Formats whose sources are pictures themselves."""

_TABLES = frozenset({"coralnet", "points", "tags"})
"""Formats of rows, several of which may be about one image."""

Source = str | os.PathLike[str]

_LISTED = 20  # findings in the message of a source that is of no use


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        info: classes and rules of the data set.
        images: number of images in it.
        labels: number of labels of each kind (for masks and tags: of images).
        problems: everything that was left out or changed, with its place.
        unused: images of the folder that the source does not name.
    """

    info: DatasetInfo
    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    unused: int = 0

    def count(self, annotation: Annotation) -> None:
        """Add an image."""
        self.images += 1
        for kind in annotation.kinds:
            items = () if kind in ("masks", "tags") else getattr(annotation, kind)
            self.labels[kind] += len(items) or 1


def import_dataset(
    format: str,
    source: Source | Mapping[str, Source],
    out: Source | None,
    *,
    images: Source | None = None,
    classes: Sequence[str] | None = None,
    map: Source | Mapping[Any, Any] | None = None,
    background: str | None = None,
    kinds: Sequence[str] | None = None,
    exhaustive: bool = False,
    boxes_exhaustive: bool = False,
    tags_exhaustive: bool = True,
    width: float = 3,
    unlabelled: int | None = None,
    ignore: int | None = None,
    predictions: bool = False,
    all_images: bool = False,
    copy: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    name: str | None = None,
    progress: bool = False,
) -> tuple[Dataset, ImportReport]:
    """Read labels that another tool wrote.

    Args:
        format: one of `READERS`.
        source: file or folder, or several with the part they become: `{"val": "val.json"}`.
        out: folder of the new data set; None keeps it in memory.
        images: folder of the photographs; default: where the format has them, else the source.
        classes: classes of the data set; default: those of the source.
        map: YAML file or table from names, ids or "#rrggbb" colours of the source to classes;
            None leaves a class out, "ignore" ignores its pixels.
        background: class that is no object; default: the one called so.
        kinds: kinds of label to take; default: all.
        exhaustive: outlines and brushed masks leave no object out: other pixels are background
            (otherwise they are unlabelled).
        boxes_exhaustive: boxes leave no object out.
        tags_exhaustive: tags leave no class out.
        width: of strokes in pixels, where the format has none.
        unlabelled: value of label images that says nothing.
        ignore: value of label images to ignore.
        predictions: take a tool's predictions for images without annotation.
        all_images: add the folder's other images, without labels.
        copy: copy the images instead of linking them.
        overwrite: replace a data set that is there.
        strict: refuse instead of leaving anything out.
        name: of the data set; default: that of its folder.
        progress: show progress bars.

    Returns:
        The data set and what became of the labels.

    Raises:
        InputError: the source cannot be read, classes are unknown (all are named), no image is
            found, or `out` cannot be written.
    """
    if format not in READERS:
        raise InputError("unknown format", found=format, rule=", ".join(READERS))
    sources = source if isinstance(source, Mapping) else {"": source}
    wanted = check_kinds(kinds) if kinds is not None else KINDS
    with ExitStack() as stack:
        opened = {}
        for part, path in sources.items():
            if not Path(path).exists():
                raise InputError("no such file or folder", file=path)
            place = Path(path).parent if out is None else Path(out)
            opened[part] = stack.enter_context(unpacked(Path(path), place))
        zips = {opened[part]: Path(path) for part, path in sources.items()}
        zips = {folder: path for folder, path in zips.items() if folder != path}
        index = _image_index(format, [*opened.values()], images)
        given = None if classes is None else tuple(classes)
        options = ReadOptions(index, width, given, unlabelled, ignore, predictions, progress)
        readings = {part: READERS[format](path, options) for part, path in opened.items()}
        if format in _TABLES:
            readings = {part: joined(reading, index) for part, reading in readings.items()}
        names = load_map(map) if isinstance(map, str | os.PathLike) else map and check_map(map)
        places: dict[str, tuple[str | None, int | None]] = {}
        counts = (_used(reading, progress, places) for reading in readings.values())
        used = sum(counts, Counter())
        declared = [c for reading in readings.values() for c in reading.classes]
        found = map_classes(declared, used, classes=classes, mapping=names, places=places)
        if not found.classes:
            raise _no_labels(readings)
        info = DatasetInfo(
            name or Path(out or "imported").resolve().name,
            *_classes(found, background, exhaustive or boxes_exhaustive),
            boxes_exhaustive=boxes_exhaustive,
            tags_exhaustive=tags_exhaustive,
        )
        report = ImportReport(info, problems=[*found.problems])
        rules = Rules(info, found, wanted, exhaustive)
        entries = _entries(readings, index, rules, report, all_images, progress)
        if out is None:
            if zips:
                raise InputError("a zip file needs a folder to go to", rule="out=...")
            kept = [*entries]
            _check(report, strict)
            return Dataset(info, EntryList(kept)), report
        link = not (copy or zips)
        with DatasetWriter(out, info, link=link, overwrite=overwrite) as writer:
            for entry in entries:
                assert isinstance(entry.image, Path)
                writer.add(entry.image, entry.annotation, name=entry.name, split=entry.split)
            for folder, path in zips.items():
                report.problems = [packed(p, folder, path) for p in report.problems]
            _check(report, strict)
    return Dataset.open(out), report


def _image_index(format: str, sources: Sequence[Path], images: Source | None) -> ImageIndex:
    """The photographs: where they are said to be, else in the (first) source."""
    if format in _PICTURES:
        if images is None:
            raise InputError(f"{format}: images are needed, too", rule="the folder of photographs")
        return ImageIndex(Path(images), without=tuple(path for path in sources if path.is_dir()))
    if images is not None:
        return ImageIndex(Path(images))
    folder = sources[0] if sources[0].is_dir() else sources[0].parent
    inner = folder / _IMAGE_FOLDERS.get(format, ".")
    return ImageIndex(inner if inner.is_dir() else folder)


def _used(
    reading: Reading, progress: bool, places: dict[str, tuple[str | None, int | None]]
) -> Counter[str]:
    """How often each class is used; `places` is joined by where one of its labels stands."""
    if reading.used is not None:
        return reading.used
    total: Counter[str] = Counter()
    records = reading.records()
    for record in _watched(records, "reading labels", reading.total, progress):
        labels = record.labels()
        total.update(labels)
        places |= {label: record.place_of(label) for label in labels.keys() - places.keys()}
    return total


def _no_labels(readings: Mapping[str, Reading]) -> InputErrors:
    """That there is nothing to import, with what is wrong in the source, which may be why."""
    listed = []
    for reading in readings.values():
        listed += reading.problems
        for record in reading.records():
            if record.label_image is not None:
                with record.listing():
                    record.label_image.labels()
            listed += record.problems
            if len(listed) >= _LISTED:
                break
    rule = "a source with labels, or a list of classes"
    return InputErrors([Problem("no labels found", rule=rule), *listed[:_LISTED]])


def _watched(
    items: Iterable[Record], text: str, total: int | None, progress: bool
) -> Iterable[Record]:
    if not progress:
        return items
    return track(items, text, total=total, console=Console(stderr=True))


def _classes(
    found: ClassMap, background: str | None, outside: bool
) -> tuple[tuple[str, ...], str | None]:
    """The classes and which of them is background; needed where labels speak of their outside."""
    chosen = match_class(background or "background", found.classes)
    if chosen is None and background is not None:
        rule = f"one of {', '.join(found.classes)}"
        raise InputError("background is not a class", found=background, rule=rule)
    if chosen is None and outside:
        if not found.own:
            rule = "background: the class that pixels outside the labels have"
            raise InputError("exhaustive labels without a background class", rule=rule)
        chosen = "background"
        found.classes = (chosen, *found.classes)
    return found.classes, chosen


def _entries(
    readings: Mapping[str, Reading],
    index: ImageIndex,
    rules: Rules,
    report: ImportReport,
    all_images: bool,
    progress: bool,
) -> Iterator[Entry]:
    """The images of all sources that can be used; what cannot joins the report."""
    names: dict[str, tuple[str, str]] = {}  # image and place of each, by name
    for part, reading in readings.items():
        report.problems += reading.problems
        for record in _watched(reading.records(), "writing images", reading.total, progress):
            entry = _entry(record, index, rules, names, part or record.split or "train")
            report.problems += record.problems
            if entry is not None:
                report.count(entry.annotation)
                yield entry
    taken = {image for image, _ in names.values()}
    rest = [path for path in index.paths if path not in taken]
    report.unused = 0 if all_images else len(rest)
    for path in rest if all_images else ():
        record = Record(path)
        entry = _entry(record, index, rules, names, "train", labelled=False)
        report.problems += record.problems
        if entry is not None:
            report.count(entry.annotation)
            yield entry


def _entry(
    record: Record,
    index: ImageIndex,
    rules: Rules,
    names: dict[str, tuple[str, str]],
    split: str,
    labelled: bool = True,
) -> Entry | None:
    """The image of a record with its labels, None where it cannot be used."""
    try:
        found = index.find(record.image)
        size = image_size(index.folder / found)
    except InputError as error:
        record.note(f"image left out: {error.what}", error.found, error.rule)
        return None
    name = PurePosixPath(found).with_suffix("").as_posix()
    if not is_writable(name):
        record.note("image left out: its name", found, "a name in UTF-8")
        return None
    if name in names:
        first, place = names[name]
        if first != found:
            rule = f"another name than that of {first}"
            record.note("image left out: another has this name", found, rule)
        else:
            rule = f"each image once; the first is {place}"
            record.note("image left out: it comes twice", found, rule)
        return None
    if record.size is not None and tuple(record.size) != size:
        turned = " (the tool did not apply the EXIF rotation)" * (record.size == size[::-1])
        what = f"image left out: its labels are for another size{turned}"
        record.note(what, "{} x {}".format(*record.size), "{} x {}".format(*size))
        return None
    if leaves_folder(record.image):
        record.note("path leaves the folder of images; taken by its name", record.image, found)
    names[name] = found, record.place
    annotation = convert(record, rules, size) if labelled else Annotation()
    return Entry(name, index.folder / found, *size, annotation, split)


def _check(report: ImportReport, strict: bool) -> None:
    if report.images == 0:
        listed = report.problems[:_LISTED]
        raise InputErrors([Problem("no image of the source can be used"), *listed])
    if strict and report.problems:
        raise InputErrors(report.problems)
