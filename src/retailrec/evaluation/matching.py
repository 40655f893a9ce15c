"""The matching report: what each source finds, what it adds, and how many candidates are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from retailrec.candidates import CandidateGenerator
from retailrec.candidates.pool import merge_pool
from retailrec.compute.pairs import pair_keys, pairs_of_keys
from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import map_shards, n_threads
from retailrec.data import RetailData
from retailrec.data.history import History
from retailrec.data.prefilters import apply_prefilters
from retailrec.data.splits import Split
from retailrec.evaluation.judge import Judge
from retailrec.evaluation.results import ColdFacts, MatchingReport, SourceFacts
from retailrec.recommender.stage_one import StageOne
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import USER_ID

GRID = (20, 50, 100, 200, 500, 750, 1000, 1500, 2000)  # the walk-through's
LEAST_GAIN = 2e-4  # recall per added candidate under which more candidates are not worth it
LEAST_MARGINAL = 5e-4  # recall that only this source brings, under which it does not earn its place
MOST_USERS = 20_000  # that are judged; their mean recall is right to .002 or so
_SHARD = 256  # shoppers; lists of 2000 candidates are long
_AT = 200  # where overlap, marginal gain, repeat share and coverage are taken


def matching_report(
    model: TwoStageRecommender,
    held_out: Split,
    *,
    grid: Sequence[int] = GRID,
    least_gain: float = LEAST_GAIN,
    progress: Progress = silent,
) -> MatchingReport:
    """Fit sources and pre-ranker on what lies before a window, and judge them by what was bought in it.

    The pre-ranker learns from the label window before that. Returns what `judge_matching` does.
    """
    progress("fit")
    model.fit_matching(held_out.past, progress)
    return judge_matching(model, held_out, grid=grid, least_gain=least_gain, progress=progress)


def judge_matching(
    model: TwoStageRecommender,
    held_out: Split,
    *,
    grid: Sequence[int] = GRID,
    least_gain: float = LEAST_GAIN,
    most_users: int = MOST_USERS,
    seed: int = 0,
    progress: Progress = silent,
) -> MatchingReport:
    """Judge the sources and the pool of a fitted model by the purchases of a held-out window.

    Recall is the mean over shoppers who bought in the window and have history (`most_users` of them,
    drawn, if there are more; as many of each group in ``cold``). The truth is all they bought, items
    that prefilters removed included. The pool's order is the pre-ranker's.

    Returns
    -------
    dict with ``recall@k`` {source or "pool": {k: recall}}, ``chosen_k``, ``overlap``, ``marginal``,
    ``sources`` (hit rate, repeat share, coverage, seconds, size), ``cold`` and ``advice``
    """
    judge = Judge.of(*held_out)
    if len(judge.users) > most_users:
        drawn = np.random.default_rng(seed).choice(len(judge.users), most_users, replace=False)
        judge = judge.select(np.isin(np.arange(len(judge.users)), drawn))
    past, removed = apply_prefilters(model.prefilters, held_out.past)
    history = past.history(codes=judge.users)
    stage = model.stage_one
    truth = _Truth(judge, history)
    recall: dict[str, dict[str, float]] = {}
    facts: dict[str, SourceFacts] = {}
    proposed: dict[str, NDArray[np.int32]] = {}
    for number, source in enumerate(stage.sources, start=1):
        progress("sources", number, len(stage.sources))
        started = perf_counter()
        items = _in_shards(partial(_best, source, max(grid)), history)
        seconds = perf_counter() - started
        recall[source.name] = {str(k): truth.recall(items[:, :k]) for k in grid}
        top = proposed[source.name] = items[:, :_AT]
        facts[source.name] = {
            **_facts(top, truth, past.recommendable),
            "fit_seconds": round(model.report_["source_seconds"].get(source.name, 0.0), 3),
            "candidates_seconds": round(seconds, 3),
            "state_mb": round(_state_bytes(source) / 1e6, 2),
        }
    progress("pool")
    pooled = _in_shards(lambda part: pool_order(stage, part, max(grid)), history)
    recall["pool"] = {str(k): truth.recall(pooled[:, :k]) for k in grid}
    facts["pool"] = _facts(pooled[:, :_AT], truth, past.recommendable)
    found = {name: truth.found(items) for name, items in proposed.items()}
    marginal = _marginal(found, truth)
    return {
        "evaluation": {
            "cutoff": held_out.past.end.isoformat(),
            "n_users": len(judge.users),
            "n_cold_users": judge.n_cold,
            "window_end": _last(held_out.target),
        },
        "recall@k": recall,
        "chosen_k": choose_k(recall["pool"], least_gain),
        "least_gain_per_candidate": least_gain,
        "overlap": _overlap(proposed),
        "marginal": marginal,
        "sources": facts,
        "cold": _cold(stage, held_out, past, _Pooled(judge.users, pooled[:, :_AT]), most_users, seed),
        "advice": {name: gain >= LEAST_MARGINAL for name, gain in marginal.items()},
        "prefilters": removed,
    }


def choose_k(recall: dict[str, float], least_gain: float = LEAST_GAIN) -> int:
    """The k after which recall grows by less than `least_gain` per added candidate.

    Examples
    --------
    >>> choose_k({"20": 0.10, "50": 0.20, "100": 0.25, "200": 0.251}, least_gain=2e-4)
    100
    """
    ks = sorted(int(k) for k in recall)
    for k, following in pairwise(ks):
        if (recall[str(following)] - recall[str(k)]) / (following - k) < least_gain:
            return k
    return ks[-1]


def pool_order(stage: StageOne, history: History, k: int) -> NDArray[np.int32]:
    """(n_users, k) the pool in the pre-ranker's order (of the first source's score without one)."""
    pool = merge_pool(stage.sources, history, stage.n_candidates)
    if stage.preranker is None:
        return pool.best(np.ascontiguousarray(pool.scores[:, 0]), k).items
    return pool.best(stage.preranker.predict(stage.preranker_columns(pool)), k).items


def _best(source: CandidateGenerator, k: int, history: History) -> NDArray[np.int32]:
    return source.candidates(history, k).items


def _in_shards(function: Callable[[History], NDArray[np.int32]], history: History) -> NDArray[np.int32]:
    """The function's lists for all shoppers, shard by shard on all cores."""

    def shard(rows: slice) -> NDArray[np.int32]:
        return function(history.take(rows))

    return np.vstack(list(map_shards(shard, len(history), size=_SHARD, threads=n_threads(0))))


