"""Uplift: what an offer changes, learnt from explored lists, and how well that is known.

Three learners on LightGBM, over the point-in-time rows of the recommender's features: T (two models),
X (Künzel, Sekhon, Bickel and Yu, PNAS 2019) and DR (Kennedy, EJS 2023). Each is judged on users it
never saw, by what the log says of their rows, whatever a model says: with p the logged chance ::

    m(1) - m(0) + shown (y - m(1)) / p - (1 - shown) (y - m(0)) / (1 - p)

is right on average, whatever m is. Ordered by the learnt uplift, its running mean is the uplift curve;
the area below it is AUUC, and what lies above a random order Qini.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import Days, Level, Seed, Threads, checked
from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import map_shards, n_threads
from retailrec.compute.statistics import Difference, Floats, mean_interval
from retailrec.data import RetailData
from retailrec.data.history import Pairs
from retailrec.data.ids import row_of_ids, runs_of_ids
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, ids_meet, typed_ids
from retailrec.errors import DataError
from retailrec.features.assemble import FeatureSet
from retailrec.offers.counterfactual import (
    LEAST_P,
    bought_after,
    chances_p,
    first_requests,
    log_meets,
)
from retailrec.offers.ledger import pool_frame

_PARTS = 3  # of users: a learner learns from two of them and is judged on the third
_OPTIONS: Mapping[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "lambda_l2": 5.0,
    "max_bin": 63,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}
_TREES = 100
_OF_THREE, _OF_TEN = 1 - 0.05 / 3, 1 - 0.05 / 10  # levels of three learners, of ten tenths at once
Predict = Callable[[NDArray[np.float32]], Floats]


@dataclass(frozen=True)
class Learner:
    """How well a learner orders rows, on users that it never saw.

    Attributes
    ----------
    name : ``t``, ``x`` or ``dr``
    auuc, auuc_low, auuc_high : area below the uplift curve, per row offered, and its interval, which
        holds for the three learners at once (Bonferroni), since the best of them is taken
    qini, qini_low, qini_high : of it what lies above a random order
    """

    name: str
    auuc: float
    auuc_low: float
    auuc_high: float
    qini: float
    qini_low: float
    qini_high: float


@dataclass(frozen=True)
class Decile:
    """A tenth of the rows by learnt uplift, greatest first: what was learnt, and what was so.

    Attributes
    ----------
    predicted : mean of the learnt uplift
    effect, low, high : mean effect by the log, and its interval, of the level that would hold for ten
        at once (Bonferroni): rows of one part of the users are ordered by what was learnt from the
        other parts, so errors of the outermost tenths add up
    n_rows : rows
    """

    predicted: float
    effect: float
    low: float
    high: float
    n_rows: int


@dataclass(frozen=True)
class UpliftReport:
    """What was learnt of offers, and how sure that is.

    Attributes
    ----------
    metric, days : what counts, and for how long after a list
    n_users, n_rows, n_shown : users, pool rows, and those that were shown
    effect, effect_low, effect_high : mean effect of an offer
    learners : each on users that it never saw
    chosen : the learner of greatest Qini
    deciles : of the chosen one
    curve : share of rows offered -> effect per row of the pool, by the chosen order
    notes : sentences on what was left out
    """

    metric: str
    days: float
    n_users: int
    n_rows: int
    n_shown: int
    effect: float
    effect_low: float
    effect_high: float
    learners: tuple[Learner, ...]
    chosen: str
    deciles: tuple[Decile, ...]
    curve: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """What a manager asks: does it matter who gets which offer, and how sure is that?"""
        first = self.deciles[0]
        return (
            f"An offer changes {self.metric} by {self.effect:+,.3f} on average, between "
            f"{self.effect_low:+,.3f} and {self.effect_high:+,.3f} (95%), in {self.days:g} days; the "
            f"tenth of the offers that is expected to change most, by {first.effect:+,.3f}, between "
            f"{first.low:+,.3f} and {first.high:+,.3f}."
        )


@dataclass(frozen=True)
class Uplift:
    """A learner fitted to all users of a log, and its report.

    Attributes
    ----------
    predict : rows of features -> uplift
    report : figures
    """

    predict: Predict
    report: UpliftReport

    def score(self, pairs: Any, data: RetailData, *, threads: int = 0) -> pl.DataFrame:
        """The pairs with `uplift_margin`, what an offer is expected to change, as of the receipts' end.

        Raises
        ------
        DataError
            If pairs lack ids, or no user or item is one of the receipts.
        """
        frame = known_pairs(pairs, data)
        x = feature_rows(data, frame["user_id"], frame["item_id"], threads=threads)
        return frame.with_columns(uplift_margin=pl.Series(self.predict(x)))


@checked
def fit_uplift(
    pool: Any,
    data: RetailData,
    *,
    days: Days,
    margin: Any = None,
    threads: Threads = 0,
    seed: Seed = 0,
    progress: Progress = silent,
) -> Uplift:
    """What an offer changes, learnt from explored lists and the receipts after them.

    Parameters
    ----------
    pool : rows in the columns of `POOL`, of one policy or several
    data : receipts from before the first list to the end of the last window
    days : length of the window after each list
    margin : frame of `item_id` and `margin`, money for one unit; without it money paid counts
    threads : 0 is all cores

    Raises
    ------
    DataError
        If windows are not over, logged chances are not those of what was shown, or the log is too small
        to tell which offers change more than others: then with the number of users it would take.
    """
    rows, notes = first_requests(pool_frame(pool, who="the log"))
    notes += log_meets(rows, data)
    table = bought_after(rows, data, days, margin)
    metric = "margin" if margin is not None else "money"
    if metric not in table.columns:
        raise DataError(
            "uplift: the receipts have no money (value or price), so no change of it can be learnt; "
            "give --margin, or receipts with money."
        )
    if n := int((table["propensity"] >= 1).sum()):
        table = table.filter(pl.col("propensity") < 1)
        notes.append(f"{n:,} rows were sure to be shown; nothing is learnt from them.")
    if table.is_empty() or not 0 < int(table["shown"].sum()) < table.height:
        raise DataError(
            "uplift: the log needs items that were shown and items that were left out by chance; draw "
            "lists by `explore`."
        )
    if not (table["units"] != 0).any():
        raise DataError(
            f"uplift: of the pool nothing was bought in {days:g} days, and how rare that is is not "
            f"known. Log more users, or give more days."
        )
    y, shown, p = (table[name].to_numpy() for name in (metric, "shown", "propensity"))
    user = table["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    if (wrong := chances_p(shown, p, user)) < LEAST_P:
        raise DataError(
            f"uplift: items were not shown as often as the logged chances say (p {wrong:.2g}). Log the "
            f"chances that lists were drawn with."
        )
    progress("features")
    x = _rows_at_times(table, data, threads)
    problem = _Problem(x, y.astype(float), shown, p, n_threads(threads), seed)
    learnt, effect = _crossed(problem, user, progress)
    learners = [_judged(name, learnt[name], effect, user) for name in learnt]
    best = max(learners, key=lambda one: one.qini)
    whole = _per_user(effect, user)
    _refuse_what_is_too_small(best, whole, effect, learnt[best.name], user)
    progress("learn from all")
    final = _learn(problem, np.ones(len(y), bool), user)
    numbers = (int(user.max()) + 1, len(y), int(shown.sum()), *whole[:3])
    deciles = tuple(_deciles(learnt[best.name], effect, user))
    curve = tuple(_curve(learnt[best.name], effect))
    how = (tuple(learners), best.name, deciles, curve, tuple(notes))
    return Uplift(final[best.name], UpliftReport(metric, days, *numbers, *how))


def known_pairs(pairs: Any, data: RetailData) -> pl.DataFrame:
    """The pairs, with ids as they are in the receipts now.

    Raises
    ------
    DataError
        If they lack ids, or no user or item is one of the receipts.
    """
    frame = to_polars(pairs, who="pairs")
    for name in ("user_id", "item_id"):
        if name not in frame.columns:
            raise DataError(f"pairs lack column '{name}'; they have {frame.columns}. Rename it.")
    frame = data.changed_ids.of_lists(frame)
    pairs_meet(frame["user_id"], frame["item_id"], data)
    return frame


def pairs_meet(users: pl.Series, items: pl.Series, data: RetailData) -> list[str]:
    """Sentences on pairs whose user or item the receipts don't know, or know in another notation.

    Raises
    ------
    DataError
        If they know none of the users, or none of the items.
    """
    notes = []
    for what, ids, known in (
        ("items", items, data.items["item_id"]),
        ("users", users, data.users["user_id"]),
    ):
        who = f"the pairs' {what}"
        notes.append(ids_meet(ids, known, who=who, whose="the receipts", share=0))
        strange = row_of_ids(ids_like(ids, known, who=who), known) < 0
        if n := int(strange.sum()):
            notes.append(
                f"{n:,} of {len(ids):,} pairs are of {what} that the receipts do not know, such as "
                f"{ids.filter(pl.Series(strange))[0]}; what an offer changes there is a guess."
            )
    return [note for note in notes if note]


@checked
def feature_rows(
    data: RetailData, users: pl.Series, items: pl.Series, *, threads: Threads = 0
) -> NDArray[np.float32]:
    """(n, n_features) the recommender's features of pairs, as of the receipts' end; in their order.

    Raises
    ------
    DataError
        If no user, or no item, is one of the receipts.
    """
    pairs_meet(users, items, data)
    code = row_of_ids(ids_like(items, data.items["item_id"], who="pairs"), data.items["item_id"])
    table = pl.DataFrame({"user": typed_ids(users), "item": code}).with_row_index("row")
    table = table.filter(pl.col("item") >= 0).sort("user", "item")
    features = FeatureSet().fit(data)
    out = np.full((len(users), len(features.names)), np.nan, np.float32, order="F")
    names, starts = runs_of_ids(table["user"])
    place, item = table["row"].to_numpy(), table["item"].to_numpy().astype(np.int32)

    def shard(rows: slice) -> tuple[NDArray[Any], NDArray[np.float32]]:
        history = data.history(names[rows])
        inside = slice(starts[rows.start], starts[rows.stop])
        pairs = Pairs(starts[rows.start : rows.stop + 1] - starts[rows.start], item[inside])
        return place[inside], features.rows(history, pairs)

    for where, block in map_shards(shard, len(names), size=1024, threads=n_threads(threads)):
        out[where] = block
    return out


def _rows_at_times(table: pl.DataFrame, data: RetailData, threads: int) -> NDArray[np.float32]:
    """Features of each row as of the midnight before its list, so that nothing later is known."""
    day = table["time"].dt.truncate("1d")
    blocks: list[NDArray[np.float32]] = []
    places = []
    for moment in day.unique().sort():
        inside = np.flatnonzero((day == moment).to_numpy())
        part = table[inside]
        blocks.append(
            feature_rows(data.asof(moment), part["user_id"], part["item_id"], threads=threads)
        )
        places.append(inside)
    out = np.empty((table.height, blocks[0].shape[1]), np.float32, order="F")
    for where, block in zip(places, blocks, strict=True):
        out[where] = block
    return out


@dataclass(frozen=True)
class _Problem:
    """Rows of a log: features, outcome, whether and with what chance shown."""

    x: NDArray[np.float32]
    y: Floats
    shown: NDArray[np.bool_]
    p: Floats
    threads: int
    seed: int

    def fit(self, rows: NDArray[np.bool_], target: Floats, weight: Floats | None = None) -> Predict:
        """Trees for a target over some rows; `target` and `weight` are of all rows."""
        import lightgbm as lgb

        options = {**_OPTIONS, "num_threads": self.threads, "seed": self.seed}
        given = None if weight is None else weight[rows]
        part = lgb.Dataset(self.x[rows], target[rows], weight=given, free_raw_data=True)
        booster = lgb.train(options, part, _TREES)
        return lambda x: np.asarray(booster.predict(x, num_threads=self.threads), float)


def _crossed(
    problem: _Problem, user: NDArray[np.int64], progress: Progress = silent
) -> tuple[dict[str, Floats], Floats]:
    """Each learner's uplift, and the log's effect, of rows whose users it never saw."""
    part = np.random.default_rng(problem.seed).permutation(int(user.max()) + 1)[user] % _PARTS
    learnt = {name: np.empty(len(user)) for name in ("t", "x", "dr")}
    effect = np.empty(len(user))
    for fold in range(_PARTS):
        progress("learn", fold, _PARTS)
        mine, others = part == fold, part != fold
        found = _learn(problem, others, user)
        for name in learnt:
            learnt[name][mine] = found[name](problem.x[mine])
        effect[mine] = _pseudo_effect(
            problem, mine, found["m0"](problem.x[mine]), found["m1"](problem.x[mine])
        )
    return learnt, effect


def _learn(problem: _Problem, rows: NDArray[np.bool_], user: NDArray[np.int64]) -> dict[str, Predict]:
    """T-, X- and DR-learner from some rows, and the models of what is bought shown and not."""
    y, shown, p = problem.y, problem.shown, problem.p
    half = np.random.default_rng(problem.seed + 1).permutation(int(user.max()) + 1)[user] % 2
    weight = np.where(shown, 1 / p, 1 / (1 - p))  # so that a model is of all rows, not of those shown
    means: dict[bool, list[Predict]] = {True: [], False: []}
    m = {True: np.zeros(len(y)), False: np.zeros(len(y))}
    for at in (0, 1):
        for arm in (True, False):
            learn = rows & (half == at) & (shown == arm)
            if not learn.any():
                raise DataError(
                    f"uplift: the log of {int(user.max()) + 1:,} users is too small: a part of them "
                    f"has no item that was {'shown' if arm else 'left out'}. Log more, or explore more."
                )
            model = problem.fit(learn, y, weight)
            means[arm].append(model)
            other = rows & (half != at)
            m[arm][other] = model(problem.x[other])

    def mean_of(arm: bool) -> Predict:
        return lambda x: (means[arm][0](x) + means[arm][1](x)) / 2

    m1, m0 = mean_of(True), mean_of(False)
    imputed = np.where(shown, y - m[False], m[True] - y)
    x1, x0 = (problem.fit(rows & (shown == arm), imputed, weight) for arm in (True, False))
    share = float(shown[rows].mean())
    doubly = problem.fit(rows, _pseudo_effect(problem, slice(None), m[False], m[True]))
    return {
        "m1": m1,
        "m0": m0,
        "t": lambda x: m1(x) - m0(x),
        "x": lambda x: share * x0(x) + (1 - share) * x1(x),
        "dr": doubly,
    }


def _pseudo_effect(problem: _Problem, rows: Any, m0: Floats, m1: Floats) -> Floats:
    """What the log says of the effect on each row, right on average."""
    y, shown, p = problem.y[rows], problem.shown[rows], problem.p[rows]
    return m1 - m0 + np.where(shown, (y - m1) / p, -(y - m0) / (1 - p))


def _per_user(values: Floats, user: NDArray[np.int64], level: float = 0.95) -> Difference:
    """Mean over rows, with an interval over users."""
    n_users = int(user.max()) + 1
    return mean_interval(np.bincount(user, values, n_users) * n_users / len(values), level)


def _judged(name: str, learnt: Floats, effect: Floats, user: NDArray[np.int64]) -> Learner:
    """Areas of the uplift curve: linear in the effects, so their intervals are those of a mean."""
    place = np.empty(len(learnt))
    place[np.argsort(-learnt, kind="stable")] = (np.arange(len(learnt)) + 0.5) / len(learnt)
    auuc = _per_user(effect * (1 - place), user, _OF_THREE)
    qini = _per_user(effect * (0.5 - place), user, _OF_THREE)
    return Learner(name, *auuc[:3], *qini[:3])


def _deciles(learnt: Floats, effect: Floats, user: NDArray[np.int64]) -> list[Decile]:
    deciles = []
    for rows in np.array_split(np.argsort(-learnt, kind="stable"), 10):
        _, of = np.unique(user[rows], return_inverse=True)
        if not len(rows) or of.max(initial=0) < 1:
            continue
        found = _per_user(effect[rows], of, _OF_TEN)
        deciles.append(Decile(float(learnt[rows].mean()), *found[:3], len(rows)))
    return deciles


def _curve(learnt: Floats, effect: Floats) -> list[tuple[float, float]]:
    running = np.cumsum(effect[np.argsort(-learnt, kind="stable")]) / len(effect)
    at = [max(1, round(len(effect) * tenth / 10)) for tenth in range(1, 11)]
    return [(tenth / 10, float(running[n - 1])) for tenth, n in enumerate(at, 1)]


@checked
def users_needed(
    found: Difference | tuple[float, float, float], n_users: int, level: Level = 0.95
) -> int | None:
    """Users for a value like this to be told from 0 with 80% power; None where it is not above 0.

    `level` is that of the interval.

    Examples
    --------
    >>> users_needed((1.0, -1.0, 3.0), 100)
    818
    """
    from scipy.stats import norm

    value, low, high = found[:3]
    if value <= 0:
        return None
    sigmas = float(norm.ppf((1 + level) / 2))
    error = (high - low) / (2 * sigmas)
    return math.ceil(n_users * ((sigmas + float(norm.ppf(0.8))) * error / value) ** 2)


def _refuse_what_is_too_small(
    best: Learner, whole: Difference, effect: Floats, learnt: Floats, user: NDArray[np.int64]
) -> None:
    """Say how many users it takes where the best order is not known to be better than a random one."""
    if best.qini_low > 0:
        return
    n_users = int(user.max()) + 1
    needed = users_needed((best.qini, best.qini_low, best.qini_high), n_users, _OF_THREE)
    of = "to tell offers that change more from others"
    if needed is None:
        needed, of = users_needed(whole, n_users), "to see that offers change anything"
    more = max((needed or 0) - n_users, 0)
    why = (
        f"some {more:,} more users are needed {of}"
        if more
        else "its order is no better than a random one, and more users may not change that"
    )
    raise DataError(
        f"uplift: the log of {n_users:,} users is too small (Qini {best.qini:.4g}, between "
        f"{best.qini_low:.4g} and {best.qini_high:.4g}): {why}. Log more, or explore more."
    )
