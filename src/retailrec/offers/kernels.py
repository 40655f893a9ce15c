"""Numba loops of offers: what users take at given prices; the repair, while every bound holds.

Serial, without the GIL; `shadow_prices` runs them over shards of users. Ties go to the lower item, and
pairs are looked at in a given order, so reruns and shards agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from retailrec.compute.csr import jit


class Bounds(NamedTuple):
    """Constraints of each item (CSR), whether each adds up cost, its bounds; cost of each pair.

    Costs and budgets are whole ticks (`Problem.ticks`), so totals are exact.
    """

    of_indptr: Any
    of: Any
    is_cost: Any
    lower: Any
    upper: Any
    ticks: Any


class Choice(NamedTuple):
    """What is chosen so far."""

    user: Any  # (n_pairs,) shopper of each pair
    margin: Any  # (n_pairs,) by how much each pair is in or out at the prices
    chosen: Any  # (n_pairs,) bool
    taken: Any  # (n_users,) offers of each shopper
    total: Any  # (n_constraints,) offers, or ticks of cost, of each constraint


@jit
def _fits_shopper(p: int, leaving: int, rows: Any, choice: Any) -> bool:
    """May the shopper of `p` get it, once pair `leaving` (-1: none) of the same shopper has gone?"""
    u, i = choice.user[p], rows.item[p]
    if choice.taken[u] - (1 if leaving >= 0 else 0) >= rows.most[u]:
        return False
    for at in range(rows.local_indptr[i], rows.local_indptr[i + 1]):
        group, had = rows.local[at], 0
        for q in range(rows.indptr[u], rows.indptr[u + 1]):
            if choice.chosen[q] and q != leaving:
                other = rows.item[q]
                for there in range(rows.local_indptr[other], rows.local_indptr[other + 1]):
                    if rows.local[there] == group:
                        had += 1
        if had >= rows.caps[group]:
            return False
    return True


@jit
def _amount(k: int, p: int, bounds: Any) -> float:
    return bounds.ticks[p] if bounds.is_cost[k] else 1.0


@jit
def _holds(k: int, i: int, bounds: Any) -> bool:
    """Does constraint `k` count item `i`?"""
    found = False
    for at in range(bounds.of_indptr[i], bounds.of_indptr[i + 1]):
        found |= bounds.of[at] == k
    return found


@jit
def _fits_bounds(p: int, leaving: int, rows: Any, bounds: Any, choice: Any) -> bool:
    """With `p` instead of `leaving` (-1: none): all upper bounds kept and no minimum newly broken?"""
    i = rows.item[p]
    for at in range(bounds.of_indptr[i], bounds.of_indptr[i + 1]):
        k = bounds.of[at]
        after = choice.total[k] + _amount(k, p, bounds)
        if leaving >= 0 and _holds(k, rows.item[leaving], bounds):
            after -= _amount(k, leaving, bounds)
        if after > bounds.upper[k]:
            return False
    if leaving >= 0:
        other = rows.item[leaving]
        for at in range(bounds.of_indptr[other], bounds.of_indptr[other + 1]):
            k = bounds.of[at]
            if choice.total[k] - 1 < bounds.lower[k] and not _holds(k, i, bounds):
                return False
    return True


@jit
def _change(p: int, sign: int, rows: Any, bounds: Any, choice: Any) -> None:
    """Take pair `p` (sign 1) or give it back (-1)."""
    choice.chosen[p] = sign > 0
    choice.taken[choice.user[p]] += sign
    i = rows.item[p]
    for at in range(bounds.of_indptr[i], bounds.of_indptr[i + 1]):
        choice.total[bounds.of[at]] += sign * _amount(bounds.of[at], p, bounds)


@jit
def _may_leave(p: int, rows: Any, bounds: Any, choice: Any) -> bool:
    """Can pair `p` go without breaking a minimum of a constraint?"""
    i = rows.item[p]
    for at in range(bounds.of_indptr[i], bounds.of_indptr[i + 1]):
        if choice.total[bounds.of[at]] - 1 < bounds.lower[bounds.of[at]]:
            return False
    return True


@jit
def _is_spare(p: int, rows: Any, bounds: Any, choice: Any) -> bool:
    """Can pair `p` go without breaking its shopper's minimum or a constraint's?"""
    u = choice.user[p]
    return choice.taken[u] > rows.least[u] and _may_leave(p, rows, bounds, choice)


@jit
def add_in_order(order: Any, rows: Any, bounds: Any, choice: Any) -> int:
    """Take each pair of `order` that keeps every upper bound; how many were taken."""
    n = 0
    for p in order:
        if (
            not choice.chosen[p]
            and _fits_bounds(p, -1, rows, bounds, choice)
            and _fits_shopper(p, -1, rows, choice)
        ):
            _change(p, 1, rows, bounds, choice)
            n += 1
    return n


@jit
def drop_in_order(order: Any, rows: Any, bounds: Any, choice: Any) -> int:
    """Give back each chosen pair of `order` that no minimum needs; how many were."""
    n = 0
    for p in order:
        if choice.chosen[p] and _is_spare(p, rows, bounds, choice):
            _change(p, -1, rows, bounds, choice)
            n += 1
    return n


@jit
def _make_way(p: int, rows: Any, bounds: Any, choice: Any) -> int:
    """The shopper's chosen pair of least margin whose going lets `p` onto the list; -1: none."""
    u = choice.user[p]
    leaving = -1
    for q in range(rows.indptr[u], rows.indptr[u + 1]):
        if (
            choice.chosen[q]
            and (leaving < 0 or choice.margin[q] < choice.margin[leaving])
            and _may_leave(q, rows, bounds, choice)
            and _fits_shopper(p, q, rows, choice)
        ):
            leaving = q
    return leaving


