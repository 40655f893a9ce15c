"""Results that others read by key: the rows and reports, with their types."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from retailrec.data.prefilters import Removed


class Interval(TypedDict):
    """Mean of a metric and its confidence interval; None where it is not known."""

    model: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


class Difference(TypedDict):
    """Mean of `model` less mean of `versus`, with its interval and p-values."""

    model: str
    versus: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    p: float
    p_corrected: float


class Uncertainty(TypedDict):
    """Intervals of each mean, and differences between every two models."""

    intervals: list[Interval]
    differences: list[Difference]


class Window(TypedDict):
    """The window that was judged, and the shoppers in it."""

    cutoff: str
    n_users: int
    n_cold_users: int
    window_end: NotRequired[str]
    horizon_days: NotRequired[float]


SourceFacts = TypedDict(
    "SourceFacts",
    {
        "hit_rate@200": float,
        "recall@200_of_repeats": float | None,
        "recall@200_of_new": float | None,
        "repeat_share_of_found": float | None,
        "catalogue_coverage": float,
        "fit_seconds": NotRequired[float],
        "candidates_seconds": NotRequired[float],
        "state_mb": NotRequired[float],
    },
)
ColdFacts = TypedDict(
    "ColdFacts",
    {
        "n_users": NotRequired[int],
        "share_of_purchases": NotRequired[float],
        "pool_recall@200": NotRequired[float | None],
    },
)
MatchingReport = TypedDict(
    "MatchingReport",
    {
        "dataset": NotRequired[str],
        "evaluation": Window,
        "recall@k": dict[str, dict[str, float]],
        "chosen_k": int,
        "least_gain_per_candidate": float,
        "overlap": dict[str, dict[str, float]],
        "marginal": dict[str, float],
        "sources": dict[str, SourceFacts],
        "cold": dict[str, ColdFacts],
        "advice": dict[str, bool],
        "prefilters": list[Removed],
    },
)
