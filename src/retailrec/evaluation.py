"""Judge recommendations by what was bought afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data import RetailData
from retailrec.errors import DataError
from retailrec.metrics.base import Values, compute_metric, parse_metric
from retailrec.tables import to_polars

DEFAULT_METRICS = (
    "precision@5", "recall@10", "ndcg@10", "hit_rate@5", "money_precision@5",
)  # fmt: skip


@dataclass(frozen=True)
class Judge:
    """Who is judged, and what they bought: every cleaned purchase of the window.

    Attributes
    ----------
    users : (n_users,) codes of the shoppers who bought in the window and have history
    n_cold : shoppers who bought in the window and have none
    """

    users: NDArray[np.int64]
    n_cold: int
    n_items: int
    keys: NDArray[np.int64]  # row * n_items + item, ascending
    values: NDArray[np.float64]  # money behind each key
    prices: NDArray[np.float64]  # (n_items,) unit price as known before the window

    @classmethod
    def of(cls, past: RetailData, target: pl.DataFrame) -> Judge:
        """From what is known and the log rows of the window.

        Raises
        ------
        DataError
            If no shopper with history bought anything in the window.
        """
        known = past.active_users()
        buyers = target["user"].unique().sort().to_numpy()
        users = np.intersect1d(buyers, known).astype(np.int64)
        if not len(users):
            raise DataError(
                f"nobody with history bought anything in the evaluation window "
                f"({len(buyers)} shoppers bought, {len(known)} have history). Use another horizon."
            )
        bought = (
            target.group_by("user", "item")
            .agg(pl.col("value").sum())
            .sort("user", "item")
            .filter(pl.col("user").is_in(users.tolist()))
        )
        row = np.searchsorted(users, bought["user"].to_numpy())
        keys = row * past.n_items + bought["item"].to_numpy()
        values = bought["value"].fill_null(0).to_numpy().astype(np.float64)
        return cls(users, len(buyers) - len(users), past.n_items, keys, values, unit_prices(past))

    def context(self, items: NDArray[np.int32]) -> dict[str, Any]:
        """What metrics ask for, about recommended item codes (n_users, k); -1 is no item."""
        n = len(items)
        keys = np.arange(n)[:, None] * self.n_items + items
        place = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        hits = (self.keys[place] == keys) & (items >= 0)
        rows = self.keys // self.n_items
        return {
            "hits": hits,
            "n_relevant": np.bincount(rows, minlength=n),
            "prices": np.where(items >= 0, self.prices[items], 0.0),
            "bought_values": np.where(hits, self.values[place], 0.0),
            "spent": np.bincount(rows, self.values, minlength=n),
            "n_recommended": (items >= 0).sum(axis=1),
        }

    def per_user(
        self, items: NDArray[np.int32], metrics: Sequence[str] = DEFAULT_METRICS
    ) -> dict[str, Values]:
        """Metric -> (n_users,) values, NaN where not defined."""
        context = self.context(items)
        return {m: compute_metric(m, context) for m in metrics}


def means(per_user: Mapping[str, Values]) -> dict[str, float | None]:
    """Mean over the shoppers for whom a metric is defined; None if there is none."""
    return {name: None if np.isnan(v).all() else float(np.nanmean(v)) for name, v in per_user.items()}


def unit_prices(data: RetailData) -> NDArray[np.float64]:
    """(n_items,) unit price on the last day that the item was sold; NaN where not known."""
    last = data.log.filter(pl.col("value").is_not_null())
    last = last.filter(pl.col("time").dt.date() == pl.col("time").dt.date().max().over("item"))
    price = last.group_by("item").agg(pl.col("value").sum() / pl.col("quantity").sum())
    out = np.full(data.n_items, np.nan)
    out[price["item"].to_numpy()] = price["value"].to_numpy()
    return out


def evaluate(
    recommendations: Any, truth: Any, metrics: Sequence[str] = ("precision@5", "recall@10")
) -> dict[str, float | None]:
    """Means of metrics over the shoppers of `truth`, from two frames.

    Parameters
    ----------
    recommendations : `user_id`, `item_id`, `rank` (1 is best)
    truth : `user_id`, `item_id` and, for money metrics, `value` and `price` (of one unit, as known
        when recommending): what was bought

    A shopper without recommendations counts as zero.

    Raises
    ------
    DataError
        If a column is missing, `truth` is empty, or the ids are of different kinds.

    Examples
    --------
    >>> mine = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> bought = pl.DataFrame({"user_id": [1, 2], "item_id": [8, 9]})
    >>> evaluate(mine, bought, ["precision@2", "hit_rate@2"])
    {'precision@2': 0.25, 'hit_rate@2': 0.5}
    """
    recommended, bought = (
        to_polars(recommendations, who="recommendations"), to_polars(truth, who="truth"),
    )  # fmt: skip
    for frame, who, needed in (
        (recommended, "recommendations", ("user_id", "item_id", "rank")),
        (bought, "truth", ("user_id", "item_id")),
    ):
        if absent := [c for c in needed if c not in frame.columns]:
            raise DataError(f"{who} lack columns {absent}; they have {frame.columns}. Rename them.")
    if bought.is_empty():
        raise DataError("truth holds no purchase; there is nothing to judge by.")
    for key in ("user_id", "item_id"):
        if recommended[key].dtype != bought[key].dtype:
            raise DataError(
                f"'{key}' is {recommended[key].dtype} in recommendations and {bought[key].dtype} "
                f"in truth; write the ids alike in both."
            )
    users = bought["user_id"].unique().sort()
    items = pl.concat([bought["item_id"], recommended["item_id"]]).unique().sort()
    value = pl.col("value") if "value" in bought.columns else pl.lit(0.0)
    coded = _coded(bought.with_columns(value.alias("value")), users, items)
    sums = coded.group_by("row", "item").agg(pl.col("value").sum()).sort("row", "item")
    prices = np.full(len(items), np.nan)
    if "price" in bought.columns:
        prices[coded["item"].to_numpy()] = coded["price"].to_numpy()
    k = max(parse_metric(m)[1] for m in metrics)
    matrix = np.full((len(users), k), -1, np.int32)
    placed = _coded(recommended, users, items).filter(pl.col("rank").is_between(1, k))
    matrix[placed["row"].to_numpy(), placed["rank"].to_numpy() - 1] = placed["item"].to_numpy()
    judge = Judge(
        users=np.arange(len(users)), n_cold=0, n_items=len(items),
        keys=sums["row"].to_numpy().astype(np.int64) * len(items) + sums["item"].to_numpy(),
        values=sums["value"].to_numpy().astype(np.float64), prices=prices,
    )  # fmt: skip
    return means(judge.per_user(matrix, metrics))


def _coded(frame: pl.DataFrame, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    """Rows of known shoppers, with `row` and `item` numbers."""
    return frame.join(
        pl.DataFrame({"user_id": users}).with_row_index("row"), on="user_id", how="inner"
    ).join(pl.DataFrame({"item_id": items}).with_row_index("item"), on="item_id", how="left")
