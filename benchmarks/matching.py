"""Matching beside bare calls of `implicit` for the same lists, and what merging the pool costs.

A generated log of X5's kind: 20,000 shoppers, 43,000 items, 200 candidates. Ratios of one run.

    make bench-matching [SHOPPERS=20000]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import TFIDFRecommender
from machine import print_result

from retailrec.candidates import ALS, CandidateGenerator, ItemItem, OwnPurchases, Popularity, TifuKNN
from retailrec.candidates.pool import score_pool
from retailrec.compute.csr import union_rows
from retailrec.compute.shards import map_shards, n_threads, one_blas_thread
from retailrec.data.history import History, Pairs
from retailrec.data.prefilters import apply_prefilters, preset
from retailrec.simulator.shop import data_of, preset_shop

K, BAR_OVERHEAD, BAR_POOL = 200, 1.3, 0.5


def seconds(call: Callable[[], Any], repeat: int = 3) -> float:
    """The fastest of some calls."""
    took = []
    for _ in range(repeat):
        started = perf_counter()
        call()
        took.append(perf_counter() - started)
    return min(took)


def sharded(history: History, work: Callable[[History], Any]) -> None:
    """As the recommender does it: shards of shoppers in threads."""
    for _ in map_shards(lambda rows: work(history.take(rows)), len(history), threads=n_threads(0)):
        pass


def bare_als(source: ALS, history: History) -> Callable[[], Any]:
    """`implicit`'s own batch call with the same factors, shoppers folded in."""
    weights = (1 + source.alpha * np.sqrt(history.counts(source.half_life))).astype(np.float32)
    matrix = history.matrix(weights)

    def call() -> None:
        with one_blas_thread():
            model = AlternatingLeastSquares(
                factors=source.factors, regularization=source.regularization
            )
            model.item_factors = source.factors_
            model.recommend(
                np.arange(len(history)),
                matrix,
                N=K,
                filter_already_liked_items=False,
                recalculate_user=True,
            )

    return call


def bare_item_item(source: ItemItem, history: History) -> Callable[[], Any]:
    """`implicit`'s own batch call with the same similarities."""
    matrix = history.matrix(history.counts(source.half_life))
    model = TFIDFRecommender(K=source.neighbours)
    model.similarity = source.similarity_
    from implicit._nearest_neighbours import NearestNeighboursScorer

    model.scorer = NearestNeighboursScorer(source.similarity_.astype(np.float64))
    return lambda: model.recommend(
        np.arange(len(history)), matrix, N=K, filter_already_liked_items=False
    )


def main(users: int) -> int:
    data, _ = apply_prefilters(preset("default"), data_of(preset_shop("x5", users=users)))
    history = data.history()
    overhead = {}
    for source, bare in ((ALS(), bare_als), (ItemItem(), bare_item_item)):
        source.fit(data)
        run = bare(source, history)  # type: ignore[operator]
        ours = seconds(lambda s=source: sharded(history, lambda part: s.candidates(part, K)))
        theirs = seconds(run)
        overhead[source.name] = {"ours": ours, "bare": theirs, "ratio": round(ours / theirs, 2)}
    five: list[CandidateGenerator] = [OwnPurchases("due"), Popularity(), ItemItem(), ALS(), TifuKNN()]
    for source in five:
        source.fit(data)
    took = {"sources": 0.0, "merge and scores": 0.0}

    def work(part: History) -> None:
        started = perf_counter()
        proposed = np.hstack([source.candidates(part, K).items for source in five])
        between = perf_counter()
        starts = np.arange(len(part) + 1, dtype=np.int64) * proposed.shape[1]
        score_pool(five, part, Pairs(*union_rows(starts, proposed.ravel(), len(part))))
        took["sources"] += between - started
        took["merge and scores"] += perf_counter() - between

    work(history.take(slice(0, 64)))  # compile
    took = dict.fromkeys(took, 0.0)
    for _ in map_shards(lambda rows: work(history.take(rows)), len(history)):
        pass
    share = took["merge and scores"] / took["sources"]
    print_result(
        "matching",
        {
            "shoppers": users,
            "items": data.n_items,
            "pairs": history.n_pairs,
            "k": K,
            "seconds": overhead,
            "pool": took,
            "pool_over_sources": round(share, 2),
        },
    )
    worst = max(o["ratio"] for o in overhead.values())
    return int(worst > BAR_OVERHEAD or share > BAR_POOL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
