"""The photographs that a command is given: a folder, a file, a glob, or part of a data set."""

from __future__ import annotations

from pathlib import Path

from weakseg.dataset import Dataset
from weakseg.errors import InputError
from weakseg.images import find_images


def named_images(images: Path, out: Path | None = None) -> list[tuple[str, Path]]:
    """Images with their names: the path without suffix, from the folder that was given.

    Args:
        images: a folder (searched with its subfolders), a file, or a glob pattern.
        out: where a command writes pictures; what lies there is not taken for photographs.

    Raises:
        InputError: nothing there, or no image in it.
    """
    paths = find_images(images)
    base = images if images.is_dir() else _fixed_part(images)
    if out is not None and base.resolve() in out.resolve().parents:
        # Masks of an earlier prediction are no photographs.
        paths = [path for path in paths if out.resolve() not in path.resolve().parents]
    if not paths:
        raise InputError("no images found but masks of an earlier prediction", file=images)
    return [(path.relative_to(base).with_suffix("").as_posix(), path) for path in paths]


def dataset_part(folder: Path, split: str) -> Dataset:
    """A part of a data set.

    Raises:
        InputError: no data set there, or no image in that part.
    """
    dataset = Dataset.open(folder)
    part = dataset.split(split)
    if not len(part):
        raise InputError(
            f"no image in part {split!r}",
            file=folder,
            rule=f"one of {', '.join(dataset.splits())}",
        )
    return part


def _fixed_part(pattern: Path) -> Path:
    """The folder under which all matches of a glob, or a single file, lie."""
    parts = []
    for part in pattern.parts[:-1]:
        if any(c in part for c in "*?["):
            break
        parts.append(part)
    return Path(*parts) if parts else Path()
