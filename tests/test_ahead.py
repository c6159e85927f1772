import threading

import pytest
import torch

from weakseg.ahead import map_ahead


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_results_come_in_order(threads, count):
    assert list(map_ahead(lambda x: x * x, range(count), threads)) == [x * x for x in range(count)]


def test_items_are_read_only_a_little_ahead():
    read = []
    items = (read.append(i) or i for i in range(1000))
    results = map_ahead(lambda x: x, items, 2)
    assert [next(results), next(results)] == [0, 1]
    assert len(read) < 20
    results.close()
    assert len(read) < 20


def test_an_error_is_raised_in_its_place_and_nothing_new_begins():
    done = []

    def work(x):
        if x == 3:
            raise ValueError("the third")
        done.append(x)
        return x

    results = map_ahead(work, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert len(done) < 20


def test_items_are_worked_on_at_the_same_time():
    both = threading.Barrier(2, timeout=30)  # broken, where only one thread comes
    assert list(map_ahead(lambda _: both.wait(), range(2), 2)) in ([0, 1], [1, 0])


def test_threads_share_the_cores_and_leave_the_caller_all():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert set(map_ahead(lambda _: torch.get_num_threads(), range(4), 2)) == {2}
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
