"""Judge anybody's recommendations: frames in, means out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.pairs import pair_keys
from retailrec.data import category_codes
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, ids_meet, parse_number, typed_ids
from retailrec.errors import DataError
from retailrec.evaluation.judge import Judge, means
from retailrec.metrics.base import parse_metric
from retailrec.schema import CATEGORIES


class Judged(NamedTuple):
    """Lists of somebody's recommendations, in the codes of their judge.

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
    k = max(parse_metric(m)[1] for m in metrics)
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
    notes = _require_common(listed, bought)
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
        priced = coded.filter(pl.col("price").is_not_null())
        prices[priced["item"].to_numpy()] = priced["price"].to_numpy()
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
        every = pl.concat([frame[column].unique() for frame in listed.values()])
        ids_meet(every, bought[column], who=f"{what} of the lists", whose="the truth", share=0)
        for name, frame in listed.items():
            told = ids_meet(
                frame[column],
                bought[column],
                who=f"{what} of {name}",
                whose="the truth",
                share=0,
                refuse=False,
            )
            notes += [told] if told else []
    return tuple(notes)


def _with_history(judge: Judge, pairs: pl.DataFrame, users: pl.Series, ids: pl.Series) -> Judge:
    """The judge, told who had bought what before."""
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
