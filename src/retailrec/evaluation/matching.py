"""The matching report: what each source finds, what it adds, and how many candidates are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from retailrec.candidates import CandidateGenerator
from retailrec.candidates.pool import merge_pool, proposed_pairs
from retailrec.compute.csr import find_listed, pair_keys, pairs_of_keys
from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import map_shards, n_threads
from retailrec.compute.topk import topk_rows
from retailrec.data import RetailData
from retailrec.data.history import History
from retailrec.data.prefilters import apply_prefilters
from retailrec.data.splits import Split
from retailrec.evaluation.judge import Judge
from retailrec.evaluation.results import MatchingReport
from retailrec.recommender.stage_one import StageOne
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import USER_ID

AT = 200  # where overlap, marginal gain, repeat share and coverage are taken
POOL = "pool"
_SHARD = 256  # shoppers; lists of 2000 candidates are long


@dataclass(frozen=True)
class Found:
    """Where the sources and the pool list what judged shoppers bought; by source or ``pool``."""

    rows: NDArray[np.int64]  # (n_bought,) number of the shopper of each pair bought, ascending from 0
    repeat: NDArray[np.bool_]  # (n_bought,) had the shopper bought the item before?
    places: dict[str, NDArray[np.int32]]  # (n_bought,) place in the list, from 0; -1: not there
    common: NDArray[np.int64]  # (n_sources, n_sources) items of both among the first 200, summed up
    listed: dict[str, NDArray[np.bool_]]  # (n_items,) is the item among any user's first 200?
    seconds: dict[str, float]  # that a source's candidates took

    @property
    def n_users(self) -> int:
        """Judged shoppers."""
        return int(self.rows[-1]) + 1

    def within(self, name: str, k: int) -> NDArray[np.bool_]:
        """(n_bought,) is the purchase among the first k?"""
        places = self.places[name]
        return (places >= 0) & (places < k)

    def mean(self, found: NDArray[np.bool_]) -> float:
        """Mean over shoppers of the share of purchases found."""
        share = np.bincount(self.rows, found, self.n_users) / np.bincount(self.rows)
        return round(float(share.mean()), 5)


class Cold(NamedTuple):
    """Shoppers by what is known of them.

    Attributes
    ----------
    sizes : group -> buyers of the window
    pairs : `group`, `user`, `item`, `hit` (is it in the pool's first 200?) and `seen` (was it sold
        before?): a row a pair bought by a drawn shopper, in order of group, shopper and item
    unseen_share : share of all pairs bought that were never sold before
    """

    sizes: dict[str, int]
    pairs: pl.DataFrame
    unseen_share: float


class Evidence(NamedTuple):
    """Of the judged shoppers, and of groups of whom little is known."""

    found: Found
    cold: Cold
    n_cold_users: int
    window_end: str


class Ask(NamedTuple):
    """What is asked: lists of `k`, of at most so many shoppers, drawn by `seed`."""

    k: int
    most_users: int
    seed: int


# of the fitted stage, a split whose past is as it came, and the same past with prefilters applied
Gather = Callable[[StageOne, Split, RetailData, Ask, Progress], Evidence]


def gather_here(
    stage: StageOne, held_out: Split, filtered: RetailData, ask: Ask, progress: Progress = silent
) -> Evidence:
    """The evidence of the shoppers that the data holds, on this machine.

    Raises
    ------
    DataError
        If nobody with history bought anything in the window.
    """
    judge = Judge.of(*held_out)
    judge = judge.select(drawn(len(judge.users), ask))
    found = find_purchases(stage, judge, filtered, ask.k, progress)
    past, target = held_out
    bought = target.select("user", "item").unique().sort("user", "item")
    buyers = bought["user"].unique().sort().to_numpy().astype(np.int64)
    receipts = past.log.group_by("user").agg(pl.col("basket").n_unique())
    count = np.zeros(past.n_users, np.int64)
    count[receipts["user"].to_numpy()] = receipts["basket"].to_numpy()
    described = np.zeros(past.n_users, np.bool_)
    for column in past.users.drop(USER_ID):
        described |= column.is_not_null().to_numpy()
    groups = cold_groups(count[buyers], described[buyers])
    seen = np.zeros(past.n_items, np.bool_)
    seen[past.log["item"].unique().to_numpy()] = True
    parts = [
        pool_hits(stage, filtered, buyers[rows], bought).with_columns(group=pl.lit(name))
        for name, rows in drawn_of_groups(groups, ask).items()
    ]
    pairs = pl.concat(parts)
    pairs = pairs.with_columns(seen=pl.Series(seen[pairs["item"].to_numpy()]))
    unseen_share = float((~seen[bought["item"].to_numpy()]).mean())
    cold = Cold({name: int(chosen.sum()) for name, chosen in groups.items()}, pairs, unseen_share)
    n_cold = len(buyers) - len(np.intersect1d(buyers, past.active_users()))
    return Evidence(found, cold, n_cold, str(target["time"].max()))


def drawn(n: int, ask: Ask) -> NDArray[np.bool_]:
    """(n,) which of the judged shoppers are taken."""
    if n <= ask.most_users:
        return np.ones(n, np.bool_)
    chosen = np.random.default_rng(ask.seed).choice(n, ask.most_users, replace=False)
    return np.isin(np.arange(n), chosen)


def cold_groups(
    receipts: NDArray[np.int64], described: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Group -> (n_buyers,) does the buyer belong to it?"""
    return {
        "no receipt, attributes known": (receipts == 0) & described,
        "no receipt, nothing known": (receipts == 0) & ~described,
        "one receipt": receipts == 1,
        "two to five": (receipts >= 2) & (receipts <= 5),
        "more": receipts > 5,
    }


