import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.label_shift import shift_weights

UNIFORM = torch.full((3,), 1 / 3)


def posteriors(true_shares, shares, sureness, count=6000):
    """What a classifier that learned from labels of these shares says of pixels of true shares.

    Classes lie 4 standard deviations apart on a line; it is too sure of itself `sureness` times.
    """
    random = torch.Generator().manual_seed(0)
    label = torch.multinomial(torch.tensor(true_shares), count, replacement=True, generator=random)
    x = 4.0 * label + torch.randn(count, generator=random)
    likelihood = -0.5 * (x[:, None] - 4.0 * torch.arange(3)).square()
    return (sureness * likelihood + torch.tensor(shares).log()).softmax(1)


@pytest.mark.parametrize(
    ("true_shares", "shares", "sureness"),
    [
        ([0.8, 0.15, 0.05], [1 / 3, 1 / 3, 1 / 3], 2.0),
        ([0.1, 0.1, 0.8], [0.6, 0.3, 0.1], 2.0),
        ([0.7, 0.2, 0.1], [0.4, 0.3, 0.3], 3.0),
    ],
)
def test_weights_lead_to_the_true_shares(true_shares, shares, sureness):
    truth, labels = torch.tensor(true_shares), torch.tensor(shares)
    weights = shift_weights(posteriors(true_shares, shares, sureness), labels)
    assert weights.max() == 1
    estimate = weights * labels / (weights * labels).sum()
    # Most of the way: the labels' own shares count a little.
    assert (estimate - truth).abs().sum() < 0.4 * (labels - truth).abs().sum()


@pytest.mark.parametrize("sureness", [1.0, 2.0])
def test_labels_of_the_right_shares_change_little(sureness):
    true_shares = [0.7, 0.2, 0.1]
    weights = shift_weights(
        posteriors(true_shares, true_shares, sureness), torch.tensor(true_shares)
    )
    assert weights.min() > 0.7


def test_a_class_without_labels_is_left_alone():
    found = torch.rand(50, 3).softmax(1)
    found[:, 2] = 0
    weights = shift_weights(found, torch.tensor([0.5, 0.5, 0.0]))
    assert torch.isfinite(weights).all()
    assert (weights > 0).all()


@given(st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_weights_stay_within_bounds(classes, seed):
    random = torch.Generator().manual_seed(seed)
    found = (8 * torch.randn(40, classes, generator=random)).softmax(1)
    found[:5] = 0  # nothing is known of them
    shares = torch.rand(classes, generator=random) + 1e-4
    weights = shift_weights(found, shares / shares.sum())
    assert torch.isfinite(weights).all()
    assert weights.max() == 1
    assert weights.min() >= 1 / 400
