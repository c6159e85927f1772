"""Trained models to and from the Hugging Face Hub."""

from weakseg.hub.card import model_card
from weakseg.hub.transfer import pull, push

__all__ = ["model_card", "pull", "push"]
