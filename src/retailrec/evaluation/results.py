"""Results that others read by key: the rows and reports, with their types."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


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
        "sources": dict[str, dict[str, Any]],
        "cold": dict[str, dict[str, Any]],
        "advice": dict[str, bool],
        "prefilters": list[dict[str, Any]],
    },
)
