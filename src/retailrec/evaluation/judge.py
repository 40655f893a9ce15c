"""Judge recommendations by what was bought afterwards: item codes, frames of any lists, groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import checked
from retailrec.compute.csr import find_listed, find_pairs, pair_keys, pairs_of_keys
from retailrec.data import RetailData, category_codes, item_buyers, unit_prices
from retailrec.data.ids import row_of_ids
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, ids_meet, parse_number, typed_ids
from retailrec.data.retail_data import text_codes
from retailrec.errors import DataError
from retailrec.metrics.base import Values, compute_metric, longest, parse_metric
from retailrec.schema import CATEGORIES, ITEM_ID, USER_ID

DEFAULT_METRICS = ("precision@5", "recall@10", "ndcg@10", "hit_rate@5", "money_precision@5")


@dataclass(frozen=True, eq=False)
class ItemFacts:
    """What was known of items before a window, counted over all users."""

    prices: NDArray[np.float64]  # (n_items,) unit prices
    buyers: NDArray[np.int64]  # (n_items,) shoppers who had bought the item
    n_known: int  # shoppers with history

    @classmethod
    def of(cls, past: RetailData) -> ItemFacts:
        """Counted over the data, or over the population that it is a sample of."""
        n_known = past.engine.n_active(past.end)
        return cls(unit_prices(past), item_buyers(past).astype(np.int64), n_known)


def no_user_to_judge(n_buyers: int, n_known: int) -> DataError:
    """The error where of a window's buyers none has history."""
    return DataError(
        f"nobody with history bought anything in the evaluation window ({n_buyers} shoppers bought, "
        f"{n_known} have history). Use another horizon."
    )


