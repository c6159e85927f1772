"""How a trained model is measured on `val`: at one scale or several, with and without a CRF."""

from dataclasses import dataclass

from weakseg.evaluation import Confusion
from weakseg.segmenter import Segmenter

SETTINGS = {
    "plain": {},
    "crf": {"crf": True},
    "multi-scale": {"flip": True, "scales": (0.75, 1.0, 1.25, 1.5)},
    "multi-scale, crf": {"flip": True, "scales": (0.75, 1.0, 1.25, 1.5), "crf": True},
}


def measured(predict, dataset):
    """mIoU and IoU by class of `predict(entry)` -> (H, W) mask."""
    confusion = Confusion(dataset.info)
    for entry in dataset:
        confusion.add(predict(entry), entry.read_mask())
    return figures(confusion)


def figures(confusion):
    """mIoU and IoU by class of what was counted."""
    scores = confusion.scores()
    return {"miou": scores.miou, "iou": dict(scores.iou)}


@dataclass
class Predicting:
    """Predicts masks in one way."""

    segmenter: Segmenter
    settings: dict

    def __call__(self, entry):
        return self.segmenter.predict(entry.read_image(), **self.settings).mask


def by_protocol(segmenter, dataset, names):
    """Figures of a segmenter by the name of the protocol; "plain" is taken from the run itself."""
    found = {}
    for name in names:
        if name != "plain":
            found[name] = measured(Predicting(segmenter, SETTINGS[name]), dataset)
    return found
