"""Exploration with known propensities: lists drawn from a pool, and offers exchanged by a coin.

A list is drawn by systematic sampling in random order (Madow, Annals of Mathematical Statistics 1949):
its length is fixed and each item's chance is exactly the one that is asked for. Rules that remove items
or set an upper bound hold for what is drawn if the whole pool keeps to them.

In a campaign, two shoppers with near ties exchange an offer. An exchange leaves the number of offers of
every product, supplier and category as it is, so limits keep holding; budgets are checked as if every
costly exchange happened. Who could exchange with whom follows from the allocation alone, so the chance
of what was sent is known: the coin's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from retailrec.components import checked
from retailrec.compute.csr import row_of_pair
from retailrec.compute.draws import inclusion_chances, random_bits, systematic_sample, uniform_draws
from retailrec.data.ids import id_series, runs_of_ids
from retailrec.data.interchange import number_array
from retailrec.errors import DataError, SettingError
from retailrec.offers import kernels
from retailrec.offers.repair import Answer, bounds_of
from retailrec.offers.shadow_prices import DualProblem


@checked
def explore(
    scores: ArrayLike, items: Any, k: int, rate: float, *, salt: str, users: Any
) -> pl.DataFrame:
    """Lists of `k` drawn from each user's pool, with every item's chance, shown or not.

    Parameters
    ----------
    scores, items, users : (n_rows,) rows of a pool: a user's items that may be shown, best score first
        shown without exploration; ties go to the lower item. Rows may come in any order
    k : items a list; whoever has no more gets all of them, with chance 1
    rate : the first k have chance 1 - `rate`, the others share k x `rate`; less where that would turn
        the order round, that is where `rate` exceeds 1 - k / pool
    salt : of the draw, which depends on it, the user and the pool's size alone; another request of the
        same user is drawn anew under another salt

    Returns
    -------
    The rows with `user_id`, `item_id`, `score`, `rank` (by score, from 1), `propensity`, `shown` and
    `pool` (rows of the user).

    Raises
    ------
    DataError, SettingError
        If a score is not finite, a pair stands twice, or `k` or `rate` is out of range.

    Examples
    --------
    >>> drawn = explore([9, 8, 7, 6], ["a", "b", "c", "d"], 2, 0.5, salt="may", users=[1] * 4)
    >>> drawn["propensity"].to_list(), drawn["shown"].sum()
    ([0.5, 0.5, 0.5, 0.5], 2)
    """
    if k < 1 or not 0 <= rate < 1:
        raise SettingError(
            f"exploration: k must be 1 or more and the rate at least 0 and below 1, not {k} and "
            f"{rate}. Correct them."
        )
    columns: dict[str, Any] = {
        "user_id": id_series(users, who="users"),
        "item_id": id_series(items, who="items"),
        "score": number_array(scores, who="scores"),
    }
    if len(sizes := {len(column) for column in columns.values()}) > 1:
        raise DataError(
            f"exploration: users, items and scores differ in length ({sorted(sizes)}); give a row each."
        )
    table = pl.DataFrame(columns)
    if not table["score"].is_finite().all():
        raise DataError("exploration: a score is no finite number; drop that row.")
    if table.select("user_id", "item_id").is_duplicated().any():
        raise DataError("exploration: a user has an item twice in the pool; keep one row of each.")
    place = table.with_row_index("row").sort(
        "user_id", "score", "item_id", descending=[False, True, False]
    )
    distinct, starts = runs_of_ids(place["user_id"])
    pool = np.diff(starts)
    rank = np.arange(len(place)) - np.repeat(starts[:-1], pool)
    chances = inclusion_chances(rank, np.repeat(pool, pool), min(k, len(place)), rate)
    lots = random_bits(np.repeat(uniform_draws(distinct, f"{salt}: order"), pool), rank)
    start = uniform_draws(distinct, f"{salt}: list")
    shown = systematic_sample(chances, starts, lots, start)
    drawn = place.with_columns(
        rank=pl.Series(rank + 1, dtype=pl.Int32),
        propensity=pl.Series(chances),
        shown=pl.Series(shown),
        pool=pl.Series(np.repeat(pool, pool), dtype=pl.Int32),
    )
    return drawn.sort("row").drop("row")


@dataclass(frozen=True)
class Explored:
    """An answer after exploration."""

    chosen: NDArray[np.bool_]  # (n_pairs,)
    propensity: NDArray[np.float64]  # (n_pairs,) chance of the pair, given its shopper's offers
    n_couples: int  # couples of shoppers who could exchange
    n_swapped: int  # and who did


def exchange_near_ties(
    dual: DualProblem, answer: Answer, share: float, near_tie: float, *, salt: str
) -> Explored:
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
    total = np.rint(answer.total * np.where(dual.is_cost, problem.per_unit, 1.0))
    choice = kernels.Choice(user, np.zeros(0), chosen.copy(), answer.taken.copy(), total)
    couples = kernels.match_swaps(pair, other, dual.rows, bounds_of(dual), choice)
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
    problem, user = dual.problem, row_of_pair(dual.problem.indptr)
    pairs = {"user": user, "pair": np.arange(len(user)), "value": problem.value, "item": problem.item}
    table = pl.DataFrame(pairs)
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
