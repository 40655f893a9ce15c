"""Dense factors: the best items of each shopper vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.csr import dot_pairs
from retailrec.compute.shards import library_threads, one_blas_thread
from retailrec.compute.topk import topk_rows
from retailrec.data.history import Candidates

_SPARE = 32  # taken beyond k, so that equal items at the edge are ordered by their exact scores


def grid(factors: NDArray[np.floating[Any]]) -> float:
    """A step 2^14 times finer than the power of two above the largest factor; 1 for zeros alone."""
    largest = float(np.abs(factors).max(initial=0))
    return 2.0 ** (np.ceil(np.log2(largest)) - 14) if largest else 1.0


def rounded(factors: NDArray[np.floating[Any]], step: float = 2.0**-14) -> NDArray[np.float32]:
    """The factors in multiples of `step`, a power of two.

    A solver's last digits hang on the kind of processor; on a grid they are gone. And a dot product is
    then exact in double precision, whatever the order of its sum.

    Examples
    --------
    >>> rounded(np.array([0.7, 0.1, -1e-9])).tolist()
    [0.70001220703125, 0.0999755859375, 0.0]
    """
    return np.ascontiguousarray(np.rint(factors / step) * step + 0.0, np.float32)


def best_by_factors(
    users: NDArray[np.float32],
    items: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    k: int,
    threads: int | None,
) -> Candidates:
    """The `k` allowed items with the largest dot product; nothing for a shopper of zeros.

    `implicit`'s kernel, with BLAS held to one thread: two thread pools fight.
    """
    from implicit.cpu.topk import topk

    codes = np.flatnonzero(allowed).astype(np.int32)
    out = Candidates(
        np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    )
    known = np.flatnonzero(users.any(axis=1))
    width = min(k + _SPARE, len(codes))
    if len(known) and width:
        with one_blas_thread():
            best, _ = topk(
                items[codes],
                users[known],
                width,
                num_threads=library_threads(threads, len(known), each=64),
            )
        found = np.sort(codes[best], axis=1).ravel()
        starts = np.arange(len(known) + 1, dtype=np.int64) * width
        # the matrix product rounds differently in batches of other sizes; these sums do not
        exact = dot_pairs(np.ascontiguousarray(users[known]), items, starts, found)
        out.items[known], out.scores[known] = topk_rows(starts, found, exact, k)
    return out
