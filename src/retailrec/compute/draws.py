"""Draws of known chance: numbers in [0, 1) by salted hash, and samples of a fixed size.

One salt gives one id one number, wherever the draw is made: in a batch, in a service, on a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def uniform_draws(ids: Iterable[object], salt: str) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1), each made of the id's text and the salt alone (SHA-256).

    Examples
    --------
    >>> bool((uniform_draws([1, 2], "may") == uniform_draws(["1", "2"], "may")).all())
    True
    """
    seed = hashlib.sha256(salt.encode())
    return np.fromiter((_draw(seed, str(one)) for one in ids), np.float64)


def _draw(seed: Any, text: str) -> float:
    """A number in [0, 1) of a text, after the salt that `seed` has taken in."""
    digest = seed.copy()
    digest.update(b"\0" + text.encode())
    return int.from_bytes(digest.digest()[:7], "big") / 2**56


def inclusion_chances(
    rank: NDArray[np.int64], size: NDArray[np.int64], k: NDArray[np.int64] | int, rate: float
) -> NDArray[np.float64]:
    """(n_rows,) chance to be shown of each row, by its rank from 0 in a pool of that size.

    The first `k` of a pool have chance 1 - `rate`, the others share k x `rate`; less where that would
    turn the order round, that is where `rate` exceeds 1 - k / pool.

    Examples
    --------
    >>> inclusion_chances(np.arange(5), np.full(5, 5), 2, 0.3).round(3).tolist()
    [0.7, 0.7, 0.2, 0.2, 0.2]
    """
    spare = np.maximum(size - k, 0)
    of_user = np.minimum(rate, spare / np.maximum(size, 1))
    return np.asarray(np.where(rank < k, 1 - of_user, k * of_user / np.maximum(spare, 1)))


def systematic_sample(
    chances: NDArray[np.float64],
    indptr: NDArray[np.int64],
    lots: NDArray[Any],
    start: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(n_rows,) which rows are drawn: each with its chance exactly, as many a user as they add up to.

    Systematic sampling in random order (Madow, Annals of Mathematical Statistics 1949).

    The rows of a user, ordered by their lots, are laid end to end, each as long as its chance; drawn is
    what the points `start`, `start` + 1, ... fall on.

    Parameters
    ----------
    chances : between 0 and 1; those of a user add up to a whole number
    indptr : rows of user u are [indptr[u], indptr[u + 1])
    lots, start : of each row, and of each user (in [0, 1))
    """
    sizes = np.diff(indptr)
    user = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((lots, user))
    one = 2**32  # whole numbers, so that lengths add up exactly
    ends = np.cumsum(np.rint(chances[order] * one).astype(np.int64))
    ends -= np.repeat(np.concatenate([[0], ends])[indptr[:-1]], sizes)
    last, first = indptr[1:][sizes > 0] - 1, indptr[:-1][sizes > 0]
    ends[last] = np.rint(ends[last] / one).astype(np.int64) * one
    begins = np.concatenate([[0], ends[:-1]])
    begins[first] = 0
    at = np.repeat((start * one).astype(np.int64), sizes)
    drawn = np.empty(len(chances), bool)
    drawn[order] = (at - ends) // one < (at - begins) // one  # points in [begin, end)
    return drawn


def random_bits(draw: NDArray[np.float64], rank: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n_rows,) 64 random bits of a user's draw in [0, 1) and a rank (SplitMix64)."""
    bits = (draw * 2.0**56).astype(np.uint64)
    with np.errstate(over="ignore"):
        z = bits + (rank.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def lots(keys: NDArray[np.integer], *seed: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), each drawn from its key and the seed alone (splitmix64; Steele et al., 2014).

    So a key's lot does not depend on which others are there. Where a pool differs by one pair, as
    rounding on another processor can make it, a stream of random numbers would give every later
    pair another lot, and the ranker another sample.

    Examples
    --------
    >>> some, more = lots(np.array([3, 7]), 0), lots(np.array([3, 5, 7]), 0)
    >>> bool((some == more[[0, 2]]).all())
    True
    """
    mixed = np.asarray(keys).astype(np.uint64)
    for part in (*seed, 0):
        mixed = mixed + np.uint64((part * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    drawn = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn
