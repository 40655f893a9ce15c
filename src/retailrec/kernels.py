"""Numba kernels over CSR arrays: the only loops over pairs.

All are serial, release the GIL and are cached on disk; `retailrec.engine` runs them over shards of
shoppers. Ties are always broken by the lower item code, so reruns and shards agree.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

_jit = nb.njit(cache=True, nogil=True)


@_jit
def _worse(score_a: float, item_a: int, score_b: float, item_b: int) -> bool:
    """True if (score, item) a ranks behind b."""
    return score_a < score_b or (score_a == score_b and item_a > item_b)


@_jit
def _sift_down(scores: Any, items: Any, start: int, size: int) -> None:
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


@_jit
def _heap_to_sorted(scores: Any, items: Any, size: int) -> None:
    """Turn a worst-at-root heap into best-first order, in place."""
    for last in range(size - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        items[0], items[last] = items[last], items[0]
        _sift_down(scores, items, 0, last)


@_jit
def topk_rows(indptr: Any, items: Any, scores: Any, k: int) -> tuple[Any, Any]:
    """Best k of each CSR row: items (n, k) int32 padded with -1, scores (n, k) f32 padded with -inf.

    NaN and -inf scores are left out.
    """
    n = len(indptr) - 1
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    for row in range(n):
        _topk_into(items, scores, indptr[row], indptr[row + 1], k, out_items[row], out_scores[row])
    return out_items, out_scores


@_jit
def _topk_into(
    items: Any, scores: Any, start: int, stop: int, k: int, out_items: Any, out_scores: Any
) -> int:
    size = 0
    for j in range(start, stop):
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
            _sift_down(out_scores, out_items, 0, k)
    if size < k:
        for root in range(size // 2 - 1, -1, -1):
            _sift_down(out_scores, out_items, root, size)
    _heap_to_sorted(out_scores, out_items, size)
    return size


@_jit
def product_topk(
    indptr: Any, indices: Any, weights: Any, s_indptr: Any, s_indices: Any, s_data: Any,
    b_indptr: Any, b_indices: Any, b_data: Any, allowed: Any, k: int,
) -> tuple[Any, Any]:  # fmt: skip
    """Best k items a row of W x S + B, all CSR; an item whose terms add up to 0 is not proposed.

    W (`indptr`, `indices`, `weights`) and B have a row a shopper; S and B have a column an item. B
    may be empty: a row pointer of zeros.
    """
    n = len(indptr) - 1
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    total = np.where(allowed, np.float32(0), np.float32(-np.inf))
    touched, values = np.empty(0, np.int32), np.empty(0, np.float32)
    for row in range(n):
        size, terms = 0, b_indptr[row + 1] - b_indptr[row]
        for j in range(indptr[row], indptr[row + 1]):
            terms += s_indptr[indices[j] + 1] - s_indptr[indices[j]]
        if terms >= len(touched):  # more items than terms are not touched, whatever the values
            touched, values = np.empty(2 * terms + 1, np.int32), np.empty(2 * terms + 1, np.float32)
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
        for j in range(size):
            value = total[touched[j]]
            values[j] = value if value != 0 else -np.inf  # it stands there twice, or adds up to nothing
            total[touched[j]] = 0.0
        _topk_into(touched, values, 0, size, k, out_items[row], out_scores[row])
    return out_items, out_scores


@_jit
def product_gather(
    indptr: Any, indices: Any, weights: Any, s_indptr: Any, s_indices: Any, s_data: Any,
    pool_indptr: Any, pool_items: Any, n_items: int,
) -> tuple[Any, Any]:  # fmt: skip
    """(weighted histories) x (item-item), read at the pool's pairs: sum and largest term, f32."""
    out_sum = np.zeros(len(pool_items), np.float32)
    out_max = np.zeros(len(pool_items), np.float32)
    place = np.full(n_items, -1, np.int32)  # where in the pool an item of the row's is
    for row in range(len(indptr) - 1):
        for p in range(pool_indptr[row], pool_indptr[row + 1]):
            place[pool_items[p]] = p
        for j in range(indptr[row], indptr[row + 1]):
            item, weight = indices[j], weights[j]
            if weight == 0:
                continue
            for s in range(s_indptr[item], s_indptr[item + 1]):
                p = place[s_indices[s]]
                if p >= 0:
                    term = weight * s_data[s]
                    out_sum[p] += term
                    out_max[p] = max(term, out_max[p])
        for p in range(pool_indptr[row], pool_indptr[row + 1]):
            place[pool_items[p]] = -1
    return out_sum, out_max


