from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

# Time limits on single examples fail on a busy machine.
hypothesis.settings.register_profile("formats", deadline=None)
hypothesis.settings.load_profile("formats")

FIXTURES = Path(__file__).parent / "fixtures"


def save_image(path: Path, size: tuple[int, int]) -> Path:
    """A picture of (width, height) whose pixels all differ a little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    values = np.arange(width * height * 3).reshape(height, width, 3) % 251
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


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
