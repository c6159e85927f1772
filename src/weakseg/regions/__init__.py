"""Low-level regions of a photograph: contour strength, a hierarchy, cuts of it.

The regions need only be an over-segmentation that respects strong edges; pixels of one region are
each other's positives (Ke, Hwang and Yu, ICLR 2021, relation "low-level image similarity").
"""

from weakseg.regions.gradient import gradient_contours
from weakseg.regions.maps import (
    Contours,
    Method,
    hierarchy,
    read_region_map,
    region_map,
    region_map_cached,
    write_region_map,
)
from weakseg.regions.ultrametric import Hierarchy

__all__ = [
    "Contours",
    "Hierarchy",
    "Method",
    "gradient_contours",
    "hierarchy",
    "read_region_map",
    "region_map",
    "region_map_cached",
    "write_region_map",
]
