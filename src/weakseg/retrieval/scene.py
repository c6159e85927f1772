"""A segment's vector with its scene: what the segment is like, and what its whole image is like.

Neighbours are to share the scene, not only the class (Ke, Hwang, Yu, ICLR 2021, "SPML": contextual
retrieval). The prototype sees little of the surroundings; so the image's mean vector stands beside
it. What all images of a collection have in common is taken off, or scenes would hardly differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

CONTEXT = 0.4
"""Share of the scene in the similarity of two segments; class and scene both gain up to here."""

IMAGES, WEIGHT = 64, 16
"""Images that the common part is taken from; images without any that count along with them."""


@dataclass(frozen=True)
class Scene:
    """How an index counts scenes.

    Attributes:
        context: their share in the similarity of two segments, more than 0, less than 1.
        centre: (D,) the part that the collection's images have in common.
    """

    context: float
    centre: tuple[float, ...]

    def beside(self, prototypes: Tensor, mean: Tensor) -> Tensor:
        """Prototypes with the scene of their image.

        The dot product of two such vectors is (1 - context) times the cosine of the prototypes
        plus context times the cosine of the scenes: `mean` less `centre`.

        Args:
            prototypes: (S, D), unit length.
            mean: (D,) from `mean_embedding`.

        Returns:
            (S, 2 D), unit length.
        """
        scene = normalize(mean - torch.tensor(self.centre, device=mean.device), dim=0)
        own = (1 - self.context) ** 0.5 * prototypes
        return torch.cat([own, (self.context**0.5 * scene).expand_as(prototypes)], dim=1)


def mean_embedding(embeddings: Tensor) -> Tensor:
    """The mean direction of an image's embeddings (D, h, w): (D,), unit length."""
    return normalize(embeddings.float().flatten(1).mean(1), dim=0)


def common_part(means: Tensor) -> Tensor:
    """What the means of some images (n, D) have in common: (D,).

    It is drawn towards 0, so that a single image, or several equal ones, keep a scene.
    """
    return means.sum(0) / (len(means) + WEIGHT)
