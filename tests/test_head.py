"""Stacked features and the embedding head."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weakseg.errors import InputError
from weakseg.models import EmbeddingHead, stack_features, unit_vectors


class TestStackFeatures:
    def test_a_ramp_stays_a_ramp(self):
        """Values are resampled at the positions that they stand for."""
        fine = (torch.arange(12) + 0.5).expand(1, 1, 8, 12) * 8
        coarse = (torch.arange(6) + 0.5).expand(1, 2, 4, 6) * 16
        out = stack_features([fine, coarse], [8, 16], 8)
        assert out.shape == (1, 3, 8, 12)
        torch.testing.assert_close(out[:, 1:, :, 1:-1], out[:, :1, :, 1:-1].expand(1, 2, 8, 10))

    @pytest.mark.parametrize(
        ("shapes", "strides", "stride", "size", "expected"),
        [
            ([(13, 17), (7, 9)], [8, 16], 8, None, (13, 17)),
            ([(7, 9)], [16], 8, None, (14, 18)),
            ([(7, 9)], [16], 8, (13, 17), (13, 17)),
            ([(13, 17), (7, 9)], [8, 16], 16, None, (7, 9)),
            ([(13, 17), (7, 9)], [8, 16], 4, (26, 34), (26, 34)),
        ],
    )
    def test_sizes(self, shapes, strides, stride, size, expected):
        maps = [torch.rand(2, 3, *shape) for shape in shapes]
        out = stack_features(maps, strides, stride, size)
        assert tuple(out.shape) == (2, 3 * len(maps), *expected)


class TestHead:
    @pytest.mark.parametrize("kind", ["mlp", "aspp"])
    def test_vectors_have_length_one(self, kind):
        head = EmbeddingHead(24, 16, kind, hidden=32, scale=2)
        out = head(torch.randn(2, 24, 9, 7) * 30)
        assert tuple(out.shape) == (2, 16, 18, 14)
        torch.testing.assert_close(out.norm(dim=1), torch.ones(2, 18, 14))
        assert tuple(head(torch.randn(2, 24, 9, 7), size=(20, 13)).shape) == (2, 16, 20, 13)

    @pytest.mark.parametrize("kind", ["mlp", "aspp"])
    def test_half_precision_keeps_length_one_and_gradients_finite(self, kind):
        head = EmbeddingHead(24, 16, kind, hidden=32, scale=2)
        features = torch.randn(2, 24, 9, 7, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            out = head(features)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.norm(dim=1), torch.ones(2, 18, 14))
        out.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in head.parameters())

    def test_the_mlp_sees_one_position_at_a_time_and_aspp_its_surroundings(self):
        features = torch.randn(1, 8, 40, 40)
        changed = features.clone()
        changed[:, :, 20, 20] += 1
        for kind, reach in [("mlp", 0), ("aspp", 18)]:  # 24 reaches beyond the border
            head = EmbeddingHead(8, 4, kind, hidden=16).eval()
            with torch.no_grad():
                rows = (head(features) != head(changed)).any(1)[0].nonzero()
            assert int((rows - 20).abs().max()) == reach

    def test_scales_of_levels_do_not_matter(self):
        """A level a thousand times larger than the other must not drown it."""
        torch.manual_seed(0)
        head = EmbeddingHead(8, 4)
        features = torch.randn(2, 8, 10, 10)
        scaled = features * torch.tensor([1e3] * 4 + [1.0] * 4).view(1, 8, 1, 1)
        head.branches[0][4].p = 0.0
        torch.testing.assert_close(head(features), head(scaled), rtol=1e-3, atol=1e-3)

    def test_unknown_kind(self):
        with pytest.raises(InputError, match="found transformer; expected mlp or aspp"):
            EmbeddingHead(8, kind="transformer")

    def test_a_null_vector_has_a_gradient(self):
        x = torch.zeros(1, 4, 1, 1, requires_grad=True)
        unit_vectors(x).sum().backward()
        assert torch.isfinite(x.grad).all()

    @settings(max_examples=30, deadline=None)
    @given(st.floats(1e-3, 1e4), st.integers(1, 64))
    def test_unit_vectors_of_any_scale(self, scale, dim):
        x = (torch.randn(1, dim, 3, 3) + 0.1).to(torch.bfloat16) * scale
        torch.testing.assert_close(unit_vectors(x).norm(dim=1), torch.ones(1, 3, 3))

    def test_it_learns(self):
        torch.manual_seed(0)
        head = EmbeddingHead(8, 4, hidden=16, dropout=0)
        features = torch.randn(1, 8, 6, 6)
        target = unit_vectors(features[:, :4])
        optimiser = torch.optim.Adam(head.parameters(), lr=3e-2)
        losses = []
        for _ in range(60):
            loss = 1 - (head(features) * target).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.05 < 0.5 < losses[0]

    def test_it_is_an_ordinary_module(self):
        head = EmbeddingHead(8, 4)
        other = EmbeddingHead(8, 4)
        other.load_state_dict(head.state_dict())
        assert isinstance(other, nn.Module)
        features = torch.randn(1, 8, 6, 6)
        assert torch.equal(head.eval()(features), other.eval()(features))
