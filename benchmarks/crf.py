"""The dense CRF against pydensecrf2: time, labels and memory, from one run.

    uv run --group oracle python benchmarks/crf.py

pydensecrf2 (compiled, one thread) needs a C++ compiler; without it the rest is printed. Photographs
of 375 x 500 come from voc-subset where it lies in WEAKSEG_DATA or ../shared/data, else from
scikit-image. Probabilities of 21 classes are smooth noise, plus the mask where there is one.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, resident
from PIL import Image
from scipy.ndimage import zoom

from weakseg.crf import dense_crf

try:
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax
except ImportError:
    DenseCRF2D = None

DATA = Path(os.environ.get("WEAKSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
HEIGHT, WIDTH, CLASSES = 375, 500, 21


def photographs(count):
    """(name, (375, 500, 3) uint8, (375, 500) class or None) of up to `count` photographs."""
    folder = DATA / "voc-subset"
    if not folder.exists():
        from skimage import data

        for name in ("astronaut", "coffee", "rocket")[:count]:
            image = getattr(data, name)()
            yield name, np.ascontiguousarray(image[:HEIGHT, :WIDTH]), None
        return
    for path in sorted((folder / "images").glob("*.jpg")):
        image = np.array(Image.open(path).convert("RGB"))
        if image.shape == (HEIGHT, WIDTH, 3) and count:
            count -= 1
            yield path.stem, image, np.asarray(Image.open(folder / "masks" / f"{path.stem}.png"))


def noisy_probabilities(mask, height=HEIGHT, width=WIDTH, classes=CLASSES, seed=0):
    """Smooth noise over all classes, (C, H, W) float32, that favours the mask's class."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(classes, height // 16 + 2, width // 16 + 2)).astype(np.float32)
    scores = zoom(coarse, (1, 16, 16), order=1)[:, :height, :width]
    if mask is not None:
        scores = scores + 2 * (np.arange(classes)[:, None, None] == mask)
    return torch.as_tensor(scores, dtype=torch.float32).softmax(0).numpy()


def compiled_crf(image, probabilities):
    classes, height, width = probabilities.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    crf.addPairwiseGaussian(sxy=1, compat=3)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.ascontiguousarray(image), compat=4)
    return np.array(crf.inference(10)).reshape(classes, height, width)


def timed(function, *arguments):
    """Wall seconds, processor seconds, result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return time.perf_counter() - wall, time.process_time() - processor, result


def compare(count, repeats):
    print(f"{HEIGHT} x {WIDTH} x {CLASSES}, 10 iterations, medians of {repeats}; seconds, and")
    print(f"processor seconds in brackets. {machine()}; pydensecrf2 on one thread.\n")
    print("| photograph | weakseg | pydensecrf2 | ratio | equal labels | weakseg, 4 classes |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    ratios, agreements = [], []
    for name, image, mask in photographs(count):
        probabilities = noisy_probabilities(mask)
        # The usual pseudo-mask: four classes can occur, the others are excluded.
        few = np.where(np.arange(CLASSES)[:, None, None] < 4, probabilities, 0)
        few /= few.sum(0)
        ours, theirs, small = [], [], []
        for _ in range(repeats):  # in turn, so that whatever else the machine does hits all
            *seconds, marginals = timed(dense_crf, image, probabilities)
            ours.append(seconds)
            small.append(timed(dense_crf, image, few)[:2])
            if DenseCRF2D:
                *seconds, expected = timed(compiled_crf, image, probabilities)
                theirs.append(seconds)
        equal, ratio = float("nan"), float("nan")
        if theirs:
            equal = np.mean(marginals.numpy().argmax(0) == expected.argmax(0))
            ratio = np.median(ours, axis=0)[0] / np.median(theirs, axis=0)[0]
        ratios.append(ratio)
        agreements.append(equal)
        times = [shown(ours), shown(theirs), f"{ratio:.2f}", f"{equal:.2%}", shown(small)]
        print(f"| {name} | {' | '.join(times)} |", flush=True)
    print(f"\nratio: median {np.median(ratios):.2f}, worst {max(ratios):.2f}; ", end="")
    print(f"equal labels: median {np.median(agreements):.2%}, worst {min(agreements):.2%}")


def shown(seconds):
    return "{:.3f} ({:.3f})".format(*np.median(seconds, axis=0)) if seconds else "-"


def memory(height, width, classes):
    """Print what one call takes beyond its input, in this process."""
    photo = next(photographs(1))[1]
    image = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))
    probabilities = noisy_probabilities(None, height, width, classes)
    dense_crf(image[:32, :32], probabilities[:, :32, :32])  # what torch itself takes is not counted
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    *seconds, _ = timed(dense_crf, image, probabilities)
    extra = (resident("VmHWM") - before) / 2**10
    size = f"{classes} x {height} x {width} | {probabilities.nbytes / 2**30:.2f}"
    print(f"| {size} | {extra:.2f} | {shown([seconds])} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs=3, metavar=("H", "W", "C"))
    options = parser.parse_args()
    if options.memory:
        memory(*options.memory)
        return
    compare(options.photos, options.repeats)
    print("\n| size | probabilities, GiB | beyond them, GiB | seconds |")
    print("| --- | --- | --- | --- |", flush=True)
    for size in ((375, 500, 21), (2000, 3000, 4), (2000, 3000, 21)):  # each in its own process
        subprocess.run([sys.executable, __file__, "--memory", *map(str, size)], check=True)


if __name__ == "__main__":
    main()
