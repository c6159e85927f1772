"""Training the embedding in several processes, each with a device of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from rich.console import Console

from weakseg.features.extract import resolve_precision
from weakseg.training.embedding import Batches, EmbeddingNetwork, Rules, train_embedding
from weakseg.training.progress import Progress
from weakseg.training.recipe import Recipe
from weakseg.training.run_folder import RunFolder, save_stage


def fabric_precision(recipe: Recipe) -> Literal["bf16-mixed", "32-true"]:
    """Fabric's name of the recipe's precision, the same for one process and for several."""
    bf16 = resolve_precision(recipe.precision, torch.device(recipe.device)) == "bf16"
    return "bf16-mixed" if bf16 else "32-true"


def train_in_processes(
    network: EmbeddingNetwork,
    batches: Batches,
    recipe: Recipe,
    classes: int,
    rules: Rules,
    *,
    run: RunFolder,
    checkpoint: Path,
    file: Path,
) -> None:
    """Train on `recipe.devices` devices at once, `recipe.batch` images each, into `file`.

    Gradients are averaged; on GPUs batch norm is synchronised. Each process compares with the
    memory of its own past batches.
    """
    device = torch.device(recipe.device)
    fabric = Fabric(
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=recipe.devices,
        strategy=DDPStrategy(start_method="spawn", find_unused_parameters=True),
        precision=fabric_precision(recipe),
    )
    network.cpu()  # the processes cannot take over a tensor that is on a GPU
    given = (network, batches, recipe, classes, rules, run, checkpoint, file)
    fabric.launch(_Work(given))


class _Work:
    """What each process does; a tuple would be taken apart on its way there."""

    def __init__(self, given: tuple[Any, ...]) -> None:
        self.given = given

    def __call__(self, fabric: Fabric) -> None:
        _work(fabric, *self.given)


def _work(
    fabric: Fabric,
    network: EmbeddingNetwork,
    batches: Batches,
    recipe: Recipe,
    classes: int,
    rules: Rules,
    run: RunFolder,
    checkpoint: Path,
    file: Path,
) -> None:
    if fabric.device.type == "cuda":
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    first = fabric.is_global_zero
    progress = Progress(Console() if first else None)
    with progress.training(file.stem, recipe.steps or 0, run if first else None) as log:
        train_embedding(
            network,
            batches,
            recipe,
            classes,
            rules,
            fabric=fabric,
            checkpoint=checkpoint,
            log=log,
        )
    if first:
        save_stage(file, network)
