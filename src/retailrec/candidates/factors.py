"""Dense factors: the best items of each shopper vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import Candidates


def best_by_factors(
    users: NDArray[np.float32], items: NDArray[np.float32], allowed: NDArray[np.bool_], k: int,
    threads: int,
) -> Candidates:  # fmt: skip
    """The `k` allowed items with the largest dot product; nothing for a shopper of zeros.

    `implicit`'s kernel, with BLAS held to one thread: two thread pools fight.
    """
    from implicit.cpu.topk import topk
    from threadpoolctl import threadpool_limits

    codes = np.flatnonzero(allowed).astype(np.int32)
    out = Candidates(
        np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    )
    known = np.flatnonzero(users.any(axis=1))
    n = min(k, len(codes))
    if len(known) and n:
        with threadpool_limits(1, "blas"):
            best, score = topk(items[codes], users[known], n, num_threads=threads)
        found = codes[best]
        order = np.lexsort((found, -score), axis=1)  # ties by item
        out.items[known, :n] = np.take_along_axis(found, order, 1)
        out.scores[known, :n] = np.take_along_axis(score, order, 1)
    return out
