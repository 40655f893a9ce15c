"""Receipts, from files to histories; `RetailData` knows its own end."""

from __future__ import annotations

from retailrec.data.history import Histories, Unplaced
from retailrec.data.ids import catalogue_key, id_series, row_of_ids
from retailrec.data.retail_data import (
    Recoded,
    RetailData,
    category_codes,
    has_money,
    item_buyers,
    item_lines,
    unit_prices,
)

__all__ = [
    "Histories",
    "Recoded",
    "RetailData",
    "Unplaced",
    "catalogue_key",
    "category_codes",
    "has_money",
    "id_series",
    "item_buyers",
    "item_lines",
    "row_of_ids",
    "unit_prices",
]
