"""How often classes really occur, where labels show them in other shares than images do."""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 2.0
"""A classifier of a few labelled pixels is too sure of itself on all others, and the estimate
would stop half-way: its likelihood ratios are flattened by this root. With points on 663
photographs of Pascal VOC the estimate is then off by .10 (sum over 21 classes); with 1 it is off
by .26, with 3 by .31."""

CAUTION = 0.3
"""Weight of the labels' own shares beside the estimate, as so many pseudo-counts: a rare class that
the classifier hardly finds would else be explained away."""

_LIMIT = 20.0
"""No class is made likelier or less likely by more than this."""


def shift_weights(posteriors: Tensor, shares: Tensor, *, iterations: int = 100) -> Tensor:
    """Factors that bring a classifier's probabilities to the classes' true shares.

    People who click once on each object label as many pixels of a bottle as of a bus, and few of
    the background; a classifier that learned from them finds bottles everywhere. The shares of
    the classes among all pixels are estimated from its probabilities by expectation maximisation
    (Saerens, Latinne, Decaestecker, Neural Computation 14, 2002, equation 2.8).

    Args:
        posteriors: (N, C) the classifier's probabilities for pixels drawn from all images; 0 where
            an image cannot show a class.
        shares: (C,) shares of the classes among the labels that it learned from, sum 1.
        iterations: rounds of estimation.

    Returns:
        (C,) factors, the largest 1.
    """
    known = shares > 0
    assumed = torch.where(known, shares, torch.ones_like(shares))
    flat = (posteriors / assumed) ** (1 / TEMPERATURE) * assumed
    weights = torch.ones_like(shares)
    for _ in range(iterations):
        found = flat * weights
        mean = (found / found.sum(1, keepdim=True).clamp_min(1e-12)).mean(0)
        estimate = (mean + CAUTION * shares) / (1 + CAUTION)
        weights = torch.where(known, estimate / assumed, torch.ones_like(shares))
        weights = weights.clamp(1 / _LIMIT, _LIMIT)
    return weights / weights.max()
