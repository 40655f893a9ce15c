"""Lists judged from a log: unbiased, intervals that hold the truth, and a refusal where it can't be told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cli_support import refused, retailrec
from conftest import real
from retailrec.cli.app import app
from retailrec.compute.statistics import mean_interval
from retailrec.data import RetailData
from retailrec.errors import DataError, SettingError
from retailrec.jobs.campaigns import impressions_of_file, lists_of_model
from retailrec.offers import counterfactual as cf
from retailrec.offers import ledger as ledger_module
from retailrec.offers.exploration import explore
from retailrec.offers.ledger import Ledger, offers_of_pool, pool_frame
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import POOL as COLUMNS
from retailrec.simulator.shop import small_data
from serving_support import small_model

START = datetime(2024, 3, 1)
POOL, K = 20, 3


class Shop:
    """Users who buy an item of their pool with a chance that an offer raises; both are known."""

    def __init__(self, n_users: int, seed: int, rate: float = 0.5, n_items: int = 60) -> None:
        shelf = np.random.default_rng(0)  # the same items in every shop
        sold, appeal = shelf.gamma(2.0, 0.5, n_items), shelf.beta(1, 3, n_items)
        rng = np.random.default_rng([seed, 1])
        self.items = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :POOL]
        worth = rng.gamma(2.0, 0.5, n_users)[:, None] * sold[self.items]
        self.base = np.clip(0.08 * worth, 0, 0.6)
        self.uplift = np.clip(0.3 * appeal[self.items] + 0.4 * self.base, 0, 0.4)
        self.score = self.base * rng.gamma(20, 1 / 20, self.base.shape)
        self.chance = rng.random(self.base.shape)
        self.random = rng.random(self.base.shape)
        self.seed, self.rate = seed, rate

    @cached_property
    def drawn(self) -> pl.DataFrame:
        """The explored pools."""
        users = np.repeat(np.arange(len(self.items)), POOL)
        items, salt = self.items.ravel(), str(self.seed)
        return explore(self.score.ravel(), items, K, self.rate, salt=salt, users=users)

    @cached_property
    def shown(self) -> np.ndarray:
        return self.drawn["shown"].to_numpy().reshape(-1, POOL)

    @cached_property
    def bought(self) -> np.ndarray:
        return self.chance < self.base + self.uplift * self.shown

    def lists(self, kind: str) -> np.ndarray:
        """(n_users, POOL) bool: what a policy holds."""
        by = {
            "chance": self.score,
            "uplift": self.uplift,
            "random": self.random,
        }[kind]
        order = np.argsort(-by, axis=1, kind="stable")  # clipped uplifts tie
        return np.argsort(order, axis=1, kind="stable") < K

    def truth(self, held: np.ndarray) -> float:
        """Units a user under lists, given the pools."""
        return float((self.base + self.uplift * held).sum(1).mean())

    def values(self, *kinds: str) -> dict[str, np.ndarray]:
        """(n_users,) doubly robust."""
        table = self.drawn.with_columns(
            bought=pl.Series(self.bought.ravel().astype(float)), bought_before=0.0
        )
        return cf.user_values(table, "bought", {kind: self.lists(kind).ravel() for kind in kinds})


def repeated(n_users: int, repetitions: int) -> dict[str, Any]:
    """Bias as a share of the truth, and how often intervals hold it, of each policy; order right."""
    kinds = ("chance", "uplift", "random")
    away: dict[str, list[float]] = {kind: [] for kind in kinds}
    inside: dict[str, list[bool]] = {kind: [] for kind in kinds}
    inside["difference"], order, seen = [], [], []
    everybody = Shop(200_000, repetitions)
    truth = {kind: everybody.truth(everybody.lists(kind)) for kind in kinds}
    for seed in range(repetitions):
        shop = Shop(n_users, seed)
        values = shop.values(*kinds)
        for kind in kinds:
            found = mean_interval(values[kind])
            away[kind].append(found.change / truth[kind] - 1)
            inside[kind].append(found.low <= truth[kind] <= found.high)
        change = mean_interval(values["uplift"] - values["chance"])
        inside["difference"].append(change.low <= truth["uplift"] - truth["chance"] <= change.high)
        seen.append(change.p < 0.05)
        ranked = sorted(kinds, key=lambda kind: values[kind].mean())
        order.append(ranked == sorted(kinds, key=lambda kind: truth[kind]))
    return {
        "bias": {kind: float(np.mean(away[kind])) for kind in kinds},
        "inside": {kind: float(np.mean(inside[kind])) for kind in inside},
        "order": float(np.mean(order)),
        "seen": float(np.mean(seen)),
        "change": truth["uplift"] / truth["chance"] - 1,
    }


def test_a_few_logs_are_judged_without_bias() -> None:
    found = repeated(3000, 12)
    assert max(abs(bias) for bias in found["bias"].values()) < 0.02, found
    assert min(found["inside"].values()) > 0.7, found


@pytest.mark.slow
def test_over_100_logs_bias_is_below_a_hundredth_and_intervals_hold_the_truth() -> None:
    found = repeated(5000, 100)
    assert max(abs(bias) for bias in found["bias"].values()) < 0.01, found
    # A share of 100 at .95 has a standard error of .0218: four of them on each, fewer on the mean.
    shares = list(found["inside"].values())
    assert min(shares) > 0.87, found
    assert 0.92 < float(np.mean(shares)) < 0.98, found
    assert found["order"] >= 0.95, found
    assert found["seen"] >= 0.9, found


def logged(n_users: int = 3000, seed: int = 3) -> tuple[Shop, pl.DataFrame, RetailData]:
    """A shop, its log in the columns of `POOL`, and receipts around it: a unit costs 2."""
    shop = Shop(n_users, seed)
    pool = shop.drawn.with_columns(
        pl.col("user_id", "item_id").cast(pl.String),
        request=pl.format("r{}", "user_id"),
        time=pl.lit(START),
        policy=pl.lit("chance"),
    )
    bought = pool.filter(pl.Series(shop.bought.ravel())).select(
        "user_id", "item_id", time=START + timedelta(days=3), quantity=1, value=2.0
    )
    earlier = pool.filter(pl.col("rank") == 1).select(
        "user_id", "item_id", time=START - timedelta(days=40), quantity=1, value=2.0
    )
    late = bought.with_columns(time=START + timedelta(days=20))  # after the window
    receipts = pl.concat([bought, earlier, late])
    users = pool.select(pl.col("user_id").unique(maintain_order=True)).with_columns(
        segment=pl.when(pl.col("user_id").str.ends_with("1")).then(pl.lit("a")).otherwise(pl.lit("b"))
    )
    return shop, pool, RetailData.from_frames(receipts, users=users, end=START + timedelta(days=30))


def lists_of(shop: Shop, held: np.ndarray) -> pl.DataFrame:
    return shop.drawn.filter(pl.Series(held.ravel())).select(
        pl.col("user_id", "item_id").cast(pl.String)
    )


@pytest.fixture(scope="module")
def log() -> tuple[Shop, pl.DataFrame, RetailData]:
    return logged()


Log = tuple[Shop, pl.DataFrame, RetailData]


def test_a_log_and_receipts_tell_what_new_lists_would_have_sold(log: Log) -> None:
    shop, pool, data = log
    held = shop.lists("uplift")
    margin = pl.DataFrame({"item_id": pool["item_id"].unique(), "margin": 0.5})
    found = cf.judge_policy(pool, lists_of(shop, held), data, days=14, margin=margin, segment="segment")
    assert (found.policy, found.n_users, found.n_pairs) == ("chance", 3000, 3000 * POOL)
    assert found.observed["units"] == pytest.approx(shop.bought.sum() / 3000)
    assert found.observed["money"] == pytest.approx(2 * found.observed["units"])
    by = {(e.metric, e.what, e.segment): e for e in found.estimates}
    truth = {"logged": shop.truth(shop.lists("chance")), "new": shop.truth(held)}
    for what, value in truth.items():
        estimate = by["units", what, "all"]
        assert abs(estimate.value - value) < 2 * (estimate.high - estimate.low) / 2, what
    difference = by["units", "difference", "all"]
    assert difference.value == pytest.approx(
        by["units", "new", "all"].value - by["units", "logged", "all"].value
    )
    assert by["money", "difference", "all"].value == pytest.approx(2 * difference.value, rel=1e-3)
    assert by["margin", "difference", "all"].value == pytest.approx(difference.value / 2, rel=1e-3)
    assert {s for m, w, s in by} == {"all", "a", "b"}
    assert found.support.coverage == 1
    assert found.sentence("units").startswith("The new lists would have sold more: +")
    same = cf.judge_policy(pool, lists_of(shop, shop.lists("chance")), data, days=14)
    assert next(e for e in same.estimates if e.what == "difference").value == 0
    assert "can't be told" in same.sentence()


def test_held_out_users_count_as_users_who_were_shown_nothing(log: Log) -> None:
    """A tenth of the users is held out at random; chances are those of arm and draw together."""
    shop, pool, data = log
    held_out = pl.col("user_id").cast(pl.Int64) % 10 == 7
    mixed = pool.with_columns(
        propensity=0.9 * pl.col("propensity"),
        shown=pl.col("shown") & ~held_out,
        arm=pl.when(held_out).then(pl.lit("holdout")).otherwise(pl.lit("treated")),
    )
    found = cf.judge_policy(mixed, lists_of(shop, shop.lists("uplift")), data, days=14)
    assert found.support.chances_p > 0.001
    assert found.n_users == 3000


def test_a_log_that_cannot_tell_is_refused_with_figure_and_advice(log: Log) -> None:
    shop, pool, data = log
    new = lists_of(shop, shop.lists("uplift"))

    def refuses(match: str, rows: pl.DataFrame = pool, lists: pl.DataFrame = new) -> None:
        with pytest.raises(DataError, match=match):
            cf.judge_policy(rows, lists, data, days=14)

    elsewhere = new.with_columns(
        item_id=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("x")).otherwise("item_id")
    )
    refuses(
        r"75\.0% of the new lists lie within the explored pool.*Explore a larger pool", lists=elsewhere
    )
    for factor in (0.8, 1.25):
        false = pool.with_columns(propensity=(pl.col("propensity") * factor).clip(0, 0.999))
        refuses("not shown as often as the logged chances say", rows=false)
    half = pl.col("user_id").cast(pl.Int64) % 2 == 0  # 20% up for some users and down for others
    mixed = pool.with_columns(propensity=pl.col("propensity") * pl.when(half).then(0.8).otherwise(1.2))
    refuses("not shown as often as the logged chances say", rows=mixed)
    few = pool.filter(pl.col("user_id").cast(pl.Int64) < 900)
    refuses(r"effective sample is \d+ of 900 users", rows=few)
    refuses("lacks some of 3,000 requests, as a log of what was shown alone", rows=pool.filter("shown"))


def test_a_log_after_which_nothing_of_the_pool_was_bought_tells_nothing(log: Log) -> None:
    """Not 0 between 0 and 0: of 3,000 users who buy nothing one in 1,000 may."""
    shop, pool, data = log
    new = lists_of(shop, shop.lists("uplift"))
    away = pl.col("time").is_between(START, START + timedelta(days=14))
    quiet = RetailData.from_frames(receipts_of(data).filter(~away), end=data.end)
    with pytest.raises(DataError, match="of the pool nothing was bought in 14 days, and how rare"):
        cf.judge_policy(pool, new, quiet, days=14)
    few = pl.concat([receipts_of(data).filter(~away), receipts_of(data).filter(away)[::100]])
    found = cf.judge_policy(pool, new, RetailData.from_frames(few, end=data.end), days=14)
    assert re.match(r"the value rests on [12]?\d purchases of the pool, as they weigh", found.notes[0])
    assert not any("the value rests" in n for n in cf.judge_policy(pool, new, data, days=14).notes)


def test_one_user_who_carries_the_weight_and_weights_away_from_one_are_refused() -> None:
    good = cf.Support(1.0, 2000, 0.5, 1.0, 1.0, 0.001, 0.01, 0.5)
    cf._refuse(good, 4000)
    for change, match in (
        ({"heaviest": 0.06}, "one user carries 6.0% of the weight, more than 5%"),
        ({"mean_held": 1.06}, "mean weight is 1.060 and not 1"),
        ({"mean_other": 0.94}, "mean weight is 0.940 and not 1"),
        ({"effective": 999}, "effective sample is 999 of 4,000 users"),
        ({"share": 0.09}, r"effective sample is 2,000 of 4,000 users \(9.0%\)"),
    ):
        with pytest.raises(DataError, match=match):
            cf._refuse(replace(good, **change), 4000)
    w = np.array([1e4] + [1.0] * 999)
    support = cf._support(np.ones(1000, bool), np.ones(1000, bool), 1 / w, np.arange(1000), 1.0)
    assert support.heaviest > 0.9
    assert support.effective == pytest.approx(10_999**2 / (1e8 + 999))


def test_what_is_missing_of_a_log_is_a_sentence(log: Log) -> None:
    shop, pool, data = log
    new = lists_of(shop, shop.lists("uplift"))

    def apart(name: str, by: Any) -> pl.DataFrame:
        return pool.with_columns(pl.when(pl.col("rank") == 1).then(pl.col(name) + by).otherwise(name))

    cases: list[tuple[str, pl.DataFrame, pl.DataFrame, float]] = [
        ("lack column 'propensity', the chance", pool.drop("propensity"), new, 14),
        ("propensity must lie above 0", pool.with_columns(propensity=0.0), new, 14),
        ("propensity must lie above 0", pool.with_columns(propensity=1.2), new, 14),
        ("the same request stands in the log twice", pl.concat([pool, pool]), new, 14),
        (
            "a request is one user's",
            pool.filter(pl.col("rank") == 1).unique("item_id").with_columns(request=pl.lit("r")),
            new,
            14,
        ),
        ("Wait until it is over", pool, new, 60),
        (
            "none of the 3,000 ids of the log's users",
            pool.with_columns(user_id=pl.format("u{}", "user_id")),
            new,
            14,
        ),
        (
            "none of the 3,000 ids of the new lists' users",
            pool,
            new.with_columns(user_id=pl.format("u{}", "user_id")),
            14,
        ),
        ("the new lists lack column 'item_id'", pool, new.drop("item_id"), 14),
        ("the new lists hold nothing", pool, new.head(0), 14),
        ("rank is the place in the pool", pool.with_columns(rank=pl.col("rank") - 1), new, 14),
        ("rank is the place in the pool", pool.with_columns(rank=pl.lit(1)), new, 14),
        ("score must be a number or empty", pool.with_columns(score=float("nan")), new, 14),
        ("score must be a number or empty", pool.with_columns(score=float("inf")), new, 14),
        ("2 values of 'time'; a request is one user's", apart("time", timedelta(1)), new, 14),
        ("before the first receipt", pool.with_columns(time=START - timedelta(days=400)), new, 14),
    ]
    for match, rows, lists, days in cases:
        with pytest.raises(DataError, match=match):
            cf.judge_policy(rows, lists, data, days=days)
    with pytest.raises(SettingError, match="days must be above 0"):
        cf.judge_policy(pool, new, data, days=-1)
    with pytest.raises(SettingError, match="within the calendar, not 14 around 9999-12-31"):
        cf.judge_policy(pool.with_columns(time=datetime.max), new, data, days=14)


def test_a_log_is_read_as_receipts_are_and_no_score_or_chance_is_too_extreme(log: Log) -> None:
    """Blanks around ids, a zone of the shop's clock, and numbers whose squares are none."""
    shop, pool, data = log
    new = lists_of(shop, shop.lists("uplift"))
    usual = cf.judge_policy(pool, new, data, days=14, segment="user_id")
    tokyo = pl.col("time").dt.replace_time_zone("Asia/Tokyo")
    padded = pool.with_columns(pl.format(" {} ", "user_id").alias("user_id"), tokyo)
    assert cf.judge_policy(padded, new, data, days=14, segment="user_id") == usual
    led = pl.when(pl.col("item_id") == "3").then(pl.lit("03")).otherwise("item_id").alias("item_id")
    notes = cf.judge_policy(pool.with_columns(led), new, data, days=14).notes
    for of in ("the log's items differ from those of the receipts", "the new lists' items differ from"):
        assert any(f"{of}" in note and "by notation only" in note for note in notes), notes
    assert pool_frame(padded)["time"].max() == START
    large = cf.judge_policy(pool.with_columns(pl.col("score") * 1e307), new, data, days=14)
    assert [e.value for e in large.estimates] == pytest.approx([e.value for e in usual.estimates])
    least = pl.when("shown").then(5e-324).otherwise("propensity")
    with pytest.raises(DataError, match="the log can't tell"):
        cf.judge_policy(pool.with_columns(propensity=least), new, data, days=14)
    for margin in (float("inf"), 1e308):
        items = pl.DataFrame({"item_id": pool["item_id"].unique(), "margin": margin})
        with pytest.raises(DataError, match="60 sold items have no margin"):
            cf.judge_policy(pool, new, data, days=14, margin=items)


