"""Progress on the terminal, and the log of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from weakseg.training.run_folder import RunFolder

EVERY = 20
"""Steps between two records of the log."""

Advance = Callable[[int, int], None]


class Progress:
    """Shows stage, step, losses and time left; writes losses to the run's log.

    Args:
        console: where to; None shows nothing.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(quiet=True)
        self.writers: list[Any] = []

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """A bar for a stage; yields a function to call with (done, total)."""
        with self._bars() as bars:
            task = bars.add_task(name, total=total, losses="")
            yield lambda done, total: bars.update(task, completed=done, total=total)

    @contextmanager
    def training(
        self, name: str, steps: int, run: RunFolder | None
    ) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """A bar for a training stage; yields a function to call with step and losses."""
        sums: dict[str, list[float]] = {}
        with self._bars() as bars:
            task = bars.add_task(name, total=steps, losses="")

            def log(step: int, losses: dict[str, float]) -> None:
                for key, value in losses.items():
                    sums.setdefault(key, []).append(value)
                if step % EVERY and step != steps:
                    return
                means = {key: round(sum(v) / len(v), 5) for key, v in sums.items()}
                sums.clear()
                if run is not None:
                    run.log(name, step, means)
                for writer in self.writers:
                    for key, value in means.items():
                        writer.add_scalar(f"{name}/{key}", value, step)
                shown = "  ".join(f"{key} {value:.3f}" for key, value in means.items())
                bars.update(task, completed=step, losses=shown)

            yield log

    def _bars(self) -> AbstractContextManager[Bars]:
        return Bars(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[losses]}"),
            console=self.console,
        )
