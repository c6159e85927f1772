"""Any timm backbone with its weights, and the head that embeds pixels."""

from weakseg.models.backbone import Backbone, freeze_stem, load_backbone, set_frozen_bn
from weakseg.models.final import load_final
from weakseg.models.head import EmbeddingHead, stack_features, unit_vectors
from weakseg.models.weights import OFFLINE_WEIGHTS, offline_weights, read_checkpoint

__all__ = [
    "OFFLINE_WEIGHTS",
    "Backbone",
    "EmbeddingHead",
    "freeze_stem",
    "load_backbone",
    "load_final",
    "offline_weights",
    "read_checkpoint",
    "set_frozen_bn",
    "stack_features",
    "unit_vectors",
]