@_jit
def find_pairs(indptr: Any, indices: Any, pool_indptr: Any, pool_items: Any) -> Any:
    """Position in the CSR of each pool pair, -1 where the shopper has no such pair; int64.

    Both sides are sorted by item within a row, so one walk over each row does it.
    """
    out = np.full(len(pool_items), -1, np.int64)
    for row in range(len(indptr) - 1):
        j, stop = indptr[row], indptr[row + 1]
        for p in range(pool_indptr[row], pool_indptr[row + 1]):
            item = pool_items[p]
            while j < stop and indices[j] < item:
                j += 1
            if j < stop and indices[j] == item:
                out[p] = j
    return out


@_jit
def find_listed(indptr: Any, indices: Any, listed: Any) -> Any:
    """As `find_pairs` for lists (n_rows, k) in any order, by bisection; (n_rows, k) int64."""
    out = np.full(listed.shape, -1, np.int64)
    for row in range(listed.shape[0]):
        for rank in range(listed.shape[1]):
            item = listed[row, rank]
            low, high = indptr[row], indptr[row + 1]
            while low < high:
                middle = (low + high) // 2
                if indices[middle] < item:
                    low = middle + 1
                else:
                    high = middle
            if item >= 0 and low < indptr[row + 1] and indices[low] == item:
                out[row, rank] = low
    return out


@_jit
def union_rows(indptr: Any, items: Any, n_rows: int) -> tuple[Any, Any]:
    """Distinct items of each row, ascending: CSR (indptr int64, items int32). -1 is dropped."""
    out_indptr = np.zeros(n_rows + 1, np.int64)
    out = np.empty(len(items), np.int32)
    size = 0
    for row in range(n_rows):
        ordered = np.sort(items[indptr[row] : indptr[row + 1]])
        previous = -1
        for item in ordered:
            if item != previous and item >= 0:
                out[size] = item
                size += 1
                previous = item
        out_indptr[row + 1] = size
    return out_indptr, out[:size].copy()


@_jit
def order_in_rows(indptr: Any, items: Any) -> Any:
    """Positions of the elements, row by row, ordered by item; equal ones stay in their order; int64."""
    out = np.empty(len(items), np.int64)
    for row in range(len(indptr) - 1):
        start, stop = indptr[row], indptr[row + 1]
        out[start:stop] = start + np.argsort(items[start:stop], kind="mergesort")
    return out


@_jit
def rank_in_rows(indptr: Any, scores: Any) -> Any:
    """Rank of each float32 score within its row, best 1, ties share the better rank; f32.

    Sorted are integers: a score's bits, ordered as the scores are, above its place in the row. That
    takes a third less time than sorting places by score.
    """
    out = np.empty(len(scores), np.float32)
    bits = scores.view(np.int32)
    keys = np.empty(np.diff(indptr).max() if len(indptr) > 1 else 0, np.int64)
    for row in range(len(indptr) - 1):
        start, size = indptr[row], indptr[row + 1] - indptr[row]
        for j in range(size):
            ordered = bits[start + j] if scores[start + j] != 0 else np.int32(0)  # -0.0 is 0.0
            if ordered < 0:
                ordered ^= np.int32(0x7FFFFFFF)
            keys[j] = (-1 - np.int64(ordered)) << 32 | j
        keys[:size].sort()
        rank = 1
        for position in range(size):
            if position and keys[position] >> 32 != keys[position - 1] >> 32:
                rank = position + 1
            out[start + (keys[position] & 0xFFFFFFFF)] = rank
    return out


@_jit
def gather(block: Any, rows: Any, out: Any, first_column: int) -> None:
    """out[i, first_column:] = block[rows[i]]; NaN where rows[i] < 0. Quick if both lie by column."""
    for c in range(block.shape[1]):
        for i in range(len(rows)):
            row = rows[i]
            out[i, first_column + c] = np.nan if row < 0 else block[row, c]


@_jit
def count_buyers(user: Any, item: Any, n_items: int) -> Any:
    """(n_items,) float64 distinct users of each item; the lines of a user lie together."""
    out = np.zeros(n_items)
    last = np.full(n_items, -1, np.int64)
    for i in range(len(user)):
        if last[item[i]] != user[i]:
            last[item[i]] = user[i]
            out[item[i]] += 1
    return out


