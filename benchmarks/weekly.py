"""Lists of week after week, each by a model of that week: how steady they are, and what new items get.

The first table keeps items of the last list by margins of `steady` and says what that costs; the second
tells how much of what is bought of young items the pool proposes and lists show.

    make bench-weekly [WEEKS=5] [SHOP=coop]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import process_time
from typing import Any

import polars as pl
from board_data import coop, journey, online_retail, ta_feng
from machine import print_result

from retailrec import TwoStageRecommender
from retailrec.data import RetailData
from retailrec.recommender.stage_one import candidate_frame
from retailrec.simulator.shop import small_data

K = 10
MARGINS = (0.0, 0.1, 0.25, 0.5, 1.0)
AGES = ("never sold before", "first sold in the last 14 days", "first sold before")
WEEK = timedelta(days=7)
SHOPS: dict[str, Callable[[], RetailData]] = {
    "journey": journey,
    "coop": coop,
    "online-retail": online_retail,
    "ta-feng": ta_feng,
    "generated": lambda: small_data(users=400, weeks=40, items=400),
}


def weeks(data: RetailData, n: int) -> Iterator[tuple[RetailData, pl.DataFrame]]:
    """What is known when each of the last `n` weeks begins, and `user_id`, `item_id` bought in it."""
    for back in range(n, 0, -1):
        start = data.end - back * WEEK
        bought = data.between(start, start + WEEK).select("user", "item").unique()
        yield (
            data.asof(start),
            bought.select(
                data.users["user_id"].gather(bought["user"]),
                data.items["item_id"].gather(bought["item"]),
            ),
        )


def judged(lists: pl.DataFrame, bought: pl.DataFrame) -> tuple[float, float]:
    """Precision@k and hit rate of the users who bought something."""
    buyers = bought.select("user_id").unique()
    hits = lists.join(bought, on=["user_id", "item_id"], how="semi").group_by("user_id").len()
    of_buyers = buyers.join(hits, on="user_id", how="left")["len"].fill_null(0)
    return float((of_buyers / K).mean()), float((of_buyers > 0).mean())


def ages(known: RetailData, bought: pl.DataFrame) -> pl.DataFrame:
    """What was bought, with the age of the item."""
    first = known.log.group_by("item").agg(pl.col("time").min())
    ids = known.items["item_id"].gather(first["item"])
    young = first["time"] >= known.end - timedelta(days=14)
    table = pl.DataFrame([ids, young.alias("young")])
    age = pl.when(pl.col("young").is_null()).then(pl.lit(AGES[0]))
    return bought.join(table, on="item_id", how="left").with_columns(
        age=age.when(pl.col("young")).then(pl.lit(AGES[1])).otherwise(pl.lit(AGES[2]))
    )


def pool_of(model: TwoStageRecommender, known: RetailData, users: pl.Series) -> pl.DataFrame:
    """`user_id`, `item_id` of all candidates."""
    history = model.coded(known).data.history(users)
    pool = candidate_frame(history, model.stage_one).pool
    return pl.DataFrame([users.gather(pool.user_of_pair), model.items_["item_id"].gather(pool.items)])


def measure(data: RetailData, n: int) -> dict[str, Any]:
    """Figures of both tables, averaged over weeks."""
    last: dict[float, pl.DataFrame] = {}
    steady: dict[float, list[tuple[float, float, float]]] = {margin: [] for margin in MARGINS}
    young: dict[str, list[pl.DataFrame]] = {age: [] for age in AGES}
    for known, bought in weeks(data, n):
        model = TwoStageRecommender().fit(known)
        users = known.users["user_id"].gather(known.active_users())
        for margin in MARGINS:
            before = last.get(margin)
            held = {} if before is None or not margin else {"previous": before, "steady": margin}
            lists = model.recommend(known, users, k=K, **held)
            if before is not None:
                same = lists.join(before, on=["user_id", "item_id"], how="semi").height
                steady[margin].append((1 - same / lists.height, *judged(lists, bought)))
            last[margin] = lists
        buyers = bought.filter(pl.col("user_id").is_in(users.implode()))["user_id"].unique().sort()
        pool = pool_of(model, known, buyers)
        marks = {"proposed": pool, "listed": last[0.0]}
        told = ages(known, bought.filter(pl.col("user_id").is_in(buyers.implode())))
        for name, pairs in marks.items():
            pairs = pairs.select("user_id", "item_id").unique().with_columns(pl.lit(1).alias(name))
            told = told.join(pairs, on=["user_id", "item_id"], how="left")
        for (age,), part in told.group_by("age"):
            young[str(age)].append(part.select("proposed", "listed").fill_null(0))
    new = {age: pl.concat(parts) for age, parts in young.items() if parts}
    return {
        "steady": {
            str(margin): dict(
                zip(
                    ("items changed", "precision@10", "hit_rate@10"),
                    (sum(column) / len(rows) for column in zip(*rows, strict=True)),
                    strict=True,
                )
            )
            for margin, rows in steady.items()
        },
        "new items": {
            age: {
                "bought": part.height,
                "proposed": float(part["proposed"].mean()),
                "listed": float(part["listed"].mean()),
            }
            for age, part in new.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weeks", type=int, default=5)
    parser.add_argument("--shop", choices=SHOPS, default="journey")
    asked = parser.parse_args()
    data = SHOPS[asked.shop]()
    started = process_time()
    found = measure(data, asked.weeks)
    for title, rows in found.items():
        print(f"\n{title}")
        for name, figures in rows.items():
            numbers = "  ".join(
                f"{metric} {value:,}" if isinstance(value, int) else f"{metric} {value:.4f}"
                for metric, value in figures.items()
            )
            print(f"  {name:32} {numbers}")
    print_result("weekly", found | {"cpu_s": process_time() - started})


if __name__ == "__main__":
    main()
