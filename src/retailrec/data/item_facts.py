"""Facts of items that several wings ask for: last unit prices, codes of categories and other words."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.retail_data import RetailData
from retailrec.schema import CATEGORIES


def unit_prices(data: RetailData) -> NDArray[np.float64]:
    """(n_items,) unit price on the last day that the item was sold; NaN where not known."""
    last = data.log.filter(pl.col("value").is_not_null())
    last = last.filter(pl.col("time").dt.date() == pl.col("time").dt.date().max().over("item"))
    price = last.group_by("item").agg(pl.col("value").sum() / pl.col("quantity").sum())
    out = np.full(data.n_items, np.nan)
    out[price["item"].to_numpy()] = price["value"].to_numpy()
    return out


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
