"""Writes that are whole or absent, and hashes that name cached results."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weakseg.errors import InputError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EEXIST,
    errno.ENOTEMPTY,
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, flush: bool = True) -> Iterator[Path]:
    """Write a file so that its final name never holds half of it.

    Yields a hidden path in the same folder (made if missing) with the same suffix, for the
    caller to write to. When the block ends, the data are flushed to disk and the file takes its
    final name, replacing what was there. When the block raises, the hidden file is removed and
    the final name is left as it was.

    Args:
        path: the final name.
        flush: wait until the disk has the data, about 10 ms a file. Without, a power cut may
            still empty the file; for one of many that can be made again.

    Raises:
        InputError: the disk is full, or the place cannot be written to.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}{target.suffix[:32]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flush:
            _flush(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = _write_failure(error, temporary, target)
        if reason is None:
            raise
        raise _unwritable(target, reason) from error


def half_written(path: Path) -> bool:
    """Whether `path` is a hidden file that a killed `atomic_path` has left behind."""
    return re.fullmatch(r"\.[0-9a-f]{16}(\..*)?", path.name) is not None


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Add `text` to the end of a log; a kill may leave half of it.

    Raises:
        InputError: the disk is full, or the place cannot be written to.
    """
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _unwritable(Path(path), error.strerror or str(error)) from error


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write `data` to `path` as indented JSON, whole or not at all.

    Raises:
        ValueError: `data` holds NaN or an infinity, which JSON cannot express.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def file_stamp(path: Path) -> tuple[str, int, int]:
    """Path, size in bytes and time of last change (ns): what changes when a file is written.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def content_hash(*parts: object) -> str:
    """Short hexadecimal name (20 digits) of the content of `parts`, stable across runs.

    A part is bytes, text, an array (dtype, shape and values count), a `Path` (the content of
    that file counts, not its name), a dataclass, or anything JSON can express (the order of
    keys does not count).

    Raises:
        TypeError: a part is none of these.
    """
    digest = hashlib.blake2b(digest_size=10)
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                inner = hashlib.file_digest(file, "blake2b").digest()
            kind, data = "file", inner
        elif isinstance(part, np.ndarray):
            kind = f"array {part.dtype.str} {part.shape}"
            data = np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            kind, data = "bytes", part
        else:
            value = asdict(part) if is_dataclass(part) and not isinstance(part, type) else part
            kind, data = "json", json.dumps(value, sort_keys=True).encode()
        # The length goes in too: ("ab", "c") is not ("a", "bc").
        digest.update(f"{kind} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Force the file to disk, so that a crash after the rename cannot leave it empty."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, reason: str) -> InputError:
    return InputError(
        "cannot be written", file=path, found=reason, rule="a writable place with room"
    )


def _write_failure(error: BaseException, temporary: Path, target: Path) -> str | None:
    """Why the write failed, in words; None where `error` is about something else."""
    message = str(error)
    if isinstance(error, OSError):
        if error.errno in _NO_ROOM:
            return os.strerror(error.errno)
        names = {str(error.filename), str(error.filename2)}
        ours = {str(temporary), str(target), str(target.parent)}
        if error.errno in _REFUSED and (names & ours or target.parent.is_file()):
            return os.strerror(error.errno)
    # numpy ("1000 requested and 400 written") and the Rust and C++ writers of weights report a
    # full disk without its error number.
    if "No space left on device" in message or (
        " requested and " in message and message.endswith(" written")
    ):
        return "No space left on device"
    return None
