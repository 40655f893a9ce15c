"""Accuracy of a ranked list. `k` is the width of `hits`."""

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
