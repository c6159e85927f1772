"""Contextual retrieval: segments like this one, in scenes like this one.

The second result of Ke, Hwang, Yu, "SPML" (ICLR 2021): the nearest neighbours of a segment share
its scene, not only its class.
"""

from weakseg.retrieval.index import Hit, Index
from weakseg.retrieval.indexing import Indexed, index_images
from weakseg.retrieval.queries import Query, QueryImage, indexed_query
from weakseg.retrieval.segments import ImageSegments, segments_of

__all__ = [
    "Hit",
    "ImageSegments",
    "Index",
    "Indexed",
    "Query",
    "QueryImage",
    "index_images",
    "indexed_query",
    "segments_of",
]
