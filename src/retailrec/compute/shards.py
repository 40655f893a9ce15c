"""Map a function over shards of users on this machine; processes made by fork can't."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from retailrec.errors import SettingError

_forked = False


def require_threads() -> None:
    """To be called before libraries with thread pools are.

    Raises
    ------
    SettingError
        If the process was made by fork from one that had loaded them: the call could wait for ever.
    """
    if _forked:
        raise SettingError(
            "this process was made by fork from one that had loaded retailrec; its libraries' "
            "threads did not come along, and the call might never return. Start workers by spawn, "
            "such as multiprocessing.get_context('spawn'), or import retailrec after the fork only."
        )


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


T = TypeVar("T")
MOST_THREADS = 1024  # more is a slip of the pen, and a system that runs out of them
SHARD = 256  # users; 250 candidates x 140 float32 columns of them are 36 MB
_worker = threading.local()
_lock, _holders, _limit = threading.Lock(), 0, None
_most: int | None = None  # threads that this process may use, whatever a setting says
TRAIN_SHARD = 512  # users; part of the random draws, so it is no setting


def n_threads(threads: int | None) -> int:
    """`threads`, or the number of cores that this process may use when it is 0 or None.

    These are the cores that it is bound to, and no more than its container may use at a time.

    Raises
    ------
    SettingError
        If that is less than nothing, or more than a system should be asked for.
    """
    if threads is not None and not 0 <= threads <= MOST_THREADS:
        raise SettingError(
            f"threads must be 0 (all cores) or more, and at most {MOST_THREADS}, not {threads:,}."
        )
    if _most is not None:
        return min(threads or _most, _most)
    if hasattr(os, "sched_getaffinity"):
        return threads or min(len(os.sched_getaffinity(0)), quota())
    return threads or os.cpu_count() or 1  # macOS and Windows do not tell


@cache
def quota(system: Path = Path("/")) -> int:
    """Cores that the control groups of this process leave it, rounded up; `MOST_THREADS` without any.

    Docker's ``--cpus`` and a pod's limits are such quotas. More threads than cores of theirs are all
    stopped for a part of each tenth of a second. Of a container, whose own group is the root that it
    sees, the root is read; `system` is the root of the file system.
    """
    least, groups = float(MOST_THREADS), system / "sys/fs/cgroup"
    with suppress(OSError, ValueError):
        for line in (system / "proc/self/cgroup").read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds and "cpu" not in kinds.split(","):
                continue
            top = groups / "cpu" if kinds else groups
            group = top / name.strip("/")
            for place in (group, *group.parents[: len(group.parts) - len(top.parts)]):
                for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
                    with suppress(OSError, ValueError):
                        most, period = " ".join((place / f).read_text() for f in files).split()
                        if int(most) > 0:  # "max", or -1, is none
                            least = min(least, int(most) / int(period))
    return max(math.ceil(least), 1)


def hold_to_cores(most: int) -> None:
    """No more than so many threads in this process from now on, whatever a model's settings say.

    For a worker that shares its machine with others, each of which has cores of its own.
    """
    global _most
    if most < 1:
        raise SettingError(f"cores of a worker must be at least 1, not {most}.")
    _most = most
    _blas().limit(limits=most)


def wait_asleep() -> None:
    """Threads of libraries that wait for each other go to sleep after some microseconds.

    GNU OpenMP lets them spin for milliseconds, since it takes the cores to be its own. Where other jobs
    hold them, the thread that is waited for isn't even running: trees took three times the processor's
    time. It reads this when it is loaded, so a program calls it first; what the user has set stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def library_threads(threads: int | None, work: int | None = None, each: int = 1) -> int:
    """Threads for a library's call: `n_threads`, but 1 within a shard, whose fellows hold the cores.

    `work` is how much there is to do, `each` how much keeps a thread busy. Threads with less than that
    wait for each other, and where other jobs hold the cores one of them is not even running.
    """
    most = n_threads(threads)
    if work is not None:
        most = min(most, work // each)
    return 1 if _in_shard() else max(most, 1)


def _in_shard() -> bool:
    return getattr(_worker, "in_shard", False)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread within: a library that brings its own threads fights with BLAS's.

    The limit is the process's, and threadpoolctl lets one thread set it: `map_shards` holds it for its
    shards from outside. Where several threads ask, the last one out lifts it.
    """
    global _holders, _limit
    if _in_shard():
        yield
        return
    with _lock:
        if not _holders:
            _limit = _blas().limit(limits=1, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _limit.restore_original_limits()


@cache
def _blas() -> Any:
    """The BLAS libraries of this process; finding them takes milliseconds, so it is done once."""
    import scipy.linalg  # noqa: F401  loads its BLAS now, so that the limit reaches it
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _enter_shards() -> None:
    _worker.in_shard = True


def map_shards(
    function: Callable[[slice], T], n: int, *, size: int = SHARD, threads: int = 1
) -> Iterator[T]:
    """`function` of each shard of rows 0..n, in order; at most `threads` + 1 are in memory.

    Kernels and libraries release the GIL, so threads are enough. Within several shards at a time,
    `library_threads` gives 1.
    """
    shards = [slice(at, min(at + size, n)) for at in range(0, n, size)]
    if threads <= 1 or len(shards) <= 1:
        yield from map(function, shards)
        return
    with one_blas_thread(), ThreadPoolExecutor(threads, initializer=_enter_shards) as pool:
        pending: deque[Future[T]] = deque()
        for shard in shards:
            pending.append(pool.submit(function, shard))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
