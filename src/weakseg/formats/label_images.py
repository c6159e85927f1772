"""Label images: a picture of class numbers or colours for each photograph.

`masks`: every value is a class, 255 is ignored (what `weakseg predict` and most data sets have).
`napari`, `ilastik`: 0 says nothing, classes count from 1; a `classes.json` may name them.
`nnunet`: a data set of nnU-Net v2, whose label `ignore` says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from weakseg.dataset import DatasetInfo, Entry
from weakseg.errors import InputError, Problem
from weakseg.files import atomic_path, write_json
from weakseg.formats.reading import member, read_json
from weakseg.formats.records import (
    COLOUR,
    LabelImage,
    Reading,
    ReadOptions,
    Record,
    SourceClass,
)
from weakseg.formats.writing import WriteOptions, lose
from weakseg.images import IMAGE_SUFFIXES, MAX_PIXELS, image_size, write_mask
from weakseg.seeds import seed_map

_SUFFIXES = (".npy", *sorted(IMAGE_SUFFIXES))
_ENDINGS = (
    *("_Simple Segmentation", "_Labels", "_labels", "_label", "_masks", "_mask", "_seg", "_gt"),
    *("-labels", "-label", "-mask", " labels"),
)


def read_masks(
    source: Path, options: ReadOptions, *, unlabelled: int | None = None, ignore: int | None = 255
) -> Reading:
    """Open a folder of label images.

    They are called as their photographs, or with an ending such as `_mask`. Values take the
    given classes in turn, from 0 or, where 0 says nothing, from 1. A `dataset.yaml` beside them,
    as `weakseg export masks` writes it, tells all.

    Args:
        source: the folder, or a single label image (PNG, TIFF, NPY, ...).
        options: `classes`, `unlabelled`, `ignore`.
        unlabelled: the format's value that says nothing.
        ignore: the format's value to ignore.
    """
    info_file = source / "dataset.yaml"
    if info_file.is_file():
        info = DatasetInfo.load(info_file)
        names, unlabelled, ignore = info.classes, info.unlabelled, info.ignore
    else:
        names = options.classes or ()
        unlabelled = unlabelled if options.unlabelled is None else options.unlabelled
        ignore = ignore if options.ignore is None else options.ignore
    table = dict(enumerate(names, 1 if unlabelled == 0 else 0))
    quiet = frozenset(v for v in (unlabelled,) if v is not None)
    ignored = frozenset(v for v in (ignore,) if v is not None) - quiet
    return _reading(source, options, table, quiet, ignored)


def read_napari(source: Path, options: ReadOptions) -> Reading:
    """Open a folder of label images in which 0 says nothing and classes count from 1.

    Their names stand in a `classes.json` beside them, as `weakseg export napari` and
    `weakseg export ilastik` write it, or are the given ones in turn.

    Args:
        source: the folder, or a single label image.
        options: `classes`, `unlabelled`, `ignore`.
    """
    file = (source if source.is_dir() else source.parent) / "classes.json"
    if not file.is_file():
        return read_masks(source, options, unlabelled=0, ignore=None)
    try:
        names = _class_list(file)
    except InputError as error:  # may be a file of that name which means something else
        reading = read_masks(source, options, unlabelled=0, ignore=None)
        reading.problems.append(Problem.from_error(error, fatal=False))
        return reading
    quiet = {value for value, name in names.items() if name is None}
    quiet.add(0 if options.unlabelled is None else options.unlabelled)
    ignored = frozenset(v for v in (options.ignore,) if v is not None) - quiet
    table = {value: name for value, name in sorted(names.items()) if name is not None}
    return _reading(source, options, table, frozenset(quiet), ignored)


def _class_list(file: Path) -> dict[int, str | None]:
    """The class of each value, None where it says nothing."""
    data = read_json(file)
    rule = '{"0": null, "1": name of the first class, ...}'
    usable = isinstance(data, dict) and data.get("0") is None
    for value, name in data.items() if usable else ():
        usable = usable and value.isdecimal() and len(value) < 10
        usable = usable and (name is None or (isinstance(name, str) and name != ""))
    if not usable:
        raise InputError("list of classes that is not read", file=file, found=data, rule=rule)
    return {int(value): name for value, name in data.items()}


def _reading(
    source: Path,
    options: ReadOptions,
    table: dict[int, str],
    quiet: frozenset[int],
    ignored: frozenset[int],
) -> Reading:
    paths = _find(source)

    def records() -> Iterator[Record]:
        for path in paths:
            record = Record(_image_of(path, source, options), file=str(path))
            with record.listing():
                label_size(path)
                record.label_image = LabelImage(
                    partial(read_labels, path), table, quiet, ignored - table.keys()
                )
            yield record

    classes = {name: SourceClass(name, value) for value, name in table.items()}
    return Reading(records, [*classes.values()], total=len(paths))


def _find(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not found:
        rule = f"files that end in {', '.join(_SUFFIXES)}"
        raise InputError("no label images", file=source, rule=rule)
    return found


def _image_of(path: Path, source: Path, options: ReadOptions) -> str:
    """The photograph's name: the same, or without an ending that says that this is a mask."""
    place = path.relative_to(source) if source.is_dir() else Path(path.name)
    stem = place.with_suffix("").as_posix()
    for name in [stem, *(stem.removesuffix(end) for end in _ENDINGS if stem.endswith(end))]:
        try:
            options.images.find(name + ".png")
        except InputError as error:
            if error.what == "no such image":
                continue
        return name + ".png"
    return stem + ".png"


