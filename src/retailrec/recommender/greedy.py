"""Greedy choice under counted rules: the kernel that fills lists slot by slot."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.csr import jit


class Begun(NamedTuple):
    """Lists that hold some items already, and what is wanted beside.

    Attributes
    ----------
    items : (n_users, any) int32 on the lists already; -1 pads
    n_new : (n_users,) how many of them the shopper never bought
    room : (n_users,) slots that are empty
    wanted : (n_users,) slots to fill now, at most `room`
    """

    items: NDArray[np.int32]
    n_new: NDArray[np.int64]
    room: NDArray[np.int64]
    wanted: NDArray[np.int64]


@jit
def choose_under_rules(
    indptr: Any,
    items: Any,
    scores: Any,
    category: Any,
    is_new: Any,
    begun: Any,
    n_new_begun: Any,
    room: Any,
    wanted: Any,
    cap: int,
    min_new: int,
    variety: float,
    keep_cap: bool = False,
) -> Any:
    """The best pairs of each row, slot by slot; a score of -inf or an item of `begun` is never taken.

    At most `cap` (0: any number) of a category (of each item; -1 is none) and at least `min_new` new
    ones, those of `begun` counted. `variety` takes the pair with the largest (1 - variety) x scaled
    score - variety x [its category is there]. With `keep_cap` a list rather ends than breaks the cap.
    Returns items and scores (n_rows, most wanted), and for
    [min_new, cap] bool (n_rows, 2) each: did it keep a better pair out, did it give way?
    """
    n, k = len(indptr) - 1, wanted.max() if len(wanted) else 0
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    bound, gave_way = np.zeros((n, 2), np.bool_), np.zeros((n, 2), np.bool_)
    for row in range(n):
        start, stop = indptr[row], indptr[row + 1]
        taken = np.zeros(stop - start, np.bool_)
        listed = np.full(begun.shape[1] + k, -1, np.int32)
        n_listed = 0
        for item in begun[row]:
            if item >= 0:
                listed[n_listed] = item
                n_listed += 1
        low, high = np.inf, -np.inf
        for p in range(start, stop):
            for s in range(n_listed):
                taken[p - start] |= items[p] == listed[s]
            if scores[p] > -np.inf:
                low, high = min(low, scores[p]), max(high, scores[p])
        width = max(high - low, 1e-12)
        n_new = n_new_begun[row]
        for slot in range(wanted[row]):
            must_be_new = 0 < min_new - n_new >= room[row] - slot
            best, free = -1, -1
            for relaxed in range(2 if keep_cap else 3):  # 1: without min_new, 2: without the cap too
                best_value, free_value = -np.inf, -np.inf
                for p in range(start, stop):
                    if taken[p - start] or scores[p] == -np.inf:
                        continue
                    same = 0
                    if category[items[p]] >= 0:
                        for s in range(n_listed):
                            same += category[listed[s]] == category[items[p]]
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
            listed[n_listed] = items[best]
            n_listed += 1
            n_new += is_new[best]
            out_items[row, slot], out_scores[row, slot] = items[best], scores[best]
    return out_items, out_scores, bound, gave_way
