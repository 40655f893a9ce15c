"""Watch: what each week's receipts, lists and model were like, and what left the usual.

`measure_week` takes a row of figures when a week is published; a week's folder holds its row and those
of the weeks that it builds on. `watched` holds each row against those before it: the table, the page,
the JSON and ``/metrics`` show what it returns.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.checks import usual
from retailrec.data import RetailData
from retailrec.data.ids import row_of_ids
from retailrec.data.parsing import as_instant
from retailrec.data.splits import Fold
from retailrec.errors import DataError, RetailRecWarning
from retailrec.evaluation import Judge, means
from retailrec.evaluation.backtest import fitted
from retailrec.evaluation.judge import by_segment, segments
from retailrec.jobs.evaluate import baselines
from retailrec.jobs.published import HISTORY, WeekFolder
from retailrec.recommender.request import Request
from retailrec.recommender.stage_one import CandidateFrame, candidate_frame
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.report.week_page import as_shown
from retailrec.schema import ITEM_ID, USER_ID

FALSE_ALARM = 0.02  # chance that a quiet week raises an alarm of any measure
LEAST_PAST, MOST_PAST = 8, 26  # weeks that thresholds are learnt from
_KEPT = 104  # rows of a week's history
_SAMPLE = 2_000  # users whose lists the old model makes too, to tell receipts from refitting
_PROBED = 1_000  # users whose candidates are compared with those of a week ago
_EXPLAINED = 4_000  # candidate rows whose scores are parted into columns
_BINS = 10
_COLUMNS = 12  # of those whose distribution moved, in a row
_PAIR, _CODES = [USER_ID, ITEM_ID], ["user", "item"]
Side = Literal["low", "high", "both"]


class Measure(NamedTuple):
    """A figure of a week that is held against past weeks.

    Attributes
    ----------
    meaning : what it is
    side : where it alarms
    least : smallest move from the median that alarms, as a share of it and as an amount: the larger
    percent : shown as a percentage
    look : the first thing to look at
    """

    meaning: str
    side: Side
    least: tuple[float, float]
    percent: bool
    look: str


MEASURES: dict[str, Measure] = {
    "precision": Measure(
        "share of last week's listed items that were bought since, by users who came back",
        "low",
        (0.1, 0.0),
        True,
        "whether `ratio` fell too: if so it is the lists, if not users bought otherwise",
    ),
    "ratio": Measure(
        "precision of last week's lists over that of own purchases on the same users",
        "low",
        (0.1, 0.0),
        False,
        "drift by column below, and the age of the model; retailrec week --refit fits another",
    ),
    "pool_recall": Measure(
        "share of what was bought since that the candidate pool held",
        "low",
        (0.05, 0.0),
        True,
        "`new_items`: what the model has never seen sold is in no pool until the next fit",
    ),
    "calibration": Measure(
        "items of last week's lists bought since, over the sum of their probabilities",
        "both",
        (0.15, 0.0),
        False,
        "whether the week had all its days; a new fit calibrates them",
    ),
    "new": Measure(
        "share of listed items that are new to their user; the others are repeats",
        "both",
        (0.1, 0.02),
        True,
        "whether ids of users or items changed, and the settings of [request]",
    ),
    "fallback": Measure(
        "share of lists made without a receipt that the model can use",
        "high",
        (0.1, 0.02),
        True,
        "whether ids of users are written as receipts write them, and whether items were renumbered",
    ),
    "short": Measure(
        "share of lists with fewer items than asked for",
        "high",
        (0.1, 0.02),
        True,
        "rules, `among` and what is available, then the catalogue",
    ),
    "coverage": Measure(
        "different items in all lists, as a share of the catalogue",
        "both",
        (0.15, 0.0),
        True,
        "whether the catalogue grew or shrank, and what few items lists hold: retailrec week diff",
    ),
    "change": Measure(
        "share of listed items that the user's list of last week did not have",
        "both",
        (0.15, 0.02),
        True,
        "whether the model was refitted, and how much comes of it: retailrec week diff",
    ),
    "new_items": Measure(
        "share of the week's lines that are of items never sold before",
        "high",
        (0.5, 0.01),
        True,
        "which items: a new assortment, or a catalogue with other ids",
    ),
    "new_users": Measure(
        "share of the week's users without earlier receipts",
        "both",
        (0.25, 0.01),
        True,
        "whether a store or a campaign began; else whether ids of users changed",
    ),
    "prices": Measure(
        "money of the week over that of the same items at their earlier prices",
        "both",
        (0.02, 0.0),
        False,
        "promotions, taxes, the currency; retailrec check names items whose price moved by half",
    ),
    "score_drift": Measure(
        "population stability index of the scores of candidates, against a week ago",
        "high",
        (0.5, 0.02),
        False,
        "drift by column below: those that moved scores come first",
    ),
    "feature_drift": Measure(
        "mean population stability index of the ranker's columns, against a week ago",
        "high",
        (0.5, 0.005),
        False,
        "drift by column below; a column that is empty now has lost its input",
    ),
}


class Alarm(NamedTuple):
    """A measure that left what is usual.

    Attributes
    ----------
    measure : its name
    value, low, high : what came, and what is usual; None: no bound
    message : in a sentence
    look : the first thing to look at
    """

    measure: str
    value: float
    low: float | None
    high: float | None
    message: str
    look: str


# --- one week -----------------------------------------------------------------------------------------


class Made(NamedTuple):
    """What a week has made, to be measured.

    Attributes
    ----------
    data : receipts up to the week's end
    described : of `describe_lists`
    change : of `change_of`; None in the first week
    judged : of `judge_lists`; None where no user came back
    fallback : share of lists made without a receipt that the model can use
    """

    data: RetailData
    described: Mapping[str, Any]
    change: Mapping[str, Any] | None
    judged: Judged | None
    fallback: float


def measure_week(
    made: Made,
    last: Mapping[str, Any] | None,
    weeks: WeekFolder,
    model: TwoStageRecommender | None,
    request: Request,
) -> dict[str, Any]:
    """The week's row: ``days`` since the last one, ``values`` by measure, ``drift`` by column.

    What last week's model would propose then and now, to the same users, shows what moved; a measure
    that can't be taken is None.

    Parameters
    ----------
    last : manifest of the week before; None in the first week
    weeks : where it is published
    model : of the week before; None where there is none
    """
    found: dict[str, float | None] = dict.fromkeys(MEASURES)
    found |= {name: made.described[name] for name in ("new", "short", "coverage")}
    found["fallback"] = made.fallback
    drift: list[dict[str, Any]] = []
    days = None
    if last is not None:
        since = datetime.fromisoformat(last["end"])
        days = (made.data.end - since).days
        if made.change is not None and made.change["users"]:
            found["change"] = made.change["share"]
        if made.judged is not None:
            k = last["lists"]["k"]
            found["precision"] = made.judged.models["lists"][f"precision@{k}"]
            found["ratio"] = made.judged.ratio
        if made.data.start < since < made.data.end:
            found |= _receipts(made.data, since)
        if model is not None and made.data.start < since < made.data.end:
            found["calibration"] = _calibration(weeks.lists(last["name"]), model, made.data, since)
            moved, drift = _model_then_and_now(model, made.data, since, request)
            found |= moved
    values = {name: None if v is None else round(float(v), 6) for name, v in found.items()}
    return {"days": days, "values": values, "drift": drift}


def _receipts(data: RetailData, since: datetime) -> dict[str, float | None]:
    """What is new among the lines since a time, and what their items cost."""
    is_new = pl.col("time") >= since
    new, past = data.log.filter(is_new), data.log.filter(~is_new)
    if new.is_empty():
        return {}
    users = new["user"].unique()
    sold = past.filter((pl.col("quantity") > 0) & (pl.col("value") > 0)).sort("time")
    before = sold.group_by("item").agg(
        was=pl.col("value").tail(50).sum() / pl.col("quantity").tail(50).sum()
    )
    both = new.filter((pl.col("quantity") > 0) & (pl.col("value") > 0)).join(before, on="item")
    expected = float((both["quantity"] * both["was"]).sum())
    return {
        "new_items": 1 - float(new["item"].is_in(past["item"].unique().implode()).mean() or 0),  # type: ignore[arg-type]
        "new_users": 1 - float(users.is_in(past["user"].unique().implode()).mean() or 0),  # type: ignore[arg-type]
        "prices": float(both["value"].sum()) / expected if expected else None,
    }


def _calibration(
    lists: pl.DataFrame, model: TwoStageRecommender, data: RetailData, since: datetime
) -> float | None:
    """Listed items bought since over the sum of their probabilities; None without probabilities."""
    column = "probability" if "probability" in lists.columns else "score"
    if column == "score" and not model.ranker_.gives_probability:
        return None
    expected = float(lists[column].fill_nan(None).sum())
    hits = _coded(lists, data).join(_bought(data, since), on=_CODES, how="semi").height
    return hits / expected if expected else None


def _coded(lists: pl.DataFrame, data: RetailData) -> pl.DataFrame:
    """Users and items of lists in the codes of the data."""
    ids = ((USER_ID, data.users), (ITEM_ID, data.items))
    codes = [row_of_ids(lists[column], known[column]) for column, known in ids]
    return pl.DataFrame(codes, schema=_CODES)


def _bought(data: RetailData, since: datetime | None = None) -> pl.DataFrame:
    """Pairs of codes bought, at all or since a time."""
    log = data.log if since is None else data.between(since, data.end)
    return log.select(pl.col(_CODES).cast(pl.Int64)).unique()


def _model_then_and_now(
    model: TwoStageRecommender, data: RetailData, since: datetime, request: Request
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """What a model proposes to some users at `since` and at the data's end: recall and drift."""
    past = data.asof(since)
    users = past.active_users()
    users = users[:: -(-len(users) // _PROBED)].astype(np.int64)
    ids = data.users[USER_ID].gather(users)
    purpose = next(iter(request.by_purpose))
    if purpose == "discover" and model.discover_ranker_ is None:
        purpose = "mixed"  # asked for since this week
    part = model.part(purpose)
    ids_of = row_of_ids(model.items_[ITEM_ID], data.items[ITEM_ID])

    def frame(known: RetailData) -> CandidateFrame:
        return candidate_frame(model.coded(known).data.history(ids), part.stage)

    then, now = frame(past), frame(data)
    if not len(then.x) or not len(now.x):
        return {}, []
    pool = pl.DataFrame({"user": users[then.pool.user_of_pair], "item": ids_of[then.pool.items]})
    bought = _bought(data, since).filter(pl.col("user").is_in(pl.Series(users).implode()))
    held = bought.join(pool, on=_CODES, how="semi").height
    scores = part.ranker.predict(then.x), part.ranker.predict(now.x)
    psi = [stability_index(then.x[:, n], now.x[:, n]) for n in range(then.x.shape[1])]
    spread = float(np.std(scores[0])) or 1.0
    effect = [_parted(part.ranker.contributions, f.x) for f in (then, now)]
    moved = (effect[1] - effect[0]) / spread
    order = sorted(range(len(psi)), key=lambda n: (-abs(moved[n]), -psi[n], then.names[n]))
    drift = [
        {
            "column": then.names[n],
            "index": round(psi[n], 4),
            "effect": round(float(moved[n]), 4),
            "then": _middle(then.x[:, n]),
            "now": _middle(now.x[:, n]),
        }
        for n in order[:_COLUMNS]
    ]
    found = {
        "pool_recall": held / bought.height if bought.height else None,
        "score_drift": stability_index(*scores),
        "feature_drift": float(np.mean(psi)),
    }
    return found, drift


def _parted(
    contributions: Callable[[NDArray[np.float32]], NDArray[np.float32]], x: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(n_columns,) what each column adds to the score, on average over some rows."""
    some = np.asfortranarray(x[:: -(-len(x) // _EXPLAINED)])
    return contributions(some).astype(np.float64).mean(axis=0)


def _middle(values: NDArray[np.float32]) -> float | None:
    """The mean of what is there; None where nothing is."""
    there = values[np.isfinite(values)]
    return round(float(there.mean(dtype=np.float64)), 4) if len(there) else None


def stability_index(then: NDArray[np.floating], now: NDArray[np.floating]) -> float:
    """How far a distribution moved (PSI): sum of (now - then) x ln(now / then) over bins of shares.

    Bins are the tenths of `then`, and what is missing is one of its own; a bin counts as one in ten
    thousand at least. As a rule of thumb, .1 is a small move and .25 a large one.

    Examples
    --------
    >>> values = np.arange(1000.0)
    >>> stability_index(values, values), stability_index(values, values + 500) > 0.25
    (0.0, True)
    """
    there = then[np.isfinite(then)]
    edges = np.unique(np.quantile(there, np.arange(1, _BINS) / _BINS)) if len(there) else np.zeros(0)

    def shares(values: NDArray[np.floating]) -> NDArray[np.float64]:
        known = np.isfinite(values)
        places = np.where(known, np.searchsorted(edges, np.where(known, values, 0)), len(edges) + 1)
        return np.maximum(np.bincount(places, minlength=len(edges) + 2) / max(len(values), 1), 1e-4)

    a, b = shares(then), shares(now)
    return float(((b - a) * np.log(b / a)).sum())


def history_of(folder: Path | None) -> list[dict[str, Any]]:
    """Rows of a week and of those that it builds on, oldest first; none where it has none.

    Raises
    ------
    DataError
        If they can't be read.
    """
    if folder is None:
        return []
    file = folder / HISTORY
    try:
        if not file.is_file():
            return []
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["weeks"]
        if all(
            {"name", "end", "days", "values", "drift"} <= set(row)
            and all(v is None or math.isfinite(v) for v in dict(row["values"]).values())
            for row in rows
        ):
            return rows
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{file} can't be read ({error}); roll back to another week.") from error
    raise DataError(f"{file} has no rows of weeks; roll back to another week.")


def grown(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """A week's history with one more row, as its file holds it."""
    return {"weeks": [*rows, row][-_KEPT:]}


# --- what is usual ------------------------------------------------------------------------------------


Bounds = tuple[float | None, float | None]


def bounds(rows: Sequence[Mapping[str, Any]], name: str, days: int | None) -> Bounds | None:
    """The least and the most of a measure that is usual, from rows of as many days; None if too few."""
    past = [r["values"].get(name) for r in rows if r["days"] == days]
    known = [v for v in past if v is not None][-MOST_PAST:]
    if len(known) < LEAST_PAST:
        return None
    measure = MEASURES[name]
    share, amount = measure.least
    sides = sum(1 + (one.side == "both") for one in MEASURES.values())
    low, high = usual([v + amount for v in known], FALSE_ALARM / sides, least_spread=0.001)
    middle = float(np.median(known))
    least = max(share * abs(middle), amount)
    return (
        None if measure.side == "high" else max(min(low - amount, middle - least), 0.0),
        None if measure.side == "low" else max(high - amount, middle + least),
    )


def alarms_of(rows: Sequence[Mapping[str, Any]], place: int) -> list[Alarm]:
    """The alarms of one row, by those before it.

    Examples
    --------
    >>> quiet = [{"days": 7, "values": {"ratio": 2 + (n % 3) / 10}} for n in range(10)]
    >>> rows = [*quiet, {"days": 7, "values": {"ratio": 0.7}}]
    >>> [alarm.measure for alarm in alarms_of(rows, 10)], alarms_of(rows, 9)
    (['ratio'], [])
    """
    row, found = rows[place], []
    for name, measure in MEASURES.items():
        value = row["values"].get(name)
        limits = None if value is None else bounds(rows[:place], name, row["days"])
        if limits is None:
            continue
        low, high = limits
        below, above = low is not None and value < low, high is not None and value > high
        if below or above:
            show = partial(as_shown, measure=measure._asdict())
            expected = f"at least {show(low)}" if below else f"at most {show(high)}"
            said = f"{name} is {show(value)}, usual is {expected}: {measure.meaning}."
            found.append(Alarm(name, value, low, high, said, measure.look))
    return found


def watched(weeks: WeekFolder, now: datetime | None = None) -> dict[str, Any]:
    """What there is to see of the published weeks, as JSON takes it.

    Parameters
    ----------
    now : for the age of the data; None: leave it out

    Returns
    -------
    dict with ``week`` (published), ``alarms`` of it (name, value, low, high, message, look), ``weeks``
    (a row each, with ``values``, ``usual`` and names of ``alarms``), ``drift`` by column, ``ages`` of
    data and model in days, ``findings`` of its receipts' checks, ``measures`` (meaning, percent),
    ``false_alarm`` and ``least_past``

    Raises
    ------
    DataError
        If nothing is published.
    """
    current = weeks.current
    if current is None:
        raise DataError(f"{weeks.folder} has no published week; publish one with 'retailrec week'.")
    manifest, rows = weeks.manifest(current), history_of(weeks.folder / current)
    by_week: list[dict[str, Any]] = []
    alarms: list[Alarm] = []
    for place, row in enumerate(rows):
        alarms = alarms_of(rows, place)
        by_week.append(
            {key: row[key] for key in ("name", "end", "days", "values")}
            | {
                "usual": {name: bounds(rows[:place], name, row["days"]) for name in MEASURES},
                "alarms": [alarm.measure for alarm in alarms],
            }
        )
    end = datetime.fromisoformat(manifest["end"])
    fitted = datetime.fromisoformat(manifest["model"]["fitted_until"])
    age = None if now is None else (as_instant(now, who="now") - end) / timedelta(days=1)
    if age is not None:
        alarms = [*_overdue(weeks, rows, age), *alarms]
    return {
        "week": current,
        "end": manifest["end"],
        "alarms": [alarm._asdict() for alarm in alarms],
        "findings": manifest["checks"]["findings"],
        "ages": {"data_days": age, "model_days": (end - fitted) / timedelta(days=1)},
        "drift": rows[-1]["drift"] if rows else [],
        "weeks": by_week,
        "measures": {n: {"meaning": m.meaning, "percent": m.percent} for n, m in MEASURES.items()},
        "false_alarm": FALSE_ALARM,
        "least_past": LEAST_PAST,
    }


_CLOSED = 7.0  # days that a week may end later than it was published: those on which the shop is closed


def _overdue(weeks: WeekFolder, rows: Sequence[Mapping[str, Any]], age: float) -> list[Alarm]:
    """An alarm of weeks that did not come for 1.5 times as long as usual, or of the clock."""
    if age < -_CLOSED:
        said = f"the published receipts end {-age:.0f} days after the day of this machine's clock."
        look = "whether that clock is right, and at the dates of the newest export"
        return [Alarm("data_days", age, -_CLOSED, None, said, look)]
    gaps = [row["days"] for row in rows if row["days"]]
    if not gaps or age <= 1.5 * float(np.median(gaps)):
        return []
    look = "whether the scheduler calls 'retailrec week', and whether exports arrive"
    if (refused := weeks.refused) is not None:
        look = f"what was refused {refused['at']}: {refused['findings'][0]['message']}"
    usually = float(np.median(gaps))
    said = f"the published lists know nothing of the last {age:.0f} days; weeks came every {usually:g}."
    return [Alarm("data_days", age, None, 1.5 * usually, said, look)]


# --- what lists are like ------------------------------------------------------------------------------


def describe_lists(lists: pl.DataFrame, data: RetailData, k: int) -> dict[str, Any]:
    """Counts of users and items, and shares of short lists, of the catalogue and of items new to users.

    Examples
    --------
    >>> bought = pl.DataFrame({"user_id": [1, 2], "item_id": [7, 8], "time": ["2024-01-01"] * 2})
    >>> lists = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7]})
    >>> found = describe_lists(lists, RetailData.from_frames(bought), k=2)
    >>> found["short"], found["coverage"], round(found["new"], 3)
    (0.5, 1.0, 0.667)
    """
    sizes = lists.group_by(USER_ID).len()["len"]
    new = _coded(lists, data).join(_bought(data), on=_CODES, how="anti")
    items = lists[ITEM_ID].n_unique()
    return {
        "users": len(sizes),
        "k": k,
        "rows": lists.height,
        "items": items,
        "short": float((sizes < k).mean() or 0),  # type: ignore[arg-type]
        "coverage": items / max(data.n_items, 1),
        "new": new.height / max(lists.height, 1),
    }


def change_of(
    before: pl.DataFrame,
    lists: pl.DataFrame,
    old_model: Callable[..., pl.DataFrame] | None,
    data: RetailData,
    request: Request,
) -> dict[str, Any]:
    """Share of listed items that a user's list of last week did not have, and where that comes from.

    Parameters
    ----------
    old_model : `recommend` of last week's model, where another one made `lists`: what it would list
        from this week's receipts too came from receipts, and the rest from the fit; on some users

    Returns
    -------
    dict with ``users`` that have both lists, ``share``, and its parts ``from_receipts`` (and from
    settings, where they changed) and ``from_refit``
    """
    if before[USER_ID].dtype != lists[USER_ID].dtype or before[ITEM_ID].dtype != lists[ITEM_ID].dtype:
        before, lists = (f.with_columns(pl.col(_PAIR).cast(pl.String)) for f in (before, lists))
    users = before[USER_ID].unique().sort()
    both = lists.filter(pl.col(USER_ID).is_in(users.implode())).select(_PAIR)
    changed = both.join(before.select(_PAIR), on=_PAIR, how="anti")
    share, refit = changed.height / max(both.height, 1), 0.0
    if old_model is not None and changed.height:
        ids = both[USER_ID].unique().sort()
        ids = ids.gather_every(-(-len(ids) // _SAMPLE)).cast(data.users[USER_ID].dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RetailRecWarning)  # that much is new is what is measured
            old = old_model(data, ids, request)
        mine = changed.with_columns(
            pl.col(USER_ID).cast(ids.dtype), pl.col(ITEM_ID).cast(old[ITEM_ID].dtype)
        )
        mine = mine.filter(pl.col(USER_ID).is_in(ids.implode()))
        refit = mine.join(old.select(_PAIR), on=_PAIR, how="anti").height / max(mine.height, 1)
    return {
        "users": both[USER_ID].n_unique(),
        "share": share,
        "from_receipts": share * (1 - refit),
        "from_refit": share * refit,
    }


@dataclass(frozen=True)
class Judged:
    """What lists were worth, by what was bought after they were made.

    Attributes
    ----------
    since, until : the window
    users : users with history who bought in it; one without a list counts as zero
    models : ``lists``, and what simple counts would have been worth -> metric -> mean
    by_segment : rows of `segment`, `group`, `metric`, `mean`, `n_users`, of the lists
    ratio : precision of the lists over that of own purchases; None where that is 0
    """

    since: str
    until: str
    users: int
    models: dict[str, dict[str, float | None]]
    by_segment: list[dict[str, Any]]
    ratio: float | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def judge_lists(lists: pl.DataFrame, data: RetailData, since: datetime, k: int) -> Judged | None:
    """What lists made at `since` were worth until the data ends; None if no user came back."""
    if data.end <= since or data.start >= since:
        return None
    past, bought = Fold(since, data.end).split(data)
    if not len(np.intersect1d(past.active_users(), bought["user"].unique().to_numpy())):
        return None
    judge = Judge.of(past, bought)
    metrics = [f"{name}@{k}" for name in ("precision", "recall", "ndcg", "hit_rate", "money_precision")]
    ranks = lists["rank"].to_numpy() - 1
    row = np.full(data.n_users, -1)
    row[judge.users] = np.arange(len(judge.users))
    user = row_of_ids(lists[USER_ID], data.users[USER_ID])
    place = np.where(user >= 0, row[user], -1)
    codes = np.full((len(judge.users), k), -1, np.int32)
    kept = (place >= 0) & (ranks < k)
    codes[place[kept], ranks[kept]] = row_of_ids(lists[ITEM_ID], data.items[ITEM_ID])[kept]
    values = judge.per_user(codes, metrics)
    models = {"lists": means(values)}
    simple = baselines()
    for name in ("own_purchases", "popular"):
        models[name] = means(judge.per_user(fitted(simple[name], past)(judge.users, k), metrics))
    rows = by_segment(values, segments(past, judge.users))
    mine, own = models["lists"][metrics[0]], models["own_purchases"][metrics[0]]
    return Judged(
        since.isoformat(),
        data.end.isoformat(),
        len(judge.users),
        models,
        rows.to_dicts(),
        mine / own if mine is not None and own else None,
    )
