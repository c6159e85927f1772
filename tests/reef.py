"""A small data set on disk, its photographs stored in every way, for the commands to work on."""

import json

import numpy as np
import yaml
from PIL import Image
from small_scenes import picture

# Brackets mean something to the library that prints tables.
CLASSES = ["background", "[live] coral", "square", "[/dead] coral"]
RENAMED = {"disc": CLASSES[1]}
# A short training on it.
QUICK = [
    *("--kinds", "points", "--regime", "frozen", "--device", "cpu", "--long-side", "96"),
    *("--steps", "10", "--crop", "6", "--classifier-steps", "30", "--rounds", "1", "--batch", "2"),
]


def write_dataset(folder):
    """Five photographs to train on, each stored in another way, and two with masks."""
    rng = np.random.default_rng(0)
    (folder / "images/site").mkdir(parents=True)
    (folder / "masks").mkdir()
    info = {"name": "reef", "classes": CLASSES, "background": "background"}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(info))
    lines = []
    for i, name in enumerate(["rgb.jpg", "alpha.png", "grey.png", "deep.png", "turned.jpg", *"ab"]):
        image, labels, mask = picture(rng, 96, 112)
        line = {"image": f"images/{name}", "width": 112, "height": 96, "split": "train"}
        if i < 5:
            line["points"] = [
                {"class": RENAMED.get(p.label, p.label), "xy": [*p.xy]} for p in labels.points
            ]
            line["tags"] = [RENAMED.get(tag, tag) for tag in labels.tags]
        else:
            name = f"site/{name}.png"
            line |= {"image": f"images/{name}", "mask": f"masks/{i}.png", "split": "val"}
            Image.fromarray(mask).save(folder / f"masks/{i}.png")
        store(Image.fromarray(image), folder / "images" / name)
        lines.append(json.dumps(line))
    (folder / "annotations.jsonl").write_text("\n".join(lines) + "\n")


def store(image, path):
    if path.stem == "alpha":
        image.putalpha(Image.new("L", image.size, 77))
    elif path.stem == "grey":
        image = image.convert("L")
    elif path.stem == "deep":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 100)
    if path.stem == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its left side
        image.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    else:
        image.save(path)


def edited(folder, number, **changes):
    """Change keys of a line of annotations.jsonl, counted from 0."""
    path = folder / "annotations.jsonl"
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | changes)
    path.write_text("\n".join(lines) + "\n")
