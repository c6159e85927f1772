"""Dense CRF: sharpen class probabilities along the edges of the photograph."""

from weakseg.crf.mean_field import dense_crf

__all__ = ["dense_crf"]