def drawn_of_groups(groups: dict[str, NDArray[np.bool_]], ask: Ask) -> dict[str, NDArray[np.int64]]:
    """Group -> ascending rows of the buyers taken; empty groups are left out."""
    rng = np.random.default_rng(ask.seed)
    out = {}
    for name, chosen in groups.items():
        rows = np.flatnonzero(chosen)
        if len(rows) > ask.most_users:
            rows = np.sort(rng.choice(rows, ask.most_users, replace=False))
        if len(rows):
            out[name] = rows
    return out


def find_purchases(
    stage: StageOne, judge: Judge, past: RetailData, k: int, progress: Progress = silent
) -> Found:
    """Where the sources' lists of `k`, and the pool's, have what the judge's shoppers bought."""
    history = past.history(codes=judge.users)
    rows, bought = pairs_of_keys(judge.keys, judge.n_items)
    indptr = np.searchsorted(rows, np.arange(len(judge.users) + 1))
    places: dict[str, NDArray[np.int32]] = {}
    tops: dict[str, NDArray[np.int32]] = {}
    seconds: dict[str, float] = {}

    def place(name: str, items: NDArray[np.int32]) -> None:
        pair = find_listed(indptr, bought, items)
        row, rank = np.nonzero(pair >= 0)
        places[name] = np.full(len(bought), -1, np.int32)
        places[name][pair[row, rank]] = rank
        tops[name] = items[:, :AT]

    for number, source in enumerate(stage.sources, start=1):
        progress("sources", number, len(stage.sources))
        started = perf_counter()
        items = _in_shards(partial(_best, source, k), history)
        seconds[source.name] = perf_counter() - started
        place(source.name, items)
    common = _common([tops[source.name] for source in stage.sources], judge.n_items)
    progress("pool")
    place(POOL, _in_shards(lambda part: pool_order(stage, part, k), history))
    own = pair_keys(history.user_of_pair, history.items, judge.n_items)
    listed = {name: _listed(items, judge.n_items) for name, items in tops.items()}
    return Found(rows, np.isin(judge.keys, own), places, common, listed, seconds)


