"""Lists judged from a log, and uplift learnt, in a generated shop whose answers to offers are known.

make bench-counterfactual [SEEDS=200 SHOPPERS=5000 USERS=20000]

Each seed draws users of a larger shop, explores their pools of 20 items, lets them answer, and judges
three policies: by chance of purchase, by what an offer changes, at random. The truth is that of all
users of the shop. Then one campaign with exploration is the history that uplift is learnt from, and the
next one is allocated under stock by chance, by learnt uplift and by the known change.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import cached_property
from time import process_time
from typing import Any

import numpy as np
import polars as pl
from machine import print_result

from retailrec.compute.statistics import mean_interval
from retailrec.data import RetailData
from retailrec.data.parsing import DAY_ONE
from retailrec.datasets import complete_journey
from retailrec.errors import DataError
from retailrec.offers.allocation import allocate
from retailrec.offers.counterfactual import judge_policy, user_values
from retailrec.offers.exploration import explore
from retailrec.offers.uplift import fit_uplift
from retailrec.simulator.responses import Responses
from retailrec.simulator.shop import Shop

ITEMS, WEEKS, POOL, K, RATE = 400, 26, 20, 3, 0.5
DAYS, FIRST, SECOND = 28, 112, 140
POLICIES = ("chance", "uplift", "random")
RESPONSES = Responses(uplift=0.3)
BARS: dict[str, Any] = {"bias": 0.01, "inside": (0.93, 0.97), "order": 0.95, "share_of_gain": 0.7}


class World:
    """A shop, its receipts without offers, and what an offer would change, pair by pair."""

    def __init__(self, users: int) -> None:
        self.shop = Shop(users=users, items=ITEMS, weeks=WEEKS, dirt=False)
        self.lines = pl.concat(self.shop.shards())

    def data(self, lines: pl.DataFrame) -> RetailData:
        tables = self.shop.products(), self.shop.households()
        return complete_journey.from_tables(lines, *tables, "a generated shop")

    def pools(self, day: int) -> pl.DataFrame:
        """Twelve items that a household bought most until a day, and eight at random."""
        before = self.lines.filter((pl.col("DAY") <= day) & (pl.col("QUANTITY") > 0))
        own = (
            before.group_by(user_id="household_key", item_id="PRODUCT_ID")
            .agg(times=pl.col("BASKET_ID").n_unique())
            .sort("user_id", "times", "item_id", descending=[False, True, False])
            .group_by("user_id", maintain_order=True)
            .head(12)
        )
        rng = np.random.default_rng(day)
        users = np.arange(1, self.shop.users + 1)
        drawn = pl.DataFrame(
            {"user_id": np.repeat(users, 20), "item_id": rng.integers(1, ITEMS + 1, 20 * len(users))},
            schema_overrides={"user_id": own["user_id"].dtype, "item_id": own["item_id"].dtype},
        ).with_columns(times=pl.lit(0, own["times"].dtype))
        table = pl.concat([own, drawn]).unique(
            ["user_id", "item_id"], keep="first", maintain_order=True
        )
        table = table.filter(pl.int_range(pl.len()).over("user_id") < POOL)
        visits = before.group_by(user_id="household_key").agg(visits=pl.col("BASKET_ID").n_unique())
        table = table.join(visits, on="user_id", how="left").with_columns(
            probability=pl.col("times") / (pl.col("visits").fill_null(0) + 1)
        )
        return self.known(table.select("user_id", "item_id", "probability"), day)

    def known(self, pairs: pl.DataFrame, day: int) -> pl.DataFrame:
        """Pairs with `paid` (without an offer), `chance` (to be moved) and `change` of what is paid."""
        window = self.lines.filter(pl.col("DAY").is_between(day + 1, day + DAYS))
        paid = window.group_by(user_id="household_key", item_id="PRODUCT_ID").agg(
            paid=pl.col("SALES_VALUE").filter(pl.col("QUANTITY") > 0).sum()
        )
        truth = RESPONSES.apply(self.shop, self.lines, pairs, day, DAYS).truth
        table = pairs.join(paid, on=["user_id", "item_id"], how="left").join(
            truth.select("user_id", "item_id", "would_buy", "chance"),
            on=["user_id", "item_id"],
            how="left",
        )
        price = pl.lit(pl.Series(self.shop.world.price)).gather(pl.col("item_id") - 1)
        coupon = (price * (1 - RESPONSES.discount)).round(2)
        paid_anyway = pl.col("paid").fill_null(0.0)
        return (
            table.with_columns(coupon=coupon, paid=paid_anyway)
            .with_columns(
                change=pl.when("would_buy")
                .then(-RESPONSES.discount * paid_anyway)
                .otherwise(pl.col("chance") * coupon)
            )
            .sort("user_id", "item_id")
        )

    @cached_property
    def first(self) -> pl.DataFrame:
        return self.pools(FIRST)


def held(pools: pl.DataFrame, policy: str) -> np.ndarray:
    """(n_rows,) the best three of each pool by a policy; ties by a lot that goes with the pair."""
    by = {"chance": "probability", "uplift": "change", "random": "lot"}[policy]
    place = pl.struct(pl.col(by).alias("by"), pl.col("lot")).rank("ordinal", descending=True)
    return pools.select(place.over("user_id") <= K).to_series().to_numpy()


def judged(world: World, seeds: int, users: int) -> dict[str, Any]:
    """Bias, coverage and order over logs of different users, draws and answers."""
    rng = np.random.default_rng(0)
    pools = world.first.with_columns(lot=pl.Series(rng.random(world.first.height)))
    lists = {policy: held(pools, policy) for policy in POLICIES}
    base, change = pools["paid"].to_numpy(), pools["change"].to_numpy()
    everybody = pools["user_id"].n_unique()
    truth = {p: float((base + change * lists[p]).sum() / everybody) for p in POLICIES}
    away: dict[str, list[float]] = {p: [] for p in POLICIES}
    inside: dict[str, list[bool]] = {p: [] for p in (*POLICIES, "difference")}
    order, seen = [], []
    pools = pools.with_columns(pl.Series(f"held {p}", lists[p]) for p in POLICIES)
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 1])
        kind = pools["user_id"].dtype  # with replacement: each is a user of one's own
        sample = pl.DataFrame({"user_id": rng.integers(1, world.shop.users + 1, users)})
        sample = sample.cast({"user_id": kind}).with_row_index("user")
        mine = sample.join(pools, on="user_id", maintain_order="left_right")
        drawn = explore(
            mine["probability"], mine["item_id"], K, RATE, salt=str(seed), users=mine["user"]
        )
        moved = rng.random(mine.height) < mine["chance"].to_numpy()
        shown = drawn["shown"].to_numpy()
        anyway = mine["would_buy"].to_numpy()
        paid, coupon = mine["paid"].to_numpy(), mine["coupon"].to_numpy()
        offered = np.where(anyway, paid * (1 - RESPONSES.discount), moved * coupon)
        table = drawn.with_columns(
            money=pl.Series(np.where(shown, offered, paid)), money_before=mine["probability"]
        )
        values = user_values(table, "money", {p: mine[f"held {p}"].to_numpy() for p in POLICIES})
        for policy in POLICIES:
            found = mean_interval(values[policy])
            away[policy].append(found.change / truth[policy] - 1)
            inside[policy].append(found.low <= truth[policy] <= found.high)
        step = mean_interval(values["uplift"] - values["chance"])
        inside["difference"].append(step.low <= truth["uplift"] - truth["chance"] <= step.high)
        seen.append(step.p < 0.05)
        means = {p: values[p].mean() for p in POLICIES}
        order.append(sorted(POLICIES, key=means.__getitem__) == sorted(POLICIES, key=truth.__getitem__))
    return {
        "truth": {p: round(truth[p], 4) for p in POLICIES},
        "bias": {p: round(float(np.mean(away[p])), 5) for p in POLICIES},
        "inside": {p: float(np.mean(inside[p])) for p in inside},
        "order_right": float(np.mean(order)),
        "difference_seen": float(np.mean(seen)),
    }


def campaign(world: World) -> tuple[pl.DataFrame, RetailData]:
    """One explored campaign as a log, and the receipts in which it was answered."""
    pools = world.first
    drawn = explore(
        pools["probability"], pools["item_id"], K, RATE, salt="first", users=pools["user_id"]
    )
    sent = drawn.filter("shown").select("user_id", "item_id")
    answered = RESPONSES.apply(world.shop, world.lines, sent, FIRST, DAYS)
    log = drawn.with_columns(
        request=pl.format("first-{}", "user_id"),
        time=DAY_ONE + timedelta(days=FIRST),
        policy=pl.lit("chance"),
    )
    return log, world.data(answered.lines)


def refused(log: pl.DataFrame, data: RetailData, pools: pl.DataFrame) -> dict[str, str]:
    """What is said of chances that are 20% off, and of lists outside the pool."""
    rng = np.random.default_rng(0)
    pools = pools.with_columns(lot=pl.Series(rng.random(pools.height)))
    new = pools.filter(pl.Series(held(pools, "uplift"))).select("user_id", "item_id")
    said = {}
    for name, rows, lists in (
        ("right", log, new),
        ("chances 20% off", log.with_columns(pl.col("propensity") * 0.8), new),
        ("outside the pool", log, new.with_columns(item_id=(pl.col("item_id") + 7) % ITEMS + 1)),
    ):
        try:
            said[name] = judge_policy(rows, lists, data, days=DAYS).sentence()
        except DataError as error:
            said[name] = f"refused: {error}"
    return said


def allocated(world: World, log: pl.DataFrame, data: RetailData) -> dict[str, Any]:
    """Share of the gain of the known change over chance that learnt uplift keeps, under stock."""
    started = process_time()
    learnt = fit_uplift(log, data, days=DAYS)
    seconds = process_time() - started
    pools = world.pools(SECOND)
    end = DAY_ONE + timedelta(days=SECOND)
    pairs = learnt.score(pools, data.asof(end)).with_columns(value=pl.col("change"))
    stock = {"by": "product", "at_most": max(1, 2 * world.shop.users * K // ITEMS)}
    gain = {}
    for name, by in (("chance", "probability"), ("learnt", "uplift_margin"), ("known", "value")):
        settings = {"name": "second", "value": by, "offers": {"at_most": K}, "limit": [stock]}
        found = allocate(pairs, settings)
        keys = found.offers.select("user_id", "item_id")
        gain[name] = float(pairs.join(keys, on=["user_id", "item_id"], how="semi")["change"].sum())
    report = learnt.report
    return {
        "gain": {name: round(value, 1) for name, value in gain.items()},
        "share_of_gain": round((gain["learnt"] - gain["chance"]) / (gain["known"] - gain["chance"]), 3),
        "chosen": report.chosen,
        "qini": {
            one.name: [round(v, 4) for v in (one.qini, one.qini_low, one.qini_high)]
            for one in report.learners
        },
        "deciles": [[round(d.predicted, 3), round(d.effect, 3)] for d in report.deciles],
        "cpu_seconds": round(seconds, 1),
    }


def main() -> int:
    seeds, users, size = (
        int(x) for x in [*sys.argv[1:], *("200", "5000", "20000")[len(sys.argv) - 1 :]]
    )
    world = World(size)
    found: dict[str, Any] = {
        "seeds": seeds,
        "users": users,
        "shop": size,
        "judged": judged(world, seeds, users),
    }
    log, data = campaign(world)
    found["refused"] = refused(log, data, world.first)
    found["allocated"] = allocated(world, log, data)
    print_result("counterfactual", found)
    of_all = found["judged"]
    missed = max(abs(bias) for bias in of_all["bias"].values()) > BARS["bias"]
    missed |= not all(
        BARS["inside"][0] <= share <= BARS["inside"][1] for share in of_all["inside"].values()
    )
    missed |= of_all["order_right"] < BARS["order"]
    missed |= found["allocated"]["share_of_gain"] < BARS["share_of_gain"]
    missed |= [said.startswith("refused") for said in found["refused"].values()] != [False, True, True]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
