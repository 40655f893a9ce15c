"""Facts of items that several wings ask for: last unit prices, codes of categories and other words."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.groups import count_buyers
from retailrec.data.retail_data import RetailData
from retailrec.schema import CATEGORIES


def unit_prices(data: RetailData) -> NDArray[np.float64]:
    """(n_items,) unit price on the last day that the item was sold; NaN where not known."""
    if data.whole is not None:
        return data.whole.prices(data.end)
    last = data.log.filter(pl.col("value").is_not_null())
    last = last.filter(pl.col("time").dt.date() == pl.col("time").dt.date().max().over("item"))
    price = last.group_by("item").agg(pl.col("value").sum() / pl.col("quantity").sum())
    out = np.full(data.n_items, np.nan)
    out[price["item"].to_numpy()] = price["value"].to_numpy()
    return out


def item_buyers(
    data: RetailData, start: datetime | None = None, end: datetime | None = None
) -> NDArray[np.float64]:
    """(n_items,) shoppers who bought the item in [start, end); at any time by default."""
    if data.whole is not None:
        return data.whole.buyers(start, end or data.end)
    log = _span(data, start, end)  # the lines of a shopper lie together
    return np.asarray(count_buyers(log["user"].to_numpy(), log["item"].to_numpy(), data.n_items))


def item_lines(
    data: RetailData, start: datetime | None = None, end: datetime | None = None
) -> NDArray[np.float64]:
    """(n_items,) receipts with the item in [start, end); all of them by default."""
    if data.whole is not None:
        return data.whole.lines(start, end or data.end)
    log = _span(data, start, end)
    return np.bincount(log["item"].to_numpy(), minlength=data.n_items).astype(np.float64)


def _span(data: RetailData, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    if start is None:
        return data.log
    return data.between(start, data.end if end is None else end)


def category_codes(items: pl.DataFrame) -> NDArray[np.int32] | None:
    """(n_items,) codes of the second broadest category known, else the broadest; -1 where unknown."""
    known = [c for c in CATEGORIES[:2] if c in items.columns and items[c].null_count() < items.height]
    if not known:
        return None
    return text_codes(items[known[-1]])[0]


def text_codes(values: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """Codes of the distinct values in the order of their text, -1 where missing; and the texts.

    Examples
    --------
    >>> codes, texts = text_codes(pl.Series(["tea", None, "ale", "tea"]))
    >>> codes, texts.to_list()
    (array([ 1, -1,  0,  1], dtype=int32), ['ale', 'tea'])
    """
    text = values.cast(pl.String)
    codes = text.rank("dense").cast(pl.Int32) - 1
    return codes.fill_null(-1).to_numpy(), text.drop_nulls().unique().sort()
