"""A small data set of real photographs that needs no network."""

from weakseg.demo.make import make_demo_dataset

__all__ = ["make_demo_dataset"]