def test_later_requests_of_a_user_and_users_without_new_lists_are_said(log: Log) -> None:
    shop, pool, data = log
    again = pool.head(POOL).with_columns(
        request=pl.lit("second"), time=pl.col("time") + timedelta(days=1)
    )
    new = lists_of(shop, shop.lists("uplift")).filter(pl.col("user_id") != "5")
    found = cf.judge_policy(pl.concat([pool, again]), new, data, days=14)
    assert found.n_users == 2999
    assert any(note.startswith("1 later requests") for note in found.notes)
    assert any(note.startswith("1 users of the log have no new list") for note in found.notes)


def test_a_pool_in_the_ledger_comes_back_and_its_offers_count_for_caps(
    log: Log, tmp_path: Path
) -> None:
    _, pool, _ = log
    ledger = Ledger(tmp_path / "ledger")
    part = pool.filter(pl.col("user_id").is_in(["1", "2"]))
    ledger.append_pool(part)
    assert dict(ledger.read_pool().schema) == dict(ledger_module.POOL)
    assert ledger.read_pool("chance").height == 2 * POOL
    assert ledger.offers_of().rows() == [("1", K), ("2", K)]
    ledger.append_pool(part)  # the same rows
    assert ledger.read_pool().height == 2 * POOL
    ledger._files()[0].unlink()  # as if a process had been killed before the offers were written
    ledger.append_pool(part)
    assert ledger.offers_of().rows() == [("1", K), ("2", K)]
    with pytest.raises(DataError, match="request 'r1' stands in it already"):
        ledger.append_pool(part.with_columns(pl.col("score") + 1))
    with pytest.raises(DataError, match="no explored pool of policy 'x'; there are chance"):
        ledger.read_pool("x")
    other = part.with_columns(policy=pl.lit("new"), request=pl.format("n{}", "request"))
    ledger.append_pool(other, shown_only=True)
    assert ledger.read_pool("new").height == 2 * K
    with pytest.raises(DataError, match="pools of 2 policies: chance, new"):
        ledger.read_pool()
    nobody = Ledger(tmp_path / "nobody")
    with pytest.raises(DataError, match="there is nothing"):
        nobody.read_pool()
    held = part.with_columns(shown=pl.lit(False), arm=pl.lit("holdout"))
    nobody.append_pool(held, shown_only=True)
    assert nobody.read().filter("holdout").height == 2
    rows = offers_of_pool(held)
    assert rows.select("rank", "holdout", "item_id").rows() == [(0, True, None)] * 2


