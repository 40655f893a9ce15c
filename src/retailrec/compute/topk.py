"""The best k of many rows: one heap, and all loops that use it.

They stand in one file because the cache of compiled loops does not see a change in a callee of
another file. Ties are always broken by the lower item code, so reruns and shards agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.csr import jit


@jit
def _worse(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    """True if (score, item) a ranks behind b."""
    return score_a < score_b or (score_a == score_b and item_a > item_b)


@jit
def _sift_down(scores: Any, items: Any, start: Any, size: int) -> None:
    """Restore the heap whose root is the worst pair."""
    root = start
    while True:
        child = 2 * root + 1
        if child >= size:
            return
        if child + 1 < size and _worse(
            scores[child + 1], items[child + 1], scores[child], items[child]
        ):
            child += 1
        if not _worse(scores[child], items[child], scores[root], items[root]):
            return
        scores[root], scores[child] = scores[child], scores[root]
        items[root], items[child] = items[child], items[root]
        root = child


@jit
def _heap_to_sorted(scores: Any, items: Any, size: int) -> None:
    """Turn a worst-at-root heap into best-first order, in place."""
    for last in range(size - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        items[0], items[last] = items[last], items[0]
        _sift_down(scores, items, np.int64(0), last)


@jit
def topk_rows(indptr: Any, items: Any, scores: Any, k: int) -> tuple[Any, Any]:
    """Best k of each CSR row: items (n, k) int32 padded with -1, scores (n, k) f32 padded with -inf.

    NaN and -inf scores are left out.
    """
    n = len(indptr) - 1
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    for row in range(n):
        start, stop = indptr[row], indptr[row + 1]
        _topk_into(items[start:stop], scores[start:stop], k, out_items[row], out_scores[row])
    return out_items, out_scores


@jit
def _topk_into(items: Any, scores: Any, k: int, out_items: Any, out_scores: Any) -> int:
    """Write the best k pairs, best first; how many there are."""
    # the push stands here and below: as a function it took twice the time, inlined by Numba 1.6 times
    size, top = 0, np.int64(0)  # a bare 0 is a type of its own, and would be compiled once more
    for j in range(len(items)):
        score, item = scores[j], items[j]
        if not score > -np.inf:
            continue
        if size < k:
            out_scores[size], out_items[size] = score, item
            size += 1
            if size == k:
                for root in range(k // 2 - 1, -1, -1):
                    _sift_down(out_scores, out_items, root, k)
        elif _worse(out_scores[0], out_items[0], score, item):
            out_scores[0], out_items[0] = score, item
            _sift_down(out_scores, out_items, top, k)
    if size < k:
        for root in range(size // 2 - 1, -1, -1):
            _sift_down(out_scores, out_items, root, size)
    _heap_to_sorted(out_scores, out_items, size)
    return size


@jit
def _best_touched(
    touched: Any, total: Any, allowed: Any, least: Any, k: int, out_items: Any, out_scores: Any
) -> int:
    """Write the best k allowed of the touched items, as a heap if k are there; how many there are.

    `total` holds their scores and is zero afterwards; scores below `least`, and 0, are left out.
    """
    size, top = 0, np.int64(0)
    for j in range(len(touched)):
        item = touched[j]
        score = total[item]
        total[item] = 0.0
        if not score >= least or score == 0 or not allowed[item]:
            continue
        if size < k:
            out_scores[size], out_items[size] = score, item
            size += 1
            if size == k:
                for root in range(k // 2 - 1, -1, -1):
                    _sift_down(out_scores, out_items, root, k)
                least = out_scores[0]
        elif _worse(out_scores[0], out_items[0], score, item):
            out_scores[0], out_items[0] = score, item
            _sift_down(out_scores, out_items, top, k)
            least = out_scores[0]
    return size


@jit
def product_topk(
    indptr: Any,
    indices: Any,
    weights: Any,
    s_indptr: Any,
    s_indices: Any,
    s_data: Any,
    b_indptr: Any,
    b_indices: Any,
    b_data: Any,
    allowed: Any,
    k: int,
) -> tuple[Any, Any]:
    """Best k items a row of W x S + B, all CSR; an item whose terms add up to 0 is not proposed.

    W (`indptr`, `indices`, `weights`) and B have a row a user; S and B have a column an item. B
    may be empty: a row pointer of zeros.
    """
    n = len(indptr) - 1
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    total = np.zeros(len(allowed), np.float32)
    touched, none = np.empty(0, np.int32), np.float32(-np.inf)
    for row in range(n):
        size, terms = 0, b_indptr[row + 1] - b_indptr[row]
        for j in range(indptr[row], indptr[row + 1]):
            terms += s_indptr[indices[j] + 1] - s_indptr[indices[j]]
        if terms >= len(touched):  # more items than terms are not touched, whatever the values
            touched = np.empty(2 * terms + 1, np.int32)
        for j in range(b_indptr[row], b_indptr[row + 1]):
            other = b_indices[j]
            touched[size] = other
            size += total[other] == 0
            total[other] += b_data[j]
        for j in range(indptr[row], indptr[row + 1]):
            item, weight = indices[j], weights[j]
            if weight == 0:
                continue
            for s in range(s_indptr[item], s_indptr[item + 1]):  # without a branch, which costs more
                other = s_indices[s]
                touched[size] = other
                size += total[other] == 0
                total[other] += weight * s_data[s]
        size = _best_touched(touched[:size], total, allowed, none, k, out_items[row], out_scores[row])
        for root in range(size // 2 - 1 if size < k else -1, -1, -1):
            _sift_down(out_scores[row], out_items[row], root, size)
        _heap_to_sorted(out_scores[row], out_items[row], size)
    return out_items, out_scores


@jit
def product_rows(
    indptr: Any,
    indices: Any,
    weights: Any,
    s_indptr: Any,
    s_indices: Any,
    s_data: Any,
    n_items: int,
    own: int,
    k: int,
) -> tuple[Any, Any, Any]:
    """Best k entries above 0 of each row of W x S as a CSR: indptr int64, items int32, values f32.

    Items of a row come in no order. `own` is the item of the first row, which the row leaves out, the
    next row the next one; below 0 none is left out.
    """
    n, at, above = len(indptr) - 1, 0, np.float32(0)
    allowed = np.ones(n_items, np.bool_)
    out_indptr = np.zeros(n + 1, np.int64)
    out_items, out_values = np.empty(1024, np.int32), np.empty(1024, np.float32)
    total = np.zeros(n_items, np.float32)
    items, values = np.empty(k, np.int32), np.empty(k, np.float32)
    touched = np.empty(0, np.int32)
    for row in range(n):
        size, terms = 0, 0
        for j in range(indptr[row], indptr[row + 1]):
            terms += s_indptr[indices[j] + 1] - s_indptr[indices[j]]
        if terms >= len(touched):  # more items than terms are not touched, whatever the values
            touched = np.empty(2 * terms + 1, np.int32)
        for j in range(indptr[row], indptr[row + 1]):
            inner, weight = indices[j], weights[j]
            for s in range(s_indptr[inner], s_indptr[inner + 1]):
                other = s_indices[s]
                touched[size] = other
                size += total[other] == 0
                total[other] += weight * s_data[s]
        if own >= 0:
            total[own + row] = 0.0
        kept = _best_touched(touched[:size], total, allowed, above, k, items, values)
        if at + kept > len(out_items):
            more_items = np.empty(2 * (at + kept), np.int32)
            more_values = np.empty(2 * (at + kept), np.float32)
            for j in range(at):  # slices of arrays take seconds to compile
                more_items[j], more_values[j] = out_items[j], out_values[j]
            out_items, out_values = more_items, more_values
        for j in range(kept):
            out_items[at + j], out_values[at + j] = items[j], values[j]
        at += kept
        out_indptr[row + 1] = at
    return out_indptr, out_items[:at].copy(), out_values[:at].copy()


@jit
def closest_rows(
    indptr: Any,
    indices: Any,
    weights: Any,
    s_indptr: Any,
    s_rows: Any,
    s_data: Any,
    norms: Any,
    k: int,
) -> Any:
    """The k rows of a second matrix nearest to each row of a first (Euclidean); (n_rows, k) int32.

    The first has a row of items a user; the second stands transposed, a row an item, with the
    squared norm of each of its rows in `norms`. Nearer is a larger 2 x dot product - norm.
    """
    n = len(indptr) - 1
    out = np.full((n, k), -1, np.int32)
    rows = np.arange(len(norms)).astype(np.int32)
    total, best = np.empty(len(norms), np.float32), np.empty(k, np.float32)
    for row in range(n):
        total[:] = 0
        for j in range(indptr[row], indptr[row + 1]):
            item, weight = indices[j], weights[j]
            for s in range(s_indptr[item], s_indptr[item + 1]):
                total[s_rows[s]] += weight * s_data[s]
        for r in range(len(norms)):
            total[r] = 2 * total[r] - norms[r]
        _topk_into(rows, total, k, out[row], best)
    return out


@jit
def popular_by_category(
    indptr: Any, items: Any, weights: Any, category: Any, share: Any, allowed: Any, k: int
) -> tuple[Any, Any]:
    """Best k items a row by (row's share of lines in the item's category) x (item's share)."""
    n, n_items = len(indptr) - 1, len(category)
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    everything = np.arange(n_items).astype(np.int32)
    scores = np.empty(n_items, np.float32)
    profile = np.zeros(category.max() + 2)
    for row in range(n):
        profile[:] = 0
        total = 0.0
        for j in range(indptr[row], indptr[row + 1]):
            profile[category[items[j]] + 1] += weights[j]
            total += weights[j]
        for i in range(n_items):
            score = profile[category[i] + 1] / max(total, 1.0) * share[i]
            scores[i] = score if allowed[i] and score > 0 else -np.inf
        _topk_into(everything, scores, k, out_items[row], out_scores[row])
    return out_items, out_scores


def keep_largest(values: NDArray[np.float32], n: int) -> NDArray[np.int32]:
    """Columns of the n largest values of each row of a dense matrix, ascending; int32."""
    return np.sort(_columns_of_largest(values, n), axis=1)


@jit
def _columns_of_largest(values: Any, n: int) -> Any:
    out = np.full((len(values), n), -1, np.int32)
    columns = np.arange(values.shape[1]).astype(np.int32)
    best = np.empty(n, np.float32)
    for row in range(len(values)):
        _topk_into(columns, values[row], n, out[row], best)
    return out


@jit
def best_in_rows(indptr: Any, scores: Any, n: int) -> Any:
    """(n_pairs,) is the pair among the n best of its row? Ties go to the earlier one."""
    out = np.zeros(len(scores), np.bool_)
    places = np.arange(len(scores)).astype(np.int32)
    best = np.empty(n, np.int32)
    score = np.empty(n, np.float32)
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        if stop - start <= n:
            out[start:stop] = True
            continue
        size = _topk_into(places[start:stop], scores[start:stop], n, best, score)
        for j in range(size):
            out[best[j]] = True
    return out