@dataclass(frozen=True)
class Judge:
    """Who is judged, and what they bought: every cleaned purchase of the window."""

    users: NDArray[np.int64]  # (n_users,) codes of those who bought in the window and have history
    n_cold: int  # shoppers who bought in the window and have none
    n_items: int
    keys: NDArray[np.int64]  # (n_bought,) row * n_items + item of each pair bought, ascending
    values: NDArray[np.float64]  # (n_bought,) money behind each
    prices: NDArray[np.float64]  # (n_items,) unit price as known before the window
    # where these are None, it is not known:
    repeat: NDArray[np.bool_] | None = None  # (n_bought,) had the shopper bought the item before?
    buyers: NDArray[np.int64] | None = None  # (n_items,) shoppers who had bought the item before
    categories: NDArray[np.int32] | None = None  # (n_items,) category codes, -1 not known
    recommendable: NDArray[np.bool_] | None = None  # (n_items,) might the item be recommended?
    n_known: int = 0  # shoppers with history

    @classmethod
    def of(cls, past: RetailData, target: pl.DataFrame, facts: ItemFacts | None = None) -> Judge:
        """From what is known and the log rows of the window.

        `facts` are those of `past` by default; a part of the shoppers is given those of all.

        Raises
        ------
        DataError
            If no shopper with history bought anything in the window.
        """
        with_history = past.active_users()
        buyers = target["user"].unique().sort().to_numpy()
        users = np.intersect1d(buyers, with_history).astype(np.int64)
        if not len(users):
            raise no_user_to_judge(len(buyers), len(with_history))
        bought = (
            target.filter(pl.col("user").is_in(pl.Series(users).cast(pl.Int32).implode()))
            .group_by("user", "item")
            .agg(pl.col("value").sum())
            .sort("user", "item")
        )
        row = np.searchsorted(users, bought["user"].to_numpy())
        keys = pair_keys(row, bought["item"].to_numpy(), past.n_items)
        values = bought["value"].to_numpy().astype(np.float64)
        own, items = past.history(codes=users), bought["item"].to_numpy()
        facts = ItemFacts.of(past) if facts is None else facts
        if np.isnan(facts.prices).all() and target["value"].null_count() == target.height:
            values[:] = np.nan  # no money is known, which is not 0
        indptr = np.searchsorted(row, np.arange(len(users) + 1))
        return cls(
            users,
            len(buyers) - len(users),
            past.n_items,
            keys,
            values,
            facts.prices,
            repeat=find_pairs(own.indptr, own.items, indptr, items) >= 0,
            buyers=facts.buyers,
            categories=category_codes(past.items),
            recommendable=past.recommendable,
            n_known=facts.n_known,
        )

    def select(self, chosen: NDArray[np.bool_]) -> Judge:
        """The same judge for some of the shoppers."""
        rows, items = pairs_of_keys(self.keys, self.n_items)
        kept = chosen[rows]
        renumbered = (np.cumsum(chosen) - 1)[rows[kept]]
        keys = pair_keys(renumbered, items[kept], self.n_items)
        repeat = None if self.repeat is None else self.repeat[kept]
        return replace(
            self, users=self.users[chosen], n_cold=0, keys=keys, values=self.values[kept], repeat=repeat
        )

    def context(self, items: NDArray[np.int32], needs: Container[str]) -> dict[str, Any]:
        """What metrics ask for, about recommended item codes (n_users, k); -1 is no item."""
        n, there = len(items), items >= 0
        no_price, no_value = np.isnan(self.prices).all(), np.isnan(self.values).all()
        rows, _ = pairs_of_keys(self.keys, self.n_items)
        place = self._places(items)
        hits = place >= 0
        facts: dict[str, Callable[[], Any]] = {
            "hits": lambda: hits,
            "items": lambda: items,
            "n_relevant": lambda: np.bincount(rows, minlength=n),
            "n_recommended": lambda: there.sum(axis=1),
            "prices": lambda: np.where(there | no_price, self.prices[items], 0.0),
            "bought_values": lambda: np.where(hits | no_value, self.values[place], 0.0),
            "spent": lambda: np.bincount(rows, self.values, minlength=n),
        }
        if (repeat := self.repeat) is not None:
            facts |= {
                "repeat_hits": lambda: hits & repeat[place],
                "explore_hits": lambda: hits & ~repeat[place],
                "n_repeats": lambda: np.bincount(rows[repeat], minlength=n),
                "n_explored": lambda: np.bincount(rows[~repeat], minlength=n),
            }
        if (buyers := self.buyers) is not None:
            order = np.lexsort((np.arange(len(buyers)), -buyers))
            place_of = np.empty(len(buyers), np.int64)
            place_of[order] = np.arange(1, len(buyers) + 1)
            share = np.maximum(buyers, 0.5) / max(self.n_known, 1)
            facts |= {
                "buyer_share": lambda: share[items],
                "is_popular": lambda: np.where(there, place_of[items], len(buyers) + 1),
            }
        if (categories := self.categories) is not None:
            facts["categories"] = lambda: np.where(there, categories[items], -1)
        if (recommendable := self.recommendable) is not None:
            facts["n_recommendable"] = lambda: int(recommendable.sum())
            facts["is_recommendable"] = lambda: there & recommendable[items]
        return {name: value() for name, value in facts.items() if name in needs}

    def hits(self, items: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(n_users, k) was the item of the list bought in the window?"""
        return self._places(items) >= 0

    def _places(self, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """(n_users, k) where in `keys` each item of the lists stands; -1 where it was not bought."""
        rows, bought = pairs_of_keys(self.keys, self.n_items)
        return find_listed(np.searchsorted(rows, np.arange(len(items) + 1)), bought, items)

    def per_user(
        self, items: NDArray[np.int32], metrics: Sequence[str] = DEFAULT_METRICS
    ) -> dict[str, Values]:
        """Metric -> (n_users,) values, NaN where not defined.

        Raises
        ------
        DataError
            If there is not one list a judged shopper.
        """
        if len(items) != len(self.users):
            raise DataError(
                f"{len(items):,} lists for {len(self.users):,} judged shoppers; give one a shopper, in "
                f"the order of Judge.users."
            )
        needs = {need for m in metrics for need in parse_metric(m)[0].needs}
        context = self.context(items, needs)
        return {m: compute_metric(m, context) for m in metrics}


def listed(
    users: pl.Series, items: NDArray[np.int32], hits: NDArray[np.bool_], item_ids: pl.Series
) -> pl.DataFrame:
    """Judged lists as rows: `user_id`, `item_id`, `rank`, `bought` in the window.

    Parameters
    ----------
    users : (n_users,) ids
    items, hits : (n_users, k) item codes, -1 where a list has ended, and whether they were bought
    item_ids : (n_items,) ids
    """
    place, rank = np.nonzero(items >= 0)
    return pl.DataFrame(
        {
            USER_ID: users.gather(place),
            ITEM_ID: item_ids.gather(items[place, rank]),
            "rank": (rank + 1).astype(np.int32),
            "bought": hits[place, rank],
        }
    )


def means(per_user: Mapping[str, Values]) -> dict[str, float | None]:
    """Mean over the shoppers for whom a metric is defined; None if there is none."""
    return {name: None if np.isnan(v).all() else float(np.nanmean(v)) for name, v in per_user.items()}


class Judged(NamedTuple):
    """Lists of recommendations, in the codes of their judge.

    Attributes
    ----------
    judge : who is judged by what
    lists : name -> (n_users, k) item codes, -1 where a list has ended
    not_judged : name -> shoppers with recommendations who bought nothing, or have no history
    left_out : what -> its lines that say nothing, such as ``truth: no item``
    notes : lists whose ids hardly meet those of the truth
    """

    judge: Judge
    lists: dict[str, NDArray[np.int32]]
    not_judged: dict[str, int]
    left_out: dict[str, int]
    notes: tuple[str, ...]


@checked
def evaluate(
    recommendations: Any,
    truth: Any,
    metrics: Sequence[str] = ("precision@5", "recall@10"),
    *,
    history: Any = None,
    items: Any = None,
) -> dict[str, float | None]:
    """Means of metrics over the shoppers of `truth`, from frames.

    Parameters
    ----------
    recommendations : `user_id`, `item_id`, `rank` (1 is best)
    truth : `user_id`, `item_id` and, for money metrics, `value` and `price` (of one unit, as known
        when recommending): what was bought
    history : `user_id`, `item_id` of earlier purchases, for metrics that part repeats from new items
        or ask how popular an item was; shoppers without history are then left out
    items : catalogue, `item_id` and `category_1`, ..., for coverage and diversity

    Raises
    ------
    DataError
        If a column is missing, `truth` or the recommendations are empty, their ids are of different
        kinds or have nothing in common, or a shopper's list has a rank or an item twice.

    Notes
    -----
    A shopper without recommendations counts as zero. Lines without shopper or item say nothing and
    are left out, returns (negative value or quantity) are no purchases. A metric of money is None
    where no price or value is known.

    Examples
    --------
    >>> mine = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> bought = pl.DataFrame({"user_id": [1, 2], "item_id": [8, 9]})
    >>> evaluate(mine, bought, ["precision@2", "hit_rate@2"])
    {'precision@2': 0.25, 'hit_rate@2': 0.5}
    """
    k = longest(metrics)
    found = judge_frames({"": recommendations}, truth, k, history=history, items=items)
    return means(found.judge.per_user(found.lists[""], metrics))


def judge_frames(
    recommendations: Mapping[str, Any], truth: Any, k: int, *, history: Any = None, items: Any = None
) -> Judged:
    """As `evaluate`, before any metric: a judge, and the first `k` of each named frame's lists.

    Raises
    ------
    DataError
        As `evaluate`.
    """
    left_out: dict[str, int] = {}
    bought = _checked(truth, "truth", ("user_id", "item_id"), left_out)
    if bought.is_empty():
        raise DataError("truth holds no purchase; there is nothing to judge by.")
    listed = {}
    for name, frame in recommendations.items():
        who = f"recommendations {name}".strip()
        listed[name] = _checked(frame, who, ("user_id", "item_id", "rank"), left_out, bought)
        if listed[name].is_empty():
            raise DataError(f"{who} hold no line; give the lists that are to be judged.")
    earlier = catalogue = None
    if history is not None:
        earlier = _checked(history, "history", ("user_id", "item_id"), left_out, bought)
    if items is not None:
        catalogue = _checked(items, "items", ("item_id",), left_out, bought)
    notes = (*_require_common(listed, bought), *_empty_places(listed))
    users = bought["user_id"].unique().sort()
    n_buyers = len(users)
    if earlier is not None:
        users = users.filter(users.is_in(earlier["user_id"].unique().implode()))
        if users.is_empty():
            raise DataError("nobody of the truth has a history; there is nobody to judge.")
    frames = [bought, *listed.values(), *(f for f in (earlier, catalogue) if f is not None)]
    ids = pl.concat([f["item_id"] for f in frames]).unique().sort()
    if "value" not in bought.columns or bought["value"].null_count() == bought.height:
        bought = bought.with_columns(value=pl.lit(np.nan))  # not known, which is not 0
    coded = _coded(bought, users, ids)
    sums = coded.group_by("row", "item").agg(pl.col("value").sum()).sort("row", "item")
    prices = np.full(len(ids), np.nan)
    if "price" in bought.columns:
        priced = bought.drop_nulls("price")  # of those who are not judged, too
        prices[row_of_ids(priced["item_id"], ids)] = priced["price"].to_numpy()
    judge = Judge(
        users=np.arange(len(users)),
        n_cold=n_buyers - len(users),
        n_items=len(ids),
        keys=pair_keys(sums["row"].to_numpy(), sums["item"].to_numpy(), len(ids)),
        values=sums["value"].to_numpy().astype(np.float64),
        prices=prices,
    )
    if earlier is not None:
        judge = _with_history(judge, earlier.select("user_id", "item_id").unique(), users, ids)
    if catalogue is not None:
        catalogue = catalogue.unique("item_id", keep="first", maintain_order=True)
        described = ids.to_frame().join(catalogue, on="item_id", how="left", maintain_order="left")
        offered = ids.is_in(catalogue["item_id"].implode()).to_numpy()
        judge = replace(judge, categories=category_codes(described), recommendable=offered)
    lists, left = {}, {}
    for name, frame in listed.items():
        placed = _coded(frame, users, ids)
        left[name] = frame["user_id"].n_unique() - placed["row"].n_unique()
        placed = placed.filter(pl.col("rank").is_between(1, k))
        lists[name] = np.full((len(users), k), -1, np.int32)
        place = placed["row"].to_numpy(), placed["rank"].to_numpy() - 1
        lists[name][place] = placed["item"].to_numpy()
    return Judged(judge, lists, left, left_out, notes)


def _require_common(listed: Mapping[str, pl.DataFrame], bought: pl.DataFrame) -> tuple[str, ...]:
    """Raise where lists and truth share no shopper or no item; notes where one list shares none."""
    notes = []
    for column, what in (("user_id", "shoppers"), ("item_id", "items")):
        truth: dict[str, Any] = {"known": bought[column], "whose": "the truth", "share": 0}
        every = pl.concat([frame[column].unique() for frame in listed.values()])
        ids_meet(every, who=f"{what} of the lists", **truth)
        for name, frame in listed.items():
            notes.append(ids_meet(frame[column], who=f"{what} of {name}", refuse=False, **truth))
    pair = ["user_id", "item_id"]
    answers = bought.select(pair).unique()
    for name, frame in listed.items():
        given = frame.select(pair).unique()
        if len(given) == len(answers.join(given, on=pair, how="semi")) == len(answers) > 1:
            who = f"recommendations {name}".strip()
            notes.append(f"{who} hold the pairs of the truth, none more or less: they are the answers")
    return tuple(filter(None, notes))


def _empty_places(listed: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """Notes of lists that have a rank without the ones before it."""
    for name, frame in listed.items():
        ends = frame.group_by("user_id").agg(pl.col("rank").max(), n=pl.len())
        if n := int((ends["rank"] > ends["n"]).sum()):
            yield (
                f"{f'recommendations {name}'.strip()}: {n:,} of {ends.height:,} lists have empty "
                f"places, a rank without the ones before it; an empty place is a miss"
            )


def _with_history(judge: Judge, pairs: pl.DataFrame, users: pl.Series, ids: pl.Series) -> Judge:
    """The judge, with what each user had bought before."""
    own = _coded(pairs, users, ids)
    own_keys = pair_keys(own["row"].to_numpy(), own["item"].to_numpy(), len(ids))
    counts = pairs["item_id"].value_counts(name="buyers")
    buyers = ids.to_frame().join(counts, on="item_id", how="left", maintain_order="left")["buyers"]
    return replace(
        judge,
        repeat=np.isin(judge.keys, own_keys),
        n_known=pairs["user_id"].n_unique(),
        buyers=buyers.fill_null(0).cast(pl.Int64).to_numpy(),
    )


_ASKED = ("user_id", "item_id", "rank", "value", "quantity", "price", *CATEGORIES)


def _checked(
    frame: Any,
    who: str,
    needed: Sequence[str],
    left_out: dict[str, int],
    like: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """A Polars frame with these columns, ids as in `like`, purchases only; lists that make sense.

    `left_out` gains the lines that say nothing, by what they lack.
    """
    lines = to_polars(frame, who=who)
    if absent := [c for c in needed if c not in lines.columns]:
        cure = "Rename yours to these, or export them."
        if absent == ["rank"] and "score" in lines.columns:
            cure = (
                "Number each user's items from 1, the best score first, for example with "
                "pl.col('score').rank('ordinal', descending=True).over('user_id')."
            )
        raise DataError(f"{who} lack columns {absent}; they have {lines.columns}. {cure}")
    lines = lines.select(c for c in _ASKED if c in lines.columns)
    ids = [lines[c] for c in ("user_id", "item_id") if c in needed]
    lines = lines.with_columns(
        typed_ids(c) if like is None else ids_like(c, like[c.name], who=who) for c in ids
    )
    numbers = [lines[c] for c in ("value", "quantity", "price", "rank") if c in lines.columns]
    lines = lines.with_columns(parse_number(c, who=who) for c in numbers)
    wrong = {
        "no shopper": pl.col("user_id").is_null() if "user_id" in needed else None,
        "no item": pl.col("item_id").is_null(),
        "return": pl.any_horizontal(pl.col(c) < 0 for c in ("value", "quantity") if c in lines.columns)
        if {"value", "quantity"} & set(lines.columns) and "rank" not in needed
        else None,
    }
    for reason, condition in wrong.items():
        if condition is not None:
            kept = lines.filter(~condition.fill_null(False))
            if n := lines.height - kept.height:
                left_out[f"{who}: {reason}"] = n
            lines = kept
    if "rank" in needed:
        ranks = lines["rank"]
        right = ranks.is_finite() & (ranks >= 1) & (ranks == ranks.floor())
        if not right.fill_null(False).all():
            raise DataError(f"{who}: ranks must be whole numbers from 1, the best.")
        for key in ("rank", "item_id"):
            if n := int(lines.select(pl.struct("user_id", key).is_duplicated().sum()).item()):
                raise DataError(
                    f"{who}: {n:,} lines give a shopper the same {key} more than once; each rank and "
                    f"each item may stand once in a list."
                )
        lines = lines.with_columns(pl.col("rank").cast(pl.Int64))
    unread = [pl.col(c).fill_nan(None) for c in ("value", "price") if c in lines.columns]
    return lines.with_columns(unread)


def _coded(frame: pl.DataFrame, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    """Rows of these shoppers, with `row` and `item` numbers."""
    return frame.join(
        pl.DataFrame({"user_id": users}).with_row_index("row"), on="user_id", how="inner"
    ).join(pl.DataFrame({"item_id": items}).with_row_index("item"), on="item_id", how="left")


_ATTRIBUTE = "attribute_"
_MOST_VALUES = 12  # an attribute with more different values is no segment


def segments(past: RetailData, users: NDArray[np.int64]) -> dict[str, pl.Series]:
    """Segment -> (n_users,) group of each shopper, from what is known; null where it is not known.

    ``receipts``, ``tenure``, ``favourite`` (the broadest category that the shopper buys most; the
    eight largest and ``other``), and every attribute of shoppers with 2 to 12 different values.
    """
    return grouped(user_facts(past, users))


def user_facts(past: RetailData, users: NDArray[np.int64]) -> pl.DataFrame:
    """(n_users,) `receipts`, `days` since the first, `favourite` where items have categories.

    And the attributes that make a segment, whose columns begin with ``attribute_``.
    """
    facts = (
        past.receipts()
        .group_by("user")
        .agg(
            pl.len().cast(pl.Int64).alias("receipts"),
            (pl.lit(past.end) - pl.col("time").min()).dt.total_days().alias("days"),
        )
    )
    codes_of = pl.DataFrame({"user": users.astype(np.int32)})
    own = codes_of.join(facts, on="user", how="left", maintain_order="left").drop("user")
    own = own.with_columns(
        values.cast(pl.String).gather(users).alias(_ATTRIBUTE + values.name)
        for values in past.users
        if values.name != USER_ID and 2 <= values.drop_nulls().n_unique() <= _MOST_VALUES
    )
    if CATEGORIES[0] not in past.items.columns:
        return own
    codes, distinct = text_codes(past.items[CATEGORIES[0]])
    group = pl.Series("group", codes[past.log["item"].to_numpy()])
    counts = past.log.select("user", group).filter(pl.col("group") >= 0)
    counts = counts.filter(pl.col("user").is_in(pl.Series(users).cast(pl.Int32).implode()))
    counts = counts.group_by("user", "group").len()
    best = counts.sort(["len", "group"], descending=[True, False]).unique("user", keep="first")
    best = best.select("user", distinct.gather(best["group"]).alias("favourite"))
    favourite = codes_of.join(best, on="user", how="left", maintain_order="left")["favourite"]
    return own.with_columns(favourite)


def grouped(facts: pl.DataFrame) -> dict[str, pl.Series]:
    """Segment -> (n_users,) group of each user of `user_facts`."""
    found = {
        "receipts": _binned(facts["receipts"], [1, 5, 20], ["1", "2 to 5", "6 to 20", "more than 20"]),
        "tenure": _binned(facts["days"], [28, 182], ["0 to 4 weeks", "5 to 26 weeks", "over 26 weeks"]),
    }
    if "favourite" in facts.columns:
        sizes = facts["favourite"].drop_nulls().value_counts()
        large = sizes.sort("count", "favourite", descending=[True, False])["favourite"].head(8)
        favourite = pl.col("favourite")
        found["favourite"] = facts.select(
            pl.when(favourite.is_null() | favourite.is_in(large.implode()))
            .then(favourite)
            .otherwise(pl.lit("other"))
            .alias("favourite")
        )["favourite"]
    attributes = (name for name in facts.columns if name.startswith(_ATTRIBUTE))
    return found | {name.removeprefix(_ATTRIBUTE): facts[name] for name in attributes}


def by_segment(values: Mapping[str, Values], groups: Mapping[str, pl.Series]) -> pl.DataFrame:
    """`segment`, `group`, `metric`, `mean`, `n_users`; the segment ``all`` comes first."""
    n = len(next(iter(groups.values())))
    rows: list[tuple[str, str, str, float | None, int]] = []
    for segment, labels in {"all": pl.Series(["all"] * n), **groups}.items():
        for group in in_order(labels.drop_nulls().unique().to_list()):
            chosen = (labels == group).fill_null(False).to_numpy()
            for metric, mean in means(
                {m: v if len(v) != n else v[chosen] for m, v in values.items()}
            ).items():
                if segment == "all" or len(values[metric]) == n:
                    rows.append((segment, group, metric, mean, int(chosen.sum())))
    schema = ["segment", "group", "metric", "mean", "n_users"]
    return pl.DataFrame(rows, schema=schema, orient="row", schema_overrides={"mean": pl.Float64})


def in_order(groups: Sequence[str]) -> list[str]:
    """Groups by the number they begin with, ``Under`` before and others after them, else by name.

    Examples
    --------
    >>> in_order(["125-149K", "250K+", "35-49K", "Under 15K", "15-24K"])
    ['Under 15K', '15-24K', '35-49K', '125-149K', '250K+']
    >>> in_order(["over 26 weeks", "0 to 4 weeks", "5 to 26 weeks", "more than 20", "6 to 20"])
    ['0 to 4 weeks', '5 to 26 weeks', '6 to 20', 'more than 20', 'over 26 weeks']
    """

    def key(group: str) -> tuple[float, int, str]:
        number = re.search(r"\d+(\.\d+)?", group)
        if number is None:
            return float("inf"), 0, group
        first = re.match(r"\W*([a-z]*)", group.lower())
        side = {"under": -1, "below": -1, "less": -1, "up": -1, "over": 1, "more": 1, "above": 1}
        return float(number[0]), side.get(first[1] if first else "", 0), group

    return sorted(groups, key=key)


def _binned(numbers: pl.Series, upper: Sequence[int], names: Sequence[str]) -> pl.Series:
    place = np.searchsorted(upper, numbers.to_numpy())
    return pl.Series(np.asarray(names)[place])
