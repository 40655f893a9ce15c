"""Exploration with known propensities: two shoppers with near ties exchange an offer, by a coin.

An exchange leaves the number of offers of every product, supplier and category as it is, so limits keep
holding; budgets are checked as if every costly exchange happened. Who could exchange with whom follows
from the allocation alone, so the chance of what was sent is known: the coin's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.pairs import row_of_pair
from retailrec.offers import repair_kernels as moves
from retailrec.offers.arms import uniform_draws
from retailrec.offers.repair import Answer, bounds_of
from retailrec.offers.shadow_prices import DualProblem


@dataclass(frozen=True)
class Explored:
    """An answer after exploration.

    Attributes
    ----------
    chosen : (n_pairs,) bool
    propensity : (n_pairs,) chance that the pair was chosen, given its shopper's number of offers
    n_couples, n_swapped : couples of shoppers who could exchange, and who did
    """

    chosen: NDArray[np.bool_]
    propensity: NDArray[np.float64]
    n_couples: int
    n_swapped: int


def explore(dual: DualProblem, answer: Answer, share: float, near_tie: float, *, salt: str) -> Explored:
    """The answer with some offers exchanged between shoppers to whom they are worth nearly the same.

    Parameters
    ----------
    share : chance of an exchange; a couple keeps what it has with 1 - `share`
    near_tie : largest loss, as a share of the offer's value, that an exchange may cost either shopper
    salt : of the coin, which is made of both shoppers' ids
    """
    problem = dual.problem
    chosen = answer.chosen.copy()
    propensity = np.ones(len(chosen))
    pair, other = _near_ties(dual, answer, near_tie) if share else (np.zeros(0, np.int64),) * 2
    if not len(pair):
        return Explored(chosen, propensity, 0, 0)
    user = row_of_pair(problem.indptr).astype(np.int32)
    no_margin = np.zeros(0)
    total = np.rint(answer.total * np.where(dual.is_cost, problem.per_unit, 1.0))
    choice = moves.Choice(user, no_margin, chosen.copy(), answer.taken.copy(), total)
    couples = moves.match_swaps(pair, other, dual.rows, bounds_of(dual), choice)
    first, second = pair[couples[:, 0]], pair[couples[:, 1]]
    ids = problem.user_ids.cast(pl.String)
    names = ids.gather(user[first]) + pl.Series(["\0"]) + ids.gather(user[second])
    swapped = uniform_draws(names, f"{salt}: exchange") < share
    for mine, instead in ((first, other[couples[:, 0]]), (second, other[couples[:, 1]])):
        chosen[mine] = ~swapped
        chosen[instead] = swapped
        propensity[mine], propensity[instead] = 1 - share, share
    return Explored(chosen, propensity, len(couples), int(swapped.sum()))


def _near_ties(
    dual: DualProblem, answer: Answer, near_tie: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Chosen pairs and the other pairs of the same shopper that are worth nearly as much, in runs."""
    problem = dual.problem
    places = np.arange(len(problem.item))
    user = row_of_pair(problem.indptr)
    table = pl.DataFrame({"user": user, "pair": places, "value": problem.value, "item": problem.item})
    held, free = table.filter(answer.chosen), table.filter(~answer.chosen)
    ties = (
        held.join(free, on="user", suffix="_other")
        .filter(pl.col("value_other") >= pl.col("value") - near_tie * pl.col("value").abs())
        .with_columns(
            low=pl.min_horizontal("item", "item_other"), high=pl.max_horizontal("item", "item_other")
        )
        .sort("low", "high", pl.col("item") == pl.col("low"), "user")
    )
    return ties["pair"].to_numpy(), ties["pair_other"].to_numpy()
