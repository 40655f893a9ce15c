"""Rolling folds: any number of models on windows, with means, spread and segments, and history's worth.

A window says who is judged, in which groups, and what a model's lists are worth: once for users on
this machine and for those of a cluster, by the engine of the data.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator
from retailrec.components import Days, checked
from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import map_shards, n_threads
from retailrec.data import RetailData
from retailrec.data.prefilters import Prefilter
from retailrec.data.retail_data import Mapped, Part
from retailrec.data.splits import Split, rolling_folds
from retailrec.errors import DataError, SettingError
from retailrec.evaluation.judge import (
    DEFAULT_METRICS,
    ItemFacts,
    Judge,
    by_segment,
    grouped,
    listed,
    means,
    no_user_to_judge,
    user_facts,
)
from retailrec.metrics import parse_metric
from retailrec.metrics.base import Values, compute_metric, longest
from retailrec.recommender.artifact import versions
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import CATEGORIES, ITEM_ID, USER_ID
from retailrec.work import Work, fingerprint

Items = NDArray[np.int32]
Lists = Callable[[NDArray[np.int64], int], Items]
ModelFunction = Callable[[RetailData, NDArray[np.int64], int], Items]
Model = TwoStageRecommender | CandidateGenerator | ModelFunction


_FACTS: dict[str, pl.DataType] = {"receipts": pl.Int64(), "days": pl.Int64()}
_LISTS: dict[str, pl.DataType] = {"lists": pl.List(pl.Int32()), "hits": pl.List(pl.Int32())}


class Window:
    """Judges models by what all users bought in a window, also where the data is a sample of them.

    Parameters
    ----------
    split : prefilters applied
    end : of the window

    Attributes
    ----------
    users : ids of the judged users, ascending: who bought in the window and has history
    groups : segment -> (n_users,) group of each; see `segments`. Of a sample attributes are not known.

    Raises
    ------
    DataError
        If no user can be judged.
    """

    def __init__(self, split: Split, end: datetime) -> None:
        past, engine = split.past, split.past.engine
        self._past, self._share = past, engine.share
        self._facts = engine.share(ItemFacts.of(past))
        self._users = engine.users(past, split.target, end)
        favourite = {"favourite": pl.String()} if CATEGORIES[0] in past.items.columns else {}
        found, seen = self._users.map(partial(judged_users, self._facts), {**_FACTS, **favourite})
        if found.is_empty():
            raise no_user_to_judge(*(sum(of) for of in zip(*seen, strict=True)))
        self.users, self.groups = found[USER_ID], grouped(found)

    def values(
        self, model: Any, metrics: Sequence[str], k: int = 0
    ) -> tuple[dict[str, Values], pl.DataFrame]:
        """Metric -> (n_users,) values of the lists of a fitted model; (1,) of lists together.

        And the lists: `lists` (item codes) and `hits` (1: bought) of each user, of `k` items or
        as many as a metric asks for; no column without `k` where no metric needs them.

        Raises
        ------
        DataError
            If the receipts are others than before.
        SettingError
            If the model is a function, and users are judged by other machines.
        """
        together = [m for m in metrics if parse_metric(m)[0].together]
        alone = tuple(m for m in metrics if m not in together)
        kept = _LISTS if together or k else {}
        judge = partial(values_of, self._facts, self._share(model), max(k, longest(metrics)), alone)
        schema = {**dict.fromkeys(alone, pl.Float64()), **kept}
        found, _ = self._users.map(partial(judge, with_lists=bool(kept)), schema)
        if not found[USER_ID].equals(self.users):
            raise DataError("receipts changed while models were judged; start again.")
        values: dict[str, Values] = {m: found[m].to_numpy() for m in alone}
        if together:
            items, recommendable = _matrix(found["lists"]), self._past.recommendable
            context = {
                "items": items,
                "is_recommendable": (items >= 0) & recommendable[items],
                "n_recommendable": int(recommendable.sum()),
            }
            values |= {m: compute_metric(m, context) for m in together}
        return {m: values[m] for m in metrics}, found.select(*kept)


def judge_of(facts: Callable[[], ItemFacts], part: Part) -> Judge | None:
    """The judge of some users, made once for each part; None where none of them can be judged."""
    if "judge" not in part.kept:
        there = part.past.log["user"].is_in(part.target["user"].unique().implode()).any()
        part.kept["judge"] = Judge.of(part.past, part.target, facts()) if there else None
    judge: Judge | None = part.kept["judge"]
    return judge


def judged_users(facts: Callable[[], ItemFacts], part: Part) -> Mapped:
    """`user_id` and `user_facts` of the judged users; how many bought, and how many have history."""
    past, judge = part.past, judge_of(facts, part)
    users = np.zeros(0, np.int64) if judge is None else judge.users
    rows = user_facts(past, users).with_columns(past.users[USER_ID].gather(users))
    return rows, [part.target["user"].n_unique(), len(past.active_users())]


def values_of(
    facts: Callable[[], ItemFacts],
    model: Callable[[], Model],
    k: int,
    metrics: tuple[str, ...],
    part: Part,
    *,
    with_lists: bool,
) -> Mapped:
    """What a model's lists are worth to each judged user, and the item codes of the lists."""
    judge = judge_of(facts, part)
    if judge is None:
        return pl.DataFrame(), None
    items = lists_of(model(), part.past)(judge.users, k)
    ids = part.past.users[USER_ID].gather(judge.users)
    rows = pl.DataFrame([ids, *(pl.Series(m, v) for m, v in judge.per_user(items, metrics).items())])
    if with_lists:
        kept = zip(_LISTS.items(), (items, judge.hits(items).astype(np.int32)), strict=True)
        rows = rows.with_columns(pl.Series(name, list(v), kind) for (name, kind), v in kept)
    return rows, None


