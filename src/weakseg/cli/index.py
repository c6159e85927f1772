"""`weakseg index`: the segments of a collection, to search in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from weakseg.annotation import Annotation, check_kinds
from weakseg.cli.photographs import dataset_part, named_images
from weakseg.dataset import Dataset, Entry
from weakseg.errors import InputError
from weakseg.images import image_size
from weakseg.retrieval import Indexed, index_images
from weakseg.retrieval.indexing import When
from weakseg.retrieval.segments import WEAK_KINDS
from weakseg.segmenter import Segmenter
from weakseg.training.recipe import resolve_device


def index(
    run: Path,
    images: Path,
    out: Path,
    split: str | None = None,
    kinds: tuple[str, ...] = WEAK_KINDS,
    prune: bool = False,
    remove: tuple[str, ...] = (),
    context: float | None = None,
    approximate: When = "auto",
    device: str = "auto",
) -> int:
    """Index the segments of photographs, for `weakseg retrieve`.

    An index that is there is brought up to date: new photographs are added, changed ones
    replaced, the others left alone. It may be interrupted at any time and goes on where it was.
    An image that cannot be read is listed, and the rest goes on.

    Args:
        run: Run folder that `weakseg train` wrote.
        images: A folder (searched with its subfolders), a file, a glob pattern, or a data set,
            whose weak labels are indexed too.
        out: Folder of the index; made if missing.
        split: Only this part of the data set, "train" for example.
        kinds: Kinds of label that give segments their weak class; masks only if named.
        prune: Take out images that IMAGES does not have.
        remove: Names of images, or patterns like "site3/*", to take out and not to add.
        context: How much the whole image counts in the similarity of two segments: 0, not at
            all, to almost 1. Default: what the index has, and 0.4 for a new one.
        approximate: Prepare approximate search (needs the package faiss-cpu): "always", "never",
            or "auto", in indexes so large that it pays.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Returns:
        0 if every image was indexed, 1 if the input is bad or an image failed.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    check_kinds(kinds)
    model = Segmenter.load(run, device=resolve_device(device))
    dataset = _dataset(images, split)
    entries = _unread(images) if dataset is None else dataset
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("indexing", total=len(entries))
        done = index_images(
            out,
            model,
            _read(entries) if isinstance(entries, list) else entries,
            info=None if dataset is None else dataset.info,
            kinds=kinds,
            leave_out=remove,
            prune=prune,
            run=str(run.resolve()),
            approximate=approximate,
            context=context,
            progress=lambda name: progress.advance(task),
        )
    say(done, out, console)
    return 1 if done.failed else 0


def say(done: Indexed, out: Path, console: Console) -> None:
    """Print what became of the images."""
    for name, reason in done.failed:
        console.print(f"{name}: {reason}", style="red", markup=False)
    counts = ", ".join(
        f"{len(getattr(done, what))} {what}"
        for what in ("added", "replaced", "unchanged", "removed", "failed")
        if getattr(done, what)
    )
    console.print(f"{out}: images {counts or 'none'}; {done.note}", markup=False)


def _dataset(images: Path, split: str | None) -> Dataset | None:
    """IMAGES as a data set; None where it is none."""
    if split is not None:
        return dataset_part(images, split)
    if images.name == "dataset.yaml" or (images / "dataset.yaml").is_file():
        return Dataset.open(images)
    return None


def _unread(images: Path) -> list[tuple[str, Path]]:
    named = named_images(images)
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        rule = "names that differ without their suffix"
        raise InputError("two images of one name", found=twice, rule=rule)
    return named


def _read(named: list[tuple[str, Path]]) -> Iterator[Entry]:
    """Entries without labels; what is wrong with a file shows when it is embedded."""
    for name, path in named:
        try:
            width, height = image_size(path)
        except InputError:
            width = height = 0
        yield Entry(name, path, width, height, Annotation())
