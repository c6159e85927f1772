"""A segment's vector with its scene: what the segment is like, and what its whole image is like.

Neighbours are to share the scene, not only the class (Ke, Hwang, Yu, ICLR 2021, "SPML", section
on contextual retrieval). The prototype sees little of the surroundings; so the mean vector of the
image stands beside it, with a weight.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

CONTEXT = 0.4
"""Share of the scene in the similarity of two segments."""


def scene_of(embeddings: Tensor) -> Tensor:
    """The scene of an image: its mean embedding, (D,) unit length.

    Args:
        embeddings: (D, h, w) unit vectors.
    """
    return normalize(embeddings.float().flatten(1).mean(1), dim=0)


def with_scene(prototypes: Tensor, scene: Tensor, context: float) -> Tensor:
    """Prototypes with their image's scene.

    The dot product of two such vectors is (1 - context) times the cosine of the prototypes plus
    context times the cosine of the scenes.

    Args:
        prototypes: (S, D), unit length.
        scene: (D,), unit length.
        context: share of the scene, at least 0, less than 1.

    Returns:
        (S, 2 D), unit length; the prototypes themselves where `context` is 0.
    """
    if context == 0:
        return prototypes
    own = (1 - context) ** 0.5 * prototypes
    return torch.cat([own, (context**0.5 * scene).expand_as(prototypes)], dim=1)