@pytest.mark.parametrize(("campaign", "effective"), [("men", 656), ("women", None)])
def test_open_bandit_men_are_judged_and_women_refused(campaign: str, effective: int | None) -> None:
    """Uniform policy from the log of `bts`; its truth is the mean click of the other log, .0046."""
    rows = pl.read_parquet(real("open_bandit_sample") / f"{campaign}.parquet")
    log = rows.filter(policy="bts")
    uniform = np.full(log.height, 1 / rows["item_id"].n_unique())
    if effective is None:
        with pytest.raises(DataError, match="effective sample is 2 of 10,000 impressions"):
            cf.judge_impressions(log["click"], log["propensity_score"], uniform)
        return
    found = cf.judge_impressions(log["click"], log["propensity_score"], uniform)
    assert round(found.effective) == effective
    assert round(found.value, 4) == 0.0032
    assert found.low <= rows.filter(policy="random")["click"].mean() <= found.high
    assert (found.low, found.high) == pytest.approx((0.0018, 0.0050), abs=0.0002)


def test_impressions_without_any_reward_are_no_proof_of_none() -> None:
    for reward in (0.0, 1.0):
        with pytest.raises(DataError, match=f"reward of all 800 impressions is {reward:g}"):
            cf.judge_impressions([reward] * 800, [0.5] * 800, [0.5] * 800)
    assert cf.judge_impressions([1.0] + [0.0] * 799, [0.5] * 800, [0.5] * 800).high > 0


