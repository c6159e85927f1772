"""What a run is made of, measured by itself: the embedding by a vote, the pseudo-masks."""

import numpy as np
import torch
from others import enlarged
from protocols import figures, measured

from weakseg.evaluation import Confusion
from weakseg.images import read_mask
from weakseg.knn import knn_vote
from weakseg.training import stages
from weakseg.training.fit import embedded, seed_grid
from weakseg.training.knn_stage import per_pixel, vote_segments


def inside(fitted):
    """Figures, as of a method, of the embedding and of the last pseudo-masks if there are any."""
    found = {"vote": {"plain": by_vote(fitted)}}
    if fitted.pseudo_masks is not None:
        found["pseudo-masks"] = {"plain": pseudo_masks(fitted)}
    return found


@torch.inference_mode()
def by_vote(fitted):
    """Classes of segments by the 20 nearest labelled ones of training: no classifier takes part.

    This is how the published method predicts.
    """
    run, measured_on, segmenter = fitted.job, fitted.evaluated, fitted.segmenter
    train = stages.features_of(run, run.dataset, segmenter.backbone, "train")
    test = stages.features_of(run, measured_on, segmenter.backbone, "measured")
    seeds, info = seed_grid(run, train), run.labels.info
    classes, head = len(info.classes), segmenter.head.eval()

    def segments(features, index, seed_map=None, regions=None):
        vectors = embedded(run, head, features, index)
        nowhere = np.full(vectors.shape[-2:], classes)
        seed_map = nowhere if seed_map is None else seed_map
        return vote_segments(
            vectors, seed_map, nowhere if regions is None else regions, info.ignore
        )

    rows, labels = [], []
    for i in range(len(run.dataset)):
        found = segments(train, i, seeds[i], fitted.regions(i))
        labelled = found.seed < classes
        rows.append(found.prototypes[labelled])
        labels.append(found.seed[labelled])
    bank, labels = torch.cat(rows), torch.cat(labels)
    position = {entry.name: i for i, entry in enumerate(measured_on)}

    def predict(entry):
        found = segments(test, position[entry.name])
        votes = knn_vote(found.prototypes, bank, labels, classes)
        return enlarged(per_pixel(found, votes), (entry.height, entry.width))

    return measured(predict, measured_on)


def pseudo_masks(fitted):
    """The last pseudo-masks beside the training images' masks, which nothing else has seen.

    Pixels that they leave without a class, and images without one, do not count.
    """
    info = fitted.job.labels.info
    confusion = Confusion(info)
    for number, entry in enumerate(fitted.job.dataset):
        if not fitted.job.labels.labelled[number]:
            continue
        mask = read_mask(fitted.pseudo_masks / f"{number:06d}.png")
        left = mask >= info.unlabelled
        truth = np.where(left, info.ignore, entry.read_mask())
        confusion.add(np.where(left, 0, mask), truth)
    return figures(confusion)