def pool_hits(
    stage: StageOne, past: RetailData, users: NDArray[np.int64], bought: pl.DataFrame
) -> pl.DataFrame:
    """`user`, `item`, `hit` (is it in the pool's first 200?) of what these shoppers bought."""
    items = _in_shards(lambda part: pool_order(stage, part, AT), past.history(codes=users))
    theirs = bought.filter(pl.col("user").is_in(users.tolist())).select("user", "item")
    row = np.searchsorted(users, theirs["user"].to_numpy())
    proposed = pair_keys(np.arange(len(users))[:, None], items, past.n_items)
    hit = np.isin(pair_keys(row, theirs["item"].to_numpy(), past.n_items), proposed)
    return theirs.with_columns(pl.Series("hit", hit))


def pool_order(stage: StageOne, history: History, k: int) -> NDArray[np.int32]:
    """(n_users, k) the pool in the pre-ranker's order (of the first source's score without one)."""
    if stage.preranker is None:
        pairs = proposed_pairs(stage.sources, history, stage.n_candidates)
        return topk_rows(*pairs, stage.sources[0].score(history, pairs), k)[0]
    pool = merge_pool(stage.sources, history, stage.n_candidates)
    return pool.best(stage.preranker.predict(stage.preranker_columns(pool)), k).items


def _best(source: CandidateGenerator, k: int, history: History) -> NDArray[np.int32]:
    return source.candidates(history, k).items


def _in_shards(function: Callable[[History], NDArray[np.int32]], history: History) -> NDArray[np.int32]:
    """The function's lists for all shoppers, shard by shard on all cores."""

    def shard(rows: slice) -> NDArray[np.int32]:
        return function(history.take(rows))

    return np.vstack(list(map_shards(shard, len(history), size=_SHARD, threads=n_threads(0))))


def _common(tops: list[NDArray[np.int32]], n_items: int) -> NDArray[np.int64]:
    """(n_lists, n_lists) items that two kinds of lists have in common, summed over shoppers."""
    matrices = []
    for items in tops:
        row, column = np.nonzero(items >= 0)
        ones = np.ones(len(row), np.int64)
        shape = (len(items), n_items)
        matrices.append(sparse.csr_matrix((ones, (row, items[row, column])), shape=shape))
    return np.array([[int(x.multiply(y).sum()) for y in matrices] for x in matrices], np.int64)


def _listed(items: NDArray[np.int32], n_items: int) -> NDArray[np.bool_]:
    out = np.zeros(n_items, np.bool_)
    out[items[items >= 0]] = True
    return out


GRID = (20, 50, 100, 200, 500, 750, 1000, 1500, 2000)  # the walk-through's
LEAST_GAIN = 2e-4  # recall per added candidate under which more candidates are not worth it
LEAST_MARGINAL = 5e-4  # recall that only this source brings, under which it does not earn its place
MOST_USERS = 20_000  # that are judged; their mean recall is right to .002 or so


def matching_report(
    model: TwoStageRecommender,
    held_out: Split,
    *,
    grid: Sequence[int] = GRID,
    least_gain: float = LEAST_GAIN,
    gather: Gather = gather_here,
    progress: Progress = silent,
) -> MatchingReport:
    """Fit sources and pre-ranker on what lies before a window, and judge them by what was bought in it.

    The pre-ranker learns from the label window before that. Returns what `judge_matching` does.
    """
    progress("fit")
    model.fit_matching(held_out.past, progress)
    return judge_matching(
        model, held_out, grid=grid, least_gain=least_gain, gather=gather, progress=progress
    )