@jit
def force_in_order(
    order: Any, wanted: int, weakest: Any, pointer: Any, rows: Any, bounds: Any, choice: Any
) -> int:
    """Take pairs of `order` until `wanted` are, pairs that no minimum needs making room; how many were.

    `weakest` lists pairs by margin, and `pointer` (n_constraints,) says how far each constraint has
    gone through it, so that all calls together go through it once a constraint.
    """
    n = 0
    for p in order:
        if n >= wanted:
            break
        i = rows.item[p]
        first, last = bounds.of_indptr[i], bounds.of_indptr[i + 1]
        hopeless = choice.chosen[p] or rows.most[choice.user[p]] == 0
        for at in range(first, last):
            hopeless |= _amount(bounds.of[at], p, bounds) > bounds.upper[bounds.of[at]]
        if hopeless:
            continue
        leaving = -1
        if not _fits_shopper(p, -1, rows, choice):
            leaving = _make_way(p, rows, bounds, choice)
            if leaving < 0:
                continue
            _change(leaving, -1, rows, bounds, choice)
        fits = True
        for at in range(first, last):
            k = bounds.of[at]
            amount = _amount(k, p, bounds)
            while choice.total[k] + amount > bounds.upper[k] and pointer[k] < len(weakest):
                q = weakest[pointer[k]]
                pointer[k] += 1
                if (
                    choice.chosen[q]
                    and _holds(k, rows.item[q], bounds)
                    and _is_spare(q, rows, bounds, choice)
                ):
                    _change(q, -1, rows, bounds, choice)
            fits &= choice.total[k] + amount <= bounds.upper[k]
        if fits:
            _change(p, 1, rows, bounds, choice)
            n += 1
        elif leaving >= 0 and _fits_bounds(leaving, -1, rows, bounds, choice):
            _change(leaving, 1, rows, bounds, choice)
    return n


@jit
def exchange_in_order(order: Any, weakest: Any, worth: Any, rows: Any, bounds: Any, choice: Any) -> int:
    """Take pairs of `order` that are worth more than those of `weakest` that make room; how many were.

    For budgets that are used up while products have stock left: `worth` (n_pairs,) is what a pair is
    worth beyond its cost at the budget's price, `order` lists pairs from the greatest, `weakest` chosen
    ones from the least. Ends at the first that does not pay.
    """
    n, at_weakest = 0, 0
    gone = np.empty(64, np.int64)
    for p in order:
        if choice.chosen[p] or not _fits_shopper(p, -1, rows, choice):
            continue
        lost, n_gone, reached = 0.0, 0, at_weakest
        while (
            not _fits_bounds(p, -1, rows, bounds, choice)
            and reached < len(weakest)
            and n_gone < len(gone)
            and lost < worth[p]
        ):
            q = weakest[reached]
            reached += 1
            if choice.chosen[q] and q != p and _is_spare(q, rows, bounds, choice):
                _change(q, -1, rows, bounds, choice)
                lost += worth[q]
                gone[n_gone] = q
                n_gone += 1
        if lost < worth[p] and _fits_bounds(p, -1, rows, bounds, choice):
            _change(p, 1, rows, bounds, choice)
            at_weakest = reached
            n += 1
            continue
        for at in range(n_gone):
            _change(gone[at], 1, rows, bounds, choice)
        if n_gone:
            break
    return n


