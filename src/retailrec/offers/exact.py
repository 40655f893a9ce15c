"""The fewest offers that can be missing to minima, by integer programming (HiGHS), for small problems.

Asked only when the repair has left a minimum short: either there is an answer that meets it, which is
then taken, or it is proven that bounds contradict each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.pairs import pair_keys, pairs_of_keys, row_of_pair
from retailrec.offers.problem import SLACK
from retailrec.offers.repair import Answer, answer_of
from retailrec.offers.shadow_prices import DualProblem

MOST_PAIRS = 20_000  # beyond this nothing is proven
_NODES = 2_000  # of branch and bound; a limit of time would not be deterministic


def fewest_missing(dual: DualProblem) -> Answer | None:
    """An answer that misses as few offers to minima as any can, and the best of these in value.

    None if the problem is too large, or the search ended without proof.
    """
    n = len(dual.problem.item)
    if n > MOST_PAIRS:
        return None
    rows, low, high = _rows(dual)
    missing = np.concatenate([np.zeros(n), np.ones(rows.shape[1] - n)])
    fewest = _solve(missing, rows, low, high, n)
    if fewest is None:
        return None
    from scipy.sparse import csr_array, vstack

    least = round(float(missing @ fewest))
    rows = vstack([rows, csr_array(missing[None, :])]).tocsr()
    low, high = np.append(low, -np.inf), np.append(high, least + 0.5)
    worth = np.concatenate([-dual.problem.value, np.zeros(len(missing) - n)])
    best = _solve(worth, rows, low, high, n)
    answer = answer_of(dual, (fewest if best is None else best)[:n] > 0.5)
    # HiGHS keeps to bounds within 1e-6, which is too much for a budget
    kept = answer.total[dual.is_cost] <= dual.upper[dual.is_cost] * (1 + SLACK)
    return answer if kept.all() else None


def _rows(dual: DualProblem) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """Constraint rows over pairs and over what is missing to each minimum, and their bounds."""
    from scipy.sparse import block_array, csr_array, eye_array

    problem = dual.problem
    n, n_users = len(problem.item), problem.n_users
    user = row_of_pair(problem.indptr)
    inside = dual.counts[:, problem.item].tocoo()
    amounts = np.where(dual.is_cost[inside.row], problem.cost[inside.col], 1.0)
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
    high = [free(k, np.inf), dual.upper, free(n_users, np.inf), problem.most, caps]
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


def _solve(
    cost: NDArray[np.float64], rows: Any, low: NDArray[np.float64], high: NDArray[np.float64], n: int
) -> NDArray[np.float64] | None:
    """The best point with the first `n` variables 0 or 1; None without proof."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    whole = np.concatenate([np.ones(n), np.zeros(len(cost) - n)])
    top = np.concatenate([np.ones(n), np.full(len(cost) - n, np.inf)])
    solution = milp(
        cost,
        constraints=LinearConstraint(rows, low, high),
        integrality=whole,
        bounds=Bounds(np.zeros(len(cost)), top),
        options={"node_limit": _NODES, "mip_rel_gap": 1e-4},
    )
    return np.asarray(solution.x) if solution.status == 0 else None
