"""One call of the contrast and its answer, as its forms for CPU and GPU take and give them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """One call of the contrast.

    Attributes:
        pixels: (N, D).
        prototypes: (S, D).
        own: (N,), -1 for none.
        pixel_group: (N,), row of `table`.
        prototype_group: (S,), column of `table`.
        table: (Gp, Gq), +1, -1 or 0.
        concentration: k.
        learned: only the first so many prototypes have a gradient.
    """

    pixels: Tensor
    prototypes: Tensor
    own: Tensor
    pixel_group: Tensor
    prototype_group: Tensor
    table: Tensor
    concentration: float
    learned: int

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors, in order."""
        return (
            self.pixels,
            self.prototypes,
            self.own,
            self.pixel_group,
            self.prototype_group,
            self.table,
        )

    def scalars(self) -> tuple[float, int]:
        """The rest, in order."""
        return self.concentration, self.learned

    def fields(self) -> tuple[Any, ...]:
        """All of it: what an autograd function takes and hands on."""
        return *self.tensors(), *self.scalars()

    def gradients(
        self, pixels: Tensor | None, prototypes: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """What an autograd function that takes `fields` returns: gradients of the inputs' types."""
        return (
            None if pixels is None else pixels.to(self.pixels.dtype),
            None if prototypes is None else prototypes.to(self.prototypes.dtype),
            *[None] * 6,
        )


@dataclass(frozen=True)
class Solution:
    """Loss of each pixel (N,) and the gradients, None where not wanted.

    Attributes:
        loss: (N,).
        pixels: (N, D), each row the gradient of that pixel's own loss.
        prototypes: (S, D), gradient of the weighted sum of all losses.
    """

    loss: Tensor
    pixels: Tensor | None
    prototypes: Tensor | None


def learned_first(problem: Problem) -> tuple[Tensor, Tensor]:
    """Prototype groups and table, with groups of their own for prototypes that do not learn.

    These sort behind the others, so that the product for the gradient leaves them out.
    """
    groups, table = problem.prototype_group, problem.table
    if problem.learned >= len(groups):
        return groups, table
    behind = torch.arange(len(groups), device=groups.device) >= problem.learned
    return groups + behind * table.shape[1], torch.cat([table, table], dim=1)
