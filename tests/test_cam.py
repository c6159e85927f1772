import numpy as np
import pytest
import torch

from weakseg.cam import Tagger, class_activation, train_tagger

CHANNELS, CLASSES = 8, 3


def planted(images=48, seed=0):
    """Mean features in which channel k is higher where class k is present, and the tags."""
    generator = torch.Generator().manual_seed(seed)
    tags = torch.rand(images, CLASSES, generator=generator) < 0.5
    pooled = torch.randn(images, CHANNELS, generator=generator) * 0.3
    pooled[:, :CLASSES] += tags * 2.0
    return pooled, tags


@pytest.fixture(scope="module")
def tagger():
    pooled, tags = planted()
    return train_tagger(pooled, tags, steps=150, batch=16, lr=0.05)


def scene(*places):
    """A feature map (8, 6, 9) with class k's channel raised at places[k] = (y, x)."""
    features = torch.randn(CHANNELS, 6, 9, generator=torch.Generator().manual_seed(1)) * 0.1
    for channel, (y, x) in enumerate(places):
        features[channel, y, x] += 6
    return features


def test_the_tagger_learns_which_channel_tells_a_class(tagger):
    pooled, tags = planted(200, seed=1)
    with torch.no_grad():
        right = ((tagger(pooled) > 0) == tags).float().mean()
    assert right > 0.95
    assert tagger.linear.weight[:, :CLASSES].argmax(1).tolist() == [0, 1, 2]
    assert not tagger.training


def test_maps_peak_where_the_class_is(tagger):
    places = [(1, 2), (4, 7), (5, 0)]
    maps = class_activation(tagger, [scene(*places)], (2, 0))
    assert maps.classes == (2, 0)
    assert maps.scores.shape == (2, 6, 9)
    assert maps.scores.dtype == np.float32
    for scores, label in zip(maps.scores, maps.classes, strict=True):
        assert np.unravel_index(scores.argmax(), scores.shape) == places[label]
        assert scores.max() == pytest.approx(1)
        assert scores.min() >= 0


def test_scores_of_positions_average_to_the_tag_score(tagger):
    """Linear: what the maps show is what the tagger decided by, apart from bias and cut-off."""
    features = scene((1, 2), (4, 7), (5, 0))
    linear = Tagger(CHANNELS, CLASSES).eval()
    linear.load_state_dict(tagger.state_dict())
    with torch.no_grad():
        rows = linear(features.flatten(1).t())
        torch.testing.assert_close(rows.mean(0), linear(features.mean((1, 2))[None])[0])


def test_a_class_that_is_nowhere_has_an_empty_map_and_no_nan(tagger):
    nowhere = tagger.norm.running_mean[:, None, None].expand(CHANNELS, 4, 5)
    maps = class_activation(tagger, [nowhere], (0, 1))
    assert np.isfinite(maps.scores).all()
    assert maps.scores.max() <= 1e-3


def test_views_of_several_sizes_add_up_on_the_finest_grid(tagger):
    """Of two places, the one that both views agree on stands out."""
    small, large = torch.zeros(2, CHANNELS, 1, 1)
    small = small.expand(CHANNELS, 3, 4).clone()
    large = large.expand(CHANNELS, 6, 8).clone()
    large[0, 1, 1] = large[0, 4, 6] = 6
    small[0, 0, 0] = 6
    maps = class_activation(tagger, [small, large], (0,))
    assert maps.scores.shape == (1, 6, 8)
    assert np.unravel_index(maps.scores[0].argmax(), (6, 8)) == (1, 1)
    alone = class_activation(tagger, [large], (0,)).scores[0]
    assert alone[4, 6] == pytest.approx(alone[1, 1])
    assert maps.scores[0, 4, 6] < 0.9


def test_no_class_gives_no_map(tagger):
    assert class_activation(tagger, [scene()], ()).scores.shape == (0, 6, 9)


def test_a_class_that_no_image_shows_is_never_sure():
    pooled, tags = planted()
    tags[:, 2] = False
    tagger = train_tagger(pooled, tags, steps=100, batch=16, lr=0.05)
    assert (tagger(pooled)[:, 2] < 0).all()
    assert np.isfinite(class_activation(tagger, [scene((1, 2))], (0, 1, 2)).scores).all()


def test_tags_of_weight_0_do_not_count():
    pooled, tags = planted()
    weights = torch.ones(tags.shape)
    weights[:, 1] = 0
    wrong = tags.clone()
    wrong[:, 1] = ~wrong[:, 1]
    a = train_tagger(pooled, tags, steps=20, weights=weights)
    b = train_tagger(pooled, wrong, steps=20, weights=weights)
    torch.testing.assert_close(a.linear.weight, b.linear.weight)
    assert not torch.allclose(a.linear.weight, train_tagger(pooled, wrong, steps=20).linear.weight)


def test_the_seed_alone_decides():
    pooled, tags = planted()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = train_tagger(pooled, tags, steps=5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    b = train_tagger(pooled, tags, steps=5, seed=3)
    c = train_tagger(pooled, tags, steps=5, seed=4)
    assert torch.equal(a.linear.weight, b.linear.weight)
    assert not torch.equal(a.linear.weight, c.linear.weight)


@pytest.mark.parametrize(("images", "steps"), [(1, 3), (2, 1), (5, 0)])
def test_few_images_and_few_steps_are_enough_to_run(images, steps):
    pooled, tags = planted(images)
    seen = []
    tagger = train_tagger(
        pooled, tags, steps=steps, log=lambda step, losses: seen.append((step, losses["tags"]))
    )
    assert [step for step, _ in seen] == list(range(1, steps + 1))
    assert all(np.isfinite(loss) for _, loss in seen)
    assert tagger(pooled).isfinite().all()
