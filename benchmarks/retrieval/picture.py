"""The picture of docs/retrieval.md: queries on the demo data set's scenes, and their neighbours.

weakseg index RUN DATA --out INDEX    # RUN trained on what `weakseg.demo.make_demo_dataset` writes
python benchmarks/retrieval/picture.py INDEX docs/images/retrieval.png
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
        rows.append(np.hstack(cells))
    Image.fromarray(np.vstack(rows)).quantize(200, dither=Image.Dither.NONE).save(
        args.out, optimize=True
    )


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
