"""Lists that are drawn from a pool: chances are exact, and rules, slots and lengths hold for every draw."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits
from retailrec.errors import SettingError
from retailrec.offers.exploration import explore
from retailrec.offers.ledger import pool_frame
from retailrec.recommender.exploration import draw_salt
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import receipt_lines, small_data
from serving_support import small_model

RULES = {"max_per_category": 1, "min_new": 2, "variety": 0.1, "skip_bought_days": 9.0}
ASKED: dict[str, dict[str, Any]] = {
    "plain": {"k": 3, "pool": 12},
    "rules": {"k": 4, "pool": 10, "rules": Rules(**RULES)},
    "replenish": {"k": 2, "purpose": "replenish", "pool": 6},
    "slots": {"slots": {"replenish": 2, "discover": 3}, "pool": 12, "reasons": True},
    "slots-rules": {"slots": {"replenish": 2, "mixed": 2}, "rules": Rules(**RULES), "pool": 12},
}
MORE = {"explore": 0.4, "salt": "may"}


@pytest.fixture(scope="module")
def shop() -> tuple[TwoStageRecommender, RetailData]:
    data = small_data(users=60, weeks=30, items=200)
    model = small_model(discover=Discovery(n_candidates=15), calibrate=True, max_users=60)
    model.label_splits = HorizonSplits(14, 2)
    return model.fit(data), data


Shop = tuple[TwoStageRecommender, RetailData]


def table(shop: Shop, asked: dict[str, Any], **more: Any) -> pl.DataFrame:
    answer = shop[0].answer(shop[1], **asked, **(MORE | more))
    return answer.exposures("m", datetime(2024, 5, 1))


@pytest.mark.parametrize("name", ASKED)
def test_the_pool_begins_with_the_list_that_would_be_shown(shop: Shop, name: str) -> None:
    model, data = shop
    asked = ASKED[name]
    usual = model.recommend(data, **asked).select(
        pl.col("user_id", "item_id").cast(pl.String), "rank", pl.col("score").cast(pl.Float64)
    )
    pool = table(shop, asked)
    sizes = usual.group_by("user_id").agg(k=pl.col("rank").max())
    first = pool.join(sizes, on="user_id").filter(pl.col("rank") <= pl.col("k"))
    assert first.select(usual.columns).sort("user_id", "rank").equals(usual.sort("user_id", "rank"))
    assert pool.height > usual.height + 30
    lengths = pool.group_by("user_id").agg(pl.col("shown").sum(), pl.col("propensity").sum())
    both = lengths.join(sizes, on="user_id")
    assert (both["shown"] == both["k"]).all()  # fixed lengths
    assert both["propensity"].to_numpy() == pytest.approx(both["k"].to_numpy())


@pytest.mark.parametrize("name", ASKED)
def test_the_list_is_what_the_table_says_was_shown_with_its_chance(shop: Shop, name: str) -> None:
    answer = shop[0].answer(shop[1], **ASKED[name], **MORE)
    listed = answer.lists.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    shown = answer.exposures("m", datetime(2024, 5, 1)).filter("shown").sort("user_id", "rank")
    place = pl.col("rank").rank("ordinal").over("user_id").cast(pl.Int32)
    columns = ["user_id", "item_id", "propensity", "rank"]
    expected = shown.with_columns(rank=place).select(columns)
    assert listed.sort("user_id", "rank").select(columns).equals(expected)
    with_zone = datetime(2024, 5, 1, tzinfo=timezone(timedelta(hours=2)))
    only = answer.exposures("m", with_zone, shown_only=True)
    assert only.sort("user_id", "rank").equals(shown)
    assert pool_frame(only).height == listed.height
    if "reasons" in listed.columns:
        assert (listed["reasons"].str.len_chars() > 0).all()


@pytest.fixture(scope="module")
def renewed() -> Shop:
    """A shop in which thirty items were first sold in the last two weeks."""
    lines = receipt_lines(small_data(users=60, weeks=30, items=200))
    late = pl.col("time") >= lines["time"].max() - pl.duration(days=13)
    data = RetailData.from_frames(lines.filter(late | (pl.col("item_id") % 6 > 0)))
    model = small_model(discover=Discovery(n_candidates=15), max_users=60)
    model.label_splits = HorizonSplits(14, 2)
    return model.fit(data), data


@pytest.mark.parametrize("purpose", ["mixed", "discover"])
def test_items_new_in_the_shop_have_places_in_the_pool_and_chances(renewed: Shop, purpose: str) -> None:
    """Whether a generator proposes them or not; the list that would be shown stays what it was."""
    data = renewed[1]
    new = set(data.items["item_id"].filter(data.items["item_id"] % 6 == 0).cast(pl.String))
    lines = data.log.select(
        data.users["user_id"].gather(data.log["user"]).cast(pl.String),
        data.items["item_id"].gather(data.log["item"]).cast(pl.String),
    )
    asked: dict[str, Any] = {"k": 3, "pool": 12, "purpose": purpose}
    usual, pool = table(renewed, asked), table(renewed, asked, fresh=6, reasons=True)
    listed = ["user_id", "item_id", "rank", "score"]
    first, before = (t.filter(pl.col("rank") <= 3).select(listed) for t in (pool, usual))
    assert first.equals(before)
    beside = pool.filter(pl.col("rank").is_between(4, 9))
    assert beside.height == 6 * data.n_users
    assert beside["item_id"].is_in(new).all()
    proposed = usual.filter(pl.col("item_id").is_in(new))
    assert beside.join(proposed, on=["user_id", "item_id"], how="anti").height > data.n_users
    assert (beside["propensity"] > 0).all()
    assert pool.group_by("user_id").agg(pl.sum("propensity"))["propensity"].to_list() == (
        pytest.approx([3.0] * data.n_users)
    )
    if purpose == "discover":
        assert pool.join(lines, on=["user_id", "item_id"], how="semi").is_empty()
    of_new, shown = pl.col("item_id").is_in(new), 0
    for salt in "abcd":
        shown += table(renewed, asked, fresh=6, salt=salt).filter("shown", of_new).height
    assert shown == pytest.approx(4 * pool.filter(of_new)["propensity"].sum(), rel=0.15)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"fresh": 5}, "no place in a pool of 20"),
        ({"fresh": 5, "explore": 0.1, "pool": 14}, "no place in a pool of 14"),
        ({"fresh": 1, "explore": 0.1, "purpose": "replenish"}, "mixed or discover lists"),
        ({"fresh": 1, "explore": 0.1, "slots": {"mixed": 1, "discover": 1}}, "one purpose"),
        ({"fresh": 1, "explore": 0.1, "among": pl.DataFrame({"item_id": [1]})}, "without among"),
    ],
)
def test_new_items_need_a_place(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        Request(**asked)


def test_a_plain_list_is_drawn_as_any_scores_are(shop: Shop) -> None:
    pool = table(shop, ASKED["plain"]).sort("user_id", "rank")
    salt = draw_salt("may", shop[1].end)
    drawn = explore(-pool["rank"], pool["item_id"], 3, 0.4, salt=salt, users=pool["user_id"])
    for name in ("shown", "propensity", "rank", "pool"):
        assert (pool[name] == drawn[name]).all(), name


def test_rules_and_slots_hold_for_every_draw(shop: Shop) -> None:
    model, data = shop
    asked = ASKED["rules"]
    category = dict(zip(data.items["item_id"], data.items["category_1"], strict=True))
    owned = set(
        zip(
            data.users["user_id"].gather(data.log["user"]),
            data.items["item_id"].gather(data.log["item"]),
            strict=True,
        )
    )
    usual = model.answer(data, **asked)
    assert usual.report.rules["max_per_category"]["bound"] > 0
    moved = 0
    for salt in "abcdef":
        found = model.answer(data, **asked, explore=0.5, salt=salt)
        moved += int((found.best.items != usual.best.items).any(axis=1).sum())
        for (user,), rows in found.lists.group_by("user_id"):
            items = rows["item_id"].to_list()
            in_category = [category[item] for item in items]
            before = usual.lists.filter(pl.col("user_id") == user)["item_id"].to_list()
            most = max(1, max([category[i] for i in before].count(c) for c in in_category))
            assert max(in_category.count(c) for c in in_category) <= most
            n_new = sum((user, item) not in owned for item in items)
            assert n_new >= min(2, sum((user, item) not in owned for item in before))
        purposes = model.answer(data, **ASKED["slots"], explore=0.5, salt=salt)
        plain = model.answer(data, **ASKED["slots"])
        assert (np.sort(purposes.purpose, axis=1) == np.sort(plain.purpose, axis=1)).all()
        assert purposes.report.rules == plain.report.rules
    assert moved > 100


def test_items_are_listed_as_often_as_their_chances_say(shop: Shop) -> None:
    tables = [table(shop, ASKED["rules"], salt=f"salt {n}").sort("user_id", "rank") for n in range(150)]
    chance = tables[0]["propensity"].to_numpy()
    assert all((t["propensity"] == tables[0]["propensity"]).all() for t in tables)
    times = sum(t["shown"].cast(pl.Int64).to_numpy() for t in tables)
    away = (times - 150 * chance) / np.sqrt(150 * np.maximum(chance * (1 - chance), 1e-9))
    assert (times[chance == 1] == 150).all()
    sure = chance < 1
    assert abs(away[sure].mean()) < 0.1
    assert 0.8 < away[sure].std() < 1.2


def test_one_user_alone_gets_the_list_that_all_get(shop: Shop) -> None:
    model, data = shop
    whole = model.recommend(data, **ASKED["slots-rules"], **MORE)
    users = data.users["user_id"][:9].to_list()
    for user in users:
        alone = model.recommend(data, [user], **ASKED["slots-rules"], **MORE)
        assert alone.equals(whole.filter(pl.col("user_id") == user))
    assert (
        model.answer(data, [], **ASKED["slots"], **MORE).exposures("m", datetime(2024, 5, 1)).is_empty()
    )


def test_without_exploration_nothing_is_drawn_and_there_is_no_table(shop: Shop) -> None:
    answer = shop[0].answer(shop[1], k=3)
    assert "propensity" not in answer.lists.columns
    with pytest.raises(SettingError, match=r"not explored.*explore=0\.1"):
        answer.exposures("m", datetime(2024, 5, 1))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"explore": 1.0}, "explored at a rate below 1"),
        ({"explore": -0.1}, "explore must be at least 0"),
        ({"k": 20, "explore": 0.1}, "from a pool of more items, not at 0.1 from 20"),
        ({"pool": 0}, "pool must be"),
    ],
)
def test_settings_that_make_no_sense_are_said(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        Request(**asked)
