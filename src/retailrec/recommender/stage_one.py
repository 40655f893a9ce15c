"""The first stage: fitted sources and features, and the pre-ranker that cuts the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.candidates.pool import Pool, merge_pool, place_in_pool
from retailrec.compute.csr import gather
from retailrec.compute.topk import best_in_rows
from retailrec.data.history import History, Pairs
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import Ranker
from retailrec.recommender.purposes import Purpose, allowed_for, for_purpose, owned_pairs


@dataclass
class StageOne:
    """Fitted sources and features, and the pre-ranker that cuts the pool.

    Attributes
    ----------
    sources : fitted generators
    features : fitted features
    n_candidates : taken from each source, one number or one a source
    preranker : orders the pool by its scores, ranks and item features; None takes the pool as it is
    pool_size : pairs a shopper that go on to ranking
    purpose : what the list is for, which decides what the pool may hold
    after_days : an item counts as new to a shopper so many days after the last purchase; None: never
    """

    sources: Sequence[CandidateGenerator]
    features: FeatureSet
    n_candidates: int | Sequence[int]
    preranker: Ranker | None = None
    pool_size: int = 200
    purpose: Purpose = "mixed"
    after_days: float | None = None

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of a candidate frame."""
        names = [s.name for s in self.sources]
        scores = [f"source_{n}_score" for n in names]
        more = [f"source_{s.name}_{name}" for s in self.sources for name in s.more]
        return scores + [f"source_{n}_rank" for n in names] + more + self.features.names

    def pool(self, history: History, among: Pairs | None = None) -> Pool:
        """The merged pool, cut to `pool_size` pairs a shopper if there is a pre-ranker.

        To *discover*, each source is asked for items that are new to the shopper and no others. To
        *replenish*, those pairs of the usual pool that the shopper bought go on, with the ranks that
        they have there.

        Of `among`, all pairs that are of the purpose and no others, ranked by their places in the whole
        pool.
        """
        without = owned_pairs(history, self.after_days) if self.purpose == "discover" else None
        pool = merge_pool(self.sources, history, self.n_candidates, without)
        if among is not None:
            wanted = for_purpose(among, history, self.purpose, self.after_days)
            return place_in_pool(self.sources, history, wanted, pool)
        if self.purpose == "replenish":
            pool = pool.keep(allowed_for(pool.pairs, history, self.purpose, self.after_days))
        if self.preranker is None:
            return pool
        score = self.preranker.predict(self.preranker_columns(pool))
        return pool.keep(best_in_rows(pool.indptr, score, self.pool_size))

    def preranker_columns(self, pool: Pool) -> NDArray[np.float32]:
        """(n_pairs, n_columns) what the pre-ranker sees: cheap to have for the whole pool."""
        n, table = len(pool.sources), self.features.items_
        x = np.empty((len(pool.items), 2 * n + table.shape[1]), np.float32, order="F")
        x[:, :n], x[:, n : 2 * n] = pool.scores, pool.ranks
        gather(table, pool.items, x, 2 * n)
        return x

    @property
    def preranker_names(self) -> list[str]:
        """Names of the pre-ranker's columns."""
        n = 2 * len(self.sources)
        return self.column_names[:n] + self.features.item_names