def test_impressions_of_one_user_are_no_more_than_one_tells() -> None:
    """Ten alike of each of 800 users: the interval is that of 800 impressions, not of 8,000."""
    rng = np.random.default_rng(0)
    shown = rng.random(800) < 0.3
    logged, new = np.where(shown, 0.3, 0.7), np.where(shown, 0.7, 0.3)
    reward = (rng.random(800) < 0.2).astype(float)
    ten = [np.repeat(values, 10) for values in (reward, logged, new)]
    users = [f"u{user}" for user in np.repeat(np.arange(800), 10)]

    def width(found: cf.ImpressionsReport) -> float:
        return found.high - found.low

    alone = cf.judge_impressions(reward, logged, new)
    assert width(cf.judge_impressions(*ten, users=users)) == pytest.approx(width(alone), rel=0.05)
    assert width(cf.judge_impressions(*ten)) == pytest.approx(width(alone) / 10**0.5, rel=0.1)
    guests = cf.judge_impressions(*ten, users=pl.Series([None] * 8000, dtype=pl.String))
    assert guests == cf.judge_impressions(*ten)  # without an id each is another one
    with pytest.raises(DataError, match="7 users for 800 impressions"):
        cf.judge_impressions(reward, logged, new, users=range(7))


def test_impressions_with_few_rewards_are_said_to_tell_little() -> None:
    """With 16 rewards in 8,000 impressions, 87% of intervals held the truth."""
    half = [0.5] * 8000
    few = cf.judge_impressions([1] * 16 + [0] * 7984, half, half)
    assert few.notes[0].startswith("the value rests on 16 impressions with a reward")
    assert not cf.judge_impressions([1] * 30 + [0] * 7970, half, half).notes


