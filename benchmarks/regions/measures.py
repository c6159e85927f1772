"""How well segmentations agree with human ones, all from contingency tables.

A table holds, for every region of a segmentation (rows) and of a ground truth (columns), the
number of pixels in both. Coarser cuts of a hierarchy are sums of rows, so an image's pixels are
visited once for all thresholds.
"""

import itertools

import numpy as np
from scipy.ndimage import distance_transform_edt, maximum_filter


def contingency(regions, truth, rows=None, columns=None):
    """(R, G) int64 pixel counts; negative labels of the truth are left out."""
    rows = rows or int(regions.max()) + 1
    columns = columns or int(truth.max()) + 1
    known = truth >= 0
    pairs = regions[known].astype(np.int64) * columns + truth[known]
    return np.bincount(pairs, minlength=rows * columns).reshape(rows, columns)


def merge_rows(table, groups):
    """The table of a coarser segmentation: groups (R,) numbers the coarse region of each row."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) > 0])
    return np.add.reduceat(table[order], starts, axis=0)


def best_overlaps(table):
    """(G,) float: for each ground-truth region the IoU of the region that covers it best."""
    union = table.sum(1)[:, None] + table.sum(0)[None, :] - table
    return (table / np.maximum(union, 1)).max(0)


def rand_index(table):
    """Share of pixel pairs on which two segmentations agree (together or apart)."""
    n = float(table.sum())
    pairs = n * (n - 1) / 2

    def together(counts):
        counts = counts.astype(float)
        return (counts * (counts - 1) / 2).sum()

    both, ours, theirs = together(table), together(table.sum(1)), together(table.sum(0))
    return (pairs + 2 * both - ours - theirs) / pairs


def variation_of_information(table):
    """H(A|B) + H(B|A), in bits, as the BSDS500 benchmark reports it."""
    p = table / table.sum()

    def entropy(p):
        p = p[p > 0]
        return -(p * np.log2(p)).sum()

    return 2 * entropy(p) - entropy(p.sum(1)) - entropy(p.sum(0))


def achievable_accuracy(table):
    """Share of pixels right when each region takes the label that most of its pixels have."""
    return table.max(1).sum() / table.sum()


def undersegmentation_error(table):
    """Corrected undersegmentation error (Neubert, Protzel 2012): bleeding by the smaller part."""
    size = table.sum(1)[:, None]
    return np.minimum(table, size - table).sum() / table.sum()


def boundary_recall(regions, truth, reach=2):
    """Share of the true boundary with a region boundary within `reach` pixels (Chebyshev).

    Pixels without a truth take the nearest one: VOC leaves out a band along every outline, and
    the outline runs in its middle.
    """
    if (truth < 0).any():
        nearest = distance_transform_edt(truth < 0, return_distances=False, return_indices=True)
        truth = truth[tuple(nearest)]
    ours, theirs = _edges(regions), _edges(truth)
    if not theirs.any():
        return 1.0
    return float(maximum_filter(ours, size=2 * reach + 1)[theirs].mean())


def _edges(labels):
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


class Segmentation500:
    """Covering, probabilistic Rand index and variation of information over a set of images."""

    def __init__(self, thresholds):
        self.thresholds = thresholds
        self.covered, self.best, self.area, self.rand, self.variation = [], [], [], [], []

    def add(self, tree, people):
        """One hierarchy and its (K, H, W) human segmentations."""
        tables = [contingency(tree.base, one, rows=tree.by_strength.leaves) for one in people]
        sizes = np.concatenate([table.sum(0) for table in tables])
        covered, rand, variation, best = [], [], [], 0
        for threshold in self.thresholds:
            groups = tree.by_strength.cut(float(threshold))
            cuts = [merge_rows(table, groups) for table in tables]
            overlaps = np.concatenate([best_overlaps(cut) for cut in cuts])
            best = np.maximum(best, overlaps)
            covered.append((overlaps * sizes).sum())
            rand.append(np.mean([rand_index(cut) for cut in cuts]))
            variation.append(np.mean([variation_of_information(cut) for cut in cuts]))
        self.covered.append(covered)
        self.rand.append(rand)
        self.variation.append(variation)
        self.best.append((best * sizes).sum())
        self.area.append(sizes.sum())

    def summary(self):
        """ODS: one threshold for all images; OIS: the best of each image; best: of each region."""
        covered, area = np.array(self.covered), np.array(self.area, float)
        rand, variation = np.array(self.rand), np.array(self.variation)
        at = int(covered.sum(0).argmax())
        return {
            "images": len(area),
            "covering_ods": float(covered.sum(0).max() / area.sum()),
            "covering_ois": float(covered.max(1).sum() / area.sum()),
            "covering_best": float(sum(self.best) / area.sum()),
            "threshold": float(self.thresholds[at]),
            "pri_ods": float(rand.mean(0).max()),
            "pri_ois": float(rand.max(1).mean()),
            "voi_ods": float(variation.mean(0).min()),
            "voi_ois": float(variation.min(1).mean()),
        }


def agreement(images):
    """How well people agree: each one's segmentation measured against those of the others.

    images: (K, H, W) human segmentations of each image.
    """
    covered, area, rand, variation = 0.0, 0, [], []
    for people in images:
        tables = [contingency(a, b) for a, b in itertools.permutations(people, 2)]
        covered += sum((best_overlaps(table) * table.sum(0)).sum() for table in tables)
        area += sum(table.sum() for table in tables)
        rand.append(np.mean([rand_index(table) for table in tables]))
        variation.append(np.mean([variation_of_information(table) for table in tables]))
    return {
        "images": len(images),
        "covering": float(covered / area),
        "pri": float(np.mean(rand)),
        "voi": float(np.mean(variation)),
    }
