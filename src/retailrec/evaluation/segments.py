"""Groups of shoppers, and means by group."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data import RetailData
from retailrec.data.item_facts import text_codes
from retailrec.evaluation.judge import means
from retailrec.metrics.base import Values
from retailrec.schema import CATEGORIES, USER_ID

_MOST_VALUES = 12  # an attribute with more different values is no segment


def segments(past: RetailData, users: NDArray[np.int64]) -> dict[str, pl.Series]:
    """Segment -> (n_users,) group of each shopper, from what is known; null where it is not known.

    ``receipts``, ``tenure``, ``favourite`` (the broadest category that the shopper buys most; the
    eight largest and ``other``), and every attribute of shoppers with 2 to 12 different values.
    """
    found = grouped(shopper_facts(past, users))
    for name in past.users.columns:
        if name != USER_ID and 2 <= past.users[name].drop_nulls().n_unique() <= _MOST_VALUES:
            found[name] = past.users[name].cast(pl.String).gather(users)
    return found


def shopper_facts(past: RetailData, users: NDArray[np.int64]) -> pl.DataFrame:
    """(n_users,) `receipts`, `days` since the first, and `favourite` where items have categories."""
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
    """Segment -> (n_users,) group of each shopper of `shopper_facts`."""
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
    return found


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
