"""The matching report: what each source finds, what it adds, and how many candidates are enough."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retailrec.candidates import CandidateGenerator
from retailrec.compute.progress import Progress, silent
from retailrec.data.prefilters import apply_prefilters
from retailrec.data.splits import Split
from retailrec.evaluation.evidence import AT, POOL, Ask, Cold, Found, Gather, gather_here
from retailrec.evaluation.results import MatchingReport
from retailrec.recommender.two_stage import TwoStageRecommender

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
