"""From prices to a whole answer that keeps every bound: admit, meet minima, fill, exchange.

At the best prices a few constraints are a little over or under, since shoppers can't be split. Pairs
are admitted from the firmest decision to the loosest, as long as every upper bound holds; then minima
are met, pairs that no minimum needs making room; then what is left is filled and exchanged. Upper
bounds are never broken. A minimum that can't be met gives way, and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.csr import pair_keys, pairs_of_keys, row_of_pair
from retailrec.offers import kernels
from retailrec.offers.problem import SLACK
from retailrec.offers.shadow_prices import DualProblem, Floats

_ROUNDS = 5  # of meeting minima, and of exchanging


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    chosen: NDArray[np.bool_]  # (n_pairs,)
    value: float  # sum of the chosen pairs' values
    total: Floats  # (n_constraints,) offers or expected cost of each constraint
    taken: NDArray[np.int64]  # (n_users,) offers of each shopper
    missing: Floats  # (n_constraints,) offers missing to each minimum
    missing_users: NDArray[np.int64]  # (n_users,) offers missing to each shopper's minimum

    @property
    def shortfall(self) -> int:
        """Offers missing to all minima together."""
        return int(self.missing.sum() + self.missing_users.sum())


def answer_of(dual: DualProblem, chosen: NDArray[np.bool_]) -> Answer:
    """What a choice adds up to."""
    problem = dual.problem
    item = problem.item[chosen]
    number = np.bincount(item, minlength=problem.n_items).astype(float)
    ticks = np.bincount(item, weights=problem.ticks[chosen], minlength=problem.n_items)
    cost = (dual.counts @ ticks) / problem.per_unit
    total = np.where(dual.is_cost, cost, dual.counts @ number)
    taken = np.add.reduceat(np.append(chosen, False), problem.indptr[:-1], dtype=np.int64)
    return Answer(
        chosen,
        float(problem.value[chosen].sum()),
        total,
        taken,
        np.maximum(np.where(np.isfinite(dual.lower), dual.lower, 0.0) - total, 0.0),
        np.maximum(dual.least - taken, 0),
    )


def bounds_of(dual: DualProblem) -> kernels.Bounds:
    """The bounds that every answer keeps to, as the kernels take them."""
    p = dual.problem
    return kernels.Bounds(p.of_indptr, p.of_constraint, dual.is_cost, dual.lower, p.ceiling, p.ticks)


def repair(dual: DualProblem, prices: Floats, shares: Floats | None = None) -> Answer:
    """A whole answer near the choice at these prices, or near shares of pairs; deterministic.

    Upper bounds, exclusions and caps hold; `Answer.missing` tells minima that were not met.
    """
    problem = dual.problem
    n_pairs = len(problem.item)
    wanted, margin = np.zeros(n_pairs, np.bool_), np.zeros(n_pairs)
    offer, cost = dual.item_prices(prices)
    rows = dual.rows
    kernels.choose_at_prices(rows, kernels.Prices(offer, cost, dual.penalty), wanted, margin)
    bounds = bounds_of(dual)
    choice = kernels.Choice(
        user=row_of_pair(problem.indptr).astype(np.int32),
        margin=margin,
        chosen=np.zeros(n_pairs, np.bool_),
        taken=np.zeros(problem.n_users, np.int64),
        total=np.zeros(len(dual.lower)),
    )
    order = margin if shares is None else shares
    firm = np.flatnonzero(wanted if shares is None else shares > 0.01)
    kernels.add_in_order(firm[np.argsort(-order[firm], kind="stable")], rows, bounds, choice)
    _meet_minima(dual, bounds, choice)
    net = problem.value - offer[problem.item] - cost[problem.item] * problem.cost
    best, best_value = choice.chosen, -np.inf
    for _ in range(_ROUNDS):
        _fill(dual, net, bounds, choice)
        worthless = np.flatnonzero(choice.chosen & (problem.value < 0))
        worthless = worthless[np.argsort(problem.value[worthless], kind="stable")]
        kernels.drop_in_order(worthless, rows, bounds, choice)
        kernels.swap_in_rows(rows, bounds, choice)
        value = float(problem.value[choice.chosen].sum())
        if value <= best_value:
            break
        best, best_value = choice.chosen.copy(), value
        if not _exchange(dual, cost, bounds, choice):
            break
    return answer_of(dual, best)


def _fill(dual: DualProblem, net: Floats, bounds: kernels.Bounds, choice: kernels.Choice) -> None:
    """Add what still fits, most net value first."""
    problem = dual.problem
    room = bounds.upper - choice.total
    spare = np.full(problem.n_items, np.inf)  # of the tightest budget
    for k in np.flatnonzero(dual.is_cost):
        items = problem.constraints[k].items
        spare[items] = np.minimum(spare[items], room[k])
    left = _open_pairs(dual, bounds, choice) & (problem.ticks <= spare[problem.item])
    places = np.flatnonzero(left)
    kernels.add_in_order(places[np.argsort(-net[places], kind="stable")], dual.rows, bounds, choice)


def _exchange(
    dual: DualProblem, cost_price: Floats, bounds: kernels.Bounds, choice: kernels.Choice
) -> int:
    """Spend budgets on offers of products with stock left instead of on those that are worth less."""
    problem = dual.problem
    if not cost_price.any():
        return 0
    beyond_cost = problem.value - cost_price[problem.item] * problem.cost
    budgeted = (cost_price > 0)[problem.item]
    places = np.flatnonzero(_open_pairs(dual, bounds, choice) & budgeted & (beyond_cost > 0))
    chosen = np.flatnonzero(choice.chosen & budgeted)
    return kernels.exchange_in_order(
        places[np.argsort(-beyond_cost[places], kind="stable")],
        chosen[np.argsort(beyond_cost[chosen], kind="stable")],
        beyond_cost,
        dual.rows,
        bounds,
        choice,
    )


def _open_pairs(dual: DualProblem, bounds: kernels.Bounds, choice: kernels.Choice) -> NDArray[np.bool_]:
    """(n_pairs,) worth something, not chosen, and kept out by no limit and no full list."""
    problem = dual.problem
    full = np.where(dual.is_cost, 0.0, bounds.upper - choice.total < 1)
    is_open = (dual.counts.T @ full) == 0
    left = ~choice.chosen & (problem.value > 0) & is_open[problem.item]
    left &= (choice.taken < problem.most)[choice.user]
    return left


def _meet_minima(dual: DualProblem, bounds: kernels.Bounds, choice: kernels.Choice) -> None:
    rows = dual.rows
    by_item: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    for _ in range(_ROUNDS):
        short = np.flatnonzero(choice.total < dual.lower)
        users = np.flatnonzero(choice.taken < dual.least)
        if not len(short) and not len(users):
            return
        chosen = np.flatnonzero(choice.chosen)
        weakest = chosen[np.argsort(choice.margin[chosen], kind="stable")]
        pointer = np.zeros(len(dual.lower), np.int64)
        if len(short) and by_item is None:
            order = np.argsort(rows.item, kind="stable")
            sizes = np.bincount(rows.item, minlength=dual.problem.n_items)
            by_item = order, np.concatenate([[0], np.cumsum(sizes)])
        n = 0
        for k in short:
            assert by_item is not None
            order, start = by_item
            items = dual.problem.constraints[k].items
            pairs = np.concatenate(
                [order[start[i] : start[i + 1]] for i in items] or [np.zeros(0, np.int64)]
            )
            pairs = pairs[np.argsort(-choice.margin[pairs], kind="stable")]
            missing = int(dual.lower[k] - choice.total[k])
            n += kernels.force_in_order(pairs, missing, weakest, pointer, rows, bounds, choice)
        n += kernels.force_rows(users, weakest, pointer, rows, bounds, choice)
        if not n:
            return


def left_at_half_price(dual: DualProblem, prices: Floats, answer: Answer) -> float:
    """Net worth of offers left out of lists with room, though worth twice their price or more."""
    problem = dual.problem
    wanted, margin = np.zeros(len(problem.item), np.bool_), np.zeros(len(problem.item))
    offer, cost = dual.item_prices(prices)
    kernels.choose_at_prices(dual.rows, kernels.Prices(offer, cost, dual.penalty), wanted, margin)
    price = offer[problem.item] + cost[problem.item] * problem.cost
    room = (answer.taken < problem.most)[row_of_pair(problem.indptr)]
    left = wanted & ~answer.chosen & room & (problem.value > 2 * np.maximum(price, 0))
    return float((problem.value - price)[left].sum())


MOST_RELAXED = 200_000  # pairs of a linear program; of more, it is of some shoppers


def relaxed(dual: DualProblem) -> tuple[Floats, Floats | None] | None:
    """Prices, and shares of pairs, of the answer that is worth most if pairs may be split (HiGHS).

    For campaigns in which many pairs are worth the same, and turn at one price that no step of
    `solve_duals` finds. All shares but a few are 0 or 1. Of a campaign of more than
    `MOST_RELAXED` pairs there are no shares, and prices are those of some of its shoppers, under as
    large a part of the bounds. None if the search ended without a solution.
    """
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    some = _some_shoppers(dual) if len(dual.problem.item) > MOST_RELAXED else dual
    n, k = len(some.problem.item), len(some.lower)
    rows, low, high = _milp_rows(some)
    least, most = np.flatnonzero(np.isfinite(low)), np.flatnonzero(np.isfinite(high))
    cost = np.concatenate([-some.problem.value, np.full(rows.shape[1] - n, some.penalty)])
    top = np.concatenate([np.ones(n), np.full(len(cost) - n, np.inf)])
    between: Any = np.column_stack([np.zeros(len(cost)), top])
    sides: Any = vstack([-rows[least], rows[most]]).tocsr()
    found = linprog(
        cost,
        A_ub=sides,
        b_ub=np.concatenate([-low[least], high[most]]),
        bounds=between,
        method="highs-ipm",
    )
    if found.status or found.x is None:
        return None
    price = np.zeros(len(low))
    price[least] += found.ineqlin.marginals[: len(least)]
    price[most] -= found.ineqlin.marginals[len(least) :]
    price[k : 2 * k] /= _units(some)
    return dual.allowed(price[:k] + price[k : 2 * k]), found.x[:n] if some is dual else None


def _some_shoppers(dual: DualProblem) -> DualProblem:
    """The problem of some shoppers, drawn, with `MOST_RELAXED` pairs, and their part of all bounds."""
    problem = dual.problem
    sizes = np.diff(problem.indptr)
    order = np.random.default_rng(0).permutation(problem.n_users)
    users = np.sort(order[: np.searchsorted(np.cumsum(sizes[order]), MOST_RELAXED)])
    pairs = np.flatnonzero(np.isin(row_of_pair(problem.indptr), users))
    part = replace(
        problem,
        user_ids=problem.user_ids.gather(users),
        indptr=np.concatenate([[0], np.cumsum(sizes[users])]),
        item=problem.item[pairs],
        value=problem.value[pairs],
        cost=problem.cost[pairs],
        ticks=problem.ticks[pairs],
        most=problem.most[users],
        least=problem.least[users],
    )
    share = len(users) / problem.n_users
    return DualProblem(part, share * dual.lower, share * dual.upper, dual.least[users], dual.threads)


MOST_PAIRS = 20_000  # beyond this nothing is proven
SURE = 1e-4  # share of its value that the proven answer may miss
_NODES = 2_000  # of branch and bound; a limit of time would not be deterministic


def fewest_missing(dual: DualProblem) -> Answer | None:
    """An answer that misses as few offers to minima as any can, to 1 in 10,000 the best of these.

    None if the problem is too large, or the search ended without proof.
    """
    n = len(dual.problem.item)
    if n > MOST_PAIRS:
        return None
    rows, low, high = _milp_rows(dual)
    missing = np.concatenate([np.zeros(n), np.ones(rows.shape[1] - n)])
    fewest = _milp(missing, rows, low, high, n, gap=0.0)
    if fewest is None:
        return None
    from scipy.sparse import csr_array, vstack

    least = round(float(missing @ fewest))
    rows = vstack([rows, csr_array(missing[None, :])]).tocsr()
    low, high = np.append(low, -np.inf), np.append(high, least + 0.5)
    worth = np.concatenate([-dual.problem.value, np.zeros(len(missing) - n)])
    best = _milp(worth, rows, low, high, n, gap=SURE)
    answer = answer_of(dual, (fewest if best is None else best)[:n] > 0.5)
    # HiGHS keeps to bounds within 1e-6, which is too much for a budget
    kept = answer.total[dual.is_cost] <= dual.upper[dual.is_cost] * (1 + SLACK)
    return answer if kept.all() else None


def _units(dual: DualProblem) -> Floats:
    """(n_constraints,) a budget where it is below 1, else 1: HiGHS keeps to rows within 1e-6."""
    return np.where(dual.is_cost, np.minimum(dual.upper, 1.0), 1.0)


def _milp_rows(dual: DualProblem) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """Constraint rows over pairs and over what is missing to each minimum, and their bounds."""
    from scipy.sparse import block_array, csr_array, eye_array

    problem = dual.problem
    n, n_users = len(problem.item), problem.n_users
    user = row_of_pair(problem.indptr)
    inside = dual.counts[:, problem.item].tocoo()
    unit = _units(dual)
    cost = np.minimum(problem.cost[inside.col], 1e6 * dual.upper[inside.row])  # it fits in neither way
    amounts = np.where(dual.is_cost[inside.row], cost / unit[inside.row], 1.0)
    of_pairs = csr_array((amounts, (inside.row, inside.col)), shape=inside.shape)
    of_users = csr_array((np.ones(n), (user, np.arange(n))), shape=(n_users, n))
    groups, caps = _local_rows(dual, user)
    k = len(dual.lower)
    blocks: Any = [
        [of_pairs, eye_array(k), None],
        [of_pairs, None, None],
        [of_users, None, eye_array(n_users)],
        [of_users, None, None],
        [groups, None, None],
    ]
    rows: Any = block_array(blocks).tocsr()
    free = np.full
    low = [dual.lower, free(k, -np.inf), dual.least, free(n_users, -np.inf), free(len(caps), -np.inf)]
    high = [free(k, np.inf), dual.upper / unit, free(n_users, np.inf), problem.most, caps]
    return rows, np.concatenate(low).astype(float), np.concatenate(high).astype(float)


def _local_rows(dual: DualProblem, user: NDArray[np.int64]) -> tuple[Any, NDArray[np.int32]]:
    """One row for each shopper and group, over pairs, and the groups' caps."""
    from scipy.sparse import csr_array

    problem = dual.problem
    sizes = np.diff(problem.local_indptr)[problem.item]
    pair = np.repeat(np.arange(len(problem.item)), sizes)
    starts = np.repeat(problem.local_indptr[problem.item], sizes)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    group = problem.local_group[starts + within].astype(np.int64)
    n_groups = len(problem.local_cap) + 1
    keys, row = np.unique(pair_keys(user[pair], group, n_groups), return_inverse=True)
    rows = csr_array((np.ones(len(pair)), (row, pair)), shape=(len(keys), len(problem.item)))
    return rows, problem.local_cap[pairs_of_keys(keys, n_groups)[1]]


def _milp(
    cost: NDArray[np.float64],
    rows: Any,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    n: int,
    *,
    gap: float,
) -> NDArray[np.float64] | None:
    """The best point to a share of `gap`, the first `n` variables 0 or 1; None without proof."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    whole = np.concatenate([np.ones(n), np.zeros(len(cost) - n)])
    top = np.concatenate([np.ones(n), np.full(len(cost) - n, np.inf)])
    solution = milp(
        cost / (np.abs(cost).max() or 1.0),  # HiGHS leaves 1e-6 of the sum open, however small it is
        constraints=LinearConstraint(rows, low, high),
        integrality=whole,
        bounds=Bounds(np.zeros(len(cost)), top),
        options={"node_limit": _NODES, "mip_rel_gap": gap},
    )
    return np.asarray(solution.x) if solution.status == 0 else None