class _Truth:
    """What the judged shoppers bought, as pairs (row, item)."""

    def __init__(self, judge: Judge, history: History) -> None:
        self.n_users, self.n_items = len(judge.users), judge.n_items
        self.keys = judge.keys
        self.rows = pairs_of_keys(judge.keys, judge.n_items)[0]
        self.n_relevant = np.bincount(self.rows, minlength=self.n_users)
        own = pair_keys(history.user_of_pair, history.items, judge.n_items)
        self.repeat = np.isin(judge.keys, own)  # (n_pairs,) bought before the window too

    def found(self, items: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(n_pairs,) is the purchase among the row's items?"""
        rows = np.arange(len(items))[:, None]
        return np.isin(self.keys, pair_keys(rows, items, self.n_items))

    def recall(self, items: NDArray[np.int32]) -> float:
        """Mean over shoppers of the share of purchases found."""
        return self.mean(self.found(items))

    def mean(self, found: NDArray[np.bool_]) -> float:
        share = np.bincount(self.rows, found, self.n_users) / self.n_relevant
        return round(float(share.mean()), 5)


def _facts(items: NDArray[np.int32], truth: _Truth, recommendable: NDArray[np.bool_]) -> SourceFacts:
    found = truth.found(items)
    distinct = np.unique(items[items >= 0])
    hit = np.bincount(truth.rows, found, truth.n_users) > 0
    return {
        "hit_rate@200": round(float(hit.mean()), 5),
        "recall@200_of_repeats": _share(found, truth.repeat),
        "recall@200_of_new": _share(found, ~truth.repeat),
        "repeat_share_of_found": _share(truth.repeat, found),
        "catalogue_coverage": round(len(distinct) / max(int(recommendable.sum()), 1), 5),
    }


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float | None:
    return round(float(part[whole].mean()), 5) if whole.any() else None


def _overlap(proposed: dict[str, NDArray[np.int32]]) -> dict[str, dict[str, float]]:
    """Share of the row source's first 200 that the column source has in its first 200 too."""
    width = max(int(items.max(initial=-1)) for items in proposed.values()) + 1
    matrices = {}
    for name, items in proposed.items():
        row, column = np.nonzero(items >= 0)
        ones = np.ones(len(row), np.float32)
        shape = (len(items), width)
        matrices[name] = sparse.csr_matrix((ones, (row, items[row, column])), shape=shape)
    return {
        a: {
            b: round(float(x.multiply(y).sum()) / max(float(x.sum()), 1.0), 4)
            for b, y in matrices.items()
        }
        for a, x in matrices.items()
    }


def _marginal(found: dict[str, NDArray[np.bool_]], truth: _Truth) -> dict[str, float]:
    """Recall of the union of all sources' first 200 that is lost without the source."""
    stacked = np.stack(list(found.values()))
    times = stacked.sum(axis=0)
    return {name: truth.mean(hits & (times == 1)) for name, hits in zip(found, stacked, strict=True)}


class _Pooled(NamedTuple):
    """The pool's best items (n_users, n) of shoppers, rising codes (n_users,)."""

    users: NDArray[np.int64]
    items: NDArray[np.int32]


def _cold(
    stage: StageOne,
    held_out: Split,
    filtered: RetailData,
    pooled: _Pooled,
    most_users: int,
    seed: int,
) -> dict[str, ColdFacts]:
    """Recall@200 of the pool for shoppers of whom little is known, and of items never sold before.

    Shoppers who are `pooled` already come first, so that few pools are merged twice.
    """
    past, target = held_out
    bought = target.select("user", "item").unique().sort("user", "item")
    buyers = bought["user"].unique().sort().to_numpy().astype(np.int64)
    baskets = past.log.group_by("user").agg(pl.col("basket").n_unique())
    count = np.zeros(past.n_users, np.int64)
    count[baskets["user"].to_numpy()] = baskets["basket"].to_numpy()
    attributes = past.users.drop(USER_ID)
    described = np.zeros(past.n_users, np.bool_)
    for column in attributes:
        described |= column.is_not_null().to_numpy()
    receipts, known = count[buyers], described[buyers]
    groups = {
        "no receipt, attributes known": (receipts == 0) & known,
        "no receipt, nothing known": (receipts == 0) & ~known,
        "one receipt": receipts == 1,
        "two to five": (receipts >= 2) & (receipts <= 5),
        "more": receipts > 5,
    }
    facts: dict[str, ColdFacts] = {name: {"n_users": 0} for name in groups}
    seen = np.zeros(past.n_items, np.bool_)
    seen[past.log["item"].unique().to_numpy()] = True
    unseen_found = unseen_bought = 0
    rng = np.random.default_rng(seed)
    for name, chosen in groups.items():
        users = buyers[chosen]
        if not len(users):
            continue
        done = np.isin(users, pooled.users) & (pooled.items.shape[1] == _AT)
        if len(users) > most_users:
            order = np.lexsort((rng.random(len(users)), ~done))[:most_users]
            users, done = users[np.sort(order)], done[np.sort(order)]
        items = np.empty((len(users), _AT), np.int32)
        items[done] = pooled.items[np.searchsorted(pooled.users, users[done])]
        if not done.all():
            theirs = filtered.history(codes=users[~done])
            items[~done] = _in_shards(lambda part: pool_order(stage, part, _AT), theirs)
        purchases = bought.filter(pl.col("user").is_in(users.tolist()))
        row, item = np.searchsorted(users, purchases["user"].to_numpy()), purchases["item"].to_numpy()
        proposed = pair_keys(np.arange(len(users))[:, None], items, past.n_items)
        hit = np.isin(pair_keys(row, item, past.n_items), proposed)
        share = np.bincount(row, hit, len(users)) / np.bincount(row, minlength=len(users))
        facts[name] = {"n_users": int(chosen.sum()), "pool_recall@200": round(float(share.mean()), 5)}
        unseen_found += int((hit & ~seen[item]).sum())
        unseen_bought += int((~seen[item]).sum())
    unseen = ~seen[bought["item"].to_numpy()]
    facts["items never sold before"] = {
        "share_of_purchases": round(float(unseen.mean()), 5),
        "pool_recall@200": round(unseen_found / unseen_bought, 5) if unseen_bought else None,
    }
    return facts


def _state_bytes(source: CandidateGenerator) -> int:
    """Bytes of the arrays that a fitted source holds."""
    total = 0
    for name, value in vars(source).items():
        if name.endswith("_"):
            csr = isinstance(value, sparse.csr_matrix)
            parts = [value.data, value.indices, value.indptr] if csr else [value]
            total += sum(int(getattr(part, "nbytes", 0)) for part in parts)
    return total


def _last(target: pl.DataFrame) -> str:
    return str(target["time"].max())
