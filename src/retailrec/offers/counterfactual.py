"""Off-policy evaluation: what other lists would have sold, from a log that explored.

A user's receipts show what was bought of every item of the pool, whether it was offered or not. So both
sides count: an item that the new list holds and that was shown, and one that neither holds. With p the
logged chance, y what was bought, e whether the new list holds the item and q what a model expects that
never saw the user, a user's value is the sum over the pool of ::

    q(e) + w (y - q(e)),   w = 1 / p if shown and held, 1 / (1 - p) if neither, else 0

(Robins, Rotnitzky and Zhao, JASA 1994; Dudik, Langford and Li, ICML 2011). Chances that are right make
it unbiased, whatever q is; q makes it narrow. An offer is taken to change sales of its own item alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from retailrec.components import Days, Level, Resamples, Seed, checked
from retailrec.compute.statistics import Floats, holm, mean_interval
from retailrec.data import RetailData, has_money
from retailrec.data.ids import id_series, runs_of_ids
from retailrec.data.interchange import number_array, to_polars
from retailrec.data.parsing import ids_meet, typed_ids
from retailrec.errors import DataError
from retailrec.offers.experiments import receipts_reach, unit_margins, users_segment, window_around
from retailrec.offers.ledger import pool_frame

LEAST_COVERAGE, LEAST_USERS, LEAST_SHARE = 0.8, 1_000, 0.1
MOST_MEAN_AWAY, MOST_OF_ONE, LEAST_P = 0.05, 0.05, 0.001
LEAST_IMPRESSIONS, LEAST_REWARDS = 300, 30
METRICS: tuple[str, ...] = ("units", "money", "margin")
_FOLDS, _BINS = 5, 10
_MOST_REWARD = 1e100  # larger ones add up to no number
_LEAST_CHANCE = 1e-100  # of smaller ones the weight's square is no number; it is refused long before
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A value per user, or a difference, with its interval.

    Attributes
    ----------
    metric : ``units``, ``money`` or ``margin`` that a user buys of the pool's items in the window
    what : ``logged`` (the first of each pool, without exploration), ``new``, ``difference``
    segment : of the users, ``all`` for all of them
    n_users : users
    value, low, high : mean over users, and its interval
    p, p_corrected : two-sided, of 0; over all segments at once (Holm, 1979)
    """

    metric: str
    what: str
    segment: str
    n_users: int
    value: float
    low: float
    high: float
    p: float
    p_corrected: float


@dataclass(frozen=True)
class Support:
    """How much a log can say about other lists.

    Attributes
    ----------
    coverage : share of the new lists that could have been shown and could have been left out
    effective : effective sample, in users: users x (sum w)**2 / (rows x sum w**2) (Kish, 1965)
    share : `effective` as a share of the users
    mean_held, mean_other : mean of shown / p over what new lists hold, of (not shown) / (1 - p) over
        the rest; 1 where the logged chances are right
    mean_error : standard error of the former, had rows been drawn one by one
    heaviest : largest share of all weight that one user carries
    chances_p : p of what was shown under the logged chances (chi-square over bins of chances)
    """

    coverage: float
    effective: float
    share: float
    mean_held: float
    mean_other: float
    mean_error: float
    heaviest: float
    chances_p: float


@dataclass(frozen=True)
class CounterfactualReport:
    """What new lists would have sold.

    Attributes
    ----------
    policy, days : of the log, and of the window after each list
    n_users, n_pairs : users and pool rows
    observed : metric -> mean of what a user bought of the pool, exploration and holdouts included
    support : how much the log can say
    estimates : by metric, what and segment
    notes : sentences on what was left out
    """

    policy: str
    days: float
    n_users: int
    n_pairs: int
    observed: dict[str, float]
    support: Support
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return asdict(self)

    def sentence(self, metric: str | None = None) -> str:
        """What a manager asks: would the new lists have sold more, and how sure is that?

        In margin where margins are known, else in money, unless another metric is named.
        """
        metric = metric or list(self.observed)[-1]
        found = {e.what: e for e in self.estimates if e.metric == metric and e.segment == "all"}
        change, before = found["difference"], found["logged"].value
        finding = "Whether the new lists would have sold more can't be told"
        if change.low > 0 or change.high < 0:
            finding = f"The new lists would have sold {'more' if change.low > 0 else 'less'}"
        share = f" ({change.value / before:+.1%})" if before else ""
        return (
            f"{finding}: {change.value:+,.3f} {metric} a user{share}, between {change.low:+,.3f} and "
            f"{change.high:+,.3f} (95%), in {self.days:g} days."
        )