def _matrix(lists: pl.Series) -> NDArray[Any]:
    """(n, k) of a series of n lists of k."""
    return lists.explode().to_numpy().reshape(len(lists), -1)


def fitted(model: Model, past: RetailData) -> Lists:
    """Fit a copy of the model; the answer gives (n_users, k) item codes for codes of shoppers."""
    return lists_of(fitted_copy(model, past), past)


def fitted_copy(model: Model, past: RetailData) -> Model:
    """A copy of the model that has learnt from `past`; a function is taken as it is."""
    if isinstance(model, TwoStageRecommender | CandidateGenerator):
        return replace(model).fit(past)
    return model


def lists_of(model: Model, past: RetailData) -> Lists:
    """What gives the lists of a fitted model for codes of shoppers, whose receipts `past` holds."""
    if isinstance(model, TwoStageRecommender):
        return lambda users, k: model.recommend_codes(past.history(codes=users), k).items
    if isinstance(model, CandidateGenerator):

        def lists(users: NDArray[np.int64], k: int) -> Items:
            history = past.history(codes=users)

            def shard(rows: slice) -> Items:
                return model.candidates(history.take(rows), k).items

            parts = map_shards(shard, len(users), threads=n_threads(0))
            return np.vstack([np.zeros((0, k), np.int32), *parts])

        return lists
    return lambda users, k: _checked(model(past, users, k), len(users), k, past.n_items)


