"""Training: the recipe, the loops and the stages from labels to a segmenter."""

from weakseg.training.fit import Fitted, fit
from weakseg.training.recipe import Recipe

__all__ = ["Fitted", "Recipe", "fit"]
