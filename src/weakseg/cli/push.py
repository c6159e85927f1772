"""`weakseg push`: a trained model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from weakseg.hub import push as push_run


def push(run: Path, repo: str, private: bool = False, keep_card: bool = False) -> int:
    """Share a trained model on the Hugging Face Hub, with a model card.

    Weights, settings and figures go out; photographs, labels and paths of this machine do not.
    Needs a token with write access: `hf auth login`, or the variable HF_TOKEN.

    Args:
        run: Run folder of `weakseg train`.
        repo: Name of the repository, NAME/REPOSITORY; made if it is not there.
        private: Make a new repository private.
        keep_card: Leave a model card that is there as it is.

    Returns:
        0 if it was pushed, 1 if the input is bad.
    """
    address = push_run(run, repo, private=private, keep_card=keep_card)
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{run} -> {address}")
    return 0
