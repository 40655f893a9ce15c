"""The same questions, weighed by money."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retailrec.metrics.base import Hits, Values, metric, ratio

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
