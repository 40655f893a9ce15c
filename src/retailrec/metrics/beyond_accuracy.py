"""Beyond-accuracy metrics: coverage, novelty, diversity; what lists are like beside being right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retailrec.metrics.base import Hits, Values, metric, ratio

Items = NDArray[np.int32]


@metric
def served(hits: Hits, n_recommended: NDArray[np.int64]) -> Values:
    """Share of shoppers who get any recommendation; 1 or 0 of each.

    >>> served(np.zeros((2, 3), bool), np.array([3, 0])).tolist()
    [1.0, 0.0]
    """
    return np.asarray(n_recommended > 0, np.float64)


@metric
def coverage(items: Items, n_recommendable: int) -> Values:
    """Share of the recommendable items that stand among the first k of any shopper, 0 to 1.

    >>> coverage(np.array([[0, 1], [0, -1]]), 4).tolist()
    [0.5]
    """
    return np.array([len(np.unique(items[items >= 0])) / max(n_recommendable, 1)])


@metric
def gini(items: Items, n_recommendable: int) -> Values:
    """How unequally recommendations are spread over the recommendable items: 0 evenly, 1 all on one.

    With counts c in ascending order, sum of (2 i - n - 1) c_i over (n - 1) sum of c (Gini 1912, as in
    Castells et al., 2015); not defined without recommendations.

    >>> gini(np.array([[0], [0], [0]]), 3).tolist(), gini(np.array([[0], [1], [2]]), 3).tolist()
    ([1.0], [0.0])
    """
    counts = np.unique(items[items >= 0], return_counts=True)[1]
    n = max(n_recommendable, len(counts))
    if n < 2 or not len(counts):
        return np.array([np.nan])
    place = np.arange(n - len(counts) + 1, n + 1)  # items that nobody gets come first, with count 0
    return np.array([((2 * place - n - 1) * np.sort(counts)).sum() / ((n - 1) * counts.sum())])


@metric
def novelty(items: Items, buyer_share: Values) -> Values:
    """Mean surprise of the list's items in bits: -log2 of the share of shoppers who had bought each.

    An item that nobody had bought counts as bought by half a shopper. Not defined without
    recommendations. Zhou et al., PNAS 2010.

    >>> novelty(np.array([[4, 7]]), np.array([[0.5, 0.25]])).tolist()
    [1.5]
    """
    bits = np.where(items >= 0, -np.log2(np.where(items >= 0, buyer_share, 1)), 0)
    return ratio(bits.sum(axis=1), (items >= 0).sum(axis=1))


@metric
def diversity(items: Items, categories: Items) -> Values:
    """Share of the list's pairs of items that are of different categories, 0 to 1.

    Intra-list diversity (Smyth & McClave, 2001) with distance 1 between categories, over items whose
    category is known; not defined for fewer than two of them.

    >>> diversity(np.array([[4, 7, 8]]), np.array([[0, 0, 1]])).round(4).tolist()
    [0.6667]
    """
    known = (items >= 0) & (categories >= 0)
    n = known.sum(axis=1)
    different = np.zeros(len(items))
    for step in range(1, items.shape[1]):
        both = known[:, step:] & known[:, :-step]
        different += (both & (categories[:, step:] != categories[:, :-step])).sum(axis=1)
    return ratio(different, n * (n - 1) // 2)


@metric
def serendipity(hits: Hits, is_popular: Hits) -> Values:
    """Share of the first k that was bought and is not among the k most popular items, 0 to 1.

    Useful beyond what a list of bestsellers gives (Ge et al., RecSys 2010).

    >>> serendipity(np.array([[True, True]]), np.array([[True, False]])).tolist()
    [0.5]
    """
    return (hits & ~is_popular).mean(axis=1)
