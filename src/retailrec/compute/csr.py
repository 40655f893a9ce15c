"""Numba kernels over CSR arrays; with those of `topk` and `groups` the only loops over pairs.

All are serial, release the GIL and are cached on disk; `shards` runs them over shards of
users.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba as nb
import numpy as np
from numba.core.caching import FunctionCache
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


class _Kept(FunctionCache):
    """What was compiled, on the disk; where that is full or was cut short, no call fails by it."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # what is left of a file after a loss of power may read as anything
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator of kernels, which are compiled once and kept where that can be written.

    See ``NUMBA_CACHE_DIR``. Where no folder can be, each process compiles them again.
    """

    def decorate(kernel: Callable[..., Any]) -> Any:
        made = nb.njit(nogil=True, **options)(kernel)
        with suppress(RuntimeError):  # there is no such folder
            made._cache = _Kept(kernel)  # type: ignore[no-untyped-call]
        return made

    return decorate


jit = compiled()


@jit
def _sort(keys: Any) -> None:
    """Sort int64 keys in place. All kernels sort such keys: another sort takes a second to compile."""
    keys.sort()


@jit
def _longest(indptr: Any) -> int:
    """Elements of the longest row; 0 without rows."""
    longest = 0
    for row in range(len(indptr) - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    return longest


@jit
def product_gather(
    indptr: Any,
    indices: Any,
    weights: Any,
    s_indptr: Any,
    s_indices: Any,
    s_data: Any,
    pool_indptr: Any,
    pool_items: Any,
    n_items: int,
) -> tuple[Any, Any]:
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


@jit
def find_pairs(indptr: Any, indices: Any, pool_indptr: Any, pool_items: Any) -> Any:
    """Position in the CSR of each pool pair, -1 where the user has no such pair; int64.

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


@jit
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


@jit
def leave_out(items: Any, scores: Any, w_indptr: Any, w_items: Any, k: int) -> tuple[Any, Any]:
    """Lists (n_rows, any) without a CSR's pairs, cut to k: items (n_rows, k) int32, scores f32.

    -1 and -inf pad; items of a row of the CSR are ascending.
    """
    out_items = np.full((len(items), k), -1, np.int32)
    out_scores = np.full((len(items), k), -np.inf, np.float32)
    for row in range(len(items)):
        size = 0
        unwanted = w_items[w_indptr[row] : w_indptr[row + 1]]
        for rank in range(items.shape[1]):
            item = items[row, rank]
            place = np.searchsorted(unwanted, item)
            if item < 0 or (place < len(unwanted) and unwanted[place] == item):
                continue
            if size == k:
                break
            out_items[row, size], out_scores[row, size] = item, scores[row, rank]
            size += 1
    return out_items, out_scores


@jit
def union_rows(indptr: Any, items: Any, n_rows: int) -> tuple[Any, Any]:
    """Distinct items of each row, ascending: CSR (indptr int64, items int32). -1 is dropped."""
    out_indptr = np.zeros(n_rows + 1, np.int64)
    out = np.empty(len(items), np.int32)
    keys = np.empty(_longest(indptr), np.int64)
    size = 0
    for row in range(n_rows):
        start, stop = indptr[row], indptr[row + 1]
        for j in range(start, stop):
            keys[j - start] = items[j]
        _sort(keys[: stop - start])
        previous = -1
        for j in range(stop - start):
            item = keys[j]
            if item != previous and item >= 0:
                out[size] = item
                size += 1
                previous = item
        out_indptr[row + 1] = size
    return out_indptr, out[:size].copy()


@jit
def order_in_rows(indptr: Any, items: Any) -> Any:
    """Positions of the elements, row by row, ordered by item; equal ones stay in their order; int64."""
    out = np.empty(len(items), np.int64)
    keys = np.empty(_longest(indptr), np.int64)
    for row in range(len(indptr) - 1):
        start, size = indptr[row], indptr[row + 1] - indptr[row]
        for j in range(size):
            keys[j] = np.int64(items[start + j]) << 32 | j
        _sort(keys[:size])
        for j in range(size):
            out[start + j] = start + (keys[j] & 0xFFFFFFFF)
    return out


@jit
def rank_in_rows(indptr: Any, scores: Any) -> Any:
    """Rank of each float32 score within its row, best 1, ties share the better rank; f32.

    Sorted are integers: a score's bits, ordered as the scores are, above its place in the row. That
    takes a third less time than sorting places by score.
    """
    out = np.empty(len(scores), np.float32)
    bits = scores.view(np.int32)
    keys = np.empty(_longest(indptr), np.int64)
    for row in range(len(indptr) - 1):
        start, size = indptr[row], indptr[row + 1] - indptr[row]
        for j in range(size):
            ordered = bits[start + j] if scores[start + j] != 0 else np.int32(0)  # -0.0 is 0.0
            if ordered < 0:
                ordered ^= np.int32(0x7FFFFFFF)
            keys[j] = (-1 - np.int64(ordered)) << 32 | j
        _sort(keys[:size])
        rank = 1
        for position in range(size):
            if position and keys[position] >> 32 != keys[position - 1] >> 32:
                rank = position + 1
            out[start + (keys[position] & 0xFFFFFFFF)] = rank
    return out


@jit
def place_in_rows(indptr: Any, scores: Any, given_indptr: Any, given: Any) -> Any:
    """Rank that each given score has among the scores of its row, 1 above all of them; f32.

    Of the row's own scores it is `rank_in_rows`.
    """
    out = np.empty(len(given), np.float32)
    for row in range(len(indptr) - 1):
        ordered = np.sort(scores[indptr[row] : indptr[row + 1]])
        for at in range(given_indptr[row], given_indptr[row + 1]):
            out[at] = 1 + len(ordered) - np.searchsorted(ordered, given[at], side="right")
    return out


