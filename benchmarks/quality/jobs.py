"""What is run: a job is a data set variant, a recipe and a seed, under a name of its own."""

from dataclasses import dataclass, replace

from variants import labelled, shortened

from weakseg.relations import RELATIONS, RelationSettings
from weakseg.training.recipe import Recipe, relations_at

BACKBONE = "tf_efficientnet_lite2"
WEAK = ("scribbles", "points", "boxes", "tags")
REDUCED = {"steps": 300, "classifier_steps": 750, "rounds": 1, "crf": False}
"""The protocol of the ablation: half the steps, one round of pseudo-masks, no CRF in them."""
WEIGHTS = (0.1, 0.3, 3)
"""Of the relations, where the ablation changes all four together; else it is 1."""


@dataclass(frozen=True)
class Job:
    """One training and what is measured of it.

    Attributes:
        table: which table it belongs to.
        row: its row there; the last part of the name of the result's file.
        seed: of everything random.
        recipe: settings, but for the seed.
        variant: name and change of the data set's labels, None for the data set itself.
        baselines: train cross-entropy, a forest and (for tags) CAM alone on the same labels too.
        protocols: how predictions are made, see `protocols.py`.
        inside: measure the embedding and the pseudo-masks too, see `inside.py`.
        trying: what is done otherwise than in the package, a name of `tries.py`.
    """

    table: str
    row: str
    seed: int
    recipe: Recipe
    variant: tuple | None = None
    baselines: bool = False
    protocols: tuple[str, ...] = ("plain",)
    inside: bool = False
    trying: str | None = None

    @property
    def name(self):
        return f"{self.table}/{self.row}/seed{self.seed}"


def recipe(kinds, **settings):
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    return Recipe(kinds=kinds, backbone=BACKBONE, regime="frozen", **settings)


def main(seed):
    """Each kind of label beside full masks, and a mix."""
    every = ("plain", "crf", "multi-scale", "multi-scale, crf")
    for kind in ("masks", *WEAK):
        yield Job("main", kind, seed, recipe(kind), baselines=True, protocols=every)
    mixed = recipe(WEAK, mix=True)
    yield Job("main", "mixed", seed, mixed, baselines=True, protocols=every)


def shorter(seed):
    """Scribbles shortened to a share of their length."""
    for share in (0.8, 0.5, 0.3, 0):
        kind = "scribbles" if share else "points"
        variant = (f"scribbles-{share:.0%}", shortened(share), ("scribbles",))
        yield Job("shorter", f"{share:.0%}", seed, recipe(kind), variant, baselines=True)


def fewer(seed):
    """Labels for a share of the images."""
    for kind in ("scribbles", "points"):
        for share in (0.25, 0.5, 1):
            row = f"{kind}-{share:.0%}"
            variant = (f"labelled-{row}", labelled(share), (kind,))
            yield Job("fewer", row, seed, recipe(kind), variant, baselines=True)


def ablation(seed):
    """Relations and the rest, one by one, by the reduced protocol."""
    for kind in ("masks", *WEAK):
        base = recipe(kind, relations=relations_at(1), **REDUCED)
        for row, changed in (("all", base), *changes(base, relations_at(1))):
            yield Job("ablation", f"{kind}, {row}", seed, changed, inside=True)
        row = f"{kind}, without location"
        yield Job("ablation", row, seed, base, inside=True, trying="no location")


def changes(base: Recipe, settings: RelationSettings):
    none = settings.weighted(**dict.fromkeys(RELATIONS, 0.0))
    yield "default relations", replace(base, relations=None)
    yield "without relations", replace(base, relations=none)
    for name in RELATIONS:
        yield f"without {name}", replace(base, relations=settings.weighted(**{name: 0.0}))
    for name in RELATIONS:
        one = none.weighted(**{name: getattr(settings, name).weight})
        yield f"only {name}", replace(base, relations=one)
    for weight in WEIGHTS:
        yield f"relations at {weight:g}", replace(base, relations=relations_at(weight))
    rest = settings.weighted(annotation=0.0)
    heavier = rest.weighted(image_similarity=3.0)
    yield "no annotation, similarity 3", replace(base, relations=heavier)
    wider = replace(rest, affinity_cosine=0.8)
    yield "no annotation, affinity cosine 0.8", replace(base, relations=wider)
    yield "without memory", replace(base, memory=0)
    yield "without regions", replace(base, regions="none")
    yield "without cross-entropy", replace(base, cross_entropy=0.0)
    yield "CRF in pseudo-masks", replace(base, crf=True)
    yield "kNN scores", replace(base, scores="knn")
    yield "no pseudo-masks", replace(base, rounds=0)
    yield "two rounds", replace(base, rounds=2)


def beyond(seed):
    """What is not in the published method, by the protocol of the ablation, on its rows "all"."""
    tries = {
        "points": ("EMA teacher", "learned temperatures", "soft k-means"),
        "tags": ("EMA teacher", "class maps of all layers", "excluded classes in the loss"),
    }
    for kind, names in tries.items():
        base = recipe(kind, relations=relations_at(1), **REDUCED)
        for name in names:
            yield Job("beyond", f"{kind}, {name}", seed, base, inside=True, trying=name)
        for factor in (0.5, 2):
            changed = replace(base, relations=concentrated(factor))
            row = f"{kind}, concentrations times {factor:g}"
            yield Job("beyond", row, seed, changed, inside=True)
        longer = replace(base, steps=2 * REDUCED["steps"])
        yield Job("beyond", f"{kind}, embedding trained twice as long", seed, longer, inside=True)
        yield Job("beyond", f"{kind}, three rounds", seed, replace(base, rounds=3), inside=True)
    for kind in ("masks", "points"):
        base = recipe(kind, relations=relations_at(1), **REDUCED)
        for name, value in (("long_side", 512), ("output_stride", 8)):
            row = f"{kind}, {name.replace('_', ' ')} {value}"
            yield Job("beyond", row, seed, replace(base, **{name: value}), inside=True)
    base = recipe("scribbles", relations=relations_at(1), **REDUCED)
    tuned = replace(base, regime="fine-tune", steps=800, batch=4)
    yield Job("beyond", "scribbles, backbone tuned", seed, tuned, inside=True)


def concentrated(factor):
    """All four relations on, their concentrations times a factor."""
    settings = relations_at(1)
    changed = {}
    for name in RELATIONS:
        one = getattr(settings, name)
        changed[name] = replace(one, concentration=factor * one.concentration)
    return replace(settings, **changed)


TABLES = {
    "main": main,
    "shorter": shorter,
    "fewer": fewer,
    "ablation": ablation,
    "beyond": beyond,
}


def jobs(tables, seeds):
    """All jobs of some tables, seed by seed: the first seed's rows come first."""
    for seed in seeds:
        for table in tables:
            yield from TABLES[table](seed)