@jit
def swap_in_rows(rows: Any, bounds: Any, choice: Any) -> int:
    """Exchange an offer for a better one of the same shopper where bounds allow; how many were."""
    n = 0
    for u in range(len(rows.indptr) - 1):
        if choice.taken[u] == 0:
            continue
        for p in range(rows.indptr[u], rows.indptr[u + 1]):
            if choice.chosen[p] or rows.value[p] <= 0:
                continue
            leaving = -1
            for q in range(rows.indptr[u], rows.indptr[u + 1]):
                if (
                    choice.chosen[q]
                    and rows.value[q] < rows.value[p]
                    and (leaving < 0 or rows.value[q] < rows.value[leaving])
                    and _fits_bounds(p, q, rows, bounds, choice)
                    and _fits_shopper(p, q, rows, choice)
                ):
                    leaving = q
            if leaving >= 0:
                _change(leaving, -1, rows, bounds, choice)
                _change(p, 1, rows, bounds, choice)
                n += 1
    return n


@jit
def force_rows(users: Any, weakest: Any, pointer: Any, rows: Any, bounds: Any, choice: Any) -> int:
    """As `force_in_order`, for shoppers who have fewer offers than they must; how many were taken."""
    n = 0
    for u in users:
        start, stop = rows.indptr[u], rows.indptr[u + 1]
        order = start + np.argsort(-choice.margin[start:stop], kind="mergesort")
        wanted = rows.least[u] - choice.taken[u]
        n += force_in_order(order, wanted, weakest, pointer, rows, bounds, choice)
    return n


@jit
def match_swaps(pair: Any, other: Any, rows: Any, bounds: Any, choice: Any) -> Any:
    """Couples of shoppers who could exchange offers: (n, 2) rows of the edge list.

    Edge e: the shopper of chosen pair `pair[e]` could as well have `other[e]`. Edges lie ordered by
    (lower item, higher item, whether the lower one is held), so that those who could exchange lie in
    neighbouring runs. Each shopper is in one couple at most. An exchange leaves counted offers as they
    are; budgets must hold even if every costly one happens, so `choice.total` grows.
    """
    swaps = np.empty((len(pair), 2), np.int64)
    n = 0
    busy = np.zeros(len(choice.taken), np.bool_)
    start = 0
    while start < len(pair):
        i, j = rows.item[pair[start]], rows.item[other[start]]
        stop = start
        while stop < len(pair) and rows.item[pair[stop]] == i and rows.item[other[stop]] == j:
            stop += 1
        end = stop
        while end < len(pair) and rows.item[pair[end]] == j and rows.item[other[end]] == i:
            end += 1
        a, b = start, stop
        while a < stop and b < end:
            u, v = choice.user[pair[a]], choice.user[pair[b]]
            if busy[u] or not _fits_shopper(other[a], pair[a], rows, choice):
                a += 1
            elif busy[v] or not _fits_shopper(other[b], pair[b], rows, choice):
                b += 1
            else:
                more_i = bounds.ticks[other[b]] - bounds.ticks[pair[a]]
                more_j = bounds.ticks[other[a]] - bounds.ticks[pair[b]]
                if _reserve(i, more_i, j, more_j, bounds, choice):
                    swaps[n, 0], swaps[n, 1] = a, b
                    n += 1
                    busy[u] = busy[v] = True
                a += 1
                b += 1
        start = end
    return swaps[:n].copy()


@jit
def _reserve(i: int, more_i: float, j: int, more_j: float, bounds: Any, choice: Any) -> bool:
    """Set aside what an exchange of items `i` and `j` would add to budgets, if all of them hold it."""
    for really in range(2):
        for at in range(bounds.of_indptr[i], bounds.of_indptr[i + 1]):
            k = bounds.of[at]
            more = more_i + (more_j if _holds(k, j, bounds) else 0.0)
            if bounds.is_cost[k] and more > 0:
                if choice.total[k] + more > bounds.upper[k]:
                    return False
                if really:
                    choice.total[k] += more
        for at in range(bounds.of_indptr[j], bounds.of_indptr[j + 1]):
            k = bounds.of[at]
            if bounds.is_cost[k] and more_j > 0 and not _holds(k, i, bounds):
                if choice.total[k] + more_j > bounds.upper[k]:
                    return False
                if really:
                    choice.total[k] += more_j
    return True


class Rows(NamedTuple):
    """Pairs by shopper, and what each shopper's list must keep to."""

    indptr: Any  # pairs of each shopper (CSR), ordered by item code
    item: Any
    value: Any  # (n_pairs,) worth
    cost: Any  # (n_pairs,) expected cost
    most: Any  # (n_users,) offers a shopper
    least: Any
    local_indptr: Any  # groups of each item (CSR) of which one shopper gets only so many
    local: Any
    caps: Any


class Prices(NamedTuple):
    """Price of an offer and of a unit of its cost, by item; what a missing offer costs at most."""

    offer: Any
    cost: Any
    penalty: float


@jit
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


@jit
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


@jit
def _longest(indptr: Any, first: int, last: int) -> int:
    width = 1
    for u in range(first, last):
        width = max(width, indptr[u + 1] - indptr[u])
    return width


@jit
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


@jit
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