def test_impressions_with_chances_out_of_range_are_refused() -> None:
    for logged, new in ((0.0, 0.5), (1.5, 0.5), (0.5, 1.5), (float("nan"), 0.5)):
        with pytest.raises(DataError, match="is out of range"):
            cf.judge_impressions([1.0] * 400, [logged] * 400, [new] * 400)
    for reward in (float("inf"), 1e308):
        with pytest.raises(DataError, match="a reward is out of range"):
            cf.judge_impressions([reward] * 400, [0.5] * 400, [0.5] * 400)
    with pytest.raises(DataError, match="effective sample is 1 of 400"):
        cf.judge_impressions([1.0] * 400, [5e-324] + [0.5] * 399, [0.5] * 400)
    with pytest.raises(DataError, match=r"mean weight is 0\.800"):
        cf.judge_impressions([1.0] * 4000, [0.5] * 4000, [0.4] * 4000)


def run(command: str) -> Any:
    return CliRunner().invoke(app, command.split())


def test_the_command_judges_new_lists_and_says_why_it_can_not(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shop, pool, data = log
    Ledger(Path("ledger")).append_pool(pool)
    receipts_of(data).write_csv("receipts.csv")
    lists_of(shop, shop.lists("uplift")).write_parquet("new.parquet")
    command = "experiment counterfactual --ledger ledger --receipts receipts.csv --policy new.parquet"
    found = run(f"{command} --days 14 --out judged.json --report judged.html")
    assert found.exit_code == 0, found.output
    text = " ".join(found.output.split())
    assert "The new lists would have sold more: +" in text
    assert "100.0% of the new lists within the pool" in text
    figures = json.loads(Path("judged.json").read_text())
    assert figures["n_users"] == 3000
    assert {e["metric"] for e in figures["estimates"]} == {"units", "money"}
    page = Path("judged.html").read_text()
    sentence = next(line for line in text.split("95% interval")[1].split(". ") if "would have" in line)
    assert sentence.partition("The new")[2][:40] in page.replace("\n", " ")
    assert page.count("<svg") == 1
    for change, sentence in (
        ("--rules rules.toml --days 14", "new.parquet holds lists already"),
        ("--days 28", "Wait until it is over"),
        ("--days 14 --logged other", "no explored pool of policy 'other'"),
        ("--days 14 --segment age", "no column 'age'"),
    ):
        failed = run(f"{command} {change}")
        assert sentence in str(failed.exception), change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pool: pool.drop("propensity"), "expected columns"),
        (
            lambda pool: pool.with_columns(propensity=0.0),
            "propensity must lie above 0 and be at most 1",
        ),
        (
            lambda pool: pool.with_columns(propensity=1.5),
            "propensity must lie above 0 and be at most 1",
        ),
        (
            lambda pool: pool.with_columns(propensity=float("nan")),
            "propensity must lie above 0 and be at most 1",
        ),
        (lambda pool: pl.concat([pool, pool]), "the same request stands in the log twice"),
        (
            lambda pool: pool.with_columns(user_id=pl.format("u{}", "user_id")),
            "of the log's users",
        ),
        (
            lambda pool: pool.with_columns(item_id=pl.format("i{}", "item_id")),
            "of the log's items",
        ),
        (
            lambda pool: pool.with_columns(time=pl.col("time") + timedelta(days=20)),
            "Wait until it is over",
        ),
        (lambda pool: pool.filter("shown"), "as a log of what was shown alone does"),
        (
            lambda pool: pool.filter(pl.col("rank") > 3).with_columns(
                pl.col("rank") - 3, pl.col("pool") - 3
            ),
            "of the new lists lie within the explored pool",
        ),
    ],
)
def test_a_bad_log_is_one_sentence_on_the_command_line(
    log: Log, tmp_path: Path, change: Any, said: str
) -> None:
    """For judging lists and for learning uplift alike, unless only lists can be outside of the pool."""
    shop, pool, data = log
    columns = [name for name in COLUMNS if name in (bad := change(pool_frame(pool))).columns]
    bad.select(columns).write_parquet(tmp_path / "pools.parquet")
    receipts_of(data).write_csv(tmp_path / "receipts.csv")
    lists_of(shop, shop.lists("chance")).write_parquet(tmp_path / "new.parquet")
    judged = retailrec(
        *("experiment", "counterfactual", "--ledger", tmp_path / "pools.parquet"),
        *("--receipts", tmp_path / "receipts.csv", "--policy", tmp_path / "new.parquet", "--days", 14),
    )
    refused(judged, said)
    if "new lists" not in said:
        learnt = retailrec(
            *("uplift", "fit", tmp_path / "pools.parquet", tmp_path / "receipts.csv"),
            *(tmp_path / "new.parquet", "--days", 14, "--out", tmp_path / "uplift"),
        )
        refused(learnt, said)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "new.parquet",
        "pools.parquet",
        "receipts.csv",
    ]


