"""The one path: histories to the rows that a ranker is trained on and the rows that it scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates.pool import Pool
from retailrec.compute.pairs import pair_keys, pairs_of_keys
from retailrec.data.history import History, Pairs
from retailrec.recommender.stage_one import StageOne

Keep = Callable[[Pool], NDArray[np.bool_]]


@dataclass(frozen=True)
class CandidateFrame:
    """Candidate rows and their features.

    Attributes
    ----------
    pool : the pairs, with scores and ranks of the sources
    x : (n_pairs, n_columns) float32, column by column in memory, missing values NaN
    names : column names of `x`
    """

    pool: Pool
    x: NDArray[np.float32]
    names: list[str]

    def rows_of(
        self, shoppers: NDArray[np.integer], items: NDArray[np.integer], n_items: int
    ) -> NDArray[np.float32]:
        """(n, n_columns) the rows of some pairs of the pool."""
        keys = pair_keys(self.pool.user_of_pair, self.pool.items, n_items)
        return self.x[np.searchsorted(keys, pair_keys(shoppers, items, n_items))]


def candidate_frame(
    history: History, stage: StageOne, keep: Keep | None = None, among: Pairs | None = None
) -> CandidateFrame:
    """Pool the sources' proposals for each history, cut the pool, and compute every column.

    Columns: each source's score and rank, what sources tell beside, then the features. Training and
    serving both come through here. `keep` thins the cut pool (a training sample); scores and ranks are
    those of the whole one. `among` are the only pairs wanted: all of them become rows, whether a source
    proposes them or not, with the columns that they have or would have in the pool.
    """
    pool = stage.pool(history, among)
    if keep is not None:
        pool = pool.keep(keep(pool))
    n, m = len(pool.sources), 2 * len(pool.sources) + pool.more.shape[1]
    shape = (len(pool.items), m + len(stage.features.names))
    x = np.empty(shape, np.float32, order="F")  # filled, and read by the rankers, by column
    x[:, :n], x[:, n : 2 * n], x[:, 2 * n : m] = pool.scores, pool.ranks, pool.more
    stage.features.rows(history, pool.pairs, out=x[:, m:])
    return CandidateFrame(pool, x, stage.column_names)


class Labels:
    """What was bought in a label window: the one place where candidate rows get their label."""

    def __init__(self, target: pl.DataFrame, n_items: int) -> None:
        bought = target.select("user", "item").unique()
        keys = pair_keys(bought["user"].to_numpy(), bought["item"].to_numpy(), n_items)
        self._keys, self._n_items = np.sort(keys), n_items

    def of(self, pool: Pool, users: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(n_pairs,) was the pair bought? `users` are the codes of the pool's rows."""
        wanted = pair_keys(np.asarray(users)[pool.user_of_pair], pool.items, self._n_items)
        place = np.minimum(np.searchsorted(self._keys, wanted), max(len(self._keys) - 1, 0))
        return self._keys[place] == wanted if len(self._keys) else np.zeros(len(wanted), np.bool_)

    def n_bought(self, users: NDArray[np.integer]) -> int:
        """Pairs that these shoppers bought."""
        return int(np.isin(pairs_of_keys(self._keys, self._n_items)[0], users).sum())
