"""CSV files of points and tags with faults; what tools write is in test_fixtures.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from weakseg.errors import InputError
from weakseg.formats.importing import import_dataset

POINTS = "Name,Row,Column,Label\n"


def _save(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("points", POINTS + 'a.jpg,1,2,x\na.jpg,1,3,"x\na.jpg,1,4,x\n', "3: quote never closed"),
        ("points", POINTS + '"a.jpg,1,2,x', "2: quote never closed"),
        ("tags", 'image,tags\n"a.jpg","x"\n\na.jpg,"y\nb.png,z\n', "4: quote never closed"),
        # The next quote closes it in the midst of a cell.
        ("points", POINTS + '"a.jpg,1,2,x\n"a.jpg",1,3,x\n', "2: row that cannot be read"),
    ],
)
def test_quotes_that_swallow_rows_are_refused(
    photos: Path, tmp_path: Path, format: str, text: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        import_dataset(format, _save(tmp_path, text), tmp_path / "out", images=photos)
    assert f"t.csv:{message}" in str(caught.value)
    assert not (tmp_path / "out" / "dataset.yaml").exists()


def test_a_quoted_cell_may_have_lines(photos: Path, tmp_path: Path) -> None:
    text = (
        'Name,Row,Column,Label,Note\na.jpg,1,2,x,"two\nlines, ""quoted"""\na.jpg,?,2,x,"5"" of\n"\n'
    )
    dataset, report = import_dataset("points", _save(tmp_path, text), None, images=photos)
    assert len(dataset[0].annotation.points) == 1
    assert [problem.line for problem in report.problems] == [4]