def doubly_robust(
    y: Floats, q_shown: Floats, q_not: Floats, shown: Bools, held: Bools, p: Floats
) -> Floats:
    """(n_rows,) what each row of a pool is worth under lists that hold it (`held`) or not.

    Examples
    --------
    Without a model of what is bought, only rows that agree count, as often as they stand for others:

    >>> nothing, half = np.zeros(2), np.full(2, 0.5)
    >>> y, shown = np.array([1.0, 1.0]), np.array([True, False])
    >>> doubly_robust(y, nothing, nothing, shown, np.array([True, True]), half).tolist()
    [2.0, 0.0]
    """
    q = np.where(held, q_shown, q_not)
    return q + weights(shown, held, p) * (y - q)


def weights(shown: Bools, held: Bools, p: Floats) -> Floats:
    """(n_rows,) 1 / p where shown and held, 1 / (1 - p) where neither (0 at p = 1), else 0."""
    other = np.divide(1.0, 1 - p, out=np.zeros_like(p), where=p < 1)
    one = 1 / np.maximum(p, _LEAST_CHANCE)
    return np.where(shown & held, one, np.where(~shown & ~held, other, 0.0))


def expected(
    x: Floats, item: NDArray[np.int64], shown: Bools, y: Floats, fold: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """(n_rows,) what is bought if shown and if not, as a model expects that never saw the row's fold.

    Least squares on `x` (n_rows, n_columns) and the item's mean in the other folds, all of them also
    times `shown`.
    """
    q_shown, q_not = np.empty(len(y)), np.empty(len(y))
    n_items = int(item.max(initial=-1)) + 1
    for f in range(int(fold.max(initial=-1)) + 1):
        inside = fold == f
        others = ~inside
        mean = y[others].mean()
        sums = np.bincount(item[others], y[others], n_items)
        counts = np.bincount(item[others], minlength=n_items)
        of_item = (sums + 20 * mean) / (counts + 20)  # an item with few rows is as the mean
        base = np.column_stack([x, of_item[item] - mean])
        both = np.column_stack([base, base * shown[:, None]])
        left, right = both[others].T @ both[others], both[others].T @ y[others]
        left[np.diag_indices_from(left)] += 1e-6 * np.trace(left) / len(left)
        slopes = np.linalg.solve(left, right)
        q_not[inside] = base[inside] @ slopes[: base.shape[1]]
        q_shown[inside] = q_not[inside] + base[inside] @ slopes[base.shape[1] :]
    return q_shown, q_not


@checked
def judge_policy(
    pool: Any,
    policy: Any,
    data: RetailData,
    *,
    days: Days,
    margin: Any = None,
    segment: str | None = None,
    level: Level = 0.95,
) -> CounterfactualReport:
    """Value of the logged lists and of new ones, and their difference, from a log that explored.

    Parameters
    ----------
    pool : rows of one policy in the columns of `POOL`
    policy : new lists: `user_id`, `item_id`, one row an item
    data : receipts from before the first list to the end of the last window
    days : length of the window after each list
    margin : frame of `item_id` and `margin`, money for one unit
    segment : column of the users' attributes
    level : of the intervals

    Raises
    ------
    DataError
        If the log can't tell: fewer than .8 of the new lists lie within the explored pool, the
        effective sample is below 1,000 users or 10% of them, mean weights leave 1 by .05, a user
        carries 5% of the weight, or items were shown more or less often than the log says. Or if
        windows are not over, or users of log, lists and receipts don't meet.
    SettingError
        If a setting is out of range.
    """
    rows, notes = first_requests(pool_frame(pool, who="the log"))
    new = data.changed_ids.of_lists(_lists(policy))
    notes += log_meets(rows, data)
    if new.is_empty():
        raise DataError("the new lists hold nothing; give lists of the log's users.")
    for of, what in (("user_id", "users"), ("item_id", "items")):
        who, of_users = f"the new lists' {what}", of == "user_id"
        note = ids_meet(new[of], rows[of], who=who, whose="the log", share=0, refuse=of_users)
        notes += [note] if note else []
    rows, coverage = _held(rows, new, notes)
    table = bought_after(rows, data, days, margin)
    listed, indptr = runs_of_ids(table["user_id"])
    shown, held, p = (table[name].to_numpy() for name in ("shown", "held", "propensity"))
    user = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    support = _support(shown, held, p, user, coverage)
    _refuse(support, len(indptr) - 1)
    if not (table["units"] != 0).any():
        raise DataError(
            f"the log can't tell what the new lists would sell: of the pool nothing was bought in "
            f"{days:g} days, and how rare that is is not known. Log more users, or give more days."
        )
    few = few_rewards(weights(shown, held, p) * table["units"].to_numpy(), "purchases of the pool")
    notes += [f"{note}." for note in few]
    known = listed.is_in(data.users["user_id"].cast(pl.String).implode())
    if n := int((~known).sum()):
        notes.append(f"{n:,} users of the log have no receipts; they count as having bought nothing.")
    names = None
    if segment is not None:
        names = users_segment(data, segment, listed)
    lists = {"logged": table["offered"].to_numpy(), "new": held}
    estimates: list[Estimate] = []
    observed: dict[str, float] = {}
    for metric in (m for m in METRICS if m in table.columns):
        per_user = user_values(table, metric, lists)
        per_user["difference"] = per_user["new"] - per_user["logged"]
        y = table[metric].to_numpy()
        observed[metric] = float(y.sum() / (len(indptr) - 1))
        for what, values in per_user.items():
            estimates += _estimates(metric, what, values, names, level)
    policy_name, n_users = str(table["policy"][0]), len(listed)
    found = (observed, support, tuple(estimates), tuple(notes))
    return CounterfactualReport(policy_name, days, n_users, table.height, *found)


def user_values(table: pl.DataFrame, metric: str, lists: Mapping[str, Bools]) -> dict[str, Floats]:
    """Each user's value under each of some lists, unbiased where the logged chances are right.

    Parameters
    ----------
    table : pool rows by user, with a column of the metric and one of it ``_before``
    lists : name -> (n_rows,) which rows they hold
    """
    indptr = runs_of_ids(table["user_id"])[1]
    shown, p, y = (table[name].to_numpy() for name in ("shown", "propensity", metric))
    x, item, fold = _columns(table, indptr)
    q = expected(np.column_stack([x, table[f"{metric}_before"].to_numpy()]), item, shown, y, fold)
    return {
        name: np.add.reduceat(doubly_robust(y, *q, shown, held, p), indptr[:-1])
        for name, held in lists.items()
    }


@dataclass(frozen=True)
class ImpressionsReport:
    """What another policy would have earned per impression.

    Attributes
    ----------
    n : impressions
    logged : mean reward of the log
    value, low, high : of the other policy (self-normalised inverse propensity), and its interval
    effective : effective sample, (sum w)**2 / sum w**2
    mean_weight : 1 where the logged chances are right
    notes : sentences on the log
    """

    n: int
    logged: float
    value: float
    low: float
    high: float
    effective: float
    mean_weight: float
    notes: tuple[str, ...] = ()


@checked
def judge_impressions(
    reward: ArrayLike,
    logged: ArrayLike,
    new: ArrayLike,
    *,
    users: Any = None,
    level: Level = 0.95,
    draws: Resamples = 2_000,
    seed: Seed = 0,
) -> ImpressionsReport:
    """Mean reward of another policy from logged impressions, each with the chance of what was shown.

    Parameters
    ----------
    reward : (n,) what came of each impression, such as a click
    logged, new : (n,) chance of the item shown under the logged policy and under the other one
    users : (n,) ids of who saw each; None: all of them others
    level, draws, seed : of the interval, by bootstrap over users, since impressions of one are alike

    Raises
    ------
    DataError
        If a chance is out of range, the effective sample is below 300, mean weights leave 1 by .05
        and more than chance explains, or all rewards are the same.

    Examples
    --------
    >>> found = judge_impressions([1, 0] * 400, [0.5] * 800, [0.5] * 800)
    >>> found.value, found.effective
    (0.5, 800.0)
    """
    y, p, q = (
        number_array(values, who=f"impressions: {name}")
        for name, values in (("reward", reward), ("logged", logged), ("new", new))
    )
    if not len(y) == len(p) == len(q):
        raise DataError(
            f"impressions: {len(y):,} rewards, {len(p):,} logged and {len(q):,} new chances; give one "
            f"of each an impression."
        )
    for name, values, least in (("logged", p, 0.0), ("new", q, -1e-300)):
        bad = ~((values > least) & (values <= 1))
        if bad.any() or not (np.abs(y) <= _MOST_REWARD).all():
            what = f"{name} chance {values[bad][0]:g}" if bad.any() else "a reward"
            raise DataError(
                f"impressions: {what} is out of range; logged chances lie above 0 and up to 1, new "
                f"ones from 0 to 1, rewards are numbers. Correct the log."
            )
    user = np.arange(len(y))
    if users is not None:
        code = id_series(users, who="impressions: users").rank("dense").cast(pl.Int64)
        if len(code) != len(y):
            raise DataError(
                f"impressions: {len(code):,} users for {len(y):,} impressions; give one each."
            )
        user = code.fill_null(pl.Series(user) + len(y)).rank("dense").to_numpy().astype(np.int64) - 1
    w = q / np.maximum(p, _LEAST_CHANCE)
    total, n = float(w.sum()), len(w)
    effective = total**2 / float((w**2).sum()) if total else 0.0
    mean = total / max(n, 1)
    if effective < LEAST_IMPRESSIONS:
        raise DataError(
            f"the log can't tell what the other policy would earn: the effective sample is "
            f"{effective:,.0f} of {n:,} impressions; at least {LEAST_IMPRESSIONS:,} are needed. Log "
            f"more, or explore more."
        )
    error = float(w.std(ddof=1)) / n**0.5
    if abs(mean - 1) > max(MOST_MEAN_AWAY, 3 * error):
        raise DataError(
            f"the log can't tell what the other policy would earn: the mean weight is {mean:.3f} "
            f"and not 1, by more than {MOST_MEAN_AWAY:g} and than chance. Check the logged chances."
        )
    if (y == y[0]).all():
        raise DataError(
            f"the log can't tell what the other policy would earn: the reward of all {n:,} impressions "
            f"is {y[0]:g}, and how rare another one is is not known. Check the column, or log more."
        )
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for at in range(draws):
        times = rng.poisson(1.0, n)[user]
        means[at] = (times @ (w * y)) / (times @ w)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    notes = few_rewards(w * y, "impressions with a reward")
    value = float((w * y).sum() / total)
    found = (n, float(y.mean()), value, float(low), float(high), effective, mean)
    return ImpressionsReport(*found, tuple(notes))


def few_rewards(earned: Floats, what: str) -> list[str]:
    """What to say where few weighted rewards carry a value: (sum |x|)**2 / sum x**2 of them.

    Examples
    --------
    >>> few_rewards(np.array([2.0, 2.0, 0.0]), "purchases")[0].split(", ")[0]
    'the value rests on 2 purchases'
    >>> few_rewards(np.ones(30), "purchases")
    []
    """
    size = np.abs(earned)
    n = float(size.sum()) ** 2 / max(float((size**2).sum()), 1e-300)
    said = (
        f"the value rests on {n:,.0f} {what}, as they weigh; of fewer than {LEAST_REWARDS} the "
        f"interval is rather too narrow"
    )
    return [said] if n < LEAST_REWARDS else []


def first_requests(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Rows of each user's first request, since windows of one user would overlap, and notes.

    Raises
    ------
    DataError
        If rows of a pool are missing.
    """
    notes = []
    first = rows.select("user_id", "time", "request").unique().sort("user_id", "time", "request")
    keep = first.unique("user_id", keep="first", maintain_order=True)["request"]
    if n := first.height - len(keep):
        notes.append(
            f"{n:,} later requests of the same users are left out: what was bought after a list "
            f"counts once."
        )
    rows = rows.filter(pl.col("request").is_in(keep.implode())).sort("user_id", "rank", "item_id")
    short = rows.group_by("request").agg(pl.len(), pl.col("pool").first(), pl.col("shown").all())
    lacking = short.filter(pl.col("len") < pl.col("pool"))
    if not lacking.is_empty():
        raise DataError(
            f"the log has {int(lacking['len'][0]):,} of the {int(lacking['pool'][0]):,} pool rows of "
            f"request '{lacking['request'][0]}' and lacks some of {lacking.height:,} requests, as a "
            f"log of what was shown alone does; judging other lists needs a row for every item of the "
            f"pool."
        )
    return rows, notes


def log_meets(rows: pl.DataFrame, data: RetailData) -> list[str]:
    """Sentences on ids of a log that the receipts know but for their notation.

    Raises
    ------
    DataError
        If they know none of its users, or none of its items.
    """
    both = (("user_id", "users", data.users), ("item_id", "items", data.items))
    notes = [
        ids_meet(rows[of], known[of], who=f"the log's {what}", whose="the receipts", share=0)
        for of, what, known in both
    ]
    return [note for note in notes if note]


def list_length(rows: pl.DataFrame) -> int:
    """Items a list of the log, the usual number; at least 1."""
    shown = rows.group_by("request").agg(k=pl.col("shown").sum()).filter(pl.col("k") > 0)
    return int(shown["k"].mode().max() if len(shown) else 1)  # type: ignore[arg-type]


def _lists(policy: Any) -> pl.DataFrame:
    frame = to_polars(policy, who="the new lists")
    for name in ("user_id", "item_id"):
        if name not in frame.columns:
            raise DataError(
                f"the new lists lack column '{name}'; they have {frame.columns}. Rename it."
            )
        if n := frame[name].null_count():
            raise DataError(f"the new lists: {n:,} rows lack '{name}'; fill it or leave them out.")
    ids = (typed_ids(frame[name]).cast(pl.String) for name in ("user_id", "item_id"))
    return pl.DataFrame(list(ids)).unique()


def _held(rows: pl.DataFrame, new: pl.DataFrame, notes: list[str]) -> tuple[pl.DataFrame, float]:
    """Rows of users with new lists: `held` by them, `offered` before exploration; and coverage."""
    both = rows.filter(pl.col("user_id").is_in(new["user_id"].unique().implode()))
    if n := rows["user_id"].n_unique() - both["user_id"].n_unique():
        notes.append(f"{n:,} users of the log have no new list and are left out.")
    new = new.filter(pl.col("user_id").is_in(both["user_id"].unique().implode()))
    both = both.join(
        new.with_columns(held=pl.lit(True)),
        on=["user_id", "item_id"],
        how="left",
        maintain_order="left",
    ).with_columns(pl.col("held").fill_null(False))
    k = pl.col("shown").sum().over("request")
    k = pl.when(k > 0).then(k).otherwise(list_length(both))
    both = both.with_columns(offered=pl.col("rank") <= k)
    sure = int(both.select((~pl.col("held") & (pl.col("propensity") >= 1)).sum()).item())
    inside = int(both["held"].sum())
    if outside := new.height - inside:
        notes.append(
            f"{outside:,} of {new.height:,} items of the new lists are not of the pool; what they "
            f"would sell is not counted."
        )
    if sure:
        notes.append(
            f"{sure:,} rows were sure to be shown; what leaving them out does is the model's guess."
        )
    return both, inside / (new.height + sure)


def bought_after(rows: pl.DataFrame, data: RetailData, days: float, margin: Any) -> pl.DataFrame:
    """Pool rows with what their user bought of their item in the window after, and in one before.

    Columns `units`, `money` (where receipts have it), `margin` (with margins); each ``_before``, too.

    Raises
    ------
    DataError
        If receipts begin after the first list, or the last window is not over.
    """
    first: Any = rows["time"].min()
    last: Any = rows["time"].max()
    window_around(first, days, days)
    end = window_around(last, days, days)[0]
    receipts_reach(data, first, end)
    users = data.users.select(pl.col("user_id").cast(pl.String)).with_row_index("user")
    items = data.items.select(pl.col("item_id").cast(pl.String)).with_row_index("item")
    coded = (
        rows.select("user_id", "item_id", "time")
        .with_row_index("row")
        .join(users, on="user_id")
        .join(items, on="item_id")
        .select("row", "user", "item", start="time")
    )
    unit = unit_margins(data, margin)
    lines = data.log.select(pl.col("user", "item").cast(pl.UInt32), "time", "quantity", "value")
    lines, metrics = lines.filter(pl.col("time") < end), {"units": "quantity"}
    if has_money(data):
        metrics["money"] = "value"
    if unit is not None:
        earned = pl.Series(unit[lines["item"].to_numpy()]) * lines["quantity"]
        lines, metrics["margin"] = lines.with_columns(margin=earned), "margin"
    near = lines.join(coded, on=["user", "item"]).filter(
        (pl.col("time") < pl.col("start") + timedelta(days=days))
        & (pl.col("time") >= pl.col("start") - timedelta(days=days))
    )
    after = pl.col("time") >= pl.col("start")
    sums = near.group_by("row").agg(
        pl.col(column).filter(part).sum().cast(pl.Float64).alias(f"{metric}{suffix}")
        for part, suffix in ((after, ""), (~after, "_before"))
        for metric, column in metrics.items()
    )
    columns = [name for name in sums.columns if name != "row"]
    joined = rows.with_row_index("row").join(sums, on="row", how="left", maintain_order="left")
    return joined.drop("row").with_columns(pl.col(columns).fill_null(0.0))


def _support(shown: Bools, held: Bools, p: Floats, user: NDArray[np.int64], coverage: float) -> Support:
    w = weights(shown, held, p)
    of_user = np.bincount(user, w)
    n_users = len(of_user)
    total = float(w.sum())
    kish = total**2 / (len(w) * float((w**2).sum())) if total else 0.0
    sides = []
    for side in (held, ~held & (p < 1)):
        n = int(side.sum())
        sides.append(float(w[side].sum() / n) if n else 1.0)
    return Support(
        coverage,
        n_users * kish,
        kish,
        sides[0],
        sides[1],
        float(np.sqrt((1 / np.maximum(p[held], _LEAST_CHANCE) - 1).sum()) / max(held.sum(), 1)),
        float(of_user.max() / total) if total else 1.0,
        chances_p(shown, p, user),
    )


def chances_p(shown: Bools, p: Floats, user: NDArray[np.int64]) -> float:
    """p of what was shown under the logged chances: chi-square over up to twenty bins of chances.

    Rows of one user were drawn together (a list has a length, a holdout gets nothing), so the spread of
    shown less expected ones is that between users.

    Examples
    --------
    >>> p, user = np.tile([0.2, 0.8], 1000), np.repeat(np.arange(1000), 2)
    >>> shown = np.where(np.arange(2000) % 10 < 2, p == 0.2, p == 0.8)  # one of the two, 200 times
    >>> round(chances_p(shown, p, user), 9), chances_p(shown, 0.8 * p, user) < 1e-6
    (1.0, True)
    """
    from scipy.stats import chi2

    if (~shown[p >= 1]).any():
        return 0.0
    ordered = np.sort(p)
    edges = np.unique(ordered[:: max(1, len(p) // 20)])
    n_bins = len(edges)
    cell = user * n_bins + np.searchsorted(edges, p, "right") - 1
    away = np.bincount(cell, shown - p, (int(user.max()) + 1) * n_bins).reshape(-1, n_bins)
    values, vectors = np.linalg.eigh(away.T @ away)
    real = values > 1e-9 * max(values.max(), 1e-300)
    if not real.any():
        return 1.0
    statistic = float(((away.sum(0) @ vectors[:, real]) ** 2 / values[real]).sum())
    return float(chi2.sf(statistic, int(real.sum())))


def _refuse(support: Support, n_users: int) -> None:
    """Say that the log can't tell, by which figure, and what to do."""
    s = support
    away = max((s.mean_held, s.mean_other), key=lambda mean: abs(mean - 1))
    reasons = [
        (
            s.coverage < LEAST_COVERAGE,
            f"{s.coverage:.1%} of the new lists lie within the explored pool, fewer than "
            f"{LEAST_COVERAGE:.0%}",
            "Explore a larger pool, or judge lists that are made of its items",
        ),
        (
            s.chances_p < LEAST_P,
            f"items were not shown as often as the logged chances say (p {s.chances_p:.2g})",
            "Log the chances that lists were drawn with; rows may be lost, or lists changed after "
            "the draw",
        ),
        (
            abs(away - 1) > max(MOST_MEAN_AWAY, 3 * s.mean_error),
            f"the mean weight is {away:.3f} and not 1, by more than {MOST_MEAN_AWAY:g} and than chance",
            "Log more users, explore more, or check the chances",
        ),
        (
            s.effective < LEAST_USERS or s.share < LEAST_SHARE,
            f"the effective sample is {s.effective:,.0f} of {n_users:,} users ({s.share:.1%}); at "
            f"least {LEAST_USERS:,} and {LEAST_SHARE:.0%} are needed",
            "Log more users, or explore more",
        ),
        (
            s.heaviest > MOST_OF_ONE,
            f"one user carries {s.heaviest:.1%} of the weight, more than {MOST_OF_ONE:.0%}",
            "Log more users, or explore with chances that are less small",
        ),
    ]
    for holds, figure, advice in reasons:
        if holds:
            raise DataError(f"the log can't tell what the new lists would sell: {figure}. {advice}.")


def _columns(
    table: pl.DataFrame, indptr: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Columns of the model of what is bought (1, bins of score, rank), item codes, folds of users."""
    score = table["score"].fill_null(strategy="mean").fill_null(0.0).to_numpy()
    place = np.argsort(np.argsort(score, kind="stable"), kind="stable") / max(len(score), 1)
    bins = (place[:, None] * _BINS).astype(int) == np.arange(1, _BINS)
    score = score / (np.abs(score).max(initial=0.0) or 1.0)  # no square of a large score overflows
    spread = score.std() or 1.0
    rank = 1 / table["rank"].to_numpy()
    x = np.column_stack([np.ones(len(score)), (score - score.mean()) / spread, rank, bins])
    item = table["item_id"].rank("dense").to_numpy().astype(np.int64) - 1
    n_users = len(indptr) - 1
    fold = np.repeat(np.random.default_rng(0).permutation(n_users) % _FOLDS, np.diff(indptr))
    return x, item, fold


def _estimates(
    metric: str, what: str, values: Floats, names: pl.Series | None, level: float
) -> list[Estimate]:
    def of(segment: str, mine: Floats) -> Estimate:
        found = mean_interval(mine, level)
        return Estimate(metric, what, segment, len(mine), *found, found.p)

    estimates = [of("all", values)]
    if names is not None:
        parts = [
            of(str(name), values[inside])
            for name in names.drop_nulls().unique().sort()
            if (inside := (names == name).fill_null(False).to_numpy()).sum() >= 2
        ]
        corrected = holm([e.p for e in parts])
        estimates += [replace(e, p_corrected=p) for e, p in zip(parts, corrected, strict=True)]
    return estimates
