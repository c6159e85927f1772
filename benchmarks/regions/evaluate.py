"""Measure the regions on BSDS500 test and on the masks of voc-subset.

    uv run python benchmarks/regions/evaluate.py [--every 1] [--out results.json]

First table: the hierarchies against people's segmentations, and each person's against the others'.
Second: over-segmentations beside SLIC and Felzenszwalb-Huttenlocher of scikit-image, ours cut to
at most as many regions on every image. Third: seconds for a photograph of 375 x 500.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from bsds import DATA, identifiers, photograph, segmentations
from measures import (
    Segmentation500,
    achievable_accuracy,
    agreement,
    boundary_recall,
    contingency,
    undersegmentation_error,
)
from PIL import Image
from skimage.segmentation import felzenszwalb, slic

from weakseg.regions import hierarchy

THRESHOLDS = np.unique(np.r_[np.linspace(0.01, 0.3, 30), np.linspace(0.3, 1, 22)].round(4))
SLIC_COUNTS = (100, 200, 400, 1200)
FELZENSZWALB_SCALES = (50, 150, 400)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--contours", nargs="+", default=["learned", "gradient"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1, help="only every n-th image")
    parser.add_argument("--only", nargs="+", default=["people", "bsds", "voc", "time", "large"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = {}
    if "people" in args.only:
        results["people"] = people(args)
    for data in ("bsds", "voc"):
        if data in args.only:
            results[data] = over_segmentation(data, args)
    if "time" in args.only:
        results["time"] = seconds(args)
    if "large" in args.only:
        results["large"] = large(args)
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


def people(args):
    """Covering, PRI and VoI of each kind of contour."""
    results = {}
    names = identifiers(args.split)[:: args.every]
    for contours in args.contours:
        measure = Segmentation500(THRESHOLDS)
        for name in names:
            measure.add(hierarchy(photograph(*name), contours=contours), segmentations(*name))
        results[contours] = measure.summary()
    results["people"] = agreement([segmentations(*name) for name in names])
    for method, row in results.items():
        print(method, json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)
    return results


def over_segmentation(data, args):
    """ASA, undersegmentation error and boundary recall at the region counts of the others."""
    rows = {}
    for image, truths in (_bsds if data == "bsds" else _voc)(args):
        trees = {contours: hierarchy(image, contours=contours) for contours in args.contours}
        others = {("slic", n): slic(image, n_segments=n, start_label=0) for n in SLIC_COUNTS}
        for scale in FELZENSZWALB_SCALES:
            key = ("felzenszwalb", scale)
            others[key] = felzenszwalb(image, scale=scale, sigma=0.8, min_size=20)
        for key, regions in others.items():
            rows.setdefault((*key, key[0]), []).append(_score(regions, truths))
            for contours, tree in trees.items():
                ours = tree.cut_to(int(regions.max()) + 1)
                rows.setdefault((*key, contours), []).append(_score(ours, truths))
    results = []
    print(f"\n{data}: | other | method | regions | ASA | undersegmentation | boundary recall |")
    for (other, setting, method), scores in rows.items():
        count, asa, error, recall = np.mean(scores, 0)
        results.append(
            {
                "other": other,
                "setting": setting,
                "method": method,
                "regions": count,
                "asa": asa,
                "undersegmentation_error": error,
                "boundary_recall": recall,
                "images": len(scores),
            }
        )
        print(
            f"| {other} {setting} | {method} | {count:.0f} | {asa:.4f} | {error:.4f} "
            f"| {recall:.4f} |"
        )
    return results


def seconds(args, repeats=7):
    """Median (wall, processor) seconds on one photograph of 375 x 500, in turn with the others."""
    image = next(image for image, _ in _voc(args) if image.shape[:2] == (375, 500))
    calls = {
        "felzenszwalb": lambda: felzenszwalb(image, scale=100, sigma=0.8, min_size=20),
        "slic": lambda: slic(image, n_segments=200, start_label=0),
    }
    for contours in args.contours:
        calls[contours] = lambda contours=contours: hierarchy(image, contours=contours).cut_to(200)
    taken = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    results = {name: np.median(times[1:], 0).tolist() for name, times in taken.items()}
    both = np.add(results["felzenszwalb"], results["slic"])
    for contours in args.contours:
        results[f"{contours}_over_both"] = (results[contours] / both).tolist()
    print("\nseconds (wall, processor), 375 x 500:")
    for name, pair in results.items():
        print(f"{name}: {pair[0]:.3f}, {pair[1]:.3f}")
    return results


def large(args):
    """Seconds and peak memory (of this process so far) for a photograph of 24 megapixels."""
    image = next(image for image, _ in _voc(args) if image.shape[:2] == (375, 500))
    image = np.asarray(Image.fromarray(image).resize((6000, 4000), Image.Resampling.BICUBIC))
    results = {}
    for contours in args.contours:
        begun = time.perf_counter()
        hierarchy(image, contours=contours).cut_to(200)
        results[contours] = time.perf_counter() - begun
    results["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("\n24 megapixels:", json.dumps({k: round(v, 2) for k, v in results.items()}))
    return results


def _score(regions, truths):
    tables = [contingency(regions, truth) for truth in truths]
    return (
        int(regions.max()) + 1,
        np.mean([achievable_accuracy(table) for table in tables]),
        np.mean([undersegmentation_error(table) for table in tables]),
        np.mean([boundary_recall(regions, truth) for truth in truths]),
    )


def _bsds(args):
    for split, name in identifiers(args.split)[:: args.every]:
        yield photograph(split, name), segmentations(split, name)


def _voc(args):
    """The photographs of voc-subset's val, truths of which 255 is left out."""
    root = DATA / "voc-subset"
    lines = (root / "annotations.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    for entry in [entry for entry in entries if entry["split"] == "val"][:: args.every]:
        image = np.asarray(Image.open(root / entry["image"]).convert("RGB"))
        mask = np.asarray(Image.open(root / entry["mask"])).astype(np.int64)
        yield image, np.where(mask == 255, -1, mask)[None]


if __name__ == "__main__":
    main()
