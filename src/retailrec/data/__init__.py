"""Receipts, from files to histories; `RetailData` knows its own end."""

from __future__ import annotations

from retailrec.data.retail_data import (
    Histories,
    Recoded,
    RetailData,
    Unplaced,
    catalogue_key,
    category_codes,
    id_series,
    row_of_ids,
    unit_prices,
)

__all__ = [
    "Histories",
    "Recoded",
    "RetailData",
    "Unplaced",
    "catalogue_key",
    "category_codes",
    "id_series",
    "row_of_ids",
    "unit_prices",
]
