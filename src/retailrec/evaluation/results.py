"""Results that others read by key: the rows and reports, with their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from retailrec.data.prefilters import Removed

Means = dict[str, float | None]  # metric -> mean; None where it is not known


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
        "prefilters": list[Removed],
    },
)


class PurposeResult(TypedDict):
    """How lists for one purpose did.

    Attributes
    ----------
    purpose : ``replenish`` or ``discover``
    n_users : shoppers with history who bought something of the kind in the window
    n_bought : what they bought of it, (shopper, item) pairs
    models : name -> metric -> mean; every source alone, held to items of the kind, and two_stage
    verdict : whether two stages improve on the best of them, in a sentence
    """

    purpose: str
    n_users: int
    n_bought: int
    models: dict[str, Means]
    verdict: str


class RunResult(TypedDict):
    """What `run` found, as ``metrics.json`` holds it.

    Attributes
    ----------
    folds : `n` horizons and their `summary`, rows of `model`, `metric`, `mean`, `spread`
    rules : rule -> candidates `removed`, shoppers `bound` by it, and for whom it `gave_way`
    attainable : metric -> `low` and `high` bound of the best mean to expect, and how much of it is
        `reached` by model; of generated data alone
    reliability : bins of like probabilities: `n`, mean `predicted`, share `observed`
    label_windows : `cutoff`, `users`, pairs `bought` and `bought_and_proposed`, training `rows` of each
    """

    dataset: str
    evaluation: Window
    recipe: str
    models: dict[str, Means]
    verdict: str
    hidden: str | None
    purposes: list[PurposeResult]
    intervals: list[Interval]
    differences: list[Difference]
    folds: dict[str, Any] | None
    rules: Mapping[str, Any] | None
    attainable: dict[str, dict[str, Any]] | None
    reliability: list[dict[str, Any]] | None
    prefilters: list[Removed]
    label_windows: list[dict[str, Any]]
    settings: dict[str, Any]
    seconds: dict[str, float]
    peak_memory_mb: int
    versions: dict[str, str]
