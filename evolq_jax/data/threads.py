"""Threads that work ahead of their consumer, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_THREADS = 32


def in_order(function: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """`map(function, items)`, computed by one thread for each processor, at least two.

    At most `ahead` results wait for their consumer. A new item starts when a result is taken, so one slow
    item does not hold up the others. An error of `function` is raised when its item's turn comes.
    """
    pool = ThreadPoolExecutor(min(max(2, os.cpu_count() or 1), _MAX_THREADS))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(waiting) == ahead:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
