"""`weakseg check`: counts of a data set, and everything that is wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from weakseg.annotation import KINDS
from weakseg.dataset import dataset_folder
from weakseg.dataset_info import DatasetInfo
from weakseg.entries import Entry, EntryLines, parse_entry
from weakseg.errors import InputError, Problem
from weakseg.images import image_size, read_image, read_mask, walk_images
from weakseg.seeds import draw_boxes_filled, mask_rule, seed_map
from weakseg.wording import counted


@dataclass
class Report:
    """What a check found.

    Attributes:
        dataset: the folder.
        name: of the data set.
        images: number of images of each split.
        unlabelled: number of training images without any label; they are allowed.
        labels: for each class, how many labels of each kind training images have: masks and tags
            count images, the others single boxes, points and scribbles.
        labelled_share: for each kind that says which pixels it means, the share of the training
            images' pixels that it labels (for boxes: that lies inside one).
        problems: every finding, in the order of the lines.
    """

    dataset: str
    name: str = ""
    images: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    labelled_share: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def fatal(self) -> bool:
        """Whether any problem keeps the data set from being used."""
        return any(problem.fatal for problem in self.problems)

    def to_json(self) -> str:
        """The report as JSON text; `fatal` says whether the data set can be used."""
        data: dict[str, Any] = asdict(self)
        data["problems"] = [problem.to_dict() for problem in self.problems]
        data["fatal"] = self.fatal
        return json.dumps(data, indent=2, ensure_ascii=False)


def check_dataset(
    path: str | PathLike[str], *, pixels: bool = True, progress: bool = False
) -> Report:
    """Read a whole data set and report on it; problems are collected, not raised.

    Args:
        path: its folder or `dataset.yaml`.
        pixels: decode images and masks too; without, only headers are read and what depends on
            pixels (damaged images, mask values, shares) is left out.
        progress: show a progress bar.
    """
    report = Report(str(path))
    try:
        folder = dataset_folder(path)
    except InputError as error:
        report.problems.append(Problem.from_error(error))
        return report
    info, problems = DatasetInfo.parse(folder / "dataset.yaml")
    report.problems += problems
    if info is None:
        return report
    report.name = info.name
    report.labels = {name: dict.fromkeys(KINDS, 0) for name in info.classes}
    try:
        lines = EntryLines(folder, info)
    except InputError as error:
        report.problems.append(Problem.from_error(error))
        return report
    if len(lines) == 0:
        report.problems.append(
            Problem("empty data set", str(lines.path), rule="one line for each image")
        )
        return report
    _Check(report, info, lines, pixels).run(progress)
    return report


def print_report(report: Report, console: Console) -> None:
    """Print counts as a table, then every problem on a line of its own, the fatal ones first."""
    shown = [k for k in KINDS if any(counts[k] for counts in report.labels.values())]
    *parts, last = [*report.images.items()] or [("", 0)]
    said = ", ".join([*(f"{n:,} {split}" for split, n in parts), _images(last[1], last[0])])
    console.print(f"[bold]{escape(report.name or report.dataset)}[/bold]: {escape(said)}")
    if shown:
        table = Table("class", title="labels of training images", title_justify="left")
        for kind in shown:
            table.add_column(kind, justify="right")
        for name, counts in report.labels.items():
            table.add_row(escape(name), *(str(counts[kind]) for kind in shown))
        console.print(table)
    for kind, share in report.labelled_share.items():
        where = "lie inside boxes" if kind == "boxes" else f"labelled by {kind}"
        console.print(f"{share:.2%} of training pixels {where}")
    if report.unlabelled:
        console.print(f"{_images(report.unlabelled, 'training')} without a label (allowed)")
    for problem in sorted(report.problems, key=lambda p: not p.fatal):
        style = "[red]error[/red]" if problem.fatal else "[yellow]warning[/yellow]"
        console.print(f"{style} {escape(str(problem))}", soft_wrap=True, highlight=False)
    fatal = sum(problem.fatal for problem in report.problems)
    warnings = len(report.problems) - fatal
    labelled = report.images.get("train", 0) - report.unlabelled
    usable = "can be used" if labelled else "can be used, but not to train on"
    verdict = "cannot be used" if fatal else usable
    found = f"{counted(fatal, 'error')}, {counted(warnings, 'warning')}"
    console.print(f"{found}: the data set {verdict}", highlight=False, soft_wrap=True)


def _images(number: int, which: str) -> str:
    return counted(number, f"{which} image".strip())


class _Check:
    """One pass over the lines of a data set."""

    def __init__(self, report: Report, info: DatasetInfo, lines: EntryLines, pixels: bool) -> None:
        self.report = report
        self.info = info
        self.lines = lines
        self.pixels = pixels
        self.file = str(lines.path)
        # By line, as hashes: a million paths would be a million objects.
        self.images = np.zeros(len(lines), np.int64)
        self.names = np.zeros(len(lines), np.int64)
        self.labelled: Counter[str] = Counter()
        self.area = 0
        self.mask_values: NDArray[np.int64] = np.zeros(256, np.int64)

    def run(self, progress: bool) -> None:
        lines: Iterable[tuple[int, bytes]] = self.lines.lines()
        if progress:
            lines = track(lines, "checking", total=len(self.lines), transient=True)
        for row, (number, text) in enumerate(lines):
            entry, problems = parse_entry(text, self.info, self.lines.folder, self.file, number)
            self.report.problems += problems
            if entry is not None:
                self.images[row], self.names[row] = hash(entry.image), hash(entry.name)
                self.check_entry(entry, sound=not problems)
        self.check_repeats()
        self.check_whole()

    def note(
        self,
        what: str,
        line: int | None = None,
        found: object = None,
        rule: str | None = None,
        fatal: bool = False,
    ) -> None:
        self.report.problems.append(Problem(what, self.file, line, found, rule, fatal))

    def check_entry(self, entry: Entry, sound: bool) -> None:
        images = self.report.images
        images[entry.split] = images.get(entry.split, 0) + 1
        readable = self.check_image(entry)
        mask = self.check_mask(entry)
        if entry.split == "train":
            self.count(entry, mask)
            if self.pixels and readable and sound:
                self.measure(entry, mask)
        if sound:
            self.check_agreement(entry, mask)

    def check_image(self, entry: Entry) -> bool:
        """Whether the image is there, whole, and as large as the line says."""
        assert isinstance(entry.image, Path)
        try:
            if self.pixels:
                height, width = read_image(entry.image).shape[:2]
            else:
                width, height = image_size(entry.image)
        except InputError as error:
            rule = error.rule or "an image file at that path"
            found = f"{entry.image} ({error.found})" if error.found else entry.image
            self.note(f"image: {error.what}", entry.line, str(found), rule, fatal=True)
            return False
        if (width, height) != (entry.width, entry.height):
            self.note(
                "width and height disagree with the image",
                entry.line,
                f"{entry.width} x {entry.height}",
                f"{width} x {height}, as {entry.image.name} is displayed",
                fatal=True,
            )
            return False
        return True

    def check_mask(self, entry: Entry) -> NDArray[np.uint8] | None:
        if not isinstance(entry.mask, Path):
            return None
        try:
            if not self.pixels:
                image_size(entry.mask)
                return None
            mask = read_mask(entry.mask, (entry.width, entry.height))
        except InputError as error:
            found = f"{entry.mask} ({error.found})" if error.found else str(entry.mask)
            self.note(f"mask: {error.what}", entry.line, found, error.rule, fatal=True)
            return None
        values = np.bincount(mask.reshape(-1), minlength=256)
        self.mask_values += values
        allowed = [*range(self.info.unlabelled + 1), self.info.ignore]
        wrong = [int(v) for v in np.flatnonzero(values) if v not in allowed]
        if wrong:
            what = f"mask {entry.mask.name} holds values that are no class"
            self.note(what, entry.line, wrong, mask_rule(self.info), fatal=True)
        return mask

    def count(self, entry: Entry, mask: NDArray[np.uint8] | None) -> None:
        labels, annotation = self.report.labels, entry.annotation
        for tag in annotation.tags:
            if tag in labels:
                labels[tag]["tags"] += 1
        for kind in ("boxes", "points", "scribbles"):
            for item in getattr(annotation, kind):
                if item.label in labels:
                    labels[item.label][kind] += 1
        if mask is not None:
            for name in self.mask_classes(mask):
                labels[name]["masks"] += 1
        if not annotation.kinds:
            self.report.unlabelled += 1

    def mask_classes(self, mask: NDArray[np.uint8]) -> list[str]:
        present = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256))
        return [self.info.classes[v] for v in present if v < self.info.unlabelled]

    def measure(self, entry: Entry, mask: NDArray[np.uint8] | None) -> None:
        size = (entry.height, entry.width)
        self.area += size[0] * size[1]
        for kind in ("scribbles", "points"):
            if kind in entry.annotation.kinds:
                seeds = seed_map(entry.annotation, self.info, size, kinds=[kind])
                self.labelled[kind] += int((seeds < self.info.unlabelled).sum())
        if entry.annotation.boxes:
            inside = draw_boxes_filled(entry.annotation.boxes, self.without_outside(), size)
            self.labelled["boxes"] += int((inside < self.info.unlabelled).sum())
        if mask is not None:
            self.labelled["masks"] += int((mask < self.info.unlabelled).sum())

    def without_outside(self) -> DatasetInfo:
        return DatasetInfo(self.info.name, self.info.classes, ignore=self.info.ignore)

    def check_agreement(self, entry: Entry, mask: NDArray[np.uint8] | None) -> None:
        """Warn where exhaustive tags or boxes leave out what another label shows."""
        annotation, background = entry.annotation, self.info.background
        shown = (
            annotation.labels if mask is None else {*annotation.labels, *self.mask_classes(mask)}
        )
        if annotation.tags and self.info.tags_exhaustive:
            for name in sorted(shown - {*annotation.tags, background}):
                what = "class is labelled but not among the tags"
                rule = "tags that name every class, or tags_exhaustive: false"
                self.note(what, entry.line, name, rule)
        if annotation.boxes and self.info.boxes_exhaustive:
            boxed = {box.label for box in annotation.boxes}
            for name in sorted(shown - {*boxed, background}):
                rule = "a box for every object, or boxes_exhaustive: false"
                self.note("class is labelled but has no box", entry.line, name, rule)

    def check_repeats(self) -> None:
        """Read again the lines whose name comes more than once."""
        found, counts = np.unique(self.names, return_counts=True)
        rows = np.flatnonzero(np.isin(self.names, found[counts > 1]) & (self.names != 0))
        images: dict[Path, int] = {}
        names: dict[str, int] = {}
        for line, text in self.lines.lines(rows):
            entry, _ = parse_entry(text, self.info, self.lines.folder, self.file, line)
            assert entry is not None
            assert isinstance(entry.image, Path)
            if (first := images.setdefault(entry.image, line)) != line:
                rule = f"each image once; it is on line {first}"
                self.note("image listed twice", line, entry.image.name, rule, fatal=True)
            elif (first := names.setdefault(entry.name, line)) != line:
                rule = f"names that differ without their suffix; see line {first}"
                self.note("two images share a name", line, entry.image.name, rule)
        self.report.problems.sort(key=lambda problem: problem.line or 0)

    def check_whole(self) -> None:
        report = self.report
        self.check_classes()
        if self.area:
            report.labelled_share = {
                kind: self.labelled[kind] / self.area for kind in KINDS if self.labelled[kind]
            }
        if not report.images.get("train"):
            rule = '"split": "train", or no split, for some images'
            self.note("no training images", found=report.images, rule=rule)
        elif report.unlabelled == report.images["train"]:
            self.note("no training image has a label", rule="labels to learn from")
        if self.mask_values[self.info.unlabelled] and not self.mask_values[0]:
            found = f"value {self.info.unlabelled}, but never 0"
            rule = "masks that count classes from 0"
            self.note("masks may count classes from 1", found=found, rule=rule)
        self.check_unlisted()

    def check_classes(self) -> None:
        """Warn of classes that nothing in training shows."""
        counts = self.report.labels
        weak = any(c[kind] for c in counts.values() for kind in KINDS[1:])
        kinds = KINDS[1:] if weak else KINDS if self.pixels else ()
        # Strokes and points name the background; tags and boxes leave it to their outside.
        told = any(c[kind] for c in counts.values() for kind in ("scribbles", "points"))
        for name in self.info.classes if kinds else ():
            if any(counts[name][kind] for kind in kinds) or (
                name == self.info.background and weak and not told
            ):
                continue
            what = "class without any weak label" if weak else "class without any label"
            self.note(f"{what} in training images", found=name, rule="a label for every class")

    def check_unlisted(self) -> None:
        folder = self.lines.folder / "images"
        if not folder.is_dir():
            return
        listed = np.sort(self.images)
        extra, first = 0, None
        for path in walk_images(folder):
            at = np.searchsorted(listed, hash(path))
            if at == len(listed) or listed[at] != hash(path):
                extra, first = extra + 1, path if first is None else min(first, path)
        if first is not None:
            found = f"{extra}, such as {first.relative_to(self.lines.folder)}"
            self.note("files in images/ without a line", found=found, rule="a line for each image")
