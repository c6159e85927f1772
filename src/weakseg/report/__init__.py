"""The report: one page that shows what a run learned, and the pictures on it.

Its public names are `report_of`, `overlay`, `draw_annotation` and `pca_colours`.
"""

from weakseg.report.pictures import draw_annotation, overlay, pca_colours

__all__ = ["draw_annotation", "overlay", "pca_colours"]