def receipts_of(data: RetailData) -> pl.DataFrame:
    return data.log.select(
        data.users["user_id"].gather(data.log["user"]).alias("user_id"),
        data.items["item_id"].gather(data.log["item"]).alias("item_id"),
        "time",
        "quantity",
        "value",
    )


def test_a_model_is_judged_by_the_lists_that_it_would_have_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a fitted model to an explored log to two models judged; one that saw the future is refused."""
    monkeypatch.chdir(tmp_path)
    shop = small_data(users=1400, weeks=24, items=180)
    first = shop.end - timedelta(days=21)
    past = shop.asof(first)
    for name, trees in (("old", 8), ("new", 2)):
        model = small_model(max_users=300)
        model.ranker.iterations = trees
        model.fit(past).save(name)
    small_model(max_users=100).fit(shop).save("late")
    answer = TwoStageRecommender.load("old").answer(past, k=3, explore=0.4, pool=12)
    answer.exposures("old", first).write_parquet("pools.parquet")
    pool = Ledger(Path("pools.parquet")).read_pool()
    made = lists_of_model(Path("new"), pool, shop)
    expected = TwoStageRecommender.load("new").recommend(past, k=3)
    assert made.sort("user_id", "rank").equals(expected.sort("user_id", "rank"))
    same = lists_of_model(Path("old"), pool, shop)
    assert same.height == pool.filter(pl.col("rank") <= 3).height
    found = cf.judge_policy(pool, same, shop, days=14)
    assert found.support.coverage == 1
    assert next(e for e in found.estimates if e.what == "difference").value == 0
    (tmp_path / "rules.toml").write_text("max_per_category = 1\n")
    ruled = lists_of_model(Path("old"), pool, shop, rules=Path("rules.toml"))
    expected = TwoStageRecommender.load("old").recommend(past, k=3, rules=Rules(max_per_category=1))
    assert ruled.sort("user_id", "rank").equals(expected.sort("user_id", "rank"))
    with pytest.raises(
        DataError, match=r"it has seen what came of the lists.*Fit it on receipts before"
    ):
        lists_of_model(Path("late"), pool, shop)


def test_an_exposure_that_stands_in_a_log_twice_counts_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "user_id": rng.integers(0, 9, 4000),
            "time": pl.datetime_range(START, START + timedelta(minutes=3999), "1m", eager=True),
            "item_id": rng.integers(0, 4, 4000),
            "click": (rng.random(4000) < 0.1).astype(int),
            "propensity": 0.25,
        }
    )
    for name, table, notes in (
        ("once.csv", rows, 0),
        ("half.csv", pl.concat([rows, rows[:1500]]), 1),
        ("days.csv", rows.with_columns(pl.col("time").dt.date()), 0),
    ):
        table.write_csv(tmp_path / name)
        found = impressions_of_file(
            tmp_path / name, "uniform", reward="click", chance="propensity", item="item_id"
        )
        assert (found.n, found.value) == (4000, pytest.approx(rows["click"].mean()))
        assert [note.split(" rows of")[0] for note in found.notes] == ["1,500"] * notes


def test_the_command_judges_impressions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chance = rng.choice([0.2, 0.4], 4000)
    table = {"item_id": rng.integers(0, 4, 4000), "click": rng.random(4000) < 0.1, "propensity": chance}
    file = tmp_path / "log.csv"
    pl.DataFrame(table).with_columns(pl.col("click").cast(pl.Int8), mine="propensity").write_csv(file)
    text = run(f"experiment impressions {file} --policy mine").output
    assert "Effective sample 4,000 of 4,000, mean weight 1.000" in " ".join(text.split())
    assert "lacks column 'theirs'" in str(
        run(f"experiment impressions {file} --policy theirs").exception
    )
    assert "note:" not in text
    pl.concat([pl.read_csv(file)] * 2).write_csv(tmp_path / "twice.csv")
    twice = run(f"experiment impressions {tmp_path / 'twice.csv'} --policy mine").output
    assert "stands in it 2 times, or a multiple of that" in " ".join(twice.split())
    pl.read_csv(file).with_columns(mine=pl.lit("much")).write_csv(tmp_path / "words.csv")
    refused(
        retailrec("experiment", "impressions", tmp_path / "words.csv", "--policy", "mine"),
        "column 'mine' of",
        "must hold numbers",
    )
    pl.read_csv(file).clear().write_parquet(tmp_path / "none.parquet")
    refused(retailrec("experiment", "impressions", tmp_path / "none.parquet"), "holds no impression")
    assert "has no row with item_id=9" in str(
        run(f"experiment impressions {file} --only item_id=9").exception
    )
