"""What goes beyond the published method and is not in the package, tried by the table "beyond".

Each is a context: a run within it trains in that way, by other functions in place of the package's.
"""

import copy
import importlib
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from weakseg import grouping, relations
from weakseg.cam import class_activation, train_tagger
from weakseg.grouping import segment_means, unit_rows
from weakseg.models import load_backbone
from weakseg.seeds import ClassMaps
from weakseg.training import embedding, stages

training = importlib.import_module("weakseg.training.fit")  # the package's `fit` is the function

DECAY = 0.99
"""Share of the teacher's weights that a step leaves as they are."""

SOFTNESS = 16.0
"""Concentration of the memberships in soft k-means."""


@contextmanager
def no_location():
    """Vectors (N, D) as (N, D + 2), like `with_location`, that say nothing of where they are."""

    def padded(rows, shape):
        return F.pad(rows, (0, 2))

    with (
        patch.object(grouping, "with_location", padded),
        patch.object(relations, "with_location", padded),
    ):
        yield


@contextmanager
def ema_teacher():
    """A running mean of the network says which labelled segments are near a pixel (affinity).

    In the end it takes the network's place: it makes the pseudo-masks and predicts.
    """
    seen = {}

    def near_classes(pixels, own, segments, classes, settings):
        rows = unit_rows(seen["embeddings"])[segments.index.flatten() >= 0]
        means = segment_means(rows, own, len(segments))
        return near(rows, own, replace(segments, prototypes=means), classes, settings)

    def step(network, batch, *rest):
        with torch.no_grad():
            for mean, now in zip(
                seen["teacher"].state_dict().values(), network.state_dict().values(), strict=True
            ):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - DECAY)
            seen["embeddings"] = seen["teacher"](batch.inputs)[0]
        return losses(network, batch, *rest)

    def train(network, *rest, **named):
        seen["teacher"] = copy.deepcopy(network).eval()
        trained(network, *rest, **named)
        network.load_state_dict(seen["teacher"].state_dict())
        return network.eval()

    near, losses, trained = relations._near_classes, embedding.step_losses, stages.train_embedding
    with (
        patch.object(relations, "_near_classes", near_classes),
        patch.object(embedding, "step_losses", step),
        patch.object(stages, "train_embedding", train),
    ):
        yield


@contextmanager
def learned_temperatures():
    """The concentration of each relation is learned, from its usual value on."""
    logs = {}

    def contrast(pixels, prototypes, *, concentration, **rest):
        factor = logs[f"{concentration:g}"].exp()
        return plain(pixels * factor, prototypes, concentration=concentration, **rest)

    def train(network, batches, recipe, *rest, **named):
        used = {getattr(recipe.settings, name).concentration for name in relations.RELATIONS}
        network.logs = nn.ParameterDict({f"{k:g}": nn.Parameter(torch.zeros(())) for k in used})
        logs.update(network.logs)
        trained(network, batches, recipe, *rest, **named)
        learned = {k: round(float(k) * float(log.detach().exp()), 1) for k, log in logs.items()}
        print("concentrations, at first and learned:", learned, flush=True)
        del network.logs
        return network

    plain, trained = relations.segment_contrast, stages.train_embedding
    with (
        patch.object(relations, "segment_contrast", contrast),
        patch.object(stages, "train_embedding", train),
    ):
        yield


@contextmanager
def soft_kmeans():
    """Prototypes are means over all pixels of their seed and region, by how near each one is."""

    def soft(embeddings, *rest, **named):
        segments = hard(embeddings, *rest, **named)
        rows, index = unit_rows(embeddings), segments.index.flatten()
        pixels = rows[index >= 0]
        own = index[index >= 0]
        kind = torch.stack([segments.image, segments.seed, segments.region])
        kind = torch.unique(kind, dim=1, return_inverse=True)[1]
        means = torch.zeros_like(segments.prototypes)
        for image in range(len(embeddings)):
            here = segments.image == image
            mine = segments.image[own] == image
            near = SOFTNESS * pixels[mine] @ segments.prototypes[here].T
            other = kind[own[mine]][:, None] != kind[here]
            share = near.masked_fill(other, -torch.inf).softmax(1)
            means[here] = share.T @ pixels[mine]
        return replace(segments, prototypes=F.normalize(means, dim=1))

    hard = embedding.segment_pixels
    with patch.object(embedding, "segment_pixels", soft):
        yield


@contextmanager
def maps_of_all_layers():
    """Class maps are the mean of the usual ones and those of a tagger on the stacked levels."""

    def cam_stage(job):
        usual = made(job)
        backbone = load_backbone(job.recipe.backbone, output_stride=job.recipe.output_stride)
        features = stages.features_of(job, job.dataset, backbone, "train")
        tagged = usual.tags.any(1)
        tagger = train_tagger(
            stages.contexts(features)[tagged], usual.tags[tagged], seed=job.recipe.seed
        )

        def maps(index):
            one = usual(index)
            if one is None:
                return None
            view = stages.features_at(features, index, torch.device("cpu"))
            other = torch.from_numpy(class_activation(tagger, [view], one.classes).scores)
            coarse = torch.from_numpy(one.scores).float()
            size = other.shape[-2:]
            total = other + F.interpolate(coarse[None], size, mode="bilinear")[0]
            peaks = total.flatten(1).amax(1)[:, None, None].clamp_min(1e-6)
            return ClassMaps(one.classes, (total / peaks).numpy())

        return maps

    made = training.cam_stage
    with patch.object(training, "cam_stage", cam_stage):
        yield


@contextmanager
def excluded_classes():
    """The network also learns, on every pixel, that classes without a tag do not occur."""
    seen = {}

    def step(network, batch, recipe, classes, rules, memory):
        absent = ~batch.tags.bool()
        absent[:, [c for c in (rules[0],) if c is not None]] = False
        seen["absent"] = absent & batch.tags.any(1, keepdim=True)
        return losses(network, batch, recipe, classes, rules, memory)

    def entropy(scores, *rest):
        wrong = (scores.softmax(1) * seen["absent"][:, :, None, None]).sum(1)
        return plain(scores, *rest) - (1 - wrong).clamp_min(1e-4).log().mean()

    losses, plain = embedding.step_losses, embedding.cross_entropy
    with (
        patch.object(embedding, "step_losses", step),
        patch.object(embedding, "cross_entropy", entropy),
    ):
        yield


TRIES = {
    "no location": no_location,
    "EMA teacher": ema_teacher,
    "learned temperatures": learned_temperatures,
    "soft k-means": soft_kmeans,
    "class maps of all layers": maps_of_all_layers,
    "excluded classes in the loss": excluded_classes,
}
"""By the name that a job gives."""


def trying(name):
    """The context of a name, of one that changes nothing for None."""
    return nullcontext() if name is None else TRIES[name]()