def _checked(lists: Any, n_users: int, k: int, n_items: int) -> Items:
    """The lists of a function, whose item codes are looked up and counted as they are.

    Raises
    ------
    DataError
        If they are no lists of item codes, one a user, each item once.
    """
    items = np.asarray(lists)
    said = f"array of {items.dtype}, {items.shape}"
    whole = items.ndim == 2 and items.shape[0] == n_users and np.issubdtype(items.dtype, np.integer)
    if whole:
        items = items[:, :k].astype(np.int32, copy=False)
        ordered = np.sort(items, axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            whole, said = False, "list with an item twice"
        elif items.size and not -1 <= int(items.min()) <= int(items.max()) < n_items:
            whole, said = False, f"list with code {int(items.max())} or {int(items.min())}"
    if not whole:
        raise DataError(
            f"a model that is a function must give ({n_users}, {k}) item codes below {n_items}, -1 for "
            f"none, no item twice in a list; it gave an {said}."
        )
    return items


class Backtest(NamedTuple):
    """What `backtest` gives.

    Attributes
    ----------
    values : one row a fold, model and judged shopper: `cutoff`, `model`, `user_id`, a column a metric
    table : one row a fold, model, segment and metric: `cutoff`, `model`, `segment`, `group`,
        `metric`, `mean`, `n_users`; the segment ``all`` holds all users
    lists : of the models that are asked for: `cutoff`, `model`, `user_id`, `item_id`, `rank`, and
        whether it was `bought` in the window
    """

    values: pl.DataFrame
    table: pl.DataFrame
    lists: pl.DataFrame

    def summary(self) -> pl.DataFrame:
        """`model`, `metric`, `mean` over folds, `spread` (standard deviation over folds), `n_folds`."""
        whole = self.table.filter(pl.col("segment") == "all")
        return whole.group_by("model", "metric", maintain_order=True).agg(
            pl.col("mean").mean(), pl.col("mean").std().alias("spread"), pl.len().alias("n_folds")
        )


@checked
def backtest(
    data: Any,
    models: Mapping[str, Model],
    *,
    horizon_days: Days = 28,
    n_folds: int = 3,
    metrics: Sequence[str] = DEFAULT_METRICS,
    prefilters: Sequence[Prefilter] = (),
    keep: Mapping[str, int] | None = None,
    store: str | Path | None = None,
    progress: Progress = silent,
) -> Backtest:
    """Judge models on the last `n_folds` horizons, each fitted on what lies before.

    All users are judged; where `data` is a sample of them, models learn from that.

    Parameters
    ----------
    models : name -> a recommender, a source, or a function of (what is known, codes of shoppers, k)
        that returns (n_shoppers, k) item codes, -1 for none
    prefilters : for sources and functions, none by default; a recommender has its own
    keep : model -> k: whose lists of k items, or as many as a metric asks for, are returned too
    store : folder for finished folds: a rerun with the same data, models and metrics reads them

    Raises
    ------
    DataError
        If the data is too short for so many folds, or no user can be judged in one.
    SettingError
        If there is no model, or a metric is unknown.

    Examples
    --------
    >>> from retailrec.candidates import OwnPurchases, Popularity
    >>> from retailrec.simulator.shop import small_data
    >>> models = {"popular": Popularity(), "own": OwnPurchases()}
    >>> found = backtest(small_data(users=60), models, horizon_days=14, n_folds=2)
    >>> found.summary().filter(metric="precision@5")["mean"].is_sorted()
    True
    """
    if not models:
        raise SettingError("backtest: there is no model; give at least one.")
    data = RetailData.of(data)
    horizon = timedelta(days=horizon_days)
    longest(metrics)  # one that is unknown is said before any work
    frames, tables, lists = [], [], [_no_lists(data)]
    known = "" if store is None else data.fingerprint()
    with nullcontext() if store is None else Work.held(store) as work:
        for fold in rolling_folds(data.end, horizon=horizon, n=n_folds):
            if fold.cutoff <= data.start:
                raise DataError(
                    f"{(data.end - data.start).days} days of receipts are too short for {n_folds} "
                    f"folds of {horizon_days:g} days; ask for fewer or shorter ones."
                )
            split = fold.split(data).filtered(prefilters)
            judged = Window(split, fold.end)
            users, groups = judged.users, judged.groups
            for name, model in models.items():
                progress(f"{name}, fold from {fold.cutoff:%Y-%m-%d}")
                k = (keep or {}).get(name, 0)
                settings: list[Any] = [_described(model), list(prefilters), list(metrics), versions()]
                settings += [k] * bool(k)  # without it, a part's name is as in version 0.2
                part = f"part-{fingerprint(repr([known, fold, *settings]))[:24]}.parquet"
                if work is not None and work.facts(part) is not None:
                    found = pl.read_parquet(work.path(part), glob=False)
                    values, kept = _columns(found.drop(_LISTS, strict=False)), found
                else:
                    values, kept = judged.values(fitted_copy(model, split.past), metrics, k)
                    if work is not None:
                        more = kept if k else pl.DataFrame()
                        work.keep(_frame(values, len(users)).hstack(more), part)
                which = (pl.lit(fold.cutoff).alias("cutoff"), pl.lit(name).alias("model"))
                tables.append(by_segment(values, groups).select(*which, pl.all()))
                frames.append(_frame(values, len(users)).select(*which, users, pl.all()))
                if k:
                    codes, hits = (_matrix(kept[column]) for column in _LISTS)
                    rows = listed(users, codes, hits > 0, split.past.items[ITEM_ID])
                    lists.append(rows.select(*which, pl.all()))
    return Backtest(pl.concat(frames), pl.concat(tables), pl.concat(lists))


def _no_lists(data: RetailData) -> pl.DataFrame:
    """No row of `Backtest.lists`."""
    nothing = np.zeros((0, 0), np.int32)
    rows = listed(data.users[USER_ID].clear(), nothing, nothing > 0, data.items[ITEM_ID])
    return rows.select(pl.lit(data.end).alias("cutoff"), pl.lit("").alias("model"), pl.all())


def learning_curve(
    split: Split,
    model: Model,
    days: Sequence[float] = (28, 91, 182, 364),
    *,
    metric: str = "precision@5",
    prefilters: Sequence[Prefilter] = (),
) -> pl.DataFrame:
    """`days`, `lines`, and the metric's mean when only the last so many days before the cut are known.

    The judged shoppers are the same for every length; those without a receipt in it count too. Lengths
    that reach further back than the data are left out, but for the first of them.
    """
    past, target = split.filtered(prefilters)
    judge = Judge.of(past, target)
    k = parse_metric(metric)[1]
    rows = []
    for length in sorted(days):
        known = replace(past, log=past.log.filter(pl.col("time") >= past.end - timedelta(days=length)))
        items = fitted(model, known)(judge.users, k)
        rows.append((float(length), known.log.height, means(judge.per_user(items, [metric]))[metric]))
        if known.log.height == past.log.height:
            break
    return pl.DataFrame(rows, schema=["days", "lines", metric], orient="row")


def _frame(values: Mapping[str, Values], n: int) -> pl.DataFrame:
    """A column a metric; a metric of lists together stands in every row."""
    return pl.DataFrame({m: v if len(v) == n else np.full(n, v[0]) for m, v in values.items()})


def _columns(frame: pl.DataFrame) -> dict[str, Values]:
    return {
        name: frame[name].to_numpy()[: 1 if parse_metric(name)[0].together else None]
        for name in frame.columns
    }


def _described(model: Model) -> str:
    """Settings of a recommender or source; of a function its source code and what it captured."""
    if isinstance(model, TwoStageRecommender | CandidateGenerator):
        return repr(model)
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):
        return _stands_for(model)
    function: Any = getattr(model, "__func__", model)
    captured = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    captured += [function.__defaults__, function.__kwdefaults__, getattr(model, "__self__", None)]
    return repr([source, *map(_stands_for, captured)])


def _stands_for(value: Any) -> str:
    """Text that is equal for equal values; of what can't be compared, no text is equal to another."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        return repr([_stands_for(v) for v in value])
    if isinstance(value, dict):
        return repr([(_stands_for(k), _stands_for(v)) for k, v in value.items()])
    if isinstance(value, TwoStageRecommender | CandidateGenerator):
        return repr(value)
    return f"{type(value)} {secrets.token_hex(8)}"
