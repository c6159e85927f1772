"""`weakseg demo`: see it work, in minutes, without data or network."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from weakseg.demo.run import run_demo


def demo(out: Path = Path("weakseg-demo"), seed: int = 0) -> int:
    """Train on a small built-in data set from tags, boxes, points and scribbles.

    The scenes are composed of photographs that come with scikit-image; the test scenes share no
    pixel with the training scenes. Prints mean IoU beside plain cross-entropy on the same labels
    and writes a report with pictures. Takes a few minutes on two cores.

    Args:
        out: Folder to write to: data/ (the data set), a run folder for each kind of label,
            results.json and report.html.
        seed: Of the training.

    Returns:
        0 when it is done.
    """
    console = Console()
    run_demo(out, seed=seed, console=console)
    console.print(f"Open [bold]{out / 'report.html'}[/] in a browser. Then, with your own images:")
    console.print("  weakseg init PHOTOS --classes background,coral,sand --out reef")
    console.print("  weakseg check reef")
    console.print("  weakseg train reef --out runs/reef")
    console.print("  weakseg predict runs/reef PHOTOS --out masks")
    return 0
