"""The generated supermarket: same bytes, known truth, believable receipts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import OwnPurchases, Popularity, TifuKNN
from retailrec.data.splits import Fold
from retailrec.datasets import load_dataset
from retailrec.errors import DataError, SettingError
from retailrec.evaluation import Judge, means
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.report.summary import at_a_glance
from retailrec.simulator import shop as simulate
from retailrec.simulator.shop import Shop, data_of, preset_shop
from retailrec.simulator.truth import Truth, read_truth

SHOP = Shop(users=120, items=400, weeks=30, seed=3)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        SHOP.write(tmp_path / folder, truth_days=28)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.parquet"))
    assert len(files) == 4
    assert read_truth(tmp_path / "a" / "truth") is not None
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert not pl.concat(SHOP.shards()).equals(pl.concat(replace(SHOP, seed=4).shards()))


def test_shards_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = replace(SHOP, dirt=False)
    whole = pl.concat(clean.shards())
    monkeypatch.setattr(simulate, "SHARD", 7)
    assert pl.concat(clean.shards()).equals(whole)


def test_a_household_depends_on_the_seed_and_itself_alone() -> None:
    few, many = (pl.concat(replace(SHOP, users=n, dirt=False).shards()) for n in (5, 50))
    assert few.equals(many.filter(pl.col("household_key") <= 5))


def test_the_written_shop_loads_as_the_complete_journey(tmp_path: Path) -> None:
    SHOP.write(tmp_path)
    data = load_dataset("complete-journey", tmp_path)
    assert data.n_items == 400
    assert data.items["name"][0] is not None
    assert set(data.report.rejected) == {"voided on its receipt", "zero quantity", "zero price"}
    assert data.users.width > 3


@pytest.mark.parametrize(
    "switch",
    ["replenishment", "loyalty", "complements", "promotions", "seasons", "launches", "drift", "dirt"],
)
def test_every_part_can_be_switched_off(switch: str) -> None:
    plain = pl.concat(SHOP.shards())
    without = pl.concat(replace(SHOP, **{switch: False}).shards())
    assert not plain.equals(without)
    if switch == "dirt":
        assert (without["SALES_VALUE"] > 0).all()
    if switch == "promotions":
        assert (without["RETAIL_DISC"] == 0).all()


def test_truth_predicts_what_is_bought() -> None:
    """Of the pairs said to be bought with probability p, a share p is; shuffled truth is not."""
    truth = SHOP.truth(SHOP.days - 28, 28, repetitions=100).frame
    lines = pl.concat(replace(SHOP, dirt=False).shards()).filter(pl.col("DAY") > SHOP.days - 28)
    bought = (
        lines.select(user_id="household_key", item_id="PRODUCT_ID").unique().with_columns(bought=True)
    )
    seen = truth.join(bought, on=["user_id", "item_id"], how="left")
    seen = seen.with_columns(pl.col("bought").fill_null(False).cast(pl.Float64))
    for low, high in ((0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        part = seen.filter(pl.col("p").is_between(low, high, closed="left"))
        error = 3 * 0.5 / np.sqrt(part.height) + 0.02
        assert part["bought"].mean() == pytest.approx(part["p"].mean(), abs=error)
    keys = truth["user_id"].unique()
    moved = dict(zip(keys, keys.to_list()[1:] + keys.to_list()[:1], strict=True))
    shuffled = truth.with_columns(pl.col("user_id").replace_strict(moved))
    wrong = shuffled.join(bought, on=["user_id", "item_id"], how="left")
    sure = wrong.filter(pl.col("p") > 0.8)
    assert sure["bought"].fill_null(False).mean() < 0.5


def test_the_best_list_does_in_the_real_future_what_the_truth_says() -> None:
    """Lists of the likeliest items, judged by the receipts, reach the attainable precision."""
    shop = replace(SHOP, users=1000, dirt=False)
    truth = shop.truth(shop.days - 28, 28)
    lines = pl.concat(shop.shards()).filter(pl.col("DAY") > shop.days - 28)
    bought = lines.select(user_id="household_key", item_id="PRODUCT_ID").unique()
    buyers = bought["user_id"].unique()
    low, high = truth.best_precision(5, buyers)
    assert 0 < low <= high < 1
    assert high - low < 0.03
    best = truth.frame.filter(pl.col("user_id").is_in(buyers.implode()))
    best = best.sort("user_id", "p", descending=[False, True]).group_by("user_id").head(5)
    hits = best.join(bought, on=["user_id", "item_id"], how="semi").group_by("user_id").len()
    reached = hits["len"].sum() / 5 / len(buyers)
    assert reached == pytest.approx((low + high) / 2, abs=0.03)
    keys = truth.frame["user_id"].unique().to_list()
    moved = dict(zip(keys, keys[1:] + keys[:1], strict=True))
    wrong = best.with_columns(pl.col("user_id").replace_strict(moved))
    assert wrong.join(bought, on=["user_id", "item_id"], how="semi").height / 5 / len(buyers) < low / 2


# name: (low, high); the real figures that the bands hold are in docs/simulate.md
BANDS = {
    "receipts_per_shopper_mean": (90, 130),  # 110.6 published
    "lines_per_receipt_mean": (8.0, 11.5),  # 9.4 published, 11.0 in weeks 96 to 98
    "days_between_visits_mean": (4.0, 7.5),
    "repeat_share_28d": (0.35, 0.55),
    "repeat_share_last_receipt": (0.35, 0.6),
    "sales_in_top_1_percent": (0.12, 0.35),
    "sales_in_top_10_percent": (0.40, 0.70),
}


def test_generated_receipts_look_like_real_ones() -> None:
    found = at_a_glance(data_of(preset_shop("complete-journey", users=300)))
    for name, (low, high) in BANDS.items():
        assert low <= found[name] <= high, name
    low_price, middle, high_price = found["unit_price_quartiles"]
    assert 0.8 <= low_price <= 1.7  # 1.00, 1.92 and 2.99 in weeks 96 to 98
    assert 1.5 <= middle <= 2.5
    assert 2.5 <= high_price <= 3.9
    busy, quiet = max(found["lines_by_weekday"]), min(found["lines_by_weekday"])
    assert 1.3 <= busy / quiet <= 2.0  # 1.65
    blunt = at_a_glance(
        data_of(preset_shop("complete-journey", users=300, replenishment=False, loyalty=False))
    )
    assert blunt["repeat_share_28d"] < BANDS["repeat_share_28d"][0]  # the bands can be left


@pytest.mark.slow
def test_models_rank_on_it_as_on_real_receipts() -> None:
    data = data_of(replace(SHOP, users=400, items=1500, weeks=45))
    past, target = Fold(data.end - timedelta(days=28), data.end).split(data)
    judge = Judge.of(past, target)
    history = past.history(codes=judge.users)
    reached = {
        source.name: means(judge.per_user(source.fit(past).candidates(history, 5).items))["precision@5"]
        for source in (Popularity(), OwnPurchases())
    }
    model = TwoStageRecommender(sources=[OwnPurchases("decay"), TifuKNN(), Popularity()])
    items = model.fit(past).recommend_codes(history, 5).items
    reached["two_stage"] = means(judge.per_user(items))["precision@5"]
    assert reached["popular"] * 2 < reached["own_purchases"] < reached["two_stage"] * 0.97


def test_truth_is_read_as_it_was_written_and_damage_is_named(tmp_path: Path) -> None:
    truth = SHOP.truth(SHOP.days - 28, 28, np.arange(5), repetitions=20)
    truth.write(tmp_path)
    again = read_truth(tmp_path)
    assert isinstance(again, Truth)
    assert again.frame.equals(truth.frame)
    assert (again.cutoff, again.horizon_days) == (truth.cutoff, 28)
    (tmp_path / "probabilities.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no readable truth"):
        read_truth(tmp_path)
    assert read_truth(tmp_path / "nowhere") is None


def test_impossible_shops_are_refused() -> None:
    with pytest.raises(SettingError, match="shop: users must be at least 1"):
        Shop(users=0)
    with pytest.raises(SettingError, match="no preset 'mall'"):
        simulate.preset_shop("mall")
