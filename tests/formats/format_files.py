"""Files that the tests of formats share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FIXTURES = Path(__file__).parent / "fixtures"


def save_image(path: Path, size: tuple[int, int]) -> Path:
    """A picture of (width, height) whose pixels all differ a little."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    values = np.arange(width * height * 3).reshape(height, width, 3) % 251
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path
