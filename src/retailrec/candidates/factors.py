"""Dense factors: the best items of each user's vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.csr import dot_pairs
from retailrec.compute.shards import library_threads, one_blas_thread
from retailrec.compute.topk import topk_rows
from retailrec.data.history import Candidates

_SPARE = 32  # taken beyond k, so that equal items at the edge are ordered by their exact scores
_FIRST = 1024  # items of the first prefix, which says how many more a user needs
_ROUNDING = 1.0001  # a float32 product is never further from the true one than this


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


class FactorIndex:
    """The `allowed` rows of `items`, the longest first: finds those with the largest dot products.

    A dot product is at most the product of the two lengths, so a user whose k-th item outweighs the
    longest item not yet seen is done (length-based pruning; Teflioudi, Gemulla & Mykytiuk, LEMP, SIGMOD
    2015): a short prefix says how many items a user needs, and no more are searched.

    Examples
    --------
    >>> items = np.array([[1, 0], [0, 3], [2, 2]], np.float32)
    >>> index = FactorIndex(items, np.array([True, True, True]))
    >>> index.best(np.array([[1, 0], [0, 0]], np.float32), k=2).items.tolist()
    [[2, 0], [-1, -1]]
    """

    def __init__(self, items: NDArray[np.float32], allowed: NDArray[np.bool_]) -> None:
        codes = np.flatnonzero(allowed).astype(np.int32)
        length = np.linalg.norm(items[codes], axis=1)
        order = np.argsort(-length, kind="stable")
        self.items, self.allowed = items, allowed
        self.codes, self.minus_length = codes[order], -length[order]
        self.sorted = items[self.codes]

    @classmethod
    def of(
        cls, items: NDArray[np.float32], allowed: NDArray[np.bool_], known: FactorIndex | None
    ) -> FactorIndex:
        """`known` where it is of these very arrays, else a new one."""
        same = known is not None and known.items is items and known.allowed is allowed
        return known if known is not None and same else cls(items, allowed)

    def best(self, users: NDArray[np.float32], k: int, threads: int | None = 1) -> Candidates:
        """The `k` items with the largest dot product; none for a user of zeros.

        `implicit`'s kernel, with BLAS held to one thread: two thread pools fight.
        """
        from implicit.cpu.topk import topk

        out = Candidates(
            np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
        )
        n = len(self.codes)
        width = min(k + _SPARE, n)
        waiting = np.flatnonzero(users.any(axis=1)) if width else np.zeros(0, np.int64)
        seen = max(_FIRST, width)
        while len(waiting):
            n_threads = library_threads(threads, len(waiting), each=64)
            with one_blas_thread():
                best, scores = topk(self.sorted[:seen], users[waiting], width, num_threads=n_threads)
            # the items that are long enough to outweigh a user's k-th one
            least = scores[:, -1] / (np.linalg.norm(users[waiting], axis=1) * _ROUNDING)
            need = np.searchsorted(self.minus_length, -least, side="right")
            done = need <= seen
            known, waiting = waiting[done], waiting[~done]
            found = np.sort(self.codes[best[done]], axis=1).ravel()
            starts = np.arange(len(known) + 1, dtype=np.int64) * width
            # the matrix product rounds differently in batches of other sizes; these sums do not
            exact = dot_pairs(np.ascontiguousarray(users[known]), self.items, starts, found)
            out.items[known], out.scores[known] = topk_rows(starts, found, exact, k)
            if len(waiting):  # next those whom that many items suffice: all but a tenth
                seen = int(np.quantile(need[~done], 0.9, method="higher"))
        return out