def label_size(path: Path) -> tuple[int, int]:
    """(width, height) of a label image.

    Raises:
        InputError: missing, or no image.
    """
    if path.suffix.lower() in (".npy", ".tif", ".tiff"):
        height, width = read_labels(path).shape
        return width, height
    return image_size(path)


def read_labels(path: Path) -> NDArray[Any]:
    """The values of a label image, (H, W) of integers; colours become `COLOUR` + 0xRRGGBB.

    Raises:
        InputError: missing, damaged, or no map of whole numbers or colours.
    """
    try:
        return _whole_numbers(_load(path))
    except InputError as error:
        raise error.at(path) from None
    except MemoryError:
        raise
    except FileNotFoundError as error:
        raise InputError("no such file", file=path) from error
    except Exception as error:  # decoders raise many kinds of exception on damaged files
        rule = "a whole label image"
        raise InputError("cannot be read", file=path, found=str(error), rule=rule) from error


def _load(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
        return array
    if suffix in (".tif", ".tiff"):
        import tifffile  # comes with scikit-image; Pillow lacks most integer types

        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            if np.prod(page.shape[:2]) > MAX_PIXELS:
                raise InputError("label image too large", found=page.shape)
            return np.asarray(page.asarray())
    image_size(path)  # refuses what is too large
    with Image.open(path) as image:
        image.load()
        if image.mode in ("RGBA", "LA", "PA", "CMYK", "YCbCr"):
            image = image.convert("RGB")  # type: ignore[assignment]
        return np.asarray(ImageOps.exif_transpose(image))


def _whole_numbers(array: NDArray[Any]) -> NDArray[Any]:
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8:
        red, green, blue = (array[:, :, i].astype(np.int64) for i in range(3))
        return COLOUR + (red << 16) + (green << 8) + blue
    if array.ndim != 2 or array.size == 0 or array.size > MAX_PIXELS:
        raise InputError("not a label image", found=f"shape {array.shape}", rule="(H, W)")
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu":
        raise InputError("not a label image", found=str(array.dtype), rule="whole numbers")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def colour_value(rgb: tuple[int, int, int]) -> int:
    """The value of a colour's pixels as `read_labels` gives them."""
    return COLOUR + (rgb[0] << 16) + (rgb[1] << 8) + rgb[2]


def write_masks(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write indexed PNGs, and a `dataset.yaml` that says what their values mean."""
    for entry in entries:
        lose(entry, options, "tags", "boxes", "points", "scribbles")
        if entry.mask is None:
            options.lost.add("images without a mask: left out", entry.name)
            lose(entry, options, "ignore")
            continue
        write_mask(out / f"{entry.name}.png", _painted(entry, options.info, ("masks",)))
    options.info.save(out / "dataset.yaml")


def write_napari(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write PNGs in which 0 says nothing and classes count from 1; marks are drawn in."""
    info = options.info
    table = np.zeros(256, np.uint8)
    table[: len(info.classes)] = np.arange(1, len(info.classes) + 1)
    for entry in entries:
        lose(entry, options, "tags", "boxes")
        drawn = len(entry.annotation.scribbles) + len(entry.annotation.points)
        options.lost.add("points and strokes: drawn as pixels", entry.name, drawn)
        seeds = _painted(entry, info, ("masks", "scribbles", "points"))
        ignored = int((seeds == info.ignore).sum())
        options.lost.add("pixels to ignore: written as unlabelled", entry.name, ignored)
        if not (seeds < info.unlabelled).any():
            options.lost.add("images without a labelled pixel: left out", entry.name)
            continue
        write_mask(out / f"{entry.name}.png", table[seeds])
    classes = {str(i): name for i, name in enumerate(info.classes, 1)}
    write_json(out / "classes.json", {"0": None, **classes})


def _painted(entry: Entry, info: DatasetInfo, kinds: tuple[str, ...]) -> NDArray[np.int32]:
    return seed_map(entry.annotation, info, (entry.height, entry.width), kinds=kinds)


def read_nnunet(source: Path, options: ReadOptions) -> Reading:
    """Open a data set of nnU-Net v2 with two-dimensional images.

    Args:
        source: its folder, with `dataset.json`, `imagesTr` and `labelsTr`.
        options: nothing of it is used.

    Raises:
        InputError: another layout, volumes, or labels that overlap.
    """
    file = source / "dataset.json"
    data = read_json(file)
    labels = member(data, "labels", dict, "dataset.json")
    ending = member(data, "file_ending", str, "dataset.json") if "file_ending" in data else ".png"
    if ending.lower() not in _SUFFIXES:
        raise InputError("volumes are not read", file=file, found=ending, rule="2D images")
    table = {}
    for name, value in labels.items():
        # Version 1 had them the other way round.
        name, value = (value, name) if str(name).isdecimal() else (name, value)
        if not isinstance(name, str) or not str(value).isdecimal() or len(str(value)) > 9:
            rule = '"name": number'
            raise InputError("label of nnU-Net", file=file, found=f"{name}: {value}", rule=rule)
        table[int(value)] = name
    quiet = frozenset(value for value, name in table.items() if name == "ignore")
    names = {value: name for value, name in table.items() if value not in quiet}
    paths = _find(source / "labelsTr")

    def records() -> Iterator[Record]:
        for path in paths:
            record = Record(f"{path.stem}_0000{path.suffix}", file=str(path))
            record.label_image = LabelImage(partial(read_labels, path), names, quiet)
            yield record

    classes = [SourceClass(name, value) for value, name in sorted(names.items())]
    return Reading(records, classes, total=len(paths))


def write_nnunet(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a data set of nnU-Net v2; unlabelled pixels get its label `ignore`."""
    info = options.info
    if info.background is None:
        raise InputError("nnU-Net needs a background class", found="none", rule="background: ...")
    order = [info.background, *(name for name in info.classes if name != info.background)]
    table = np.full(256, len(order), np.uint8)
    table[[info.index(name) for name in order]] = np.arange(len(order))
    count = 0
    for entry in entries:
        lose(entry, options, "tags", "boxes", "points", "scribbles")
        if entry.mask is None:
            options.lost.add("images without a mask: left out", entry.name)
            lose(entry, options, "ignore")
            continue
        name = entry.name.replace("/", "__")
        seeds = _painted(entry, info, ("masks",))
        ignored = int((seeds == info.ignore).sum())
        options.lost.add("pixels to ignore: written as unlabelled", entry.name, ignored)
        write_mask(out / "labelsTr" / f"{name}.png", table[seeds])
        with atomic_path(out / "imagesTr" / f"{name}_0000.png") as temporary:
            Image.fromarray(entry.read_image()).save(temporary, format="PNG")
        count += 1
    labels = {name: value for value, name in enumerate([*order, "ignore"])}
    write_json(
        out / "dataset.json",
        {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": labels,
            "numTraining": count,
            "file_ending": ".png",
        },
    )