@jit
def gather(block: Any, rows: Any, out: Any, first_column: int) -> None:
    """out[i, first_column:] = block[rows[i]]; NaN where rows[i] < 0. Quick if both lie by column."""
    for c in range(block.shape[1]):
        for i in range(len(rows)):
            row = rows[i]
            out[i, first_column + c] = np.nan if row < 0 else block[row, c]


@jit
def common_counts(
    c_indptr: Any, c_rows: Any, o_indptr: Any, o_rows: Any, indptr: Any, indices: Any
) -> Any:
    """Rows that both hold, for each (item, neighbour) of a CSR; f32.

    `c_rows` are the sorted rows of each item, `o_rows` those of each neighbour.
    """
    out = np.zeros(len(indices), np.float32)
    for item in range(len(indptr) - 1):
        for j in range(indptr[item], indptr[item + 1]):
            a, a_stop = c_indptr[item], c_indptr[item + 1]
            b, b_stop = o_indptr[indices[j]], o_indptr[indices[j] + 1]
            while a < a_stop and b < b_stop:
                if c_rows[a] == o_rows[b]:
                    out[j] += 1
                    a += 1
                    b += 1
                elif c_rows[a] < o_rows[b]:
                    a += 1
                else:
                    b += 1
    return out


@compiled(fastmath=True)
def dot_pairs(user_factors: Any, item_factors: Any, indptr: Any, items: Any) -> Any:
    """Dot product of the factors of each pair, summed in double precision; f32."""
    out = np.empty(len(items), np.float32)
    width = user_factors.shape[1]
    for row in range(len(indptr) - 1):
        user = user_factors[row]
        for p in range(indptr[row], indptr[row + 1]):
            item = item_factors[items[p]]
            total = 0.0
            for f in range(width):
                total += np.float64(user[f]) * np.float64(item[f])
            out[p] = total
    return out


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def conjugate_steps(
    indptr: Any, items: Any, confidence: Any, x: Any, y: Any, gram: Any, n_steps: int
) -> None:
    """Some steps of conjugate gradients from each row of `x` towards that of `least_squares`, in place.

    Takács, Pilászy & Tikk, RecSys 2011. A row without elements becomes zero.
    """
    width = y.shape[1]
    residual, direction, product = np.empty(width), np.empty(width), np.empty(width)
    for row in range(len(indptr) - 1):
        own, start, stop = x[row], indptr[row], indptr[row + 1]
        if start == stop:
            own[:] = 0.0
            continue
        for a in range(width):
            total = 0.0
            for b in range(width):
                total += gram[a, b] * own[b]
            residual[a] = -total
        for j in range(start, stop):
            other, total = y[items[j]], 0.0
            for a in range(width):
                total += other[a] * own[a]
            total = confidence[j] - (confidence[j] - 1) * total
            for a in range(width):
                residual[a] += total * other[a]
        left = 0.0
        for a in range(width):
            direction[a] = residual[a]
            left += residual[a] * residual[a]
        for _ in range(n_steps):
            if left < 1e-20:
                break
            for a in range(width):
                total = 0.0
                for b in range(width):
                    total += gram[a, b] * direction[b]
                product[a] = total
            for j in range(start, stop):
                other, total = y[items[j]], 0.0
                for a in range(width):
                    total += other[a] * direction[a]
                total *= confidence[j] - 1
                for a in range(width):
                    product[a] += total * other[a]
            total = 0.0
            for a in range(width):
                total += direction[a] * product[a]
            length, before, left = left / total, left, 0.0
            for a in range(width):
                own[a] += length * direction[a]
                residual[a] -= length * product[a]
                left += residual[a] * residual[a]
            for a in range(width):
                direction[a] = residual[a] + left / before * direction[a]


@compiled(error_model="numpy")
def least_squares(indptr: Any, items: Any, confidence: Any, y: Any, gram: Any) -> Any:
    """(n_rows, width) x with (`gram` + sum of (c - 1) y y') x = sum of c y over each row of a CSR.

    c are the elements' confidences and y the rows of `y`; without elements x is zero. All are float64.
    A row that has no solution is NaN.
    """
    width = y.shape[1]
    out, normal = np.zeros((len(indptr) - 1, width)), np.empty((width, width))
    for row in range(len(out)):
        start, size = indptr[row], indptr[row + 1] - indptr[row]
        if not size:
            continue
        some, weighted = np.empty((size, width)), np.empty((size, width))
        for j in range(size):
            other, weight = y[items[start + j]], confidence[start + j]
            for a in range(width):
                some[j, a] = other[a]
                weighted[j, a] = (weight - 1) * other[a]
                out[row, a] += weight * other[a]
        np.dot(some.T, weighted, normal)
        for a in range(width):  # by Cholesky's factor, which stands below the diagonal
            for b in range(a + 1):
                total = gram[a, b] + normal[a, b]
                for f in range(b):
                    total -= normal[a, f] * normal[b, f]
                normal[a, b] = np.sqrt(total) if a == b else total / normal[b, b]
        for a in range(width):
            for f in range(a):
                out[row, a] -= normal[a, f] * out[row, f]
            out[row, a] /= normal[a, a]
        for a in range(width - 1, -1, -1):
            for f in range(a + 1, width):
                out[row, a] -= normal[f, a] * out[row, f]
            out[row, a] /= normal[a, a]
    return out
