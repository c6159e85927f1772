"""Drawn street scenes and tissue slides: pictures of other kinds than PASCAL VOC's, masks exact.

Streets have no background class, surfaces that fill the picture, thin poles and signs; slides have
dozens of small, like, touching objects on a ground of their colour.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from skimage.draw import disk, ellipse, polygon

STREET = ("road", "pavement", "building", "sky", "tree", "car", "pole", "sign")
SLIDE = ("stroma", "nucleus", "gland", "lumen", "vessel")
SIZE = 224, 320


def street(rng):
    """(H, W, 3) uint8 and (H, W) uint8 of `STREET`: seen from a car."""
    height, width = SIZE
    colours = {
        "sky": rng.uniform((120, 150, 180), (190, 215, 250)),
        "road": rng.uniform(70, 110) + rng.normal(0, 4, 3),
        "pavement": rng.uniform(130, 170) + rng.normal(0, 6, 3),
    }
    canvas = Canvas(rng)
    canvas.fill(polygon_of([(0, 0), (0, width), (height, width), (height, 0)]), 3, colours["sky"])
    horizon, vanish = rng.uniform(0.38, 0.5) * height, rng.uniform(0.35, 0.65) * width
    left = 0.0
    while left < width:
        right = left + rng.uniform(30, 90)
        top = horizon - rng.uniform(20, 85)
        front = polygon_of([(top, left), (top, right), (horizon + 14, right), (horizon + 14, left)])
        wall = rng.uniform((90, 70, 60), (200, 180, 170))
        canvas.fill(front, 2, wall)
        for y in np.arange(top + 6, horizon - 8, 14):
            for x in np.arange(left + 5, right - 8, 13):
                pane = polygon_of([(y, x), (y, x + 6), (y + 8, x + 6), (y + 8, x)])
                canvas.fill(pane, 2, wall * rng.uniform(0.4, 0.8))
        left = right + rng.choice([0.0, rng.uniform(5, 30)])
    ground = [(horizon + 10, 0), (horizon + 10, width), (height, width), (height, 0)]
    canvas.fill(polygon_of(ground), 1, colours["pavement"])
    lane = [(horizon + 6, vanish - 12), (horizon + 6, vanish + 12)]
    near = rng.uniform(0.75, 1.1), rng.uniform(-0.1, 0.25)
    canvas.fill(
        polygon_of([*lane, (height, near[0] * width), (height, near[1] * width)]),
        0,
        colours["road"],
    )
    for share in np.arange(0.1, 1, 0.18):
        y, x = horizon + share * (height - horizon), vanish + share * rng.uniform(-4, 4)
        dash = [(y, x - 1), (y, x + 1), (y + 12 * share, x + 2), (y + 12 * share, x - 2)]
        canvas.fill(polygon_of(dash), 0, np.full(3, 225.0))
    for _ in range(rng.integers(1, 5)):
        tree(canvas, rng, horizon, rng.uniform(0, width))
    for _ in range(rng.integers(1, 4)):
        car(canvas, rng, horizon, vanish)
    for _ in range(rng.integers(1, 4)):
        pole(canvas, rng, horizon)
    return canvas.done(shade=rng.uniform(10, 30))


def tree(canvas, rng, horizon, x):
    foot, size = horizon + rng.uniform(8, 40), rng.uniform(12, 34)
    trunk = [(foot - size, x - 2), (foot - size, x + 2), (foot, x + 3), (foot, x - 3)]
    canvas.fill(polygon_of(trunk), 4, np.array([80.0, 60, 45]))
    green = rng.uniform((40, 70, 30), (90, 130, 60))
    for _ in range(7):
        y, at = foot - size - rng.uniform(0, size), x + rng.normal(0, size / 2.5)
        canvas.fill(disk((y, at), size * rng.uniform(0.35, 0.6), shape=SIZE), 4, green)


def car(canvas, rng, horizon, vanish):
    share = rng.uniform(0.15, 0.8)
    y, size = horizon + 10 + share * 95, 12 + 46 * share
    x = vanish + share * rng.uniform(-150, 150)
    body, glass = rng.uniform(20, 230, 3), rng.uniform(30, 80)
    box = [(y - 0.45 * size, x - size), (y - 0.45 * size, x + size), (y, x + size), (y, x - size)]
    roof = [(-0.95, -0.55), (-0.95, 0.5), (-0.45, 0.8), (-0.45, -0.85)]
    canvas.fill(polygon_of([(y + a * size, x + b * size) for a, b in roof]), 5, body * 0.9)
    pane = [(y + a * size * 0.95, x + b * size * 0.8) for a, b in roof]
    canvas.fill(polygon_of(pane), 5, np.full(3, glass))
    canvas.fill(polygon_of(box), 5, body)
    for at in (-0.6, 0.6):
        canvas.fill(disk((y, x + at * size), 0.2 * size, shape=SIZE), 5, np.full(3, 25.0))


def pole(canvas, rng, horizon):
    x, foot, thick = rng.uniform(10, SIZE[1] - 10), horizon + rng.uniform(15, 60), rng.uniform(1, 3)
    top = horizon - rng.uniform(20, 80)
    bar = [(top, x - thick), (top, x + thick), (foot, x + thick), (foot, x - thick)]
    canvas.fill(polygon_of(bar), 6, np.full(3, rng.uniform(60, 150)))
    if rng.random() < 0.8:
        colour = ((200.0, 30, 30), (30.0, 60, 190), (230.0, 200, 40))[rng.integers(3)]
        canvas.fill(disk((top, x), rng.uniform(6, 12), shape=SIZE), 7, np.array(colour))


def slide(rng):
    """(H, W, 3) uint8 and (H, W) uint8 of `SLIDE`: haematoxylin and eosin."""
    height, width = SIZE
    canvas = Canvas(rng)
    pink = rng.uniform((205, 140, 170), (235, 185, 205))
    whole = polygon_of([(0, 0), (0, width), (height, width), (height, 0)])
    canvas.fill(whole, 0, pink)
    purple = rng.uniform((80, 45, 110), (125, 85, 150))
    for _ in range(rng.integers(0, 3)):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        radii = rng.uniform(9, 20), rng.uniform(18, 45)
        turn = rng.uniform(-3, 3)
        canvas.fill(ellipse(y, x, *radii, SIZE, turn), 4, pink * (0.95, 0.75, 0.8))
        red = rng.uniform((170, 30, 40), (200, 60, 70))
        canvas.fill(ellipse(y, x, radii[0] - 3, radii[1] - 3, SIZE, turn), 4, red)
    for _ in range(rng.integers(1, 5)):
        gland(canvas, rng, purple)
    for _ in range(rng.integers(25, 70)):
        y, x, long = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 9)
        shape = ellipse(y, x, long, long * rng.uniform(0.35, 0.8), SIZE, rng.uniform(-3, 3))
        canvas.fill(shape, 1, purple * rng.uniform(0.8, 1.15))
    return canvas.done(shade=8)


def gland(canvas, rng, purple):
    y, x = rng.uniform(0, SIZE[0]), rng.uniform(0, SIZE[1])
    a, b = rng.uniform(24, 45), rng.uniform(20, 40)
    canvas.fill(ellipse(y, x, a, b, SIZE), 2, rng.uniform((185, 120, 170), (210, 150, 195)))
    canvas.fill(ellipse(y, x, a * 0.5, b * 0.5, SIZE), 3, np.full(3, rng.uniform(228, 250)))
    for angle in np.arange(0, 2 * np.pi, 8 / a):
        at = y + 0.85 * a * np.sin(angle), x + 0.85 * b * np.cos(angle)
        canvas.fill(ellipse(*at, 4.5, 3, SIZE, angle), 1, purple * rng.uniform(0.8, 1.1))


class Canvas:
    """A picture and its mask, drawn back to front."""

    def __init__(self, rng):
        self.rng = rng
        self.image = np.zeros((*SIZE, 3))
        self.mask = np.zeros(SIZE, np.uint8)

    def fill(self, where, label, colour):
        self.image[where] = colour
        self.mask[where] = label

    def done(self, shade):
        """With light, grain of two sizes and a slight blur: (H, W, 3) uint8, (H, W) uint8."""
        light = zoom(self.rng.normal(0, shade, (5, 7)), np.divide(SIZE, (5, 7)), order=3)
        grain = gaussian_filter(self.rng.normal(0, 14, SIZE), 1.2)
        image = self.image + light[..., None] + grain[..., None] + self.rng.normal(0, 4, (*SIZE, 3))
        return gaussian_filter(image, (0.7, 0.7, 0)).clip(0, 255).astype(np.uint8), self.mask


def polygon_of(corners):
    """Pixels of a polygon of (y, x)."""
    y, x = np.transpose(corners)
    return polygon(y, x, SIZE)


DOMAINS = {"street": (street, STREET, None), "slide": (slide, SLIDE, "stroma")}
