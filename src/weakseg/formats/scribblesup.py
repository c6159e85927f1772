"""ScribbleSup's XML: a polyline of pixel positions for each stroke.

After the files of the PASCAL-Scribble data set (Lin et al., CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from weakseg.annotation import Point, Scribble
from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.files import write_text
from weakseg.formats.reading import as_number, as_size, read_xml
from weakseg.formats.records import Reading, ReadOptions, Record, tidy
from weakseg.formats.writing import WriteOptions, image_name, lose, odd_width, xml_text


def read_scribblesup(source: Path, options: ReadOptions) -> Reading:
    """Open ScribbleSup's XML files.

    Args:
        source: the folder, or one file.
        options: `width` of the strokes.
    """
    paths = sorted(source.rglob("*.xml")) if source.is_dir() else [source]
    if not paths:
        raise InputError("no XML files", file=source)
    return Reading(lambda: (_record(path, options.width) for path in paths), total=len(paths))


def _record(path: Path, width: float) -> Record:
    record = Record(f"{path.stem}.jpg", file=str(path))
    with record.listing():
        root = read_xml(path, "annotation")
        record.image = (root.findtext("filename") or record.image).strip()
        size = root.find("size")
        if size is not None:
            record.size = as_size("image", size.findtext("width"), size.findtext("height"))
        for stroke in root.iter("polygon"):
            with record.listing():
                _add_stroke(record, stroke, width)
    return record


def _add_stroke(record: Record, stroke: Element, width: float) -> None:
    label = (stroke.findtext("tag") or "").strip()
    if not label:
        raise InputError("stroke without a tag")
    xy = tuple(
        (as_number("X", point.findtext("X")), as_number("Y", point.findtext("Y")))
        for point in stroke.iter("point")
    )
    if len(xy) == 1:
        record.points.append(Point(label, xy[0]))
    else:
        record.scribbles.append(Scribble(label, xy, width))


def write_scribblesup(entries: Iterable[Entry], out: Path, options: WriteOptions) -> None:
    """Write an XML file for each image; a point is a stroke of one position."""
    for entry in entries:
        lose(entry, options, "tags", "boxes", "masks", "ignore")
        name = escape(xml_text(options.prefix + image_name(entry, options)))
        lines = [
            "<annotation>",
            f"  <filename>{name}</filename>",
            f"  <size><width>{entry.width}</width><height>{entry.height}</height>"
            "<depth>3</depth></size>",
        ]
        strokes = [(s.label, s.xy) for s in entry.annotation.scribbles]
        for scribble in entry.annotation.scribbles:
            odd_width(scribble, entry, options)
        for label, xy in [*strokes, *((p.label, (p.xy,)) for p in entry.annotation.points)]:
            points = "".join(f"<point><X>{tidy(x)}</X><Y>{tidy(y)}</Y></point>" for x, y in xy)
            tag = escape(xml_text(label))
            lines.append(f"  <polygon><tag>{tag}</tag>{points}</polygon>")
        write_text(out / f"{entry.name}.xml", "\n".join([*lines, "</annotation>\n"]))
