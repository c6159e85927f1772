"""Finding the photograph that a source means.

A source names images in many ways: by a path on another machine, by a URL, by a bare name. No
such path is ever opened. The folder of images is listed once, and names are looked up in that
list, so that nothing outside it can be reached.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from weakseg.errors import InputError
from weakseg.images import find_images

_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before an uploaded name


class ImageIndex:
    """The images of a folder by name.

    Args:
        folder: searched with its subfolders.
        without: subfolders to leave out, such as those of masks.
    """

    def __init__(self, folder: Path, without: tuple[Path, ...] = ()) -> None:
        self.folder = folder
        self.without = without

    @cached_property
    def paths(self) -> list[str]:
        """Paths of the images in the folder, with forward slashes, sorted."""
        if not self.folder.is_dir():
            raise InputError("no such folder", file=self.folder, rule="a folder of images")
        found = find_images(self.folder)
        hidden = [folder.resolve() for folder in self.without]
        if hidden:
            found = [p for p in found if not any(h in p.resolve().parents for h in hidden)]
        return [path.relative_to(self.folder).as_posix() for path in found]

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        table: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            table[_key(_stem(path))].append(path)
        return table

    def find(self, reference: str) -> str:
        """The path in the folder of the image that `reference` means.

        Its whole path decides, then as much of its end as fits, with or without the suffix and
        whatever the case.

        Raises:
            InputError: there is none, or there are several that fit equally well.
        """
        wanted = PurePosixPath(clean_reference(reference))
        found = self._by_stem.get(_key(wanted.stem), [])
        # A name with a dot in it and no suffix has lost something to `stem`.
        found = found or self._by_stem.get(_key(wanted.name), [])
        if not found:
            name = _UPLOAD.sub("", wanted.name)
            wanted = wanted.with_name(name) if name != wanted.name else wanted
            found = self._by_stem.get(_key(_stem(name)), [])
        if not found:
            rule = f"an image in {self.folder}"
            raise InputError("no such image", found=reference, rule=rule)
        scores = {path: _fit(wanted, PurePosixPath(path)) for path in found}
        best = [path for path in found if scores[path] == max(scores.values())]
        if len(best) > 1:
            raise InputError("several images fit", found=reference, rule=" or ".join(best[:3]))
        return best[0]


def clean_reference(reference: str) -> str:
    """The path in a reference: of a URL, of a Label Studio link, or of a Windows path."""
    text = reference.strip()
    if "://" in text or text.startswith("/data/"):
        parts = urlsplit(text)
        text = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    text = unicodedata.normalize("NFC", text.replace("\\", "/"))
    kept = [part for part in text.split("/") if part not in ("", ".", "..")]
    return "/".join(kept) or "?"


def leaves_folder(reference: str) -> bool:
    """Whether a reference is an absolute path or has `..` in it; URLs and links do not count."""
    path = reference.strip().replace("\\", "/")
    if "://" in path or path.startswith("/data/"):
        return False
    return path.startswith(("/", "~")) or path[1:2] == ":" or ".." in path.split("/")


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()


def _fit(wanted: PurePosixPath, path: PurePosixPath) -> tuple[bool, int, bool, bool]:
    """How well a path fits; more is better."""
    same = 0
    for a, b in zip(reversed(wanted.parts[:-1]), reversed(path.parts[:-1]), strict=False):
        if a != b:
            break
        same += 1
    suffix = path.suffix.lower() == wanted.suffix.lower()
    return path == wanted, same, suffix, path.name == wanted.name