@_jit
def group_sums(codes: Any, values: Any, n: int) -> Any:
    """(n,) float64 sum of the values of each group code; NaN counts as nothing."""
    out = np.zeros(n)
    for i in range(len(codes)):
        value = np.float64(values[i])
        if value == value:
            out[codes[i]] += value
    return out


@_jit
def group_moments(codes: Any, values: Any, n: int) -> tuple[Any, Any, Any]:
    """(n,) float64 number, sum and sum of squares of each group's values; NaN counts as nothing."""
    number, total, squares = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(len(codes)):
        value = np.float64(values[i])
        if value == value:
            number[codes[i]] += 1
            total[codes[i]] += value
            squares[codes[i]] += value * value
    return number, total, squares


@_jit
def group_extremes(codes: Any, values: Any, n: int, sign: float) -> Any:
    """(n,) float64 largest (`sign` 1) or smallest (-1) value of each group code; NaN without any."""
    out = np.full(n, np.nan)
    for i in range(len(codes)):
        value, best = np.float64(values[i]), out[codes[i]]
        if value == value and not sign * value <= sign * best:
            out[codes[i]] = value
    return out


@_jit
def run_sums(starts: Any, stop: int, values: Any) -> Any:
    """float64 sum of each run of values that begins at `starts`; NaN counts as nothing."""
    out = np.zeros(len(starts))
    for run in range(len(starts)):
        end = starts[run + 1] if run + 1 < len(starts) else stop
        total = 0.0
        for i in range(starts[run], end):
            value = np.float64(values[i])
            if value == value:
                total += value
        out[run] = total
    return out


@_jit
def run_moments(starts: Any, stop: int, values: Any) -> tuple[Any, Any, Any]:
    """As `group_moments`, of each run of values that begins at `starts`."""
    number, total, squares = np.zeros(len(starts)), np.zeros(len(starts)), np.zeros(len(starts))
    for run in range(len(starts)):
        end = starts[run + 1] if run + 1 < len(starts) else stop
        n, s, q = 0.0, 0.0, 0.0
        for i in range(starts[run], end):
            value = np.float64(values[i])
            if value == value:
                n += 1
                s += value
                q += value * value
        number[run], total[run], squares[run] = n, s, q
    return number, total, squares


@_jit
def run_extremes(starts: Any, stop: int, values: Any, sign: float) -> Any:
    """float64 largest (`sign` 1) or smallest (-1) value of each run; NaN without any."""
    out = np.full(len(starts), np.nan)
    for run in range(len(starts)):
        end = starts[run + 1] if run + 1 < len(starts) else stop
        for i in range(starts[run], end):
            value = np.float64(values[i])
            if value == value and not sign * value <= sign * out[run]:
                out[run] = value
    return out


@_jit
def number_groups(
    event_indptr: Any, code_of_event: Any, pair_indptr: Any, code_of_pair: Any, n_codes: int
) -> tuple[Any, int, Any]:
    """Number the (row, code) groups of events, and find the group of each pair of the same rows.

    Codes run from -1 (no code; a group of its own for events, none for pairs) to `n_codes` - 1.
    Returns (n_events,) int64, the number of groups, and (n_pairs,) int64 with -1 where there is none.
    """
    of_event = np.empty(len(code_of_event), np.int64)
    of_pair = np.full(len(code_of_pair), -1, np.int64)
    group = np.full(n_codes + 1, -1, np.int64)
    n_groups = 0
    for row in range(len(event_indptr) - 1):
        for i in range(event_indptr[row], event_indptr[row + 1]):
            code = code_of_event[i]
            if group[code] < 0:
                group[code] = n_groups
                n_groups += 1
            of_event[i] = group[code]
        for i in range(pair_indptr[row], pair_indptr[row + 1]):
            if code_of_pair[i] >= 0:
                of_pair[i] = group[code_of_pair[i]]
        for i in range(event_indptr[row], event_indptr[row + 1]):
            group[code_of_event[i]] = -1
    return of_event, n_groups, of_pair


