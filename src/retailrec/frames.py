"""The one path: histories to the rows that a ranker is trained on and the rows that it scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.features.assemble import FeatureSet
from retailrec.history import History
from retailrec.kernels import best_in_rows, gather
from retailrec.pool import Pool, merge_pool
from retailrec.rankers import Ranker

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


def candidate_frame(history: History, stage: StageOne, keep: Keep | None = None) -> CandidateFrame:
    """Pool the sources' proposals for each history, cut the pool, and compute every column.

    Columns: each source's score and rank, what sources tell beside, then the features. Training and
    serving both come through here. `keep` thins the cut pool (a training sample); scores and ranks are
    those of the whole one.
    """
    pool = stage.pool(history)
    if keep is not None:
        pool = pool.keep(keep(pool))
    n, m = len(pool.sources), 2 * len(pool.sources) + pool.more.shape[1]
    shape = (len(pool.items), m + len(stage.features.names))
    x = np.empty(shape, np.float32, order="F")  # filled, and read by the rankers, by column
    x[:, :n], x[:, n : 2 * n], x[:, 2 * n : m] = pool.scores, pool.ranks, pool.more
    stage.features.rows(history, pool.pairs, out=x[:, m:])
    return CandidateFrame(pool, x, stage.column_names)


@dataclass
class StageOne:
    """Fitted sources and features, and the light ranker that cuts the pool.

    Attributes
    ----------
    sources : fitted generators
    features : fitted features
    n_candidates : taken from each source, one number or one a source
    preranker : orders the pool by its scores, ranks and item features; None takes the pool as it is
    pool_size : pairs a shopper that go on to ranking
    """

    sources: Sequence[CandidateGenerator]
    features: FeatureSet
    n_candidates: int | Sequence[int]
    preranker: Ranker | None = None
    pool_size: int = 200

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of a candidate frame."""
        names = [s.name for s in self.sources]
        scores = [f"source_{n}_score" for n in names]
        more = [f"source_{s.name}_{name}" for s in self.sources for name in s.more]
        return scores + [f"source_{n}_rank" for n in names] + more + self.features.names

    def pool(self, history: History) -> Pool:
        """The merged pool, cut to `pool_size` pairs a shopper if there is a pre-ranker."""
        pool = merge_pool(self.sources, history, self.n_candidates)
        if self.preranker is None:
            return pool
        score = self.preranker.predict(self.light_columns(pool))
        return pool.keep(best_in_rows(pool.indptr, score, self.pool_size))

    def light_columns(self, pool: Pool) -> NDArray[np.float32]:
        """(n_pairs, n_columns) what the pre-ranker sees: cheap to have for the whole pool."""
        n, table = len(pool.sources), self.features.items_
        x = np.empty((len(pool.items), 2 * n + table.shape[1]), np.float32, order="F")
        x[:, :n], x[:, n : 2 * n] = pool.scores, pool.ranks
        gather(table, pool.items, x, 2 * n)
        return x

    @property
    def light_names(self) -> list[str]:
        """Names of the pre-ranker's columns."""
        n = 2 * len(self.sources)
        return self.column_names[:n] + self.features.item_names


class Labels:
    """What was bought in a label window: the one place where candidate rows get their label."""

    def __init__(self, target: pl.DataFrame, n_items: int) -> None:
        bought = target.select("user", "item").unique()
        keys = bought["user"].to_numpy().astype(np.int64) * n_items + bought["item"].to_numpy()
        self._keys, self._n_items = np.sort(keys), n_items

    def of(self, pool: Pool, users: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(n_pairs,) was the pair bought? `users` are the codes of the pool's rows."""
        wanted = np.asarray(users, np.int64)[pool.user_of_pair] * self._n_items + pool.items
        place = np.minimum(np.searchsorted(self._keys, wanted), max(len(self._keys) - 1, 0))
        return self._keys[place] == wanted if len(self._keys) else np.zeros(len(wanted), np.bool_)

    def n_bought(self, users: NDArray[np.integer]) -> int:
        """Pairs that these shoppers bought."""
        return int(np.isin(self._keys // self._n_items, users).sum())
