"""Progress on the terminal, and the log of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

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
            task = bars.add_task(name, total=total)
            yield lambda done, total: bars.update(task, completed=done, total=total)

    @contextmanager
    def training(
        self, name: str, steps: int, run: RunFolder | None
    ) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """A bar for a training stage; yields a function to call with step and losses."""
        sums: dict[str, list[float]] = {}
        with self._bars() as bars:
            task = bars.add_task(name, total=steps)

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
                bars.update(task, completed=step, losses=means)

            yield log

    def _bars(self) -> AbstractContextManager[Bars]:
        # As wide as a terminal of 80 columns holds.
        return _Bars(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=22),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )


class _Bars(Bars):
    """Bars with the losses of the last task below them."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.tasks and (losses := self.tasks[-1].fields.get("losses")):
            shown = [Text(f"{key} {value:.3f}", style="dim") for key, value in losses.items()]
            yield Padding(Columns(shown, padding=(0, 2)), (0, 0, 0, 2))
