"""Numba loops of the allocation: what shoppers take at given prices, row by row.

Serial, without the GIL; `shadow_prices` runs them over shards of shoppers. Ties go to the lower item,
so reruns and shards agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np

_jit = nb.njit(cache=True, nogil=True)


class Rows(NamedTuple):
    """Pairs by shopper, and what each shopper's list must keep to.

    Attributes
    ----------
    indptr, item : pairs of each shopper (CSR), ordered by item code
    value, cost : (n_pairs,) worth and expected cost
    most, least : (n_users,) offers a shopper
    local_indptr, local, caps : groups of each item (CSR) of which one shopper gets only so many
    """

    indptr: Any
    item: Any
    value: Any
    cost: Any
    most: Any
    least: Any
    local_indptr: Any
    local: Any
    caps: Any


class Prices(NamedTuple):
    """Price of an offer and of a unit of its cost, by item; what a missing offer costs at most."""

    offer: Any
    cost: Any
    penalty: float


@_jit
def _sort_row(u: int, rows: Any, prices: Any, net: Any, order: Any) -> int:
    """Pairs of a shopper by value less price, best first; few, so by insertion. Returns how many."""
    start = rows.indptr[u]
    for p in range(start, rows.indptr[u + 1]):
        i = rows.item[p]
        x = rows.value[p] - prices.offer[i] - prices.cost[i] * rows.cost[p]
        j = p - start
        while j > 0 and net[j - 1] < x:
            net[j], order[j] = net[j - 1], order[j - 1]
            j -= 1
        net[j], order[j] = x, p
    return rows.indptr[u + 1] - start


@_jit
def _pick_row(
    u: int,
    size: int,
    rows: Any,
    penalty: float,
    net: Any,
    order: Any,
    used: Any,
    first_only: bool,
    state: Any,
) -> int:
    """Greedy choice of a sorted row: state 1 taken, -1 kept out by a cap, 0 not wanted; how many.

    An offer below zero is taken while the shopper has fewer than `least` and it costs less than
    `penalty`. With one group an item this is the best choice (a partition matroid); with `first_only`
    caps of further groups are ignored, so that it is an upper bound of the best choice.
    """
    most, least = rows.most[u], rows.least[u]
    taken = 0
    for j in range(size):
        state[j] = 0
        i = rows.item[order[j]]
        first, last = rows.local_indptr[i], rows.local_indptr[i + 1]
        if first_only:
            last = min(last, first + 1)
        blocked = False
        for at in range(first, last):
            blocked |= used[rows.local[at]] >= rows.caps[rows.local[at]]
        if blocked:
            state[j] = -1
        elif taken < most and (net[j] > 0 or (taken < least and net[j] > -penalty)):
            state[j] = 1
            taken += 1
            for at in range(first, last):
                used[rows.local[at]] += 1
    for j in range(size):
        if state[j] == 1:
            i = rows.item[order[j]]
            for at in range(rows.local_indptr[i], rows.local_indptr[i + 1]):
                used[rows.local[at]] = 0
    return taken


@_jit
def _longest(indptr: Any, first: int, last: int) -> int:
    width = 1
    for u in range(first, last):
        width = max(width, indptr[u + 1] - indptr[u])
    return width


@_jit
def demand_at_prices(first: int, last: int, rows: Any, prices: Any, near: float, out: Any) -> float:
    """What shoppers [first, last) take at these prices, added to `out`, and their value less prices.

    Rows of `out` (5, n_items): offers taken, their cost, and of the pairs whose decision a price change
    of `near` would turn: their number, cost, and squared cost. Returned is the sum of net values, less
    the penalty for each offer that is missing to `least`.
    """
    width = _longest(rows.indptr, first, last)
    net, order = np.empty(width), np.empty(width, np.int64)
    state = np.empty(width, np.int64)
    used = np.zeros(len(rows.caps), np.int64)
    total = 0.0
    for u in range(first, last):
        size = _sort_row(u, rows, prices, net, order)
        taken = _pick_row(u, size, rows, prices.penalty, net, order, used, True, state)
        total -= prices.penalty * max(rows.least[u] - taken, 0)
        entry = 0.0 if taken >= rows.least[u] else -prices.penalty  # below it no offer is taken
        worst_taken, best_left = entry, entry
        for j in range(size):
            if state[j] == 1 and taken == rows.most[u]:
                worst_taken = net[j]
        for j in range(size):
            if state[j] == 0:
                best_left = max(best_left, net[j])
                break
        for j in range(size):
            p = order[j]
            i = rows.item[p]
            if state[j] == 1:
                total += net[j]
                out[0, i] += 1
                out[1, i] += rows.cost[p]
                turns = net[j] - best_left < near
            else:
                turns = state[j] == 0 and rows.most[u] > 0 and worst_taken - net[j] < near
            if turns:
                out[2, i] += 1
                out[3, i] += rows.cost[p]
                out[4, i] += rows.cost[p] * rows.cost[p]
    return total


@_jit
def choose_at_prices(rows: Any, prices: Any, chosen: Any, margin: Any) -> None:
    """Each row's choice at these prices, all caps kept, and by what margin each pair is in or out."""
    n_users = len(rows.indptr) - 1
    width = _longest(rows.indptr, 0, n_users)
    net, order = np.empty(width), np.empty(width, np.int64)
    state = np.empty(width, np.int64)
    used = np.zeros(len(rows.caps), np.int64)
    for u in range(n_users):
        size = _sort_row(u, rows, prices, net, order)
        taken = _pick_row(u, size, rows, prices.penalty, net, order, used, False, state)
        worst_taken, best_left = 0.0, 0.0
        for j in range(size):
            if state[j] == 1 and taken == rows.most[u]:
                worst_taken = net[j]
        for j in range(size):
            if state[j] == 0:
                best_left = max(0.0, net[j])
                break
        for j in range(size):
            chosen[order[j]] = state[j] == 1
            margin[order[j]] = net[j] - (best_left if state[j] == 1 else max(worst_taken, 0.0))
