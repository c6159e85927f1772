"""The pixel classifier on top of frozen features and the detached embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelClassifier(nn.Module):
    """Scores every pixel's class from its features, its embedding and what the image shows.

    A two-layer perceptron, pixel by pixel: with a few labelled pixels, 3x3 convolutions learn
    the surroundings of the labels instead of the classes. The image's mean feature vector goes
    in beside each pixel's own: a wheel in a street is a car's, on a lawn a bicycle's.

    Args:
        in_channels: channels of the features.
        dim: channels of the embedding; 0 leaves it out.
        classes: C.
        hidden: width of the hidden layer.
        dropout: share of hidden units dropped in training.
    """

    def __init__(
        self, in_channels: int, dim: int, classes: int, *, hidden: int = 256, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.dim = dim
        # Stacked backbone levels differ in scale by orders of magnitude.
        self.norm = nn.BatchNorm1d(in_channels, affine=False)
        self.context_norm = nn.BatchNorm1d(in_channels, affine=False)
        self.from_features = nn.Linear(in_channels, hidden, bias=False)
        self.from_context = nn.Linear(in_channels, hidden, bias=False)
        self.from_embedding = nn.Linear(dim, hidden, bias=False) if dim else None
        self.hidden_norm = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, classes)

    def forward(
        self, features: Tensor, context: Tensor, embeddings: Tensor | None = None
    ) -> Tensor:
        """Class scores before softmax.

        Args:
            features: (B, in_channels, h, w); (N, in_channels, 1, 1) for N single pixels.
            context: (B, in_channels), the mean of the features over each pixel's whole image.
            embeddings: (B, dim, h, w) unit vectors; needed if `dim` is not 0. No gradient flows
                into them.

        Returns:
            (B, C, h, w) float32.
        """
        batch, _, height, width = features.shape
        x = self.from_features(self.norm(_rows(features)))
        if self.from_embedding is not None:
            if embeddings is None:
                raise ValueError(f"this classifier needs embeddings of {self.dim} channels")
            # A unit vector's components are small beside normalised features.
            x = x + self.from_embedding(_rows(embeddings.detach()) * self.dim**0.5)
        around = self.from_context(self.context_norm(context))
        x = (x.view(batch, height * width, -1) + around[:, None]).flatten(0, 1)
        logits: Tensor = self.out(self.dropout(F.relu(self.hidden_norm(x)))).float()
        return logits.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) as (B h w, C): matrix products on rows outrun 1x1 convolutions."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def pooled(features: Tensor) -> Tensor:
    """The context of an image: the mean of its features (..., C, h, w) over h and w."""
    return features.float().mean((-2, -1))


def cross_entropy(logits: Tensor, labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the labelled pixels; 0 where there is none.

    Args:
        logits: (B, C, h, w).
        labels: (B, h, w) seed map; values outside 0..classes-1 do not count.
        classes: C.
        smoothing: share of each label that is spread over all classes (Szegedy et al., CVPR 2016,
            section 7).
    """
    labelled = (labels >= 0) & (labels < classes)
    target = torch.where(labelled, labels, -1).long()
    total = F.cross_entropy(
        logits, target, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
    return total / labelled.sum().clamp_min(1)


@torch.no_grad()
def favour_rare(classifier: PixelClassifier, shares: Tensor, strength: float) -> None:
    """Lower every class's score by `strength` times the logarithm of its share, in the last bias.

    Unsure pixels go to the most frequent class, mostly the background, at the cost of classes that
    the mean IoU counts as much (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021,
    equation 9).

    Args:
        classifier: trained; changed in place.
        shares: (C,) of the classes among the labels that it learned from; a class with share 0
            keeps its score.
        strength: 0 changes nothing, 1 makes all classes alike.
    """
    known = shares > 0
    change = torch.where(known, strength * shares.log(), 0)
    classifier.out.bias.sub_(change.to(classifier.out.bias))
