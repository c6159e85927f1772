import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.classifier import PixelClassifier, cross_entropy, favour_rare, pooled

IN, DIM, CLASSES = 6, 4, 3


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    made = PixelClassifier(IN, DIM, CLASSES, hidden=8)
    # Statistics that are not those of a new batch norm, as after training.
    for norm in (made.norm, made.context_norm, made.hidden_norm):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return made.eval()


def given_inputs(batch=2, height=5, width=3):
    features = torch.randn(batch, IN, height, width)
    embeddings = F.normalize(torch.randn(batch, DIM, height, width), dim=1)
    return features, pooled(features), embeddings


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (1, 7)])
def test_scores_have_a_channel_for_each_class(classifier, size):
    scores = classifier(*given_inputs(2, *size))
    assert scores.shape == (2, CLASSES, *size)
    assert scores.dtype == torch.float32


def test_a_pixel_scores_the_same_alone_and_in_its_image(classifier):
    features, context, embeddings = given_inputs(2, 5, 3)
    whole = classifier(features, context, embeddings)
    for image, y, x in [(0, 0, 0), (1, 4, 2), (0, 2, 1)]:
        one = classifier(
            features[image, :, y, x].view(1, IN, 1, 1),
            context[image][None],
            embeddings[image, :, y, x].view(1, DIM, 1, 1),
        )
        torch.testing.assert_close(one[0, :, 0, 0], whole[image, :, y, x])


def test_context_reaches_every_pixel_of_its_own_image_only(classifier):
    features, context, embeddings = given_inputs()
    other = context.clone()
    other[0] += 1
    change = classifier(features, other, embeddings) - classifier(features, context, embeddings)
    moved = change.abs().amax(1) > 1e-6
    assert moved[0].all()
    assert not moved[1].any()


def test_no_gradient_flows_into_the_embedding(classifier):
    features, context, embeddings = (t.requires_grad_() for t in given_inputs())
    classifier.train()(features, context.detach(), embeddings).square().sum().backward()
    assert embeddings.grad is None
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert classifier.from_embedding.weight.grad.abs().sum() > 0


def test_the_embedding_counts(classifier):
    features, context, embeddings = given_inputs()
    a, b = classifier(features, context, embeddings), classifier(features, context, -embeddings)
    assert not torch.allclose(a, b)
    with pytest.raises(ValueError, match="embeddings of 4 channels"):
        classifier(features, context)


def test_without_an_embedding_features_are_enough():
    plain = PixelClassifier(IN, 0, CLASSES, hidden=8)
    features, context, _ = given_inputs()
    assert plain(features, context).shape == (2, CLASSES, 5, 3)
    assert not any("embedding" in name for name, _ in plain.named_parameters())


def test_channels_of_other_scale_weigh_the_same():
    """Stacked backbone levels differ in scale by orders of magnitude."""
    torch.manual_seed(0)
    plain = PixelClassifier(IN, 0, CLASSES, hidden=8, dropout=0).train()
    features, context, _ = given_inputs(4, 6, 6)
    scale = torch.tensor([1, 10, 100, 1000, 1, 1e4])[None, :, None, None]
    torch.testing.assert_close(
        plain(features, context),
        plain(features * scale, context * scale[..., 0, 0]),
        atol=1e-3,
        rtol=1e-3,
    )


def test_pooled_is_the_mean_over_positions():
    features = torch.arange(24, dtype=torch.float16).view(2, 3, 4)
    assert pooled(features).tolist() == [5.5, 17.5]
    assert pooled(features).dtype == torch.float32


@settings(deadline=None)
@given(st.lists(st.integers(-1, 255), min_size=6, max_size=6), st.integers(1, 4))
def test_cross_entropy_is_the_mean_over_labelled_pixels(values, classes):
    labels = torch.tensor(values).view(1, 2, 3)
    logits = torch.linspace(-2, 3, classes * 6).view(1, classes, 2, 3).requires_grad_()
    loss = cross_entropy(logits, labels, classes)
    counted = [i for i, value in enumerate(values) if 0 <= value < classes]
    rows = logits.detach().flatten(2)[0].t().log_softmax(1)
    expected = [-float(rows[i, values[i]]) for i in counted]
    assert loss.item() == pytest.approx(sum(expected) / max(1, len(expected)), abs=1e-5)
    loss.backward()
    assert logits.grad.isfinite().all()
    if not counted:
        assert loss.item() == 0
        assert not logits.grad.any()


def test_smoothed_cross_entropy_spreads_a_share_of_the_label():
    logits = torch.tensor([[2.0, 0.0, -1.0]]).view(1, 3, 1, 1)
    log = torch.log_softmax(logits[0, :, 0, 0], 0)
    found = cross_entropy(logits, torch.zeros(1, 1, 1), 3, 0.3)
    torch.testing.assert_close(found, -(0.8 * log[0] + 0.1 * log[1] + 0.1 * log[2]))


def test_smoothed_cross_entropy_passes_over_unlabelled_pixels():
    logits = torch.randn(1, 3, 1, 4)
    labels = torch.tensor([[[0, 3, 2, 255]]])
    alone = cross_entropy(logits[..., [0, 2]], labels[..., [0, 2]], 3, 0.1)
    torch.testing.assert_close(cross_entropy(logits, labels, 3, 0.1), alone)


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_rare_classes_are_favoured_by_their_share(classifier, strength):
    inputs = given_inputs()
    before = classifier(*inputs)
    shares = torch.tensor([0.9, 0.1, 0.0])
    favour_rare(classifier, shares, strength)
    expected = torch.tensor([-math.log(0.9), -math.log(0.1), 0.0]) * strength
    change = (classifier(*inputs) - before).mean((0, 2, 3))
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-4)
