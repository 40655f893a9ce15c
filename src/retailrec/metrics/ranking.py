"""Metrics of ranked lists: accuracy, the same weighed by money, and beyond accuracy.

`k` is the width of `hits`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retailrec.metrics.base import Hits, Values, metric, ratio

Counts = NDArray[np.int64]


@metric
def precision(hits: Hits) -> Values:
    """Share of the first k recommendations that were bought, 0 to 1.

    hits / k; a list shorter than k is counted over k, a shopper without one counts 0.

    >>> precision(np.array([[True, False, True, False]])).tolist()
    [0.5]
    """
    return hits.mean(axis=1)


@metric
def recall(hits: Hits, n_relevant: Counts) -> Values:
    """Share of the items bought that stand among the first k, 0 to 1.

    >>> recall(np.array([[True, False]]), np.array([4])).tolist()
    [0.25]
    """
    return ratio(hits.sum(axis=1), n_relevant)


@metric
def hit_rate(hits: Hits) -> Values:
    """Share of shoppers who bought at least one of the first k; 1 or 0 of each.

    >>> hit_rate(np.array([[False, True], [False, False]])).tolist()
    [1.0, 0.0]
    """
    return np.asarray(hits.any(axis=1), np.float64)


@metric
def average_precision(hits: Hits, n_relevant: Counts) -> Values:
    """Mean precision at the ranks of the hits, over min(k, bought), 0 to 1.

    AP@k = sum over hits at rank i of (hits up to i) / i, divided by min(k, bought); its mean over
    shoppers is MAP@k (Manning et al., 2008, ch. 8).

    >>> average_precision(np.array([[True, False, True]]), np.array([3])).round(4).tolist()
    [0.5556]
    """
    return ratio(_sum_of_precisions(hits), np.minimum(n_relevant, hits.shape[1]))


@metric
def ndcg(hits: Hits, n_relevant: Counts) -> Values:
    """Hits among the first k, early ones worth more, over the best list of that length, 0 to 1.

    Normalised discounted cumulative gain: DCG = sum over hits at rank i of 1 / log2(i + 1); the
    ideal has min(k, bought) hits on top (Jarvelin & Kekalainen, TOIS 2002).

    >>> ndcg(np.array([[False, True]]), np.array([1])).round(4).tolist()
    [0.6309]
    """
    k = hits.shape[1]
    return ratio(hits @ _discount(k), _ideal(np.minimum(n_relevant, k)))


@metric
def ndcg_full(hits: Hits, n_relevant: Counts) -> Values:
    """As `ndcg`, but the ideal list holds everything bought, even beyond k.

    The ideal of the next-basket Reality Check (Li et al., TOIS 2023).

    >>> ndcg_full(np.array([[True]]), np.array([2])).round(4).tolist()
    [0.6131]
    """
    return ratio(hits @ _discount(hits.shape[1]), _ideal(n_relevant))


@metric
def mrr(hits: Hits) -> Values:
    """1 / rank of the first hit, 0 without one (mean reciprocal rank, Voorhees 1999).

    >>> mrr(np.array([[False, True], [False, False]])).tolist()
    [0.5, 0.0]
    """
    return np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)


@metric
def nmap(hits: Hits, n_relevant: Counts) -> Values:
    """AP over k divided by the best possible AP over k, as X5 RetailHero scored it (k = 30).

    AP = sum over hits at rank i of (hits up to i) / i, over k. The best list has min(k, bought) hits
    on top, whose AP is min(k, bought) / k. 0 where nothing was bought.

    >>> nmap(np.array([[True, False]]), np.array([2])).tolist()
    [0.5]
    """
    best = np.minimum(n_relevant, hits.shape[1])
    return np.where(best > 0, _sum_of_precisions(hits) / np.maximum(best, 1), 0.0)


def _sum_of_precisions(hits: Hits) -> Values:
    ranks = np.arange(1, hits.shape[1] + 1)
    total: Values = (hits * (hits.cumsum(axis=1) / ranks)).sum(axis=1)
    return total


def _discount(k: int) -> Values:
    return 1 / np.log2(np.arange(2, k + 2))


def _ideal(n: Counts) -> Values:
    longest = int(n.max(initial=0))
    return np.append(0, np.cumsum(_discount(longest)))[n]


Money = NDArray[np.float64]


@metric
def money_precision(hits: Hits, prices: Money) -> Values:
    """Share of the recommended items' prices that belongs to items that were bought, 0 to 1.

    Sum of prices of the hits / sum of prices of the first k; prices as known when recommending.
    A shopper without recommendations counts 0; not defined where no price is known.

    >>> money_precision(np.array([[True, False]]), np.array([[3.0, 1.0]])).tolist()
    [0.75]
    """
    known = np.nan_to_num(prices)
    total = known.sum(axis=1)
    empty = np.where(np.isnan(prices).any(axis=1), np.nan, 0.0)
    return np.where(total > 0, (known * hits).sum(axis=1) / np.where(total > 0, total, 1), empty)


@metric
def money_recall(hits: Hits, bought_values: Money, spent: Money) -> Values:
    """Share of the money spent in the window that went to the first k recommendations, 0 to 1.

    >>> money_recall(np.array([[True]]), np.array([[2.0]]), np.array([8.0])).tolist()
    [0.25]
    """
    return ratio((np.nan_to_num(bought_values) * hits).sum(axis=1), spent)


@metric
def revenue(hits: Hits, bought_values: Money) -> Values:
    """Money spent in the window on the first k recommendations, per shopper.

    Not defined where no value is known.

    >>> revenue(np.array([[True, False]]), np.array([[2.0, 0.0]])).tolist()
    [2.0]
    """
    total: Values = (np.nan_to_num(bought_values) * hits).sum(axis=1)
    return np.where(np.isnan(bought_values).all(axis=1), np.nan, total)


Items = NDArray[np.int32]


@metric
def served(hits: Hits, n_recommended: NDArray[np.int64]) -> Values:
    """Share of shoppers who get any recommendation; 1 or 0 of each.

    >>> served(np.zeros((2, 3), bool), np.array([3, 0])).tolist()
    [1.0, 0.0]
    """
    return np.asarray(n_recommended > 0, np.float64)


@metric
def coverage(items: Items, is_recommendable: Hits, n_recommendable: int) -> Values:
    """Share of the recommendable items that stand among the first k of any shopper, 0 to 1.

    >>> coverage(np.array([[0, 1], [0, 9]]), np.array([[True, True], [True, False]]), 4).tolist()
    [0.5]
    """
    return np.array([len(np.unique(items[is_recommendable])) / max(n_recommendable, 1)])


@metric
def gini(items: Items, is_recommendable: Hits, n_recommendable: int) -> Values:
    """How unequally recommendations are spread over the recommendable items: 0 evenly, 1 all on one.

    With counts c in ascending order, sum of (2 i - n - 1) c_i over (n - 1) sum of c (Gini 1912, as in
    Castells et al., 2015); not defined without recommendations.

    >>> all_on_one, evenly, offered = np.zeros((3, 1)), np.array([[0], [1], [2]]), np.ones((3, 1), bool)
    >>> gini(all_on_one, offered, 3).tolist(), gini(evenly, offered, 3).tolist()
    ([1.0], [0.0])
    """
    counts = np.unique(items[is_recommendable], return_counts=True)[1]
    n = n_recommendable
    if n < 2 or not len(counts):
        return np.array([np.nan])
    place = np.arange(n - len(counts) + 1, n + 1)  # items that are on no list come first, with count 0
    return np.array([((2 * place - n - 1) * np.sort(counts)).sum() / ((n - 1) * counts.sum())])


@metric
def novelty(items: Items, buyer_share: Values) -> Values:
    """Mean surprise of the list's items in bits: -log2 of the share of shoppers who had bought each.

    An item without a buyer counts as bought by half a shopper. Not defined without
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
