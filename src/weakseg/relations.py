"""The four relations of SPML (Ke, Hwang, Yu, ICLR 2021) as four tables over one contrast.

| relation | pixels | positive segments | compared with |
| --- | --- | --- | --- |
| image_similarity | all | of the same low-level region | the same image, with location |
| annotation | labelled | of the same class | labelled ones, batch and memory |
| cooccurrence | all | of images that share a foreground tag | tagged images, batch and memory |
| affinity | unlabelled | of the classes of near labelled segments | as annotation |

Every other segment that is compared is negative.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from weakseg.contrast import segment_contrast
from weakseg.grouping import Segments, unit_rows, with_location

RELATIONS = ("image_similarity", "annotation", "cooccurrence", "affinity")


@dataclass(frozen=True)
class Relation:
    """Weight in the total loss (0: not computed) and concentration k of one relation."""

    weight: float
    concentration: float


@dataclass(frozen=True)
class RelationSettings:
    """The four relations; the defaults are those of points and scribbles, by docs/results.md.

    Attributes:
        image_similarity: pixels of one low-level region belong together.
        annotation: pixels of one class belong together.
        cooccurrence: pixels of images that share a tag belong together.
        affinity: unlabelled pixels belong to the classes of the labelled segments near them.
        affinity_neighbours: how many nearest labelled segments lend a pixel their class.
        affinity_cosine: how near they must be.
    """

    image_similarity: Relation = field(default=Relation(1.0, 16.0))
    annotation: Relation = field(default=Relation(0.0, 6.0))
    cooccurrence: Relation = field(default=Relation(1.0, 8.0))
    affinity: Relation = field(default=Relation(0.0, 12.0))
    affinity_neighbours: int = 3
    affinity_cosine: float = 0.95

    @property
    def on(self) -> tuple[str, ...]:
        """Names of the relations that have a weight."""
        return tuple(name for name in RELATIONS if getattr(self, name).weight)

    def weighted(self, **weights: float) -> RelationSettings:
        """These settings with other weights for the relations that are named."""
        changed = {name: replace(getattr(self, name), weight=w) for name, w in weights.items()}
        return replace(self, **changed)


@dataclass(frozen=True)
class _Bank:
    """Prototypes with their seed and image, and the tags of those images; `learned` come first."""

    prototypes: Tensor
    seed: Tensor
    image: Tensor
    tags: Tensor
    learned: int = 0


class MemoryBank:
    """The segments of the last few batches; they are compared with but never learn.

    Args:
        batches: how many batches to keep.
    """

    def __init__(self, batches: int = 2) -> None:
        self._batches: deque[_Bank] = deque(maxlen=batches)

    def __len__(self) -> int:
        """How many segments are remembered."""
        return sum(len(batch.seed) for batch in self._batches)

    def push(self, segments: Segments, tags: Tensor) -> None:
        """Remembers a batch after its losses are taken; the oldest beyond the limit goes.

        Args:
            segments: the batch.
            tags: (B, C) bool, as for `relation_losses`.
        """
        self._batches.append(
            _Bank(segments.prototypes.detach(), segments.seed, segments.image, tags)
        )

    def state_dict(self) -> list[dict[str, Tensor]]:
        """What is remembered, for a checkpoint."""
        return [
            {"prototypes": b.prototypes, "seed": b.seed, "image": b.image, "tags": b.tags}
            for b in self._batches
        ]

    def load_state_dict(self, state: list[dict[str, Tensor]]) -> None:
        """Remember what `state_dict` gave instead of what there is."""
        self._batches.clear()
        for b in state:
            self._batches.append(_Bank(b["prototypes"], b["seed"], b["image"], b["tags"]))

    def recall(self, first_image: int) -> _Bank | None:
        """All that is remembered as one batch, images numbered from `first_image`."""
        if not self._batches:
            return None
        images, offset = [], first_image
        for batch in self._batches:
            images.append(batch.image + offset)
            offset += len(batch.tags)
        return _Bank(
            torch.cat([batch.prototypes for batch in self._batches]),
            torch.cat([batch.seed for batch in self._batches]),
            torch.cat(images),
            torch.cat([batch.tags for batch in self._batches]),
        )


def relation_losses(
    embeddings: Tensor,
    segments: Segments,
    seeds: Tensor,
    tags: Tensor,
    *,
    classes: int,
    background: int | None,
    settings: RelationSettings,
    memory: MemoryBank | None = None,
) -> dict[str, Tensor]:
    """The mean contrast of each relation over the pixels that it covers.

    Args:
        embeddings: (B, D, H, W), the ones that `segments` was made of; normalised here.
        segments: their grouping.
        seeds: (B, H, W) integer seed map: 0..classes-1 a class, `classes` unlabelled.
        tags: (B, classes) bool, the classes of each image's weak labels.
        classes: how many there are.
        background: index of the background class; it does not count for co-occurrence.
        settings: concentrations; a relation of weight 0 is not computed.
        memory: segments of earlier batches. Not changed: `push` when the step is done.

    Returns:
        Scalar loss by name of `RELATIONS`, unweighted; a relation that covers no pixel is absent.
    """
    batch, _, height, width = embeddings.shape
    rows = unit_rows(embeddings)
    covered = segments.index.flatten() >= 0
    own = segments.index.flatten()[covered]
    pixels = rows if covered.all() else rows[covered]
    bank = _everything(segments, tags, memory)
    foreground = bank.tags.bool().clone()
    if background is not None:
        foreground[:, background] = False

    losses: dict[str, Tensor | None] = {}
    if settings.image_similarity.weight and len(own):
        located = with_location(rows, (batch, height, width))
        losses["image_similarity"] = _image_similarity(
            located if covered.all() else located[covered], own, segments, settings
        )
    if settings.annotation.weight:
        losses["annotation"] = _annotation(pixels, own, bank, classes, settings)
    if settings.cooccurrence.weight:
        losses["cooccurrence"] = _cooccurrence(pixels, own, bank, foreground, settings)
    if settings.affinity.weight:
        losses["affinity"] = _affinity(pixels, own, segments, bank, classes, settings)
    return {name: loss for name, loss in losses.items() if loss is not None}


def total_loss(losses: Mapping[str, Tensor], settings: RelationSettings) -> Tensor:
    """Weighted sum of what `relation_losses` returns; at least one entry."""
    return torch.stack(
        [loss * getattr(settings, name).weight for name, loss in losses.items()]
    ).sum()


def _everything(segments: Segments, tags: Tensor, memory: MemoryBank | None) -> _Bank:
    recalled = memory.recall(len(tags)) if memory is not None else None
    if recalled is None:
        return _Bank(segments.prototypes, segments.seed, segments.image, tags, len(segments))
    return _Bank(
        torch.cat([segments.prototypes, recalled.prototypes.to(segments.prototypes.dtype)]),
        torch.cat([segments.seed, recalled.seed]),
        torch.cat([segments.image, recalled.image]),
        torch.cat([tags, recalled.tags]),
        len(segments),
    )


def _image_similarity(
    located: Tensor, own: Tensor, segments: Segments, settings: RelationSettings
) -> Tensor:
    """Mean per image, then over the images that have pixels."""
    images = int(segments.image[-1]) + 1
    segment_count = torch.bincount(segments.image, minlength=images).tolist()
    pixel_count = torch.bincount(segments.image[own], minlength=images).tolist()
    losses, first = [], 0
    for pixels, here, prototypes, region in zip(
        torch.split(located, pixel_count),
        torch.split(own, pixel_count),
        torch.split(segments.prototypes_with_location, segment_count),
        torch.split(segments.region, segment_count),
        strict=True,
    ):
        if len(here):
            group = torch.unique(region, return_inverse=True)[1]
            losses.append(
                segment_contrast(
                    pixels,
                    prototypes,
                    own=here - first,
                    pixel_group=group[here - first],
                    prototype_group=group,
                    relation=_same(int(group.max()) + 1, group),
                    concentration=settings.image_similarity.concentration,
                ).mean()
            )
        first += len(region)
    return torch.stack(losses).mean()


def _annotation(
    pixels: Tensor, own: Tensor, bank: _Bank, classes: int, settings: RelationSettings
) -> Tensor | None:
    seed = bank.seed[own]
    labelled = seed < classes
    if not labelled.any():
        return None
    relation = _same(classes + 1, seed)
    relation[:, classes] = 0
    return segment_contrast(
        pixels[labelled],
        bank.prototypes,
        own=own[labelled],
        pixel_group=seed[labelled],
        prototype_group=bank.seed,
        relation=relation,
        concentration=settings.annotation.concentration,
        learned=bank.learned,
    ).mean()


def _cooccurrence(
    pixels: Tensor,
    own: Tensor,
    bank: _Bank,
    foreground: Tensor,
    settings: RelationSettings,
) -> Tensor | None:
    image = bank.image[own]
    tagged = foreground.any(dim=1)
    covered = tagged[image]
    if not covered.any():
        return None
    shared = foreground.float() @ foreground.float().T > 0
    relation = torch.where(shared, 1, -1) * (tagged[:, None] & tagged)
    return segment_contrast(
        pixels[covered],
        bank.prototypes,
        own=own[covered],
        pixel_group=image[covered],
        prototype_group=bank.image,
        relation=relation,
        concentration=settings.cooccurrence.concentration,
        learned=bank.learned,
    ).mean()


def _affinity(
    pixels: Tensor,
    own: Tensor,
    segments: Segments,
    bank: _Bank,
    classes: int,
    settings: RelationSettings,
) -> Tensor | None:
    sets = _near_classes(pixels.detach(), own, segments, classes, settings)
    covered = sets.any(dim=1)
    if not covered.any():
        return None
    kinds, group = _distinct(sets[covered])
    relation = torch.where(kinds, 1, -1)
    relation = torch.cat([relation, torch.zeros_like(relation[:, :1])], dim=1)
    return segment_contrast(
        pixels[covered],
        bank.prototypes,
        own=own[covered],
        pixel_group=group,
        prototype_group=bank.seed,
        relation=relation,
        concentration=settings.affinity.concentration,
        learned=bank.learned,
    ).mean()


@torch.no_grad()
def _near_classes(
    pixels: Tensor, own: Tensor, segments: Segments, classes: int, settings: RelationSettings
) -> Tensor:
    """Classes of each unlabelled pixel's nearest labelled segments in its image: (N, C) bool."""
    sets = torch.zeros(len(pixels), classes, dtype=torch.bool, device=pixels.device)
    unlabelled = segments.seed[own] == classes
    pixel_image = segments.image[own]
    labelled = (segments.seed < classes).nonzero()[:, 0]
    for b in torch.unique(segments.image[labelled]).tolist():
        here = labelled[segments.image[labelled] == b]
        prototypes, seed = segments.prototypes.detach()[here], segments.seed[here]
        neighbours = min(settings.affinity_neighbours, len(here))
        for rows in (unlabelled & (pixel_image == b)).nonzero()[:, 0].split(8192):
            cosine, nearest = (pixels[rows] @ prototypes.T).topk(neighbours, dim=1)
            near, rank = (cosine >= settings.affinity_cosine).nonzero(as_tuple=True)
            sets[rows[near], seed[nearest[near, rank]]] = True
    return sets


def _distinct(sets: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of a bool table and the number of each row among them."""
    kinds, group = torch.unique(sets.to(torch.uint8), dim=0, return_inverse=True)
    return kinds.bool(), group


def _same(groups: int, like: Tensor) -> Tensor:
    """+1 where row and column are the same group, -1 elsewhere."""
    return 2 * torch.eye(groups, dtype=torch.long, device=like.device) - 1
