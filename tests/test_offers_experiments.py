"""Experiments: what offers change on average is known, and a campaign's result tells it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.errors import DataError, SettingError
from retailrec.jobs.campaigns import plan_experiment
from retailrec.offers.allocation import allocate
from retailrec.offers.arms import assign_arms
from retailrec.offers.experiments import effects_of, experiment_result, outcomes
from retailrec.offers.ledger import Ledger
from retailrec.simulator.responses import Responses
from retailrec.simulator.shop import Shop

DAYS, START_DAY = 28, 112
STOCK = {"by": "product", "at_most": 2}


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(users=120, items=300, weeks=22, dirt=False)


@pytest.fixture(scope="module")
def lines(shop: Shop) -> pl.DataFrame:
    return pl.concat(shop.shards())


@pytest.fixture(scope="module")
def offers(shop: Shop) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, shop.users + 1), 4)
    table = pl.DataFrame({"user_id": users, "item_id": rng.integers(1, shop.items + 1, len(users))})
    bought = pl.concat(shop.shards()).group_by("household_key").agg(pl.col("PRODUCT_ID").mode().first())
    own = bought.select(user_id="household_key", item_id="PRODUCT_ID")
    return pl.concat([table, own.cast(dict(table.schema))]).unique(maintain_order=True)


def test_responses_that_are_switched_off_change_nothing(
    shop: Shop, lines: pl.DataFrame, offers: pl.DataFrame
) -> None:
    off = Responses(uplift=0, discount=0).apply(shop, lines, offers, START_DAY, DAYS)
    assert off.lines.sort(lines.columns).equals(lines.sort(lines.columns))
    assert off.truth["spend"].abs().max() == 0
    none = Responses().apply(shop, lines, offers.clear(), START_DAY, DAYS)
    assert none.lines.equals(lines)
    assert none.truth.is_empty()


def test_the_truth_of_responses_is_their_mean(
    shop: Shop, lines: pl.DataFrame, offers: pl.DataFrame
) -> None:
    """Over many draws the change of what households pay is the expected one."""
    changes, expected, further = [], 0.0, []
    base = lines["SALES_VALUE"].sum()
    for seed in range(60):
        found = Responses(uplift=0.5, seed=seed).apply(shop, lines, offers, START_DAY, DAYS)
        changes.append(found.lines["SALES_VALUE"].sum() - base)
        further.append(found.truth["bought"].sum())
        expected = found.truth["spend"].sum()
    error = np.std(changes) / np.sqrt(len(changes))
    assert abs(np.mean(changes) - expected) < 3.5 * error
    assert np.mean(further) == pytest.approx(found.truth["chance"].sum(), rel=0.05)
    assert found.truth["would_buy"].sum() > 20
    assert found.truth.filter("would_buy")["spend"].max() < 0  # given away


def test_fatigue_lowers_the_chance_and_cannibalisation_the_spend(
    shop: Shop, lines: pl.DataFrame, offers: pl.DataFrame
) -> None:
    fresh = Responses(fatigue=0.5).apply(shop, lines, offers, START_DAY, DAYS).truth
    tired = (
        Responses(fatigue=0.5).apply(shop, lines, offers.with_columns(earlier=2), START_DAY, DAYS).truth
    )
    assert (tired["chance"] / fresh["chance"]).drop_nans().to_numpy() == pytest.approx(0.25)
    whole = Responses(cannibalisation=0).apply(shop, lines, offers, START_DAY, DAYS).truth
    assert whole["spend"].sum() > fresh["spend"].sum()
    assert whole["chance"].equals(fresh["chance"])


def test_offers_of_unknown_items_are_refused(shop: Shop, lines: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="item_id must lie between 1 and 300"):
        Responses().apply(shop, lines, pl.DataFrame({"user_id": [1], "item_id": [0]}), START_DAY, DAYS)


def test_allocating_by_what_an_offer_changes_earns_more_than_by_what_is_bought_anyway(
    shop: Shop, lines: pl.DataFrame, offers: pl.DataFrame
) -> None:
    """Judged by what the offers sent really change, under the same stock."""
    known = Responses().apply(shop, lines, offers, START_DAY, DAYS).truth
    before = lines.filter((pl.col("DAY") <= START_DAY) & (pl.col("QUANTITY") > 0))
    receipts = before.group_by(user_id="household_key").agg(n=pl.col("BASKET_ID").n_unique())
    times = before.group_by(user_id="household_key", item_id="PRODUCT_ID").len("times")
    pairs = (
        known.with_columns(pl.col("user_id", "item_id").cast(pl.Int64))
        .join(receipts.cast({"user_id": pl.Int64}), on="user_id", how="left")
        .join(
            times.cast({"user_id": pl.Int64, "item_id": pl.Int64}),
            on=["user_id", "item_id"],
            how="left",
        )
        .with_columns(
            probability=(pl.col("times").fill_null(0) / (pl.col("n").fill_null(0) + 1)).clip(0, 1),
            value=pl.col("spend").clip(0),
        )
    )

    def gain(by: str) -> tuple[float, float]:
        campaign = {"name": "x", "value": by, "offers": {"at_most": 1}, "limit": [STOCK]}
        found = allocate(pairs.select("user_id", "item_id", by), campaign)
        assert found.offers.group_by("item_id").len()["len"].max() <= STOCK["at_most"]
        sent = found.offers.select("user_id", "item_id")
        answers = [Responses(seed=n).apply(shop, lines, sent, START_DAY, DAYS) for n in range(20)]
        base = lines["SALES_VALUE"].sum()
        seen = np.mean([answer.lines["SALES_VALUE"].sum() - base for answer in answers])
        return float(answers[0].truth["spend"].sum()), float(seen)

    (best, seen), (habit, given_away) = gain("value"), gain("probability")
    assert habit < 0 < best
    assert given_away < 0 < seen


@pytest.fixture(scope="module")
def campaign(
    shop: Shop, lines: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ledger, RetailData]:
    """A ledger with a campaign that worked, and receipts after it."""
    from retailrec.data.parsing import DAY_ONE
    from retailrec.datasets import complete_journey

    ids = pl.Series("user_id", range(1, shop.users + 1))
    arms = assign_arms(ids, {"treated": 0.5, "holdout": 0.5}, salt="spring")
    held = ids.filter(arms == "holdout")
    rng = np.random.default_rng(0)
    offers = pl.DataFrame(
        {"user_id": np.repeat(ids.to_numpy(), 30), "item_id": rng.integers(1, 301, 3600)}
    )
    sent = offers.unique(maintain_order=True).filter(~pl.col("user_id").is_in(held.implode()))
    answer = Responses(uplift=1, cannibalisation=0, discount=0).apply(
        shop, lines, sent, START_DAY, DAYS
    )
    data = complete_journey.from_tables(answer.lines, shop.products(), shop.households(), "shop")
    start = DAY_ONE + timedelta(days=START_DAY)
    shown = sent.with_columns(
        rank=pl.int_range(1, pl.len() + 1).over("user_id"),
        propensity=pl.lit(1.0),
        holdout=pl.lit(False),
    )
    nothing = pl.DataFrame({"user_id": held, "rank": 0, "holdout": True})
    rows = pl.concat([shown, nothing], how="diagonal_relaxed").with_columns(
        campaign=pl.lit("spring"), time=start
    )
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    ledger.append(rows)
    return ledger, data


def test_a_campaign_that_worked_is_found(campaign: tuple[Ledger, RetailData]) -> None:
    ledger, data = campaign
    margin = data.items.select("item_id", margin=pl.lit(0.5))
    found = experiment_result(ledger, "spring", data, days=DAYS, margin=margin, planned_holdout=0.5)
    assert found.n_treated + found.n_holdout == 120
    assert found.n_reached == found.n_treated
    assert found.srm_p is not None
    assert found.srm_p > 0.01
    effects = {(e.metric, e.adjusted): e for e in found.effects if e.segment == "all"}
    lines_more = effects["purchases", True]
    assert lines_more.low > 1  # up to thirty further lines
    assert (
        effects["purchases", True].high - lines_more.low
        < effects["purchases", False].high - effects["purchases", False].low
    )
    assert effects["margin", True].difference == pytest.approx(0.5 * lines_more.difference, rel=0.5)
    assert found.total["spend"][0] == pytest.approx(found.n_treated * effects["spend", True].difference)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"store": "s1"}, "margin has columns that would not be read: 'store'"),
        ({"margin": [0.5, 0.75]}, "margin: item 1 has several margins"),
    ],
)
def test_margins_of_one_item_must_be_one(
    campaign: tuple[Ledger, RetailData], columns: dict, sentence: str
) -> None:
    margin = pl.DataFrame({"item_id": [1, 1], "margin": [0.5, 0.5]} | columns)
    with pytest.raises(DataError, match=sentence):
        experiment_result(campaign[0], "spring", campaign[1], days=DAYS, margin=margin)


def test_outcomes_are_sums_of_the_window(campaign: tuple[Ledger, RetailData]) -> None:
    from retailrec.data.parsing import DAY_ONE

    _, data = campaign
    start = DAY_ONE + timedelta(days=START_DAY)
    found = outcomes(data, pl.Series(["3", "nobody"]), start, DAYS)
    mine = data.log.filter(pl.col("user") == data.users["user_id"].index_of(3))
    inside = mine.filter((pl.col("time") >= start) & (pl.col("time") < start + timedelta(days=DAYS)))
    before = mine.filter((pl.col("time") < start) & (pl.col("time") >= start - timedelta(days=DAYS)))
    assert found.row(0)[1:] == pytest.approx(
        (float(inside.height > 0), inside.height, inside["value"].sum(), before["value"].sum())
    )
    assert found.row(1) == ("nobody", 0, 0, 0, 0)
    for ids in ([3], pl.Series([3.0, None])):  # as pandas has them beside a missing one
        assert outcomes(data, ids, start, DAYS).row(0) == found.row(0)


def test_spend_is_not_told_of_receipts_without_money(campaign: tuple[Ledger, RetailData]) -> None:
    """It was 0 in both arms, and a plan said that all shoppers spend the same."""
    ledger, priced = campaign
    data = replace(priced, log=priced.log.with_columns(value=pl.lit(None, pl.Float64)))
    found = experiment_result(ledger, "spring", data, days=DAYS)
    assert {e.metric for e in found.effects} == {"bought", "purchases"}
    assert any(note.startswith("The receipts have no money") for note in found.notes)
    with pytest.raises(DataError, match=r"no money .*, so no spend can be planned"):
        plan_experiment(data, days=DAYS, effect=0.1)


def test_what_cannot_be_answered_is_a_sentence(
    campaign: tuple[Ledger, RetailData], tmp_path: Path
) -> None:
    ledger, data = campaign
    with pytest.raises(DataError, match=r"does not stand in ledger .* there are spring"):
        experiment_result(ledger, "autumn", data, days=DAYS)
    with pytest.raises(DataError, match="bring later receipts"):
        experiment_result(ledger, "spring", data, days=300)
    with pytest.raises(SettingError, match="days must be above 0"):
        experiment_result(ledger, "spring", data, days=0)
    with pytest.raises(DataError, match="at least 2 shoppers"):
        effects_of(
            pl.DataFrame({"holdout": [False], "spend": [1.0], "spend_before": [0.0]}), metrics=["spend"]
        )
    alone = Ledger(tmp_path / "ledger")
    alone.append(ledger.read().filter(pl.col("user_id") == "1"))
    with pytest.raises(DataError, match="at least 2 shoppers"):
        experiment_result(alone, "spring", data, days=DAYS)


def test_overlapping_campaigns_are_told(campaign: tuple[Ledger, RetailData], tmp_path: Path) -> None:
    ledger, data = campaign
    both = Ledger(tmp_path / "ledger")
    rows = ledger.read()
    both.append(rows)
    both.append(
        rows.filter(pl.col("rank") > 0).with_columns(
            campaign=pl.lit("other"), time=pl.col("time") + timedelta(days=1)
        )
    )
    found = experiment_result(both, "spring", data, days=DAYS)
    assert any("Other campaigns (other) reached" in note for note in found.notes)


def test_several_arms_and_shoppers_who_come_later_are_told(
    campaign: tuple[Ledger, RetailData], tmp_path: Path
) -> None:
    ledger, data = campaign
    rows, served = ledger.read(), Ledger(tmp_path / "ledger")
    kind = pl.when("holdout").then(pl.lit("holdout"))
    number = pl.col("user_id").cast(pl.Int64)
    arm = kind.when(number % 4 == 0).then(pl.lit("bolder")).otherwise(pl.lit("today"))
    late = pl.when(number <= 10).then(timedelta(days=3)).otherwise(timedelta(hours=23))
    served.append(rows.with_columns(arm=arm, time=pl.col("time") + late))
    served.append(rows.filter(number == 100).with_columns(arm=arm), again=True)
    found = experiment_result(served, "spring", data, days=DAYS)
    treated = rows.filter(~pl.col("holdout")).select("user_id", arm=arm).unique()
    n = dict(treated.group_by("arm").len().iter_rows())
    each = f"bolder {n['bolder']}, today {n['today']} shoppers"
    assert any(f"Treated are 2 arms together ({each})" in note for note in found.notes)
    assert any(note.startswith("10 shoppers came in later than the first day") for note in found.notes)
    assert not any(
        "arms together" in n for n in experiment_result(ledger, "spring", data, days=DAYS).notes
    )
    pairs = {(e.arm, e.versus) for e in found.arms}
    assert pairs == {("bolder", "holdout"), ("today", "holdout"), ("today", "bolder")}
    assert not experiment_result(ledger, "spring", data, days=DAYS).arms


def test_two_arms_without_a_holdout_are_compared_and_whoever_moved_between_them_is_not(
    campaign: tuple[Ledger, RetailData], tmp_path: Path
) -> None:
    ledger, data = campaign
    rows, served = ledger.read(), Ledger(tmp_path / "ledger")
    arm = pl.when(pl.col("user_id").cast(pl.Int64) % 4 < 2).then(pl.lit("a")).otherwise(pl.lit("b"))
    rows = rows.filter(pl.col("rank") > 0).with_columns(arm=arm)
    served.append(rows)
    (one, *_) = rows.filter(pl.col("arm") == "a")["user_id"]
    served.append(rows.filter(pl.col("user_id") == one).with_columns(arm=pl.lit("b")), again=True)
    found = experiment_result(served, "spring", data, days=DAYS)
    assert not found.effects
    assert not found.total
    assert [(e.metric, e.arm, e.versus) for e in found.arms[:2]] == [
        ("bought", "b", "a"),
        ("purchases", "b", "a"),
    ]
    assert found.arms[0].n_treated + found.arms[0].n_holdout == found.n_treated - 1
    assert "1 shoppers stood in several arms; no comparison of two arms counts them." in found.notes
    assert not any("no interval can be given" in note for note in found.notes)
    quiet = RetailData.from_frames(
        pl.DataFrame({"user_id": rows["user_id"].unique(), "item_id": 1, "time": data.start}),
        end=data.end,
    )
    none = experiment_result(served, "spring", quiet, days=DAYS)
    assert {(e.difference, e.low, e.p) for e in none.arms} == {(0, None, 1)}
    assert any("no interval can be given" in note for note in none.notes)


def test_lost_shoppers_are_told(campaign: tuple[Ledger, RetailData], tmp_path: Path) -> None:
    ledger, data = campaign
    less = Ledger(tmp_path / "ledger")
    less.append(ledger.read().filter(~pl.col("holdout") | pl.col("user_id").str.ends_with("1")))
    found = experiment_result(less, "spring", data, days=DAYS, planned_holdout=0.5)
    assert any("do not fit the planned holdout" in note for note in found.notes)


def test_shoppers_whom_the_receipts_do_not_know_are_an_error_or_are_told(
    campaign: tuple[Ledger, RetailData], tmp_path: Path
) -> None:
    ledger, data = campaign
    rows = ledger.read()
    strangers = Ledger(tmp_path / "strangers")
    strangers.append(rows.with_columns(user_id=pl.format("0{}", "user_id")))
    with pytest.raises(DataError, match=r"none of the 120 ids .* without leading zeros"):
        experiment_result(strangers, "spring", data, days=DAYS)
    some = Ledger(tmp_path / "some")
    few = pl.col("user_id").is_in(["1", "2", "3"])
    some.append(
        rows.with_columns(user_id=pl.when(few).then(pl.format("x{}", "user_id")).otherwise("user_id"))
    )
    notes = experiment_result(some, "spring", data, days=DAYS).notes
    assert not any("by notation only" in note for note in notes)
    led = Ledger(tmp_path / "led")
    led.append(
        rows.with_columns(user_id=pl.when(few).then(pl.format("0{}", "user_id")).otherwise("user_id"))
    )
    said = experiment_result(led, "spring", data, days=DAYS).notes
    assert any("3 of the 120 ids" in note and "by notation only: '01' there" in note for note in said)
    assert any(note.startswith("3 of 120 shoppers (") and "such as x1" in note for note in notes)


def test_receipts_that_begin_after_the_campaign_are_refused(
    campaign: tuple[Ledger, RetailData], tmp_path: Path
) -> None:
    ledger, data = campaign
    early = ledger.read().with_columns(time=pl.col("time") - timedelta(days=START_DAY + 1))
    before = Ledger(tmp_path / "before")
    before.append(early)
    with pytest.raises(DataError, match="before the first receipt"):
        experiment_result(before, "spring", data, days=DAYS)
    short = Ledger(tmp_path / "short")
    short.append(early.with_columns(time=pl.col("time") + timedelta(days=DAYS - 1)))
    notes = experiment_result(short, "spring", data, days=DAYS).notes
    assert any("less than 28 days before the campaign" in note for note in notes)


def test_two_margins_of_one_item_are_refused(campaign: tuple[Ledger, RetailData]) -> None:
    ledger, data = campaign
    margin = data.items.select("item_id", margin=pl.lit(0.5))
    same = experiment_result(ledger, "spring", data, days=DAYS, margin=pl.concat([margin, margin]))
    assert same.total["margin"][0] != 0
    other = pl.concat([margin, margin.head(1).with_columns(margin=pl.lit(0.7))])
    with pytest.raises(DataError, match="has several margins"):
        experiment_result(ledger, "spring", data, days=DAYS, margin=other)
