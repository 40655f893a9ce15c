"""Each purpose judged by its own truth, beside the simple methods held to the same items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates import Candidates
from retailrec.candidates.pool import score_pool
from retailrec.compute.shards import SHARD, map_shards, n_threads
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.evaluation import Judge, means
from retailrec.evaluation.bootstrap import compare_models
from retailrec.evaluation.results import PurposeResult
from retailrec.jobs.verdict import verdict
from retailrec.recommender.purposes import Purpose, owned_pairs, purchases_for
from retailrec.recommender.two_stage import TwoStageRecommender


def judge_purposes(
    model: TwoStageRecommender, held_out: Split, metrics: list[str], k: int
) -> list[PurposeResult]:
    """*replenish* by repeat purchases of the window; *discover*, if it was learnt, by new ones.

    A shopper counts who bought something of the kind. The simple methods are the model's sources, each
    alone: to replenish, the shopper's own items by the source's score; to discover, the best that it
    proposes of what is new to the shopper.

    Parameters
    ----------
    held_out : what the model was fitted on, and the window that follows
    k : length of the lists
    """
    past = held_out.past
    learnt: tuple[Purpose, ...] = ("discover",) if "discover" in model.learnt_purposes else ()
    found = [_judged(model, purpose, past, held_out, metrics, k) for purpose in ("replenish", *learnt)]
    return [result for result in found if result is not None]


def _judged(
    model: TwoStageRecommender,
    purpose: Purpose,
    past: RetailData,
    held_out: Split,
    metrics: list[str],
    k: int,
) -> PurposeResult | None:
    """The result of one purpose; None if nobody bought anything of the kind."""
    after_days = None if model.discover is None else model.discover.after_days
    target = purchases_for(purpose, past, held_out.target, after_days)
    if not len(np.intersect1d(target["user"].unique().to_numpy(), past.active_users())):
        return None
    judge = Judge.of(past, target)
    lists = dict(single_sources(model, purpose, past, judge.users, k))
    history = past.history(codes=judge.users)
    lists["two_stage"] = model.recommend_codes(history, k, purpose).items
    values = {name: judge.per_user(items, metrics) for name, items in lists.items()}
    models = {name: means(of) for name, of in values.items()}
    return {
        "purpose": purpose,
        "n_users": len(judge.users),
        "n_bought": len(judge.keys),
        "models": models,
        "verdict": verdict(models, _differences(values, metrics[0]), len(judge.users)),
    }


def single_sources(
    model: TwoStageRecommender, purpose: Purpose, past: RetailData, users: NDArray[np.int64], k: int
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Name of each source, and its `k` best items of the kind for each user, none of them hidden."""
    stage = model.stage_for(purpose)
    sources = [source.unfiltered() for source in stage.sources]

    def shard(rows: slice) -> dict[str, Candidates]:
        history = past.history(codes=users[rows])
        if purpose == "discover":
            owned = owned_pairs(history, stage.after_days)
            return {s.name: s.candidates(history, k, owned) for s in sources}
        pool = score_pool(sources, history, owned_pairs(history))
        return {s.name: pool.best(pool.scores[:, i].copy(), k) for i, s in enumerate(sources)}

    parts = list(map_shards(shard, len(users), size=SHARD, threads=n_threads(model.threads)))
    for source in sources:
        yield source.name, np.vstack([part[source.name].items for part in parts])


def _differences(values: Mapping[str, Mapping[str, Any]], metric: str) -> list[Any]:
    """Differences between every two methods in the first metric."""
    first = {name: {metric: of[metric]} for name, of in values.items()}
    return compare_models(first).differences.to_dicts()
