"""What a campaign's page is made of: finished numbers, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from retailrec.offers.allocation import Allocation
from retailrec.offers.campaign import Campaign
from retailrec.offers.problem import group_column

MOST_ROWS = 25  # of a table on the page
_EXAMPLES = 12


def campaign_summary(
    found: Allocation, campaign: Campaign, items: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Figures of a campaign: who gets what, how budgets are spent, prices, what gave way.

    Parameters
    ----------
    found, campaign : the allocation and its settings
    items : catalogue with `item_id` and, if there, `name`, `supplier`, `category`

    Returns
    -------
    A dictionary with `campaign` (settings), `report` (`AllocationReport` without its constraints),
    `products`, `groups` (by supplier, category), `lists` (shoppers by number of offers), `budgets`,
    `limits` (that bind or gave way, dearest first), `n_limits`, `examples`.
    """
    names = _names(items)
    report = found.report.as_dict()
    constraints = report.pop("constraints")
    budgets = [c for c in constraints if c["kind"] == "budget"]
    limits = [c for c in constraints if c["kind"] == "limit"]
    binding = [c for c in limits if c["price"] or c["missing"]]
    binding.sort(key=lambda c: (-c["missing"], -abs(c["price"]), c["name"]))
    offers = found.offers.with_columns(pl.col("item_id").cast(pl.String))
    products = _totals(offers, "item_id").with_columns(
        name=pl.col("item_id").replace_strict(names, default=pl.col("item_id"))
    )
    sizes = found.shoppers.filter(arm="treated").group_by("offers").len().sort("offers")
    return {
        "campaign": campaign.model_dump(mode="json", exclude_defaults=True),
        "report": report,
        "products": products.head(MOST_ROWS).to_dicts(),
        "n_products": products.height,
        "groups": _groups(offers, items),
        "lists": sizes.to_dicts(),
        "budgets": budgets,
        "limits": binding[:MOST_ROWS],
        "n_binding": len(binding),
        "n_limits": len(limits),
        "examples": _examples(offers, names),
    }


def _names(items: pl.DataFrame | None) -> Mapping[str, str]:
    """Item id as text -> readable name; nothing without names."""
    if items is None or not {"item_id", "name"} <= set(items.columns):
        return {}
    table = items.select(pl.col("item_id", "name").cast(pl.String)).drop_nulls()
    return dict(table.iter_rows())


def _totals(offers: pl.DataFrame, key: str) -> pl.DataFrame:
    """Offers, shoppers' worth, expected cost and mean price by a column, most offers first."""
    return (
        offers.group_by(key)
        .agg(
            offers=pl.len(),
            value=pl.col("value").sum(),
            expected_cost=pl.col("expected_cost").sum(),
            price=pl.col("price").mean(),
        )
        .sort("offers", "value", key, descending=[True, True, False])
    )


def _groups(offers: pl.DataFrame, items: pl.DataFrame | None) -> dict[str, list[dict[str, Any]]]:
    if items is None or "item_id" not in items.columns:
        return {}
    totals: dict[str, list[dict[str, Any]]] = {}
    for kind in ("supplier", "category"):
        column = group_column(kind, items)
        if column is not None:
            table = items.select(pl.col("item_id", column).cast(pl.String)).rename({column: kind})
            joined = offers.join(table, on="item_id", how="left")
            totals[kind] = _totals(joined, kind).head(MOST_ROWS).to_dicts()
    return totals


def _examples(offers: pl.DataFrame, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Shoppers spread evenly over all who get something, with their offers."""
    users = offers["user_id"].unique(maintain_order=True)
    step = max(1, len(users) // _EXAMPLES)
    chosen = users.gather_every(step).head(_EXAMPLES)
    mine = offers.filter(pl.col("user_id").is_in(chosen.implode()))
    examples = []
    for (user,), rows in mine.group_by("user_id", maintain_order=True):
        lines = rows.select("item_id", "value", "price").to_dicts()
        for line in lines:
            line["name"] = names.get(line["item_id"], line["item_id"])
        examples.append({"user_id": str(user), "offers": lines})
    return examples
