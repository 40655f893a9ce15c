"""Pairs of a row and an item as one number, to sort, look up and hash them by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pair_keys(rows: Any, items: Any, n_items: int) -> NDArray[np.int64]:
    """A number for each (row, item) pair, ascending in row and then item; -1 where the item is -1.

    `rows` and `items` are broadcast against each other; `n_items` is above every item.

    Examples
    --------
    >>> pair_keys([0, 1, 1], [2, 0, -1], 3)
    array([ 2,  3, -1])
    """
    keys = np.asarray(rows, np.int64) * n_items + items
    return np.where(np.asarray(items) < 0, -1, keys)


def pairs_of_keys(keys: NDArray[np.int64], n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and item of each key of `pair_keys`.

    Examples
    --------
    >>> pairs_of_keys(pair_keys([0, 1], [2, 0], 3), 3)
    (array([0, 1]), array([2, 0]))
    """
    return np.divmod(keys, n_items)


def row_of_pair(indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row number of each element of a CSR.

    Examples
    --------
    >>> row_of_pair(np.array([0, 2, 2, 3]))
    array([0, 0, 2])
    """
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
