"""The report: one page that shows what runs learned, and the pictures on it."""

from weakseg.report.page import report_of
from weakseg.report.pictures import draw_annotation, overlay, pca_colours

__all__ = ["draw_annotation", "overlay", "pca_colours", "report_of"]
