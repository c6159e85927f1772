"""A data set of two photographs, written line by line."""

import json

import numpy as np
from PIL import Image

from weakseg.dataset import DatasetInfo

INFO = DatasetInfo("reef", ("sea", "coral", "sand"), "sea")
PHOTO = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def make(folder, *lines, yaml=None):
    """A data set with two photographs, a.png and b.png (6 x 4), and these lines."""
    (folder / "images").mkdir(exist_ok=True)
    for name in "ab":
        Image.fromarray(PHOTO).save(folder / "images" / f"{name}.png")
    (folder / "dataset.yaml").write_text(INFO.to_yaml() if yaml is None else yaml)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "annotations.jsonl").write_text("".join(text + "\n" for text in texts))
    return folder
