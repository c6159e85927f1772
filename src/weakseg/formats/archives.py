"""Sources that come as a zip file."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from weakseg.dataset_writer import check_relative
from weakseg.errors import InputError, InputErrors, Problem

_LARGEST_RATIO = 200  # of the sizes of a member before and after packing
_SMALL = 50_000_000


@contextmanager
def unpacked(source: Path, place: Path) -> Iterator[Path]:
    """The folder that a zip file holds, unpacked into a hidden folder that is removed afterwards.

    A source that is not a zip file is yielded as it is.

    Args:
        source: the source.
        place: folder to unpack in; made if missing.

    Raises:
        InputError: a damaged file, a member that would land elsewhere, or a member that is
            suspiciously large. What is raised while the folder is in use names the zip file.
    """
    if source.suffix.lower() != ".zip" or not source.is_file():
        yield source
        return
    made = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=place))
    except OSError as error:
        raise InputError("cannot be written", file=place, found=str(error)) from error
    try:
        _unpack(source, folder)
        try:
            yield folder
        except InputErrors as errors:
            raise InputErrors([packed(p, folder, source) for p in errors.problems]) from errors
        except InputError as error:
            raise packed(Problem.from_error(error), folder, source).error() from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if made and not any(place.iterdir()):
            place.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def packed(problem: Problem, folder: Path, source: Path) -> Problem:
    """The same finding with the zip file in place of the folder, which is gone when it is read."""

    def named(text: object) -> Any:
        return text.replace(str(folder), str(source)) if isinstance(text, str) else text

    return replace(
        problem,
        what=named(problem.what),
        file=named(problem.file),
        found=named(problem.found),
        rule=named(problem.rule),
    )


def _unpack(source: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _check(member, source)
            needed = sum(member.file_size for member in members)
            if needed > shutil.disk_usage(folder).free:
                raise InputError("no room to unpack", file=source, found=f"{needed:,} bytes")
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, target.open("xb") as unpacked_file:
                    shutil.copyfileobj(packed, unpacked_file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        rule = "a whole zip file without a password"
        raise InputError("cannot be unpacked", file=source, found=str(error), rule=rule) from error
    except (OSError, ValueError) as error:
        raise InputError("cannot be unpacked", file=source, found=str(error)) from error
    except Exception as error:
        if type(error).__module__.startswith(("zlib", "lzma")):
            raise InputError("cannot be unpacked", file=source, found=str(error)) from error
        raise


def _check(member: zipfile.ZipInfo, source: Path) -> None:
    try:
        check_relative(member.filename)
    except InputError as error:
        rule = "names that stay inside the archive"
        raise InputError(
            "archive reaches outside its folder", file=source, found=error.found, rule=rule
        ) from error
    kind = member.external_attr >> 28
    if kind == 0xA:
        raise InputError("archive holds a link", file=source, found=member.filename)
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > _SMALL and ratio > _LARGEST_RATIO:
        found = f"{member.filename}, {member.file_size:,} bytes out of {member.compress_size:,}"
        raise InputError("archive that grows suspiciously", file=source, found=found)
