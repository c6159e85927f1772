"""Writing a data set in the native format."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.annotation import Annotation
from weakseg.dataset_info import DatasetInfo, is_writable
from weakseg.errors import InputError
from weakseg.files import atomic_path
from weakseg.images import as_rgb, image_size, write_mask


class DatasetWriter:
    """Writes a data set image by image; it exists once the `with` block has ended well.

    ::

        with DatasetWriter("reef", info) as writer:
            writer.add("photos/a.jpg", Annotation(tags=("coral",)))

    Images and masks are written as they come. `annotations.jsonl` and `dataset.yaml` get their
    final names at the end, and not at all when the block raises.

    Args:
        folder: the data set's folder; made if missing.
        info: goes to `dataset.yaml`.
        link: link image files (hard, or by path across disks) instead of copying them.
        overwrite: replace a data set that is already there.

    Raises:
        InputError: the folder holds a data set already, or cannot be written to.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        info: DatasetInfo,
        *,
        link: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.info = info
        self.link = link
        for name in ("dataset.yaml", "annotations.jsonl"):
            if (self.folder / name).exists() and not overwrite:
                raise InputError(
                    "exists already and is not overwritten",
                    file=self.folder / name,
                    rule="another folder",
                )
        self._stack = ExitStack()
        self._lines: IO[str] | None = None
        self._names: set[str] = set()
        self._made = False

    def __enter__(self) -> DatasetWriter:
        self._made = not self.folder.exists()
        with ExitStack() as stack:
            path = stack.enter_context(atomic_path(self.folder / "annotations.jsonl"))
            self._lines = stack.enter_context(path.open("w", encoding="utf-8"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines = None
        self._stack.__exit__(kind, error, trace)
        if error is None:
            self.info.save(self.folder / "dataset.yaml")
        elif self._made:
            with suppress(OSError):  # something was written, which is not lost
                self.folder.rmdir()

    def add(
        self,
        image: str | os.PathLike[str] | NDArray[Any],
        annotation: Annotation | None = None,
        *,
        name: str | None = None,
        mask: NDArray[Any] | str | os.PathLike[str] | None = None,
        split: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Add an image with its labels.

        Args:
            image: a file, or an array as in `weakseg.images.as_rgb`, stored as PNG.
            annotation: its labels; without, the image is unlabelled.
            name: what to call it, subfolders allowed (`"site3/0041"`); default: the file's stem.
            mask: full mask, (H, W) of class indices or the path of an L or P PNG; default: that
                of `annotation`.
            split: the part it belongs to; default: `train`.
            meta: anything JSON can express, kept beside the labels.

        Raises:
            InputError: a label breaks a rule, two images share a name, or writing fails.
        """
        if self._lines is None:
            raise RuntimeError("DatasetWriter is used outside its with block")
        annotation = annotation or Annotation()
        mask = annotation.mask if mask is None else mask
        name = self._free_name(image, name)
        source = as_rgb(image) if isinstance(image, np.ndarray) else Path(image)
        width, height = image_size(source) if isinstance(source, Path) else source.shape[1::-1]
        problems = annotation.validate(width, height, self.info.classes)
        if problems:
            raise problems[0].error().at(name)
        entry: dict[str, Any] = {"image": self._store_image(source, name)}
        if mask is not None:
            entry["mask"] = self._store_mask(mask, name, (width, height))
        entry["split"] = split or "train"
        entry |= {"width": width, "height": height, **annotation.to_dict()}
        if meta:
            entry["meta"] = meta
        self._lines.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")

    def _free_name(self, image: object, name: str | None) -> str:
        if name is None:
            if isinstance(image, np.ndarray):
                name = f"{len(self._names):06d}"
            else:
                name = Path(str(image)).stem
        check_relative(name)
        if name in self._names:
            raise InputError("two images share a name", found=name, rule="unique names")
        self._names.add(name)
        return name

    def _store_image(self, source: Path | NDArray[np.uint8], name: str) -> str:
        if isinstance(source, Path):
            stored = f"images/{name}{source.suffix}"
            _transfer(source, self.folder / stored, link=self.link)
        else:
            stored = f"images/{name}.png"
            with atomic_path(self.folder / stored, flush=False) as temporary:
                Image.fromarray(source).save(temporary, format="PNG")
        return stored

    def _store_mask(self, mask: Any, name: str, size: tuple[int, int]) -> str:
        stored = f"masks/{name}.png"
        if isinstance(mask, np.ndarray):
            if mask.shape != (size[1], size[0]):
                found = f"{mask.shape[::-1]}"
                raise InputError("mask of another size", file=stored, found=found, rule=str(size))
            write_mask(self.folder / stored, mask)
        else:
            _transfer(Path(mask), self.folder / stored, link=self.link)
        return stored


def check_relative(name: object) -> str:
    """Return `name` if it is a path that stays inside the data set's folder.

    Raises:
        InputError: absolute, with `..`, with a backslash or a drive, or no text.
    """
    rule = "a path inside the data set's folder, with forward slashes"
    if not isinstance(name, str) or not name or "\0" in name or not is_writable(name):
        raise InputError("not a path", found=name, rule=rule)
    if "\\" in name:
        raise InputError("path with a backslash", found=name, rule=rule)
    parts = PurePosixPath(name).parts
    outside = name.startswith("/") or ".." in parts or parts[:1] == ("~",)
    if outside or not parts or parts[0].endswith(":"):
        raise InputError("path leaves the data set's folder", found=name, rule=rule)
    return name


def _transfer(source: Path, target: Path, *, link: bool) -> None:
    if target.exists() and os.path.samefile(source, target):
        return
    with atomic_path(target, flush=False) as temporary:
        if not link:
            shutil.copyfile(source, temporary)
            return
        try:
            os.link(source.resolve(), temporary)
        except OSError:  # another disk, or a file system without hard links
            temporary.symlink_to(source.resolve())
