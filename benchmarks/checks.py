"""What `retailrec check` finds: planted faults of a generated shop, its quiet weeks, real receipts.

Each of the last weeks of a generated shop is checked against all before it; each fault is planted in
three of them. Then receipts of real shops are replayed week by week, and every finding is printed.

    make bench-checks [USERS=1000 WEEKS=52 SHOPS="generated coop online-retail" CLOSED=2014-05-01]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import date, timedelta

import polars as pl
from board_data import coop, journey, online_retail
from machine import print_result

from retailrec.checks import Weeks, run_checks
from retailrec.simulator.shop import receipt_lines, small_data

BEFORE = 16  # weeks to learn from before the first that is checked
WEEK = timedelta(days=7)
FIRST_IDS = 1_000_000_000  # of receipts that are planted
Change = Callable[[pl.DataFrame], pl.DataFrame]


def some(column: str, part: float) -> pl.Expr:
    """A part of the ids of a column, always the same."""
    return pl.col(column).cast(pl.String).hash(3) % 10_000 < part * 10_000


def day(n: int) -> pl.Expr:
    """Lines of the n-th day of the week."""
    return pl.col("time").dt.truncate("1d").rank("dense") == n + 1


def other(column: str, part: float, value: pl.Expr, of: str = "basket_id") -> Change:
    """A column changed for a part of the receipts, users or items."""
    return lambda new: new.with_columns(
        pl.when(some(of, part)).then(value).otherwise(column).alias(column)
    )


def again(part: float, **changed: pl.Expr) -> Change:
    """A part of the receipts once more, some columns changed."""
    return lambda new: pl.concat([new, new.filter(some("basket_id", part)).with_columns(**changed)])


def shifted(part: float, days: int) -> Change:
    """A part of the lines dated otherwise."""
    at = pl.when(pl.int_range(pl.len()) < (pl.len() * part).ceil())
    moved = at.then(pl.col("time") + timedelta(days=days)).otherwise("time")
    return lambda new: new.with_columns(moved.alias("time"))


# kind -> faults of that kind, and the checks of which one must find it
FAULTS: dict[str, tuple[list[Change], set[str]]] = {
    "a store is missing": ([lambda new: new.filter(pl.col("store") != "B")], {"missing_stores"}),
    "a day is missing": ([lambda new: new.filter(~day(2))], {"missing_days"}),
    "half a day": ([lambda new: new.filter(~day(3) | (pl.col("time").dt.hour() < 11))], {"half_days"}),
    "the file ends early": (
        [lambda new: new.filter(~day(6) | (pl.col("time").dt.hour() < 12))],
        {"ends_early", "half_days"},
    ),
    "a header alone": ([lambda new: new.clear()], {"no_lines"}),
    "most of the file is gone": (
        [lambda new: new.filter(some("basket_id", 0.4))],
        {"too_few_lines", "fewer_or_more_lines"},
    ),
    "an export twice": ([again(1, file=pl.lit("again.csv"))], {"repeated_receipts"}),
    "receipts re-sent under other numbers": (
        [again(0.2, basket_id=pl.col("basket_id") + FIRST_IDS)],
        {"resent_receipts"},
    ),
    "prices jump": ([other("value", 0.4, pl.col("value") * 3, of="item_id")], {"some_prices_moved"}),
    "money in cents": ([lambda new: new.with_columns(pl.col("value") * 100)], {"prices_moved"}),
    "units jump": ([lambda new: new.with_columns(pl.col("quantity", "value") * 6)], {"units_moved"}),
    "baskets are cut": (
        [lambda new: new.filter(pl.int_range(pl.len()).over("basket_id") < 2)],
        {"baskets_moved", "fewer_or_more_lines", "too_few_lines"},
    ),
    "prices as zeros": ([other("value", 0.3, pl.lit(0.0))], {"unusable_lines"}),
    "empty cells": (
        [other(c, 0.3, pl.lit(None)) for c in ("user_id", "item_id", "value")],
        {"unusable_lines"},
    ),
    "returns alone": ([lambda new: new.with_columns(pl.col("quantity") * -1)], {"no_lines"}),
    "two currencies": ([other("currency", 0.1, pl.lit("USD"))], {"mixed_currencies"}),
    "user ids in capitals": (
        [lambda new: new.with_columns(pl.col("user_id").str.to_uppercase())],
        {"user_ids_changed"},
    ),
    "user ids with blanks": (
        [lambda new: new.with_columns(user_id=pl.col("user_id") + " ")],
        {"user_ids_changed"},
    ),
    "item ids with zeros before them": (
        [lambda new: new.with_columns(item_id="00" + pl.col("item_id"))],
        {"item_ids_changed"},
    ),
    "ids in another Unicode form": (
        [lambda new: new.with_columns(pl.col("user_id").str.replace("u", "\uff55"))],
        {"user_ids_changed"},
    ),
    "the catalogue is coded anew": (
        [lambda new: new.with_columns(item_id=pl.col("item_id").hash(1).cast(pl.String))],
        {"unknown_items"},
    ),
    "users are merged": (
        [
            lambda new: new.with_columns(
                user_id="u" + (pl.col("user_id").str.slice(1).cast(pl.Int64) // 2).cast(pl.String)
            )
        ],
        {"users_merged_or_split"},
    ),
    "users are split": (
        [
            lambda new: new.with_columns(
                user_id=pl.col("user_id") + "-" + pl.col("basket_id").cast(pl.String)
            )
        ],
        {"unknown_users", "users_merged_or_split"},
    ),
    "guests under one id": (
        [other("user_id", 0.2, pl.lit("0")), other("user_id", 0.2, pl.lit("guest"))],
        {"guests_as_one_user"},
    ),
    "clocks are off": (
        [lambda new: new.with_columns(pl.col("time") + timedelta(hours=4))],
        {"clock_moved"},
    ),
    "late lines": ([shifted(0.03, -9)], {"late_lines"}),
    "one line 50 days ahead": ([shifted(1e-9, 50)], {"far_dates"}),
    ".4% of the lines five months ahead": ([shifted(0.004, 150)], {"far_dates"}),
    "3% of the lines in the year 2000": ([shifted(0.03, -9000)], {"far_dates"}),
}


def weekly(lines: pl.DataFrame, n: int) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """The last `n` whole weeks, each with all lines before it."""
    last = lines["time"].max()
    end = last.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)  # type: ignore[union-attr]
    found = []
    for back in range(n, 0, -1):
        start = end - back * WEEK
        new = lines.filter((pl.col("time") >= start) & (pl.col("time") < start + WEEK))
        found.append((new, lines.filter(pl.col("time") < start)))
    return found


def generated(users: int, weeks: int) -> dict[str, object]:
    """Planted faults found, and findings of weeks without any."""
    data = small_data(users=users, weeks=BEFORE + weeks)
    lines = receipt_lines(data).with_columns(
        user_id="u" + pl.col("user_id").cast(pl.String),
        item_id="i" + pl.col("item_id").cast(pl.String),
        currency=pl.lit("EUR"),
        file=pl.lit("export.csv"),
    )
    lines = lines.with_columns(
        store=pl.when(some("user_id", 0.6)).then(pl.lit("A")).otherwise(pl.lit("B"))
    )
    alarms: list[str] = []
    shown = weekly(lines, weeks)
    for number, (new, past) in enumerate(shown, 1):
        for one in run_checks(Weeks(new, past)):
            print(f"quiet week {number}: {one.severity} {one.name}: {one.message}")
            alarms.append(one.severity)
    print()
    found = 0
    for kind, (changes, names) in FAULTS.items():
        hits, said = [], []
        for change in changes:
            for new, past in shown[:: max(weeks // 3, 1)][:3]:
                these = {one.name for one in run_checks(Weeks(change(new), past))}
                hits.append(bool(these & names))
                said = sorted(these)
        found += all(hits)
        print(f"{kind:38} {sum(hits)} of {len(hits)}   {', '.join(said)}")
    return {
        "users": users,
        "kinds": len(FAULTS),
        "kinds_found_each_time": found,
        "quiet_weeks": weeks,
        "false_refusals": alarms.count("refuse"),
        "false_warnings": alarms.count("warn"),
    }


def real(name: str, lines: pl.DataFrame, weeks: int, closed: Sequence[date] = ()) -> dict[str, object]:
    """Findings on a real shop's receipts, week by week."""
    severities: list[str] = []
    for new, past in weekly(lines, weeks):
        for one in run_checks(Weeks(new, past, closed)) if len(new) else []:
            first = new["time"].min()
            print(f"{name}, week from {first:%Y-%m-%d}: {one.severity} {one.name}: {one.message}")
            severities.append(one.severity)
    return {"weeks": weeks, "refused": severities.count("refuse"), "warned": severities.count("warn")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--shops", nargs="*", default=["generated", "coop", "online-retail", "journey"])
    parser.add_argument(
        "--closed", nargs="*", type=date.fromisoformat, default=[], help="of real shops"
    )
    asked = parser.parse_args()
    shops = {"coop": coop, "online-retail": online_retail, "journey": journey}
    found: dict[str, object] = {}
    for shop in asked.shops:
        if shop == "generated":
            found[shop] = generated(asked.users, asked.weeks)
        else:
            found[shop] = real(shop, receipt_lines(shops[shop]()), min(asked.weeks, 34), asked.closed)
    print_result("checks", found)


if __name__ == "__main__":
    main()
