import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, normalize

from weakseg.grouping import Segments, segment_pixels
from weakseg.relations import (
    RELATIONS,
    MemoryBank,
    Relation,
    RelationSettings,
    relation_losses,
    total_loss,
)

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
CLASSES, UNLABELLED, IGNORED = 5, 5, 255


def load_reference():
    path = ROOT / "benchmarks" / "reference" / "dense.py"
    spec = importlib.util.spec_from_file_location("dense", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dense = load_reference()


def all_on(**concentration):
    """Every relation on, with the affinity wide enough to find neighbours in small examples."""
    relations = {name: Relation(1.0, concentration.get(name, 7.0)) for name in RELATIONS}
    return RelationSettings(**relations, affinity_cosine=0.6)


def batch_of(batch=3, height=18, width=22, *, seed=0, dtype=torch.float64):
    """Embeddings, seed map with every kind of value, regions and tags."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 6, 4, 4, generator=random, dtype=torch.float64)
    embeddings = interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    seeds = torch.full((batch, height, width), UNLABELLED)
    chosen = torch.randint(CLASSES, seeds.shape, generator=random)
    labelled = torch.rand(seeds.shape, generator=random) < 0.15
    seeds[labelled] = chosen[labelled]
    seeds[:, :2] = IGNORED
    y, x = torch.arange(height)[:, None] // 6, torch.arange(width) // 5
    regions = (10 * y + x).expand(batch, height, width)
    tags = torch.rand(batch, CLASSES, generator=random) < 0.4
    tags[:, 0] = True
    return embeddings.to(dtype).requires_grad_(), seeds, regions, tags


def grouped(embeddings, seeds, regions):
    return segment_pixels(embeddings, seeds, regions, grid=(3, 3), iterations=4)


def losses_of(embeddings, seeds, regions, tags, settings=None, memory=None, background=0):
    segments = grouped(embeddings, seeds, regions)
    losses = relation_losses(
        embeddings,
        segments,
        seeds,
        tags,
        classes=CLASSES,
        background=background,
        settings=settings or all_on(),
        memory=memory,
    )
    return losses, segments


def filled_memory(seeds_of=(11, 12), **kwargs):
    memory = MemoryBank(2)
    for seed in seeds_of:
        embeddings, seeds, regions, tags = batch_of(2, seed=seed, **kwargs)
        memory.push(grouped(embeddings, seeds, regions), tags)
    return memory


def plain_losses(embeddings, segments, seeds, tags, settings, memory, background=0):
    """The table of the relations written down pixel by pixel, over the dense contrast."""
    inside = segments.index >= 0
    unit = normalize(embeddings, dim=1).permute(0, 2, 3, 1)
    height, width = seeds.shape[1:]
    y = torch.linspace(0, 1, height, dtype=unit.dtype)[:, None].expand(height, width) - 0.5
    x = torch.linspace(0, 1, width, dtype=unit.dtype).expand(height, width) - 0.5
    place = torch.stack([y, x], dim=2).expand(len(seeds), height, width, 2)
    located = normalize(torch.cat([unit, place], dim=3), dim=3)
    own = segments.index[inside]
    pixels, located = unit[inside], located[inside]
    image = segments.image[own]

    prototypes, seed = [segments.prototypes], [segments.seed]
    images, image_tags = [segments.image], [tags]
    count = len(tags)
    for remembered in memory._batches if memory else ():
        prototypes.append(remembered.prototypes)
        seed.append(remembered.seed)
        images.append(remembered.image + count)
        image_tags.append(remembered.tags)
        count += len(remembered.tags)
    prototypes, seed, images = torch.cat(prototypes), torch.cat(seed), torch.cat(images)
    foreground = torch.cat(image_tags).bool()
    foreground = foreground[:, [c for c in range(CLASSES) if c != background]]

    def contrast(rows, vectors, against, table, own, concentration):
        """table (n, s) of the chosen rows, each pixel and each prototype its own group."""
        n, s = table.shape
        groups = torch.arange(n), torch.arange(s)
        return dense.contrast(vectors[rows], against, own[rows], *groups, table, concentration)

    out = {}
    per_image = []
    for b in image.unique():
        rows, columns = (image == b).nonzero()[:, 0], segments.image == b
        table = torch.where(
            segments.region[own[rows], None] == segments.region, 1, -1
        ) * columns  # fmt: skip
        per_image.append(
            contrast(
                rows,
                located,
                segments.prototypes_with_location,
                table,
                own,
                settings.image_similarity.concentration,
            ).mean()
        )
    out["image_similarity"] = sum(per_image) / len(per_image)

    mine = seed[own]
    rows = (mine < CLASSES).nonzero()[:, 0]
    table = torch.where(mine[rows, None] == seed, 1, -1) * (seed < CLASSES)
    if len(rows):
        k = settings.annotation.concentration
        out["annotation"] = contrast(rows, pixels, prototypes, table, own, k).mean()

    tagged = foreground.any(1)
    rows = tagged[image].nonzero()[:, 0]
    shares = (foreground[image[rows]][:, None] & foreground[images]).any(2)
    table = torch.where(shares, 1, -1) * tagged[images]
    if len(rows):
        k = settings.cooccurrence.concentration
        out["cooccurrence"] = contrast(rows, pixels, prototypes, table, own, k).mean()

    rows, tables = [], []
    for pixel in (mine == CLASSES).nonzero()[:, 0].tolist():
        near = ((segments.image == image[pixel]) & (segments.seed < CLASSES)).nonzero()[:, 0]
        cosine = segments.prototypes[near] @ pixels[pixel]
        best = cosine.argsort(descending=True)[: settings.affinity_neighbours]
        kept = near[best[cosine[best] >= settings.affinity_cosine]]
        if len(kept):
            rows.append(pixel)
            tables.append(
                torch.where(torch.isin(seed, segments.seed[kept]), 1, -1) * (seed < CLASSES)
            )
    if rows:
        k = settings.affinity.concentration
        table = torch.stack(tables)
        out["affinity"] = contrast(torch.tensor(rows), pixels, prototypes, table, own, k).mean()
    return out


@pytest.mark.parametrize("name", ["small", "medium"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden(name, dtype):
    golden = {k: torch.as_tensor(v) for k, v in np.load(GOLDEN / f"{name}.npz").items()}
    embeddings = golden["embeddings"].to(dtype)
    batch = len(embeddings)
    tags = golden["image_tags"].bool()
    segments = segment_pixels(
        embeddings,
        golden["semantic"],
        golden["regions"],
        grid=tuple(golden["grid"].tolist()),
        iterations=int(golden["iterations"]),
    )
    memory = MemoryBank()
    memory.push(
        Segments(
            index=torch.empty(0),
            prototypes=golden["memory_prototypes"].to(dtype),
            prototypes_with_location=torch.empty(0),
            seed=golden["memory_semantic"],
            region=torch.empty(0),
            image=golden["memory_image"] - batch,
        ),
        tags[batch:],
    )
    names = ("image_similarity", "annotation", "cooccurrence")
    settings = RelationSettings(
        *[Relation(1.0, golden[f"{relation}_kappa"].item()) for relation in names]
    )
    losses = relation_losses(
        embeddings,
        segments,
        golden["semantic"],
        tags[:batch],
        classes=21,
        background=0,
        settings=settings,
        memory=memory,
    )
    for relation in names:
        loss = golden[f"{relation}_loss"].item()
        assert losses[relation].item() == pytest.approx(loss, rel=1e-5), relation


@pytest.mark.parametrize("with_memory", [False, True])
@pytest.mark.parametrize(
    ("shape", "seed"), [((3, 18, 22), 0), ((1, 12, 9), 1), ((4, 7, 25), 2), ((2, 20, 20), 3)]
)
def test_equals_the_relations_written_down(shape, seed, with_memory):
    embeddings, seeds, regions, tags = batch_of(*shape, seed=seed)
    memory = filled_memory() if with_memory else None
    settings = all_on(image_similarity=16.0, annotation=6.0, cooccurrence=12.0, affinity=9.0)
    losses, segments = losses_of(embeddings, seeds, regions, tags, settings, memory)
    plain = plain_losses(embeddings, segments, seeds, tags, settings, memory)
    assert losses.keys() == plain.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, plain[name], rtol=1e-8, atol=1e-8, msg=name)
        ours, theirs = (
            torch.autograd.grad(value, embeddings, retain_graph=True)[0]
            for value in (loss, plain[name])
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8, msg=name)


def test_float32_is_close():
    embeddings, seeds, regions, tags = batch_of(dtype=torch.float32)
    losses, segments = losses_of(embeddings, seeds, regions, tags)
    plain = plain_losses(embeddings, segments, seeds, tags, all_on(), None)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, plain[name], rtol=2e-5, atol=1e-6, msg=name)


def test_half_precision_embeddings_train():
    embeddings, seeds, regions, tags = batch_of(dtype=torch.bfloat16)
    losses, _ = losses_of(embeddings, seeds, regions, tags)
    total_loss(losses, all_on()).backward()
    assert set(losses) == set(RELATIONS)
    assert embeddings.grad.isfinite().all()


def test_weight_zero_is_not_computed():
    settings = RelationSettings(affinity=Relation(0.0, 1.0), annotation=Relation(0.0, 1.0))
    losses, _ = losses_of(*batch_of(), settings)
    assert set(losses) == {"image_similarity", "cooccurrence"}


def test_relations_that_cover_no_pixel_are_absent():
    embeddings, seeds, regions, tags = batch_of()
    seeds = torch.where(seeds < CLASSES, UNLABELLED, seeds)
    losses, _ = losses_of(embeddings, seeds, regions, tags & False)
    assert set(losses) == {"image_similarity"}


def test_everything_ignored_leaves_no_relation():
    embeddings, seeds, regions, tags = batch_of()
    losses, _ = losses_of(embeddings, torch.full_like(seeds, IGNORED), regions, tags)
    assert losses == {}


def test_everything_labelled_leaves_no_affinity():
    embeddings, seeds, regions, tags = batch_of()
    losses, _ = losses_of(embeddings, torch.full_like(seeds, 1), regions, tags)
    assert set(losses) == {"image_similarity", "annotation", "cooccurrence"}


def test_affinity_needs_a_near_labelled_segment():
    settings = replace(all_on(), affinity_cosine=1.1)
    losses, _ = losses_of(*batch_of(), settings)
    assert "affinity" not in losses


def test_an_image_without_tags_takes_no_part_in_cooccurrence():
    embeddings, seeds, regions, tags = batch_of()
    tags[:] = False
    tags[0, 1] = tags[1, 2] = True
    with_it, _ = losses_of(embeddings, seeds, regions, tags)
    without = [array[:2] for array in (embeddings, seeds, regions, tags)]
    without_it, _ = losses_of(*without)
    torch.testing.assert_close(with_it["cooccurrence"], without_it["cooccurrence"])


def test_background_does_not_count_for_cooccurrence():
    """Images that share only the background are negatives; without one, class 0 counts."""
    embeddings, seeds, regions, tags = batch_of(2)
    tags[:] = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0]]).bool()
    apart, _ = losses_of(embeddings, seeds, regions, tags, background=0)
    shared, _ = losses_of(embeddings, seeds, regions, tags, background=None)
    assert apart["cooccurrence"] > 0.01
    assert shared["cooccurrence"] == 0


def test_memory_keeps_the_last_batches_and_never_learns():
    memory = MemoryBank(2)
    batches = [batch_of(2, seed=seed) for seed in range(3)]
    segments = [grouped(*batch[:3]) for batch in batches]
    for one, batch in zip(segments, batches, strict=True):
        memory.push(one, batch[3])
    assert len(memory) == len(segments[1]) + len(segments[2])
    recalled = memory.recall(first_image=4)
    assert not recalled.prototypes.requires_grad
    assert torch.equal(recalled.prototypes, torch.cat([s.prototypes for s in segments[1:]]))
    images = torch.cat([segments[1].image + 4, segments[2].image + 6])
    assert torch.equal(recalled.image, images)
    assert torch.equal(recalled.tags, torch.cat([batch[3] for batch in batches[1:]]))


def test_a_memory_of_nothing():
    memory = MemoryBank(0)
    embeddings, seeds, regions, tags = batch_of()
    memory.push(grouped(embeddings, seeds, regions), tags)
    assert len(memory) == 0
    with_it, _ = losses_of(embeddings, seeds, regions, tags, memory=memory)
    without, _ = losses_of(embeddings, seeds, regions, tags)
    assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_total_is_the_weighted_sum():
    settings = RelationSettings(annotation=Relation(2.0, 6.0), affinity=Relation(0.25, 6.0))
    losses = {"annotation": torch.tensor(3.0), "affinity": torch.tensor(8.0)}
    assert total_loss(losses, settings).item() == 8.0
