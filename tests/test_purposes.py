"""Purposes: what is bought again, what is new, and slots of both; nobody's list holds the wrong kind."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import catalogue, receipts, shoppers
from purposes_support import SLOTS, fitted_model, quick, small_shop
from retailrec.candidates import OwnPurchases, Popularity, TifuKNN
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits
from retailrec.errors import SettingError
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.artifact import _data_name
from retailrec.recommender.purposes import Discovery, owned_pairs, purchases_for
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender


@pytest.fixture(scope="module")
def shop_data() -> RetailData:
    return small_shop()


@pytest.fixture(scope="module")
def model() -> TwoStageRecommender:
    return fitted_model()


def bought(data: RetailData) -> set[tuple[Any, Any]]:
    """(user_id, item_id) of all receipts."""
    users, items = data.users["user_id"], data.items["item_id"]
    pairs = data.log.select("user", "item").unique().rows()
    return {(users[u], items[i]) for u, i in pairs}


def pairs_of(lists: pl.DataFrame) -> set[tuple[Any, Any]]:
    return set(lists.select("user_id", "item_id").rows())


def test_discover_holds_nothing_owned_and_replenish_nothing_else(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    owned = bought(shop_data)
    new = model.recommend(shop_data, k=10, purpose="discover")
    again = model.recommend(shop_data, k=10, purpose="replenish")
    assert new.height > 400
    assert not pairs_of(new) & owned
    assert again.height > 400
    assert pairs_of(again) <= owned
    mixed = pairs_of(model.recommend(shop_data, k=60))
    assert mixed & owned
    assert mixed - owned


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    rules=st.sampled_from(
        [
            None,
            Rules(max_per_category=1),
            Rules(min_new=2, variety=0.3),
            Rules(price_ceiling=2.0),
            Rules(skip_bought_days=30, unless_due=False),
        ]
    ),
)
def test_whatever_the_receipts_and_rules_each_purpose_keeps_to_its_kind(
    model: TwoStageRecommender, shop_data: RetailData, seed: int, k: int, rules: Rules | None
) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    lines = pl.DataFrame(
        {
            "user_id": rng.integers(0, 5, n),
            "item_id": rng.choice(shop_data.items["item_id"].to_numpy(), n),
            "time": [shop_data.end - timedelta(days=int(d)) for d in rng.integers(1, 200, n)],
        }
    )
    owned = set(lines.select("user_id", "item_id").rows())
    for purpose, kind in (("discover", False), ("replenish", True)):
        lists = model.recommend(lines, k=k, rules=rules, purpose=purpose)  # type: ignore[arg-type]
        assert all((pair in owned) is kind for pair in pairs_of(lists))
    slots = model.recommend(lines, rules=rules, slots={"discover": k, "replenish": 2})
    assert not slots.select("user_id", "item_id").is_duplicated().any()
    for user, item, purpose in slots.select("user_id", "item_id", "purpose").iter_rows():
        assert ((user, item) in owned) == (purpose == "replenish")


def test_mixed_is_the_list_of_a_model_without_purposes(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    without = quick(discover=None).fit(shop_data).recommend(shop_data, k=8)
    assert model.recommend(shop_data, k=8, purpose="mixed").equals(without)
    assert model.recommend(shop_data, slots={"mixed": 8}).equals(without)


def test_replenish_is_todays_list_without_what_is_new(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    owned = bought(shop_data)
    mixed = model.recommend(shop_data, k=60)
    own = [(u, i) in owned for u, i in mixed.select("user_id", "item_id").iter_rows()]
    expected = mixed.filter(pl.Series(own)).group_by("user_id", maintain_order=True).head(5)
    found = model.recommend(shop_data, k=5, purpose="replenish")
    assert found.select("user_id", "item_id", "score").equals(
        expected.select("user_id", "item_id", "score")
    )


def test_an_item_is_new_again_after_so_many_days(shop_data: RetailData) -> None:
    lapsed = quick(discover=Discovery(after_days=90, n_candidates=30)).fit(shop_data)
    lists = pairs_of(lapsed.recommend(shop_data, k=20, purpose="discover"))
    recent = shop_data.between(shop_data.end - timedelta(days=90), shop_data.end)
    assert not lists & bought(replace(shop_data, log=recent))
    assert lists & bought(shop_data)


def test_each_source_is_asked_for_new_items_before_the_cut(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    history = shop_data.history()
    owned = owned_pairs(history)
    for source in model.sources_:
        found = source.candidates(history, 15, owned).items
        every = source.candidates(history, shop_data.n_items).items
        for row in range(len(history)):
            own = set(history.items[history.indptr[row] : history.indptr[row + 1]])
            expected = [i for i in every[row] if i >= 0 and i not in own][:15]
            assert [i for i in found[row] if i >= 0] == expected, source.name


def test_a_source_proposes_for_new_items_alone_and_leaves_mixed_as_it_was(
    shop_data: RetailData, model: TwoStageRecommender
) -> None:
    more = Discovery(n_candidates=[0, 10, 10, 10, 25], sources=[TifuKNN(neighbours=5)])
    fitted = quick(discover=more).fit(shop_data)
    columns = fitted.stage_for("discover").column_names
    assert "source_tifu_knn_score" in columns
    assert "source_tifu_knn_score" not in fitted.column_names
    assert fitted.recommend(shop_data, k=8).equals(model.recommend(shop_data, k=8))


def test_labels_of_new_items_are_new_purchases() -> None:
    times = [datetime(2024, 1, 1), datetime(2024, 3, 1), datetime(2024, 4, 2)]
    lines = [("a", 1, times[0]), ("a", 2, times[1]), ("a", 1, times[2]), ("a", 2, times[2])]
    lines += [("a", 3, times[2]), ("b", 1, times[2])]
    data = RetailData.from_frames(
        pl.DataFrame(lines, schema=["user_id", "item_id", "time"], orient="row")
    )
    cut = datetime(2024, 4, 1)
    past, target = data.asof(cut), data.between(cut, data.end)

    def items(purpose: Any, after_days: float | None = None) -> list[tuple[int, int]]:
        return sorted(purchases_for(purpose, past, target, after_days).select("user", "item").rows())

    assert items("discover") == [(0, 2), (1, 0)]
    assert items("discover", 60) == [(0, 0), (0, 2), (1, 0)]
    assert items("discover", 31) == [(0, 0), (0, 2), (1, 0)]
    assert items("discover", 30) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert items("replenish") == [(0, 0), (0, 1)]
    assert len(items("mixed")) == 4


def test_training_rows_of_new_items_hold_no_owned_pair_and_only_new_labels(
    shop_data: RetailData,
) -> None:
    fitted = quick(discover=Discovery(n_candidates=15)).fit(shop_data, keep_rows=True)
    rows = fitted._windows["discover"].rows
    receipts_of_pair = rows.x[:, rows.names.index("pair_receipts")]
    assert len(rows.y) > 500
    assert rows.y.sum() > 20
    assert not (receipts_of_pair > 0).any()
    usual = fitted.training_rows
    assert usual is not None
    assert (usual.x[:, usual.names.index("pair_receipts")] > 0).any()
    for facts in fitted.report_["discover_windows"]:
        assert 0 < facts["bought_and_proposed"] <= facts["bought"]


def test_slots_come_in_their_order_and_no_item_stands_twice(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    answer = model.answer(shop_data, slots=SLOTS)
    lists = answer.lists
    assert lists.columns == ["user_id", "item_id", "score", "rank", "purpose"]
    assert not lists.select("user_id", "item_id").is_duplicated().any()
    whole = lists.filter(pl.len().over("user_id") == 5).group_by("user_id", maintain_order=True)
    orders = {tuple(part["purpose"]) for _, part in whole}
    assert ("replenish",) * 3 + ("discover",) * 2 in orders
    usual = lists.filter(pl.col("rank") <= 3, pl.col("purpose") == "replenish")
    again = model.recommend(shop_data, k=3, purpose="replenish")
    assert pairs_of(usual) == pairs_of(again)


def test_what_one_purpose_lacks_the_other_fills_and_the_report_says_so(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    item = shop_data.items["item_id"][int(shop_data.log["item"].mode()[0])]
    one = pl.DataFrame({"user_id": [901, 902], "item_id": [item, item], "time": [shop_data.end] * 2})
    one = one.with_columns(time=pl.col("time") - timedelta(days=3))
    answer = model.answer(one, users=[901, 902, 903], slots=SLOTS)
    lists = answer.lists
    assert lists.group_by("user_id").len()["len"].to_list() == [5, 5, 5]
    assert lists.filter(user_id=901)["purpose"].to_list() == ["replenish"] + ["discover"] * 4
    assert lists.filter(user_id=903)["purpose"].to_list() == ["discover"] * 5
    assert lists["rank"].to_list() == [1, 2, 3, 4, 5] * 3
    assert answer.report.short_slots == {"replenish": 3, "discover": 0}
    told = "replenish had fewer than 3 items for 3 of 3 shoppers; discover filled up."
    assert told in answer.report.notes


def test_an_unknown_shopper_has_nothing_to_replenish_and_discovers_bestsellers(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    answer = model.answer(shop_data, users=[10**6], k=5, purpose="replenish")
    assert answer.lists.is_empty()
    assert any("no purchases to replenish" in note for note in answer.report.notes)
    assert model.recommend(shop_data, users=[10**6], k=5, purpose="discover").height == 5


def test_rules_hold_across_slots(model: TwoStageRecommender, shop_data: RetailData) -> None:
    rules = Rules(max_per_category=2)
    category = shop_data.items.select("item_id", "category_1")
    free = model.recommend(shop_data, slots=SLOTS).join(category, on="item_id")
    answer = model.answer(shop_data, rules=rules, slots=SLOTS)
    ruled = answer.lists.join(category, on="item_id")

    def most(lists: pl.DataFrame) -> int:
        return int(lists.group_by("user_id", "category_1").len()["len"].max())  # type: ignore

    assert answer.report.rules["max_per_category"]["gave_way"] == 0
    assert most(ruled) <= 2 < most(free)
    denied = answer.lists.select("user_id", "item_id")
    lists = model.recommend(shop_data, rules=Rules(deny=denied), slots=SLOTS)
    assert not pairs_of(lists) & pairs_of(denied)


def test_given_lists_are_ranked_by_kind(model: TwoStageRecommender, shop_data: RetailData) -> None:
    some = shop_data.items.select("item_id")[::5]
    owned, listed = bought(shop_data), set(some["item_id"])
    new = pairs_of(model.recommend(shop_data, k=5, among=some, purpose="discover"))
    again = pairs_of(model.recommend(shop_data, k=5, among=some, purpose="replenish"))
    assert new
    assert again
    assert not new & owned
    assert again <= owned
    assert {item for _, item in new | again} <= listed


def test_reasons_come_with_every_slot_and_new_items_are_not_called_habits(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    lists = model.explain(shop_data, slots=SLOTS)
    assert lists.columns[-2:] == ["purpose", "reasons"]
    assert lists["reasons"].str.len_chars().min() > 0  # type: ignore[operator]
    new = lists.filter(purpose="discover")["reasons"]
    assert not new.str.contains("last .* ago|due:").any()
    assert lists.filter(purpose="replenish")["reasons"].str.contains("bought").any()


def test_purposes_survive_saving(
    model: TwoStageRecommender, shop_data: RetailData, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    loaded = TwoStageRecommender.load(tmp_path / "model")
    assert loaded.discover == model.discover
    for purpose in ("mixed", "replenish", "discover"):
        expected = model.explain(shop_data, k=5, purpose=purpose)  # type: ignore[arg-type]
        assert loaded.explain(shop_data, k=5, purpose=purpose).equals(expected)  # type: ignore[arg-type]
    assert loaded.recommend(shop_data, slots=SLOTS).equals(model.recommend(shop_data, slots=SLOTS))


def test_a_model_that_learnt_nothing_new_says_what_to_do(shop_data: RetailData, tmp_path: Path) -> None:
    plain = quick(discover=None, sources=[OwnPurchases(), Popularity()]).fit(shop_data)
    plain.save(tmp_path / "model")
    for fitted in (plain, TwoStageRecommender.load(tmp_path / "model")):
        with pytest.raises(SettingError, match=r"Discovery\(\).*\[discover\]"):
            fitted.recommend(shop_data, purpose="discover")
        with pytest.raises(SettingError, match=r"Discovery\(\)"):
            fitted.recommend(shop_data, slots=SLOTS)
        assert fitted.recommend(shop_data, k=2, purpose="replenish").height > 50


def test_a_model_saved_before_there_were_purposes_loads_and_answers_as_it_did(
    shop_data: RetailData, tmp_path: Path
) -> None:
    plain = quick(discover=None, sources=[OwnPurchases(), Popularity()]).fit(shop_data)
    plain.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    described = manifest["model"]
    del described["settings"]["discover"]
    for name in [name for name in described["state"] if name.startswith("discover_")]:
        del described["state"][name]
    before, manifest["data"] = manifest["data"], _data_name(manifest["files"], described)
    assert before != manifest["data"]
    (tmp_path / before).rename(tmp_path / manifest["data"])
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    loaded = TwoStageRecommender.load(tmp_path)
    assert loaded.recommend(shop_data, k=5).equals(plain.recommend(shop_data, k=5))
    assert loaded.recommend(shop_data, k=2, purpose="replenish").height > 50
    with pytest.raises(SettingError, match="has learnt none"):
        loaded.recommend(shop_data, purpose="discover")


def test_new_items_have_a_ranker_of_their_own(shop_data: RetailData) -> None:
    fitted = quick().fit(shop_data)
    assert isinstance(fitted.discover_ranker_, LightGBMRanker)
    assert fitted.discover_ranker_.objective == "binary"
    assert fitted.ranker_.iterations == 10  # type: ignore[attr-defined]
    chosen = quick(discover=Discovery(ranker=LightGBMRanker(iterations=3))).fit(shop_data)
    assert chosen.discover_ranker_.iterations == 3  # type: ignore[union-attr]
    first, other = (m.recommend(shop_data, k=5, purpose="discover") for m in (fitted, chosen))
    assert not first.equals(other)


def test_probabilities_are_those_of_the_purposes_own_ranker(shop_data: RetailData) -> None:
    fitted = quick(calibrate=True).fit(shop_data)
    lists = fitted.recommend(shop_data, slots=SLOTS)
    single = fitted.recommend(shop_data, k=2, purpose="discover")
    new = lists.filter(purpose="discover", rank=4).join(single, on=["user_id", "item_id"])
    assert new.height > 20
    assert new["probability"].equals(new["probability_right"], check_names=False)
    assert fitted.discover_calibrator_ is not None
    assert fitted.calibrator_ is not None


def test_an_earlier_fit_hands_its_rows_of_both_kinds_on(shop_data: RetailData) -> None:
    three = HorizonSplits(28, n=3)  # two whole ones, and half of the newer; new items: three whole ones
    before = quick(label_splits=three)
    before.fit(shop_data.asof(shop_data.end - timedelta(days=28)), keep_rows=True)
    after = quick(label_splits=three).fit(shop_data, earlier=before)
    alone = quick(label_splits=three).fit(shop_data)
    for kind, known in (("windows", 1), ("discover_windows", 2)):
        # which negatives are drawn hangs on a window's number, so a window computed anew has other rows
        assert after.report_[kind][0] == before.report_[kind][1] != alone.report_[kind][0]
        assert after.report_[kind][:known] == before.report_[kind][1:][:known]
        assert after.report_[kind][known:] == alone.report_[kind][known:]
        assert len(after.report_[kind]) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"purpose": "sell"}, "no purpose 'sell'; expected mixed, replenish, discover"),
        ({"slots": {}}, "slots must say how many"),
        ({"slots": {"sell": 2}}, "no purpose 'sell'"),
        ({"slots": {"replenish": -1}}, "at least 0, not -1"),
        ({"slots": {"replenish": True}}, "at least 0, not True"),
        ({"slots": {"replenish": 0}}, "there is none"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(
    model: TwoStageRecommender, shop_data: RetailData, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        model.recommend(shop_data, **given)


def test_one_shopper_gets_the_list_of_the_batch(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    together = model.recommend(shop_data, slots=SLOTS)
    for user in shop_data.users["user_id"][::15]:
        alone = model.recommend(shop_data, users=[user], slots=SLOTS)
        assert alone.equals(together.filter(user_id=user))


def test_what_comes_after_the_cut_moves_nothing() -> None:
    end, lines = datetime(2024, 4, 1), receipts(users=60)
    whole = RetailData.from_frames(lines, catalogue(), shoppers(60), end=end)
    before = whole.asof(end - timedelta(days=10))
    known = lines.filter(pl.col("time") < before.end)
    never = RetailData.from_frames(known, catalogue(), shoppers(60), end=before.end)
    users, splits = whole.users["user_id"], HorizonSplits(14, n=1)
    lists = [
        quick(label_splits=splits).fit(data).recommend(data, users=users, k=4, purpose="discover")
        for data in (before, never)
    ]
    assert lists[0].height > 50
    assert lists[0].equals(lists[1])
