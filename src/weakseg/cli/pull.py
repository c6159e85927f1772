"""`weakseg pull`: a trained model from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from weakseg.hub import pull as pull_run


def pull(repo: str, out: Path, revision: str = "main") -> int:
    """Fetch a trained model that `weakseg push` wrote to the Hugging Face Hub.

    Args:
        repo: Name of the repository, NAME/REPOSITORY.
        out: Run folder to make.
        revision: Branch, tag or commit.

    Returns:
        0 if it was fetched, 1 if the input is bad.
    """
    segmenter = pull_run(repo, out, revision=revision)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{out}: {', '.join(segmenter.info.classes)}")
    console.print(f"Next: weakseg predict {out} IMAGES --out DIR")
    return 0
