"""Training the pixel embedding by the four relations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from weakseg.classifier import cross_entropy
from weakseg.files import atomic_path, content_hash
from weakseg.grouping import segment_pixels
from weakseg.models import Backbone, EmbeddingHead, freeze_stem
from weakseg.relations import MemoryBank, relation_losses, total_loss
from weakseg.training.batches import Batch
from weakseg.training.recipe import Recipe
from weakseg.training.run_folder import damaged_as_input

SAVE_EVERY = 200
"""Steps between two checkpoints of a running training."""

ITERATIONS = 10
"""Rounds of k-means (Ke, Hwang, Yu, ICLR 2021, "SPML")."""

Log = Callable[[int, dict[str, float]], None]
"""Called with the step and its losses by name."""


class Batches(Protocol):
    """Where training batches come from."""

    def batches(self, start: int, steps: int, rank: int = 0) -> Iterator[Batch]:
        """The batches of steps `start` to `steps`."""
        ...


class EmbeddingNetwork(nn.Module):
    """Features or images to unit vectors, with class scores that only training uses.

    Args:
        head: the embedding head.
        classes: number of classes.
        backbone: trained along with it (fine-tune), or None: the inputs are features.
        scale: the embeddings' grid is this many times finer than that of the features, stride 8.
    """

    def __init__(
        self,
        head: EmbeddingHead,
        classes: int,
        backbone: Backbone | None = None,
        *,
        scale: int = 1,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.backbone = backbone
        self.head = head
        self.scores = nn.Conv2d(head.dim, classes, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, D, h, w) and class scores (B, C, h, w) of a batch."""
        features = inputs if self.backbone is None else self.backbone.stacked(inputs, 8)
        embeddings = self.head(features, [n * self.scale for n in features.shape[-2:]])
        return embeddings, self.scores(embeddings * self.head.dim**0.5)


def step_losses(
    network: nn.Module, batch: Batch, recipe: Recipe, classes: int, rules: Rules, memory: MemoryBank
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of a batch and its parts by name; remembers the batch's segments.

    Args:
        network: an `EmbeddingNetwork`, wrapped or not.
        batch: on the network's device.
        recipe: resolved.
        classes: number of classes, the seed value of unlabelled pixels.
        rules: background index and ignore value.
        memory: segments of past batches.
    """
    embeddings, scores = network(batch.inputs)
    losses = _contrast(embeddings, batch, recipe, classes, rules, memory)
    total = total_loss(losses, recipe.settings) if losses else embeddings.sum() * 0
    if recipe.cross_entropy:
        losses["cross_entropy"] = cross_entropy(scores, batch.seeds, classes)
        total = total + recipe.cross_entropy * losses["cross_entropy"]
    return total, losses


def _contrast(
    embeddings: Tensor, batch: Batch, recipe: Recipe, classes: int, rules: Rules, memory: MemoryBank
) -> dict[str, Tensor]:
    """The relations' losses by name, none where no relation is on; remembers the segments.

    The embeddings (B, D, h, w) are those of the batch, the rest is as for `step_losses`.
    """
    if not recipe.settings.on:
        return {}
    background, ignore = rules
    segments = segment_pixels(
        embeddings,
        batch.seeds,
        batch.regions,
        grid=recipe.grid,
        iterations=ITERATIONS,
        ignore_index=ignore,
    )
    losses = relation_losses(
        embeddings,
        segments,
        batch.seeds,
        batch.tags,
        classes=classes,
        background=background,
        settings=recipe.settings,
        memory=memory,
    )
    memory.push(segments, batch.tags)
    return losses


Rules = tuple[int | None, int]
"""Index of the background class, value of ignored pixels."""


def train_embedding(
    network: EmbeddingNetwork,
    batches: Batches,
    recipe: Recipe,
    classes: int,
    rules: Rules,
    *,
    fabric: Fabric,
    checkpoint: Path,
    log: Log,
) -> EmbeddingNetwork:
    """Train an embedding, going on from `checkpoint` where a killed run left one.

    The result is that of an unbroken run; with several processes nearly, as all go on
    with the memory of the first.

    Returns:
        The network, in eval mode.
    """
    steps = recipe.steps or 0
    if network.backbone is not None:
        freeze_stem(network.backbone)
    optimizer, schedule = optimization(network, recipe, steps)
    wrapped, optimizer = fabric.setup(network, optimizer)
    memory = MemoryBank(recipe.memory)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "memory": memory}
    start = _resume(checkpoint, parts, fabric.device)
    network.train()
    rank = fabric.global_rank
    for step, batch in enumerate(batches.batches(start, steps, rank), start):
        # Dropout too is the same in a resumed run.
        torch.manual_seed(int(content_hash([recipe.seed, rank, step])[:15], 16))
        batch = batch.to(fabric.device)
        total, losses = step_losses(wrapped, batch, recipe, classes, rules, memory)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(total)
        optimizer.step()
        schedule.step()
        log(step + 1, {name: float(loss.detach()) for name, loss in losses.items()})
        if (step + 1) % SAVE_EVERY == 0 and step + 1 < steps and fabric.is_global_zero:
            _save(checkpoint, parts, step + 1)
    return network.eval()


def optimization(
    network: EmbeddingNetwork, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over one cycle; the pretrained backbone learns more slowly than what is new."""
    body = [] if network.backbone is None else list(network.backbone.parameters())
    old = {id(p) for p in body}
    new = [p for p in network.parameters() if id(p) not in old]
    groups: list[dict[str, Any]] = [{"params": new, "lr": recipe.lr}]
    tuned = [p for p in body if p.requires_grad]
    if tuned:
        groups.append({"params": tuned, "lr": recipe.backbone_lr})
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    total = max(steps, 1) + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in groups],
        total_steps=total + (total == 20),  # torch divides by 0.05 total - 1
        pct_start=0.05,
        cycle_momentum=False,
    )
    return optimizer, schedule


def _save(path: Path, parts: dict[str, Any], step: int) -> None:
    with atomic_path(path) as temporary:
        torch.save(
            {name: part.state_dict() for name, part in parts.items()} | {"step": step}, temporary
        )


def _resume(path: Path, parts: dict[str, Any], device: torch.device) -> int:
    if not path.exists():
        return 0
    with damaged_as_input(path):
        state = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])
