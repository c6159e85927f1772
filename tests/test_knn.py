import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg import knn
from weakseg.errors import InputError
from weakseg.knn import knn_vote


def at(*degrees):
    """Unit vectors in the plane at these angles."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angle.cos(), angle.sin()], 1)


LABELLED = at(0, 10, 20, 90, 100, 180)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("degrees", "neighbours", "expected"),
    [
        (1, 1, [1, 0, 0]),
        (19, 1, [0, 1, 0]),
        (8, 3, [2 / 3, 1 / 3, 0]),
        (97, 2, [0, 1 / 2, 1 / 2]),
        (178, 2, [0, 0, 1]),
        # As far away as can be, the nearest vote all the same.
        (-60, 1, [1, 0, 0]),
        # All vote where there are no more.
        (45, 6, [1 / 3, 1 / 3, 1 / 3]),
        (45, 20, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_the_nearest_labelled_segments_vote(degrees, neighbours, expected):
    votes = knn_vote(at(degrees), LABELLED, LABELS, 3, neighbours)
    assert votes.tolist()[0] == pytest.approx(expected)
    assert votes.dtype == torch.float32


def test_twenty_vote_by_default():
    labelled = at(*range(0, 60, 2))
    votes = knn_vote(at(0), labelled, (torch.arange(30) >= 15).long(), 2)
    assert votes[0].tolist() == pytest.approx([15 / 20, 5 / 20])


def test_a_single_labelled_segment_decides_all():
    assert knn_vote(at(0, 120, 240), at(77), torch.tensor([2]), 4).argmax(1).tolist() == [2, 2, 2]


def test_classes_that_nobody_has_get_no_vote():
    votes = knn_vote(at(5, 95), LABELLED, LABELS, 6, 2)
    assert votes.shape == (2, 6)
    assert not votes[:, 3:].any()


def test_nothing_to_classify_and_nothing_to_vote():
    assert knn_vote(at(0)[:0], LABELLED, LABELS, 3).shape == (0, 3)
    with pytest.raises(InputError, match="no labelled segment"):
        knn_vote(at(0), LABELLED[:0], LABELS[:0], 3)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 25), st.integers(0, 99))
def test_votes_are_shares_that_a_loop_counts(labelled, neighbours, seed):
    generator = torch.Generator().manual_seed(seed)
    bank = F.normalize(torch.randn(labelled, 5, generator=generator), dim=1)
    labels = torch.randint(0, 4, (labelled,), generator=generator)
    asked = F.normalize(torch.randn(7, 5, generator=generator), dim=1)
    votes = knn_vote(asked, bank, labels, 4, neighbours)
    torch.testing.assert_close(votes.sum(1), torch.ones(7))
    for row, vector in zip(votes, asked, strict=True):
        order = sorted(range(labelled), key=lambda i: -float(vector @ bank[i]))
        voters = [int(labels[i]) for i in order[:neighbours]]
        expected = [voters.count(c) / len(voters) for c in range(4)]
        assert row.tolist() == pytest.approx(expected)


def test_more_segments_than_fit_in_one_product():
    asked = at(*range(360)).repeat(13, 1)
    votes = knn_vote(asked, LABELLED, LABELS, 3, 1)
    assert torch.equal(votes[:360], votes[4320:])
    torch.testing.assert_close(votes.sum(1), torch.ones(len(asked)))


def test_votes_do_not_depend_on_how_many_are_counted_at_a_time(monkeypatch):
    rows, labelled = (F.normalize(torch.randn(n, 8), dim=1) for n in (7, 50))
    labels = torch.arange(50) % 4
    votes = knn_vote(rows, labelled, labels, 4)
    monkeypatch.setattr(knn, "_PAIRS", 100)
    torch.testing.assert_close(knn_vote(rows, labelled, labels, 4), votes)
