import contextlib
import errno
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from weakseg import files
from weakseg.errors import InputError
from weakseg.files import atomic_path, content_hash, write_bytes, write_json, write_text


@contextlib.contextmanager
def largest_file(size):
    """Make the system refuse to grow a file beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".txt"
        assert temporary.parent == path.parent
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    write_text(path, "größer")
    write_json(tmp_path / "a.json", {"b": [1]})
    assert path.read_text(encoding="utf-8") == "größer"
    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1\n  ]\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_bytes(path, b"x" * 100_000),
        lambda path: _save_array(path),
    ],
)
def test_no_room_is_a_clear_error(tmp_path, write):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with largest_file(5000), pytest.raises(InputError, match=r"a\.bin: cannot be written: found"):
        write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_bytes() == b"old"


def _save_array(path):
    # numpy reports a short write without an error number
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.zeros(50_000).tofile(file)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: IoError(No space left on device (os error 28))"),
        OSError("50000 requested and 312 written"),
    ],
)
def test_each_way_of_saying_disk_full(tmp_path, error):
    with pytest.raises(InputError) as caught, atomic_path(tmp_path / "a"):
        raise error
    assert caught.value.found == "No space left on device"


def test_a_failing_flush_leaves_nothing(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(InputError, match="No space left"):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(InputError, match="cannot be written"):
            write_text(path, "text")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder"}


def test_errors_about_other_files_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        Path(tmp_path / "missing").read_text()


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))


@dataclass
class Settings:
    a: int
    b: str


def test_content_hash_is_stable():
    # Caches outlive a release: a changed number here throws them all away.
    assert content_hash("a", 1, [2.5]) == "60f0f39e68f0beeb24f4"
    assert content_hash(np.arange(3, dtype=np.int64)) == "9ff1479878ccaddfc175"


def test_content_hash_tells_content_apart(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "g").write_bytes(b"abd")
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        (b"ab", "c"),
        (1,),
        ("1",),
        (1.5,),
        ([1, 2],),
        (np.array([1, 2]),),
        (np.array([1, 2], np.int32),),
        (np.array([[1, 2]]),),
        (np.array([2, 1]),),
        (Settings(1, "x"),),
        (Settings(2, "x"),),
        (tmp_path / "f",),
        (tmp_path / "g",),
    ]
    assert len({content_hash(*p) for p in parts}) == len(parts)
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    (tmp_path / "h").write_bytes(b"abc")
    assert content_hash(tmp_path / "f") == content_hash(tmp_path / "h")
    turned = np.arange(6).reshape(2, 3).T
    assert content_hash(turned) == content_hash(turned.copy())
    with pytest.raises(TypeError):
        content_hash(object())