def judge_matching(
    model: TwoStageRecommender,
    held_out: Split,
    *,
    grid: Sequence[int] = GRID,
    least_gain: float = LEAST_GAIN,
    most_users: int = MOST_USERS,
    seed: int = 0,
    gather: Gather = gather_here,
    progress: Progress = silent,
) -> MatchingReport:
    """Judge the sources and the pool of a fitted model by the purchases of a held-out window.

    Recall is the mean over shoppers who bought in the window and have history (`most_users` of them,
    drawn, if there are more; as many of each group in ``cold``). The truth is all they bought, items
    that prefilters removed included. The pool's order is the pre-ranker's. `gather` finds out where
    their purchases stand in the lists.

    Returns
    -------
    dict with ``recall@k`` {source or "pool": {k: recall}}, ``chosen_k``, ``overlap``, ``marginal``,
    ``sources`` (hit rate, repeat share, coverage, seconds, size), ``cold`` and ``advice``
    """
    past, removed = apply_prefilters(model.prefilters, held_out.past)
    stage, ask = model.stage_one, Ask(max(grid), most_users, seed)
    found, cold, n_cold, window_end = gather(stage, held_out, past, ask, progress)
    names = [source.name for source in stage.sources]
    recall = {
        name: {str(k): found.mean(found.within(name, k)) for k in grid} for name in (*names, POOL)
    }
    n_recommendable = int(past.recommendable.sum())
    facts: dict[str, dict[str, Any]] = {}
    for source in stage.sources:
        facts[source.name] = {
            **_facts(found, source.name, n_recommendable),
            "fit_seconds": round(model.report_["source_seconds"].get(source.name, 0.0), 3),
            "candidates_seconds": round(found.seconds[source.name], 3),
            "state_mb": round(_state_bytes(source) / 1e6, 2),
        }
    facts[POOL] = _facts(found, POOL, n_recommendable)
    marginal = _marginal(found, names)
    return {
        "evaluation": {
            "cutoff": held_out.past.end.isoformat(),
            "n_users": found.n_users,
            "n_cold_users": n_cold,
            "window_end": window_end,
        },
        "recall@k": recall,
        "chosen_k": choose_k(recall[POOL], least_gain),
        "least_gain_per_candidate": least_gain,
        "overlap": {
            a: {b: round(float(n / max(row[i], 1)), 4) for b, n in zip(names, row, strict=True)}
            for i, (a, row) in enumerate(zip(names, found.common, strict=True))
        },
        "marginal": marginal,
        "sources": facts,
        "cold": _cold_facts(cold),
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


def _facts(found: Found, name: str, n_recommendable: int) -> dict[str, Any]:
    within = found.within(name, AT)
    hit = np.bincount(found.rows, within, found.n_users) > 0
    return {
        "hit_rate@200": round(float(hit.mean()), 5),
        "recall@200_of_repeats": _share(within, found.repeat),
        "recall@200_of_new": _share(within, ~found.repeat),
        "repeat_share_of_found": _share(found.repeat, within),
        "catalogue_coverage": round(int(found.listed[name].sum()) / max(n_recommendable, 1), 5),
    }


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float | None:
    return round(float(part[whole].mean()), 5) if whole.any() else None


def _marginal(found: Found, names: Sequence[str]) -> dict[str, float]:
    """Recall of the union of all sources' first 200 that is lost without the source."""
    stacked = np.stack([found.within(name, AT) for name in names])
    times = stacked.sum(axis=0)
    return {name: found.mean(hits & (times == 1)) for name, hits in zip(names, stacked, strict=True)}


def _cold_facts(cold: Cold) -> dict[str, dict[str, Any]]:
    """Recall@200 of the pool for shoppers of whom little is known, and of items never sold before."""
    out: dict[str, dict[str, Any]] = {name: {"n_users": 0} for name in cold.sizes}
    for (name,), theirs in cold.pairs.group_by("group", maintain_order=True):
        row = theirs["user"].rle_id().to_numpy()
        share = np.bincount(row, theirs["hit"].to_numpy()) / np.bincount(row)
        recall = round(float(share.mean()), 5)
        out[str(name)] = {"n_users": cold.sizes[str(name)], "pool_recall@200": recall}
    unseen = cold.pairs.filter(~cold.pairs["seen"])["hit"]
    out["items never sold before"] = {
        "share_of_purchases": round(cold.unseen_share, 5),
        "pool_recall@200": round(int(unseen.sum()) / len(unseen), 5) if len(unseen) else None,
    }
    return out


def _state_bytes(source: CandidateGenerator) -> int:
    """Bytes of the arrays that a fitted source holds."""
    total = 0
    for name, value in vars(source).items():
        if name.endswith("_"):
            csr = isinstance(value, sparse.csr_matrix)
            parts = [value.data, value.indices, value.indptr] if csr else [value]
            total += sum(int(getattr(part, "nbytes", 0)) for part in parts)
    return total
