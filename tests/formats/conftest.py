from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from format_files import FIXTURES, save_image

# Time limits on single examples fail on a busy machine.
hypothesis.settings.register_profile("formats", deadline=None, derandomize=True)
hypothesis.settings.load_profile("formats")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The photographs that the fixtures are about."""
    folder = tmp_path / "photos"
    save_image(folder / "a.jpg", (20, 16))
    save_image(folder / "sub" / "b.png", (12, 10))
    save_image(folder / "empty.png", (8, 8))
    return folder


@pytest.fixture
def fixture() -> Callable[[str], Path]:
    return lambda name: FIXTURES / name
