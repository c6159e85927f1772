"""PASCAL VOC: boxes in XML, masks in folders, splits in lists.

After the VOC 2012 development kit, whose boxes count pixels from 1 and hold both ends; the boxes
of other tools (CVAT, LabelImg), which do not name a VOC database as their source, are on the edges
of pixels. Masks are indexed or coloured PNGs, 255 (or the colour 224, 224, 192) is ignored. Where
the classes are not VOC's, `labelmap.txt` names them with their colours, as CVAT writes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from weakseg.annotation import Box
from weakseg.dataset import Entry
from weakseg.errors import InputError, Problem
from weakseg.files import write_text
from weakseg.formats.label_images import colour_value, read_labels
from weakseg.formats.reading import as_number, as_size, read_text, read_xml
from weakseg.formats.records import LabelImage, Reading, ReadOptions, Record, SourceClass, tidy
from weakseg.formats.writing import WriteOptions, image_name, lose, place_image, xml_text
from weakseg.images import palette, write_mask
from weakseg.seeds import seed_map

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_VOID = (224, 224, 192)
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FLAG = re.compile(r"\s+(-1|0|1)$")  # whether the class of a list is in the image


def read_voc(source: Path, options: ReadOptions) -> Reading:
    """Open a VOC data set, or a folder of VOC's XML files.

    Args:
        source: folder with any of `Annotations`, `SegmentationClass`, `ImageSets` and
            `labelmap.txt`, or with XML files right in it.
        options: `classes`: names of the mask's values where there is no `labelmap.txt`.
    """
    folder = source / "Annotations" if (source / "Annotations").is_dir() else source
    files = {p.relative_to(folder).with_suffix("").as_posix(): p for p in folder.rglob("*.xml")}
    drawn = source / "SegmentationClass"
    masks = {p.relative_to(drawn).with_suffix("").as_posix(): p for p in drawn.rglob("*.png")}
    names = sorted({*files, *masks})
    if not names:
        raise InputError("no VOC annotations", file=source, rule="Annotations, SegmentationClass")
    splits, problems = _splits(source, {*names})
    declared = _labelmap(source / "labelmap.txt")
    if not declared and masks:
        declared = [SourceClass(n, i) for i, n in enumerate(options.classes or VOC_CLASSES)]

    def records() -> Iterator[Record]:
        for name in names:
            record = Record(f"{name}.jpg", file=str(files.get(name, masks.get(name))))
            record.split = splits.get(name)
            with record.listing():
                if name in files:
                    _add_objects(record, files[name])
                if name in masks:
                    record.label_image = _label_image(masks[name], declared)
            yield record

    return Reading(records, declared, total=len(names), problems=problems)


def _splits(source: Path, names: Collection[str]) -> tuple[dict[str, str], list[Problem]]:
    """The part of each image that is listed, lists of masks before others; and what is wrong."""
    splits: dict[str, str] = {}
    problems: list[Problem] = []
    for kind in ("Main", "Segmentation"):
        parts: dict[str, str] = {}
        for part in ("train", "val", "test"):
            file = source / "ImageSets" / kind / f"{part}.txt"
            lines = read_text(file).splitlines() if file.is_file() else []
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                name = _listed(line.strip(), names)
                if name is None:
                    what, rule = "listed image without labels", "a file of labels of this name"
                    problems.append(Problem(what, str(file), number, line.strip(), rule, False))
                elif parts.setdefault(name, part) != part:
                    what, rule = "image in two lists", f"one list; it is taken for {parts[name]}"
                    problems.append(Problem(what, str(file), number, name, rule, False))
        splits |= parts
    return splits, problems


def _listed(line: str, names: Collection[str]) -> str | None:
    """The image that a line of a list means, None where there is none.

    A name may have spaces and end like a flag ("reef 1"), so that the whole line goes first.
    """
    return next((name for name in (line, _FLAG.sub("", line)) if name in names), None)


def _labelmap(file: Path) -> list[SourceClass]:
    if not file.is_file():
        return []
    classes: list[SourceClass] = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.split(":")
        rgb = None
        if rest and rest[0].strip():
            parts = [part.strip() for part in rest[0].split(",")]
            if len(parts) != 3 or not all(p.isdecimal() and int(p) < 256 for p in parts):
                rule = "name:red,green,blue::"
                raise InputError("colour", file=file, line=number, found=rest[0], rule=rule)
            rgb = (int(parts[0]), int(parts[1]), int(parts[2]))
        classes.append(SourceClass(name.strip(), len(classes), rgb))
    return classes


def _label_image(path: Path, classes: list[SourceClass]) -> LabelImage:
    """A mask by value or, in colours, by the colour of the class (its own or VOC's)."""
    colours = palette(len(classes)).tolist()
    names = {i: c.name for i, c in enumerate(classes)}
    for i, c in enumerate(classes):
        names[colour_value(c.colour or tuple(colours[i]))] = c.name
    ignore = frozenset({255, colour_value(_VOID)}) - names.keys()
    return LabelImage(partial(_by_colour, path, classes), names, ignore=ignore)


def _by_colour(path: Path, classes: list[SourceClass]) -> NDArray[Any]:
    """The map; where classes have colours of their own, an indexed one by its palette."""
    values = read_labels(path)
    if values.dtype != np.uint8 or not any(c.colour for c in classes):
        return values
    from PIL import Image

    with Image.open(path) as image:
        table = image.getpalette("RGB") if image.mode == "P" else None
    if table is None:
        return values
    rgb = np.zeros((256, 3), np.int64)
    rgb[: len(table) // 3] = np.array(table).reshape(-1, 3)
    packed = np.array([colour_value((int(r), int(g), int(b))) for r, g, b in rgb])
    packed[255] = 255
    colours: NDArray[Any] = packed[values]
    return colours


def _add_objects(record: Record, path: Path) -> None:
    root = read_xml(path, "annotation")
    record.image = (root.findtext("filename") or record.image).strip()
    size = root.find("size")
    if size is not None and size.findtext("width") not in (None, "", "0"):
        record.size = as_size("image", size.findtext("width"), size.findtext("height"))
    first = int("VOC" in (root.findtext("source/database") or ""))
    parts = 0
    for item in root.iter("object"):
        parts += len(item.findall("part"))
        with record.listing():
            label = (item.findtext("name") or "").strip()
            if not label:
                raise InputError("object without a name")
            box = item.find("bndbox")
            if box is None:
                raise InputError("object without bndbox", found=label)
            x0, y0, x1, y1 = (as_number(side, box.findtext(side)) for side in _SIDES)
            record.boxes.append(Box(label, (x0 - first, y0 - first, x1, y1)))
    if parts:
        record.note("parts of objects", parts)


def write_voc(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write a VOC data set: boxes, masks, lists of the splits, `labelmap.txt`, linked images."""
    info = options.info
    for name in info.classes:
        if ":" in name or name != name.strip() or name.startswith("#"):
            rule = "no colon, no # in front, no space at the ends"
            raise InputError("class that labelmap.txt cannot hold", found=name, rule=rule)
    listed: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        lose(entry, options, "tags", "points", "scribbles")
        place_image(entry, out / "JPEGImages" / image_name(entry, options))
        write_text(out / "Annotations" / f"{entry.name}.xml", _objects(entry, options))
        listed.setdefault(("Main", entry.split), []).append(entry.name)
        if entry.mask is None:
            lose(entry, options, "ignore")
            continue
        seeds = seed_map(entry.annotation, info, (entry.height, entry.width), kinds=["masks"])
        blank = seeds == info.unlabelled
        options.lost.add("unlabelled pixels: written as void", entry.name, int(blank.sum()))
        seeds[blank | (seeds == info.ignore)] = 255
        write_mask(out / "SegmentationClass" / f"{entry.name}.png", seeds)
        listed.setdefault(("Segmentation", entry.split), []).append(entry.name)
    for (kind, split), names in listed.items():
        text = "".join(f"{name}\n" for name in names)
        write_text(out / "ImageSets" / kind / f"{split}.txt", text)
    lines = ["# label:color_rgb:parts:actions"]
    for name, rgb in zip(info.classes, palette(len(info.classes)).tolist(), strict=True):
        lines.append(f"{name}:{','.join(map(str, rgb))}::")
    write_text(out / "labelmap.txt", "\n".join(lines) + "\n")


def _objects(entry: Entry, options: WriteOptions) -> str:
    name = escape(xml_text(image_name(entry, options)))
    lines = [
        "<annotation>",
        f"  <filename>{name}</filename>",
        f"  <size><width>{entry.width}</width><height>{entry.height}</height>"
        "<depth>3</depth></size>",
        f"  <segmented>{int(entry.mask is not None)}</segmented>",
    ]
    for box in entry.annotation.boxes:
        x0, y0, x1, y1 = box.xyxy
        numbers = (tidy(x0), tidy(y0), tidy(x1), tidy(y1))
        sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(_SIDES, numbers, strict=True))
        label = escape(xml_text(box.label))
        lines.append(f"  <object><name>{label}</name><bndbox>{sides}</bndbox></object>")
    return "\n".join([*lines, "</annotation>\n"])
