"""The small shop that examples of the documentation and of each command's help use."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from retailrec.data import RetailData
from retailrec.simulator.shop import small_data
from retailrec.work import write_result

FILES = (
    "shop/transactions.csv",
    "shop/items.csv",
    "receipts.csv",
    "receipts_so_far.csv",
    "exports/until-today.csv",
    "till.csv",
    "till.toml",
    "wanted.csv",
    "eligible.csv",
    "sent.csv",
    "products.csv",
    "deny.csv",
    "margin.csv",
    "spring_items.csv",
    "scores.csv",
    "spring.toml",
    "week.toml",
    "theirs.csv",
    "ours.csv",
    "bought.csv",
)
_TILL = """[columns]
user_id = "Kunde"
item_id = "Artikel"
time = "Datum+Uhrzeit"
basket_id = "Bon"
quantity = "Menge"
value = "Umsatz"
"""
_CAMPAIGN = """name = "spring"
value = "probability_margin"
holdout = 0.2

[offers]
at_most = 3

[[limit]]
by = "product"
at_most = "stock"

[[budget]]
at_most = 20
"""
_WEEK = """receipts = "exports"
folder = "weeks"

[request]
k = 5

[model]
horizon_days = 14
"""


def write_examples(folder: Path) -> None:
    """Write sixty users' receipts of forty weeks, and what the examples name beside them.

    `shop` has receipts and a catalogue in standard columns, ``receipts.csv`` the same lines under other
    names, ``till.csv`` a German till's (dates and clocks apart, decimal commas), with ``till.toml`` to
    read it; ``week.toml`` publishes lists from ``exports``. The lists, margins and offers are of the
    same shop.

    Raises
    ------
    DataError
        If a file can't be written.
    """
    data = small_data(users=60, weeks=40)
    lines = receipt_lines(data).with_columns(
        pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S"),
        pl.col("quantity").cast(pl.Int64),
        pl.col("value").cast(pl.Float64).round(2),
    )
    for name, frame in _tables(data, lines).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_result(frame, folder / name)
    clock = pl.col("time").str.to_datetime()
    till = lines.select(
        Kunde="user_id",
        Artikel="item_id",
        Datum=clock.dt.to_string("%d.%m.%Y"),
        Uhrzeit=clock.dt.to_string("%H:%M"),
        Bon="basket_id",
        Menge="quantity",
        Umsatz="value",
    )
    write_result(till.write_csv(separator=";", decimal_comma=True), folder / "till.csv")
    write_result(_TILL, folder / "till.toml")
    write_result(_CAMPAIGN, folder / "spring.toml")
    write_result(_WEEK, folder / "week.toml")


def receipt_lines(data: RetailData) -> pl.DataFrame:
    """The log as lines in the standard columns, under the ids of users and items."""
    return data.log.select(
        data.users["user_id"].gather(data.log["user"]),
        data.items["item_id"].gather(data.log["item"]),
        "time",
        pl.col("basket").alias("basket_id"),
        "quantity",
        "value",
    )


def _tables(data: RetailData, lines: pl.DataFrame) -> dict[str, pl.DataFrame]:
    names = {"user_id": "client", "item_id": "sku", "time": "date", "basket_id": "receipt"}
    mine = lines.rename({**names, "quantity": "units", "value": "paid"})
    users = lines.select("user_id").unique(maintain_order=True)
    items = lines.select("item_id").unique(maintain_order=True)
    pairs = lines.select("user_id", "item_id").unique(maintain_order=True)
    ranked = pairs.group_by("user_id", maintain_order=True).head(5)
    ranked = ranked.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    sold = lines.group_by("item_id", maintain_order=True).agg(
        price=(pl.col("value") / pl.col("quantity")).mean().round(2), sold=pl.len()
    )
    facts = sold.select(
        "item_id",
        margin=(0.3 * pl.col("price")).round(2),
        cost=(0.2 * pl.col("price")).round(2),
        stock=2 + pl.col("sold") // 20,
        supplier=pl.col("item_id") % 3,
    )
    receipts = lines.group_by("user_id").agg(receipts=pl.col("basket_id").n_unique())
    times = lines.group_by("user_id", "item_id", maintain_order=True).agg(times=pl.len())
    chance = (pl.col("times") / (pl.col("receipts") + 2)).round(4)
    last = lines.filter(pl.col("time") >= str(lines["time"].max())[:8]).head(400)
    return {
        "shop/transactions.csv": lines,
        "shop/items.csv": data.items.select("item_id", "name", "category_1"),
        "receipts.csv": mine,
        "receipts_so_far.csv": lines,
        "exports/until-today.csv": lines,
        "wanted.csv": users.head(3),
        "eligible.csv": items.head(20),
        "sent.csv": users.head(9).with_columns(campaign_id=1),
        "products.csv": items.head(30).with_columns(campaign_id=1),
        "deny.csv": pairs.head(40),
        "margin.csv": facts.select("item_id", "margin"),
        "spring_items.csv": facts,
        "scores.csv": times.join(receipts, on="user_id", maintain_order="left").select(
            "user_id", "item_id", probability=chance
        ),
        "theirs.csv": ranked,
        "ours.csv": ranked.with_columns(rank=6 - pl.col("rank")).filter(pl.col("rank") > 0),
        "bought.csv": last.select(
            "user_id", "item_id", "value", price=(pl.col("value") / pl.col("quantity")).round(2)
        ),
    }
