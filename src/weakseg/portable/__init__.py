"""A trained model as one file that runs without weakseg."""

from weakseg.portable.files import FORMATS, Parity, export_model
from weakseg.portable.network import PortableSegmenter

__all__ = ["FORMATS", "Parity", "PortableSegmenter", "export_model"]
