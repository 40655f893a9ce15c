"""The matching report: what each source finds, what it adds, and how many candidates are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
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
from retailrec.data.retail_data import Mapped, Part
from retailrec.data.splits import Split
from retailrec.evaluation.judge import ItemFacts, Judge, no_user_to_judge
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


_END = datetime(9999, 1, 1)  # the window reaches to the last receipt
_JUDGED = "judged"  # of the users asked for: is the user judged, or in a group alone?


def gather(
    stage: StageOne, held_out: Split, filtered: RetailData, ask: Ask, progress: Progress = silent
) -> Evidence:
    """The evidence of all users, also where the data is a sample of them.

    Parameters
    ----------
    filtered : the past of `held_out` with prefilters applied

    Raises
    ------
    DataError
        If no user with history bought anything in the window.
    """
    engine = held_out.past.engine
    facts = engine.share(ItemFacts.of(held_out.past))
    users = engine.users(filtered, held_out.target, _END)
    buyers, seen = users.map(
        partial(_buyers, facts), {"receipts": pl.Int64(), "described": pl.Boolean()}
    )
    receipts = buyers["receipts"].to_numpy()
    known = receipts > 0
    if not known.any():
        raise no_user_to_judge(buyers.height, sum(of["active"] for of in seen))
    groups = cold_groups(receipts, buyers["described"].to_numpy())
    of_group = drawn_of_groups(groups, ask)
    judged = np.zeros(len(receipts), np.bool_)
    judged[np.flatnonzero(known)[drawn(int(known.sum()), ask)]] = True
    asked = judged.copy()
    for rows in of_group.values():
        asked[rows] = True
    names = [*(source.name for source in stage.sources), POOL]
    of_names: dict[str, pl.DataType] = dict.fromkeys(names, pl.Int32())
    flags: dict[str, pl.DataType] = dict.fromkeys((_JUDGED, "repeat", "seen"), pl.Boolean())
    pairs, more = users.map(
        partial(_purchases, facts, engine.share(stage), ask.k),
        {"item": pl.Int32(), **flags, **of_names},
        buyers.select(USER_ID, pl.Series(_JUDGED, judged)).filter(pl.Series(asked)),
        progress,
    )
    pairs = pairs.sort(USER_ID, "item").with_columns(hit=pl.col(POOL).is_between(0, AT - 1))
    parts = [
        pairs.join(buyers[rows].select(USER_ID), on=USER_ID, how="semi", maintain_order="left").select(
            pl.lit(name).alias("group"), pl.col(USER_ID).alias("user"), "item", "hit", "seen"
        )
        for name, rows in of_group.items()
    ]
    sizes = {name: int(chosen.sum()) for name, chosen in groups.items()}
    unseen_share = sum(of["unseen"] for of in seen) / sum(of["pairs"] for of in seen)
    return Evidence(
        _found_of(pairs.filter(_JUDGED), more, names, filtered.n_items),
        Cold(sizes, pl.concat(parts), unseen_share),
        int((~known).sum()),
        max(of["last"] for of in seen),
    )


def _buyers(facts: Callable[[], ItemFacts], part: Part) -> Mapped:
    """`user_id`, `receipts` before the window and `described` (by any attribute) of its buyers."""
    past, bought = part.past, part.target.select("user", "item").unique()
    buyers = bought["user"].unique().sort()
    of_user = past.log.group_by("user").agg(pl.col("basket").n_unique().cast(pl.Int64))
    counted = buyers.to_frame().join(of_user, on="user", how="left", maintain_order="left")
    there = [pl.col(c).is_not_null() for c in past.users.columns if c != USER_ID]
    rows = past.users[buyers].select(
        USER_ID,
        counted["basket"].fill_null(0).alias("receipts"),
        pl.any_horizontal(pl.lit(False), *there).alias("described"),
    )
    unseen = facts().buyers[bought["item"].to_numpy()] == 0
    return rows, {
        "pairs": bought.height,
        "unseen": int(unseen.sum()),
        "active": len(past.active_users()),
        "last": str(part.target["time"].max() or ""),
    }


def _purchases(
    facts: Callable[[], ItemFacts], stage: Callable[[], StageOne], k: int, part: Part
) -> Mapped:
    """A row a pair that the users asked for bought: at which place each list has it.

    Who is not judged has a place in the pool alone, 0 for any among the first 200. The facts are
    `common` and the codes of `listed` of `Found`, and its seconds.
    """
    past, lists, asked = part.past, stage(), part.asked
    assert asked is not None
    users, judged = past.user_codes(asked[USER_ID]), asked[_JUDGED].to_numpy()
    names = [*(source.name for source in lists.sources), POOL]
    frames, facts_of_lists = [], None
    if judged.any():
        judge = Judge.of(past, part.target, facts())
        judge = judge.select(np.isin(judge.users, users[judged]))
        found = find_purchases(lists, judge, past, k, part.progress)
        row, item = pairs_of_keys(judge.keys, judge.n_items)
        pairs = pl.DataFrame({"user": judge.users[row], "item": item, "repeat": found.repeat})
        places = (pl.Series(name, found.places[name]) for name in names)
        frames.append(pairs.with_columns(pl.lit(True).alias(_JUDGED), *places))
        listed = {name: np.flatnonzero(found.listed[name]).tolist() for name in names}
        facts_of_lists = [found.common.tolist(), listed, found.seconds]
    if not judged.all():
        bought = part.target.select("user", "item").unique().sort("user", "item")
        hits = pool_hits(lists, past, users[~judged], bought)
        place = pl.when("hit").then(0).otherwise(-1).alias(POOL)
        frames.append(hits.select("user", "item", pl.lit(False).alias(_JUDGED), place))
    kinds = (pl.col("user").cast(pl.Int64), pl.col("item", POOL).cast(pl.Int32))
    rows = pl.concat((frame.with_columns(kinds) for frame in frames), how="diagonal")
    seen = pl.Series("seen", facts().buyers[rows["item"].to_numpy()] > 0)
    return rows.with_columns(past.users[USER_ID].gather(rows["user"]), seen), facts_of_lists


def _found_of(pairs: pl.DataFrame, more: list[Any], names: Sequence[str], n_items: int) -> Found:
    """What was found in all parts, from the judged users' pairs and the facts of the parts."""
    listed = {name: np.zeros(n_items, np.bool_) for name in names}
    for _, codes, _ in more:
        for name in names:
            listed[name][codes[name]] = True
    return Found(
        pairs[USER_ID].rle_id().cast(pl.Int64).to_numpy(),
        pairs["repeat"].to_numpy(),
        {name: pairs[name].to_numpy() for name in names},
        np.sum([np.array(common, np.int64) for common, _, _ in more], axis=0),
        listed,
        {name: sum(took[name] for _, _, took in more) for name in names if name != POOL},
    )


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
