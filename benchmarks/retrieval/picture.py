"""The pictures of docs/retrieval.md: queries and their neighbours.

weakseg index RUN DATA --out INDEX    # the demo scenes (`weakseg.demo.make_demo_dataset`), or VOC
python benchmarks/retrieval/picture.py INDEX docs/images/retrieval.png --queries IMAGE:SEGMENT ...
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from weakseg.images import read_image
from weakseg.report.pictures import draw_outline
from weakseg.retrieval import Index
from weakseg.training.grid_maps import nearest

WIDTH, GAP, LINE = 168, 8, 18


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--queries", nargs="*", default=[], help="IMAGE:SEGMENT")
    parser.add_argument("--top", type=int, default=5)
    args = parser.parse_args()
    index = Index.open(args.index)
    rows = []
    for query in args.queries:
        name, _, segment = query.rpartition(":")
        image = index.image(name)
        vector = image.vectors[image.segment.tolist().index(int(segment))]
        hits = index.search(vector, args.top, exclude=[name], one_per_image=True)
        cells = [cell(image, int(segment), "query")]
        cells += [cell(index.image(h.image), h.segment, f"{h.similarity:.3f}") for h in hits]
        high = max(len(c) for c in cells)
        rows.append(np.hstack([padded(c, high) for c in cells]))
    picture = Image.fromarray(np.vstack(rows))
    if args.out.suffix == ".png":  # flat colours
        picture = picture.quantize(200, dither=Image.Dither.NONE)
    picture.save(args.out, optimize=True)


def padded(cell, height):
    """White below, to make a cell (h, w, 3) `height` high."""
    return np.pad(cell, ((0, height - len(cell)), (0, 0), (0, 0)), constant_values=255)


def cell(image, segment, text):
    """A photograph with an outlined segment and a line of text beneath."""
    photograph = Image.fromarray(read_image(image.file))
    size = WIDTH, round(WIDTH * photograph.height / photograph.width)
    small = np.asarray(photograph.resize(size, Image.Resampling.BOX))
    inside = nearest(image.index, small.shape[:2]) == segment
    canvas = Image.new("RGB", (WIDTH + GAP, size[1] + LINE + GAP), "white")
    canvas.paste(Image.fromarray(draw_outline(small, inside)))
    font = ImageFont.load_default(13)
    ImageDraw.Draw(canvas).text((0, size[1] + 2), text, fill=(40, 40, 40), font=font)
    return np.asarray(canvas)


if __name__ == "__main__":
    main()
