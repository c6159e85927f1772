import pytest

from weakseg.wording import counted


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (100_000, "100,000 images")],
)
def test_counts(number, expected):
    assert counted(number, "image") == expected
