"""Work on many images by threads, in order, a few images ahead of who asks for the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int = 1,
    *,
    share: int | None = None,
) -> Iterator[Result]:
    """`function` of each item, in order.

    The cores that torch uses are shared out among the threads: on a CPU a thread an image is
    quicker than all cores on each operation in turn.

    Args:
        function: what to do; torch and numpy let other threads run meanwhile.
        items: read by the calling thread, 4 a thread ahead of the results.
        threads: how many; 0 and 1 are the same.
        share: cores for torch in each thread; by default all of them in equal parts.

    Raises:
        Exception: what `function` raised on the first item where it did; no new item is begun.
    """
    threads = max(1, threads)
    cores = torch.get_num_threads()
    share = share or max(1, cores // threads)
    rest = iter(items)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(share,)) as pool:
        ahead: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(rest, 4 * threads)
        )
        try:
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(function, item) for item in islice(rest, 1))
        finally:
            for future in ahead:
                future.cancel()
            torch.set_num_threads(cores)  # for threads to come; those there keep their number
