"""What the method is compared with, on the same features and the same labels."""

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier

from weakseg.cam import class_activation

PIXELS = 20_000
TREES = 100


class Forest:
    """A random forest on the features of labelled pixels, as interactive tools train it.

    Args:
        job: a finished run's data.
        features: of its training images.
        seeds: on the same grids.
        seed: of the choice of pixels and of the trees.
    """

    def __init__(self, job, features, seeds, seed):
        self.classes = len(job.labels.info.classes)
        rng = np.random.default_rng(seed)
        labelled = np.flatnonzero(seeds.values < self.classes)
        if len(labelled) > PIXELS:
            labelled = np.sort(rng.choice(labelled, PIXELS, replace=False))
        image = np.searchsorted(seeds.offsets, labelled, side="right") - 1
        rows = np.empty((len(labelled), features.channels), np.float32)
        for index in np.unique(image):
            here = image == index
            flat = features[index].reshape(features.channels, -1)
            rows[here] = flat[:, labelled[here] - seeds.offsets[index]].T
        self.trees = RandomForestClassifier(
            TREES, max_features="sqrt", min_samples_leaf=2, random_state=seed, n_jobs=1
        )
        self.trees.fit(rows, seeds.values[labelled])

    def scores(self, features):
        """Class probabilities (C, h, w) of features (C', h, w)."""
        channels, height, width = features.shape
        found = self.trees.predict_proba(features.reshape(channels, -1).T.astype(np.float32))
        scores = np.zeros((height * width, self.classes), np.float32)
        scores[:, self.trees.classes_] = found
        return torch.from_numpy(scores.T.reshape(-1, height, width).copy())


class CamAlone:
    """Class activation maps as they are: the tags that the tagger finds, where it finds them.

    Args:
        tagger: trained on the training images' tags.
        info: classes.
        likely: probability from which a tag counts as found; the likeliest always counts.
        level: background where no map, over its maximum, reaches this.
    """

    def __init__(self, tagger, info, likely=0.5, level=0.3):
        self.tagger, self.info, self.likely, self.level = tagger, info, likely, level

    @torch.inference_mode()
    def scores(self, final_features):
        """Class scores (C, h, w) of the last feature map (C', h, w)."""
        probability = self.tagger(final_features.mean((1, 2))[None])[0].sigmoid()
        background = self.info.background_index
        if background is not None:
            probability[background] = 0
        found = torch.nonzero(probability >= self.likely)[:, 0].tolist()
        found = found or [int(probability.argmax())]
        maps = class_activation(self.tagger, [final_features], tuple(found))
        scores = torch.zeros(len(self.info.classes), *maps.scores.shape[1:])
        scores[found] = torch.from_numpy(maps.scores)
        if background is not None:
            scores[background] = self.level
        return scores


def enlarged(scores, size):
    """(H, W) class indices of scores (C, h, w)."""
    full = torch.nn.functional.interpolate(scores[None], size, mode="bilinear")[0]
    return full.argmax(0).numpy().astype(np.uint8)
