"""What a run found and what its report shows: the types of ``metrics.json`` and ``report.json``."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from retailrec.data.prefilters import Removed
from retailrec.evaluation.results import Difference, Interval, MatchingReport, Window

Means = dict[str, float | None]  # metric -> mean; None where it is not known


class FoldMean(TypedDict):
    """Mean of a metric over several horizons, and its standard deviation."""

    model: str
    metric: str
    mean: float | None
    spread: float | None


class Folds(TypedDict):
    """Several horizons, the last one included."""

    n: int
    summary: list[FoldMean]


class Attainable(TypedDict):
    """Bounds of the best mean to expect, and each model's share of the upper one."""

    low: float
    high: float
    reached: dict[str, float]


class ReliabilityBin(TypedDict):
    """Mean probability and share bought of recommendations with like probabilities."""

    n: int
    predicted: float
    observed: float


class RuleFacts(TypedDict):
    """Candidates that a rule removed, shoppers whose list it changed, and for whom it gave way."""

    removed: int
    bound: int
    gave_way: int


class WindowFacts(TypedDict):
    """A label window: users, pairs bought and proposed, training rows, and what prefilters hide."""

    cutoff: str
    users: int
    bought: int
    bought_and_proposed: int
    rows: int
    repeats: NotRequired[int]
    repeats_hidden: NotRequired[int]
    firsts: NotRequired[int]
    firsts_hidden: NotRequired[int]


class PurposeResult(TypedDict):
    """How lists for one purpose did.

    Attributes
    ----------
    purpose : ``replenish`` or ``discover``
    n_users : shoppers with history who bought something of the kind in the window
    n_bought : what they bought of it, (shopper, item) pairs
    models : name -> metric -> mean; every source alone, held to items of the kind, and two_stage
    verdict : whether two stages pay, in a sentence
    """

    purpose: str
    n_users: int
    n_bought: int
    models: dict[str, Means]
    verdict: str


class RunResult(TypedDict):
    """What `run` found, as ``metrics.json`` holds it."""

    dataset: str
    evaluation: Window
    recipe: str
    models: dict[str, Means]
    verdict: str
    hidden: str | None
    purposes: list[PurposeResult]
    intervals: list[Interval]
    differences: list[Difference]
    folds: Folds | None
    rules: dict[str, RuleFacts] | None
    attainable: dict[str, Attainable] | None
    reliability: list[ReliabilityBin] | None
    prefilters: list[Removed]
    label_windows: list[WindowFacts]
    settings: dict[str, Any]
    seconds: dict[str, float]
    peak_memory_mb: int
    versions: dict[str, str]


class Glance(TypedDict):
    """Figures that describe receipts; see `retailrec.report.data_facts.at_a_glance`."""

    shoppers: int
    items_sold: int
    lines: int
    receipts_per_shopper_median: float | None
    receipts_per_shopper_mean: float | None
    lines_per_receipt_median: float | None
    lines_per_receipt_mean: float | None
    days_between_visits_median: float | None
    days_between_visits_mean: float | None
    repeat_share_28d: float | None
    repeat_share_last_receipt: float | None
    sales_in_top_1_percent: float | None
    sales_in_top_10_percent: float | None
    items_sold_once: float | None
    unit_price_quartiles: list[float | None] | None
    lines_by_weekday: list[float | None]


class Week(TypedDict):
    """Receipts of a week that begins on `start`, and their value where it is known."""

    start: str
    receipts: int
    value: float | None


# share of what lies in ["from", "to"); the last bin is open
Bin = TypedDict("Bin", {"from": int, "to": int | None, "share": float})


class TailPoint(TypedDict):
    """Share of all lines that the most sold share of the items holds."""

    items: float
    lines: float


class LoadFacts(TypedDict):
    """What a load read, kept and rejected; see `retailrec.data.LoadReport`."""

    source: str
    read: int
    kept: int
    merged: int
    pieces: int
    rejected: dict[str, int]
    examples: dict[str, list[int]]
    n_users: int
    n_items: int
    n_baskets: int
    first: str
    last: str
    split: int
    differing: int
    differences: list[tuple[int, str]]
    doubled: int
    zone: str | None
    notes: list[str]


class DataFacts(TypedDict):
    """Receipts at a glance."""

    glance: Glance
    weeks: list[Week]
    receipt_sizes: list[Bin]
    gaps_days: list[Bin]
    long_tail: list[TailPoint]
    load: LoadFacts


class Curve(TypedDict):
    """The ranker's measure after each tree; `best` is the number of trees that predictions use."""

    learn: NotRequired[list[float]]
    validation: NotRequired[list[float]]
    best: int | None


class Importances(TypedDict):
    """Rows of `importances` and `by_family`: ``column`` or ``family``, and ``permutation``."""

    columns: list[dict[str, Any]]
    families: list[dict[str, Any]]


class Ranking(TypedDict):
    """What the ranker learnt from, and what it learnt."""

    windows: list[WindowFacts]
    curve: Curve | None
    judged_on: NotRequired[str]
    importances: Importances | None
    reliability: list[ReliabilityBin] | None


class SegmentMean(TypedDict):
    """Mean of a metric over a group of shoppers."""

    segment: str
    group: str
    metric: str
    mean: float | None
    n_users: int


class Results(TypedDict):
    """Means beside the headline ones, and the headline by segment; by model."""

    details: dict[str, Means]
    segments: dict[str, list[SegmentMean]]


class Often(TypedDict):
    """An item that a shopper buys often."""

    item: str
    times: int
    days_ago: int


class LastReceipt(TypedDict):
    """A receipt of a shopper."""

    date: str
    items: list[str]


class Listed(TypedDict):
    """An item that a shopper was recommended."""

    item: str
    bought: bool
    reason: NotRequired[str]


class Example(TypedDict):
    """A shopper: what they had, were recommended (by model) and bought."""

    user: str
    receipts: int
    often: list[Often]
    last_receipts: list[LastReceipt]
    lists: dict[str, list[Listed]]
    bought: list[str]


class SentGroup(TypedDict):
    """Shoppers who were, or were not, sent coupons."""

    group: str
    n_users: int
    receipts: float
    precision: float
    recommended: float | None
    bought: float
    redeemed: float


class SentFacts(TypedDict):
    """Campaigns that ran in the window, and groups of shoppers by whether they were sent one."""

    campaigns: int
    products: int
    caution: str
    groups: list[SentGroup]


class Described(TypedDict):
    """What the report shows beside the run's result."""

    data: DataFacts
    matching: MatchingReport
    ranking: Ranking
    results: Results
    examples: list[Example]
    sent_coupons: NotRequired[SentFacts | None]


class Report(Described, RunResult):
    """All numbers of the page, as ``report.json`` holds them."""
