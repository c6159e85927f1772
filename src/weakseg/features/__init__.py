"""Frozen backbone features, computed once an image and kept on disk."""

from weakseg.features.cache import FeatureCache
from weakseg.features.extract import compute_features, extract_features, feature_size, resized_size

__all__ = [
    "FeatureCache",
    "compute_features",
    "extract_features",
    "feature_size",
    "resized_size",
]
