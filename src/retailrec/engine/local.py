"""Map a function over shards of shoppers on this machine."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from retailrec.errors import SettingError

T = TypeVar("T")
SHARD = 1024  # shoppers; 200 candidates x 90 float32 columns of them are 75 MB
TRAIN_SHARD = 512  # shoppers; part of the random draws, so it is no setting


def n_threads(threads: int) -> int:
    """`threads`, or the number of cores that this process may use when it is 0."""
    if threads < 0:
        raise SettingError(f"threads must be 0 (all cores) or more, not {threads}.")
    return threads or len(os.sched_getaffinity(0))


def one_blas_thread() -> AbstractContextManager[Any]:
    """Hold BLAS to one thread within: a library that brings its own threads fights with BLAS's."""
    import scipy.linalg  # noqa: F401  loads its BLAS now, so that the limit reaches it
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def map_shards(
    function: Callable[[slice], T], n: int, *, size: int = SHARD, threads: int = 1
) -> Iterator[T]:
    """`function` of each shard of rows 0..n, in order; at most `threads` + 1 are in memory.

    Kernels and libraries release the GIL, so threads are enough.
    """
    shards = [slice(at, min(at + size, n)) for at in range(0, n, size)]
    if threads <= 1:
        yield from map(function, shards)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[T]] = deque()
        for shard in shards:
            pending.append(pool.submit(function, shard))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