def row_of_pair(indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row number of each element of a CSR."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


@_jit
def common_counts(c_indptr: Any, c_rows: Any, indptr: Any, indices: Any) -> Any:
    """Rows that hold both items, for each (item, neighbour) of a CSR; columns sorted; f32."""
    out = np.zeros(len(indices), np.float32)
    for item in range(len(indptr) - 1):
        for j in range(indptr[item], indptr[item + 1]):
            a, a_stop = c_indptr[item], c_indptr[item + 1]
            b, b_stop = c_indptr[indices[j]], c_indptr[indices[j] + 1]
            while a < a_stop and b < b_stop:
                if c_rows[a] == c_rows[b]:
                    out[j] += 1
                    a += 1
                    b += 1
                elif c_rows[a] < c_rows[b]:
                    a += 1
                else:
                    b += 1
    return out


@nb.njit(cache=True, nogil=True, fastmath=True)
def dot_pairs(user_factors: Any, item_factors: Any, indptr: Any, items: Any) -> Any:
    """Dot product of the factors of each pair; f32."""
    out = np.empty(len(items), np.float32)
    width = user_factors.shape[1]
    for row in range(len(indptr) - 1):
        user = user_factors[row]
        for p in range(indptr[row], indptr[row + 1]):
            item = item_factors[items[p]]
            total = np.float32(0)
            for f in range(width):
                total += user[f] * item[f]
            out[p] = total
    return out


@_jit
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
        _topk_into(everything, scores, 0, n_items, k, out_items[row], out_scores[row])
    return out_items, out_scores


@_jit
def keep_largest(values: Any, n: int) -> Any:
    """Columns of the n largest values of each row of a dense matrix, ascending; int32."""
    out = np.empty((len(values), n), np.int32)
    columns = np.arange(values.shape[1]).astype(np.int32)
    best = np.empty(n, np.int32)
    score = np.empty(n, np.float32)
    for row in range(len(values)):
        best[:] = -1
        score[:] = -np.inf
        _topk_into(columns, values[row], 0, values.shape[1], n, best, score)
        out[row] = np.sort(best)
    return out


@_jit
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
        size = _topk_into(places, scores, start, stop, n, best, score)
        for j in range(size):
            out[best[j]] = True
    return out


@_jit
def choose_under_rules(
    indptr: Any, items: Any, scores: Any, category: Any, is_new: Any, k: int, cap: int, min_new: int,
    variety: float,
) -> Any:  # fmt: skip
    """The `k` best pairs of each row, slot by slot; a score of -inf is never taken.

    At most `cap` (0: any number) of a category (-1 is none) and at least `min_new` new ones. `variety`
    takes the pair with the largest (1 - variety) x scaled score - variety x [its category is there].
    Returns items and scores (n_rows, k), and for [min_new, cap] bool (n_rows, 2) each: did it keep a
    better pair out, did it give way?
    """
    n = len(indptr) - 1
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    bound, gave_way = np.zeros((n, 2), np.bool_), np.zeros((n, 2), np.bool_)
    for row in range(n):
        start, stop = indptr[row], indptr[row + 1]
        taken = np.zeros(stop - start, np.bool_)
        chosen = np.full(k, -1, np.int64)
        low, high = np.inf, -np.inf
        for p in range(start, stop):
            if scores[p] > -np.inf:
                low, high = min(low, scores[p]), max(high, scores[p])
        width = max(high - low, 1e-12)
        n_new = 0
        for slot in range(k):
            must_be_new = 0 < min_new - n_new >= k - slot
            best, free = -1, -1
            for relaxed in range(3):  # 0: all rules, 1: without min_new, 2: without the cap too
                best_value, free_value = -np.inf, -np.inf
                for p in range(start, stop):
                    if taken[p - start] or scores[p] == -np.inf:
                        continue
                    same = 0
                    if category[p] >= 0:
                        for s in range(slot):
                            same += category[chosen[s]] == category[p]
                    value = scores[p]
                    if variety > 0:
                        value = (1 - variety) * (scores[p] - low) / width - variety * (same > 0)
                    if value > free_value:
                        free, free_value = p, value
                    if cap > 0 and same >= cap and relaxed < 2:
                        continue
                    if must_be_new and not is_new[p] and relaxed < 1:
                        continue
                    if value > best_value:
                        best, best_value = p, value
                if best >= 0 or free < 0:
                    if relaxed >= 1 and best >= 0:
                        gave_way[row, 0] |= must_be_new and not is_new[best]
                        gave_way[row, 1] |= relaxed == 2
                    break
            if best < 0:
                break
            if best != free:
                if must_be_new and not is_new[free]:
                    bound[row, 0] = True
                else:
                    bound[row, 1] = True
            taken[best - start] = True
            chosen[slot] = best
            n_new += is_new[best]
            out_items[row, slot], out_scores[row, slot] = items[best], scores[best]
    return out_items, out_scores, bound, gave_way
