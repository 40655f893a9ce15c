"""Business rules: each does what it says, says how often it bound, and which gave way."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import OwnPurchases, Popularity
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.data.splits import HorizonSplits
from retailrec.errors import DataError, SettingError
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.greedy import Begun
from retailrec.recommender.rules import BoundRules, Rules, read_rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

NOW = datetime(2024, 2, 1)
ITEMS = pl.DataFrame(
    {"item_id": list("abcdef"), "category_1": ["dry", "dry", "dry", "wet", "wet", None]}
)
PRICES = np.array([1.0, 2.0, 3.0, 4.0, np.nan, 6.0])
# ann bought a every 10 days, last 5 days ago, and d once, 2 days ago; bob is new
DATA = RetailData.from_frames(
    pl.DataFrame(
        {
            "user_id": ["ann"] * 4,
            "item_id": ["a", "a", "a", "d"],
            "time": ["2024-01-07", "2024-01-17", "2024-01-27", "2024-01-30"],
        }
    ),
    ITEMS,
    pl.DataFrame({"user_id": ["ann", "bob"]}),
    end=NOW,
)
HISTORY = DATA.history(codes=[0, 1])
PAIRS = Pairs(np.array([0, 6, 12]), np.tile(np.arange(6, dtype=np.int32), 2))
SCORE = np.tile(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], np.float32), 2)


def choose(bound: BoundRules, history: History, k: int, probabilities: bool = False) -> Candidates:
    usable, slots = bound.usable(history, PAIRS, SCORE, k, probabilities), np.full(2, k)
    return bound.pick(usable, Begun(np.zeros((2, 0), np.int32), np.zeros(2, np.int64), slots, slots))


def lists(k: int = 3, **rules: object) -> tuple[list[str], BoundRules]:
    bound = BoundRules(Rules(**rules), ITEMS, PRICES, NOW)
    best = choose(bound, HISTORY, k, probabilities=True)
    return ["".join("abcdef"[i] for i in row if i >= 0) for row in best.items], bound


def test_without_rules_the_order_is_that_of_the_scores() -> None:
    found, bound = lists()
    assert found == ["abc", "abc"]
    assert bound.effects == {}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"price_floor": 2.0}, ["bcd", "bcd"]),
        ({"price_ceiling": 2.0}, ["ab", "ab"]),
        ({"available": pl.DataFrame({"item_id": ["b", "f", "z"]})}, ["bf", "bf"]),
        ({"deny": pl.DataFrame({"user_id": ["bob", "eve"], "item_id": ["a", "b"]})}, ["abc", "bcd"]),
        ({"skip_bought_days": 3}, ["abc", "abc"]),
        ({"skip_bought_days": 7}, ["bce", "abc"]),  # a is due in 5 days, d was bought 2 days ago
        ({"max_per_category": 1}, ["adf", "adf"]),
        ({"max_per_category": 2}, ["abd", "abd"]),
        ({"min_new": 3}, ["bce", "abc"]),
        ({"variety": 0.9}, ["adf", "adf"]),
    ],
)
def test_each_rule_by_eye(rules: dict, expected: list[str]) -> None:
    found, _ = lists(**rules)
    assert found == expected


def test_what_is_due_may_be_offered_again() -> None:
    later = DATA.history(codes=[0, 1])
    bound = BoundRules(Rules(skip_bought_days=30), ITEMS, PRICES, NOW)
    assert 0 not in choose(bound, later, 6).items[0]
    end = datetime(2024, 2, 8)  # 12 days after the last purchase, the usual gap is 10
    late = RetailData(DATA.log, DATA.items, DATA.users, end).history(codes=[0, 1])
    assert choose(bound, late, 6).items[0][0] == 0
    strict = BoundRules(Rules(skip_bought_days=30, unless_due=False), ITEMS, PRICES, end)
    assert 0 not in choose(strict, late, 6).items[0]


def test_availability_has_dates() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "from": ["2024-01-01", "2024-02-02", None, "2024-02-01"],
            "until": ["2024-02-01", None, None, "2024-03-01"],
        }
    )
    assert lists(available=frame)[0] == ["cd", "cd"]


def test_a_pair_of_an_unknown_item_or_user_denies_nothing() -> None:
    """zed's code is -1: one row up, it would be ann's last item f."""
    frame = pl.DataFrame({"user_id": ["bob", "bob", "eve"], "item_id": ["zed", "b", "c"]})
    assert lists(k=6, deny=frame)[0] == ["abcdef", "acdef"]
    assert lists(k=6, deny=frame.head(1).vstack(frame.tail(1)))[0] == ["abcdef", "abcdef"]


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (
            {"available": {"item_id": ["a"], "store": ["s1"]}},
            "'store'. It takes item_id and, if wanted",
        ),
        ({"available": {"item_id": ["a"], "start": ["2024-01-01"]}}, "not be read: 'start'"),
        ({"available": {"from": ["2024-01-01"]}}, "available lacks column 'item_id'"),
        ({"available": {"item_id": ["a", None]}}, "available has no item_id in 1 of 2 lines"),
        ({"deny": {"item_id": ["a"]}}, "deny lacks column 'user_id'"),
        ({"deny": {"item_id": ["a"], "user_id": ["bob"], "until": ["2024"]}}, "not be read: 'until'"),
        ({"deny": {"item_id": ["a"], "user_id": [" "]}}, "deny has no user_id in 1 of 1 lines"),
        ({"margin": {"item_id": ["a"]}}, "margin lacks column 'margin'"),
        ({"margin": {"item_id": ["a"], "margin": [1], "store": [2]}}, "not be read: 'store'"),
        ({"margin": {"item_id": ["a"], "margin": [None]}}, "holds no number in 1 of 1 lines"),
        ({"margin": {"item_id": ["a", "a"], "margin": ["1", "2"]}}, "item 'a' two margins, 1 and 2"),
    ],
)
def test_a_table_of_rules_says_what_it_takes(rules: dict, sentence: str) -> None:
    ((name, columns),) = rules.items()
    with pytest.raises(DataError, match=re.escape(sentence)):
        lists(**{name: pl.DataFrame(columns)})


def test_margins_turn_the_objective_into_money() -> None:
    margin = pl.DataFrame({"item_id": ["f", "c"], "margin": [2.0, 1.0]})
    assert [row[:2] for row in lists(margin=margin)[0]] == ["fc", "fc"]
    bound = BoundRules(Rules(margin=margin), ITEMS, PRICES, NOW)
    with pytest.raises(SettingError, match="margin needs probabilities"):
        choose(bound, HISTORY, 3)


def test_effects_count_what_was_removed_and_whose_list_changed() -> None:
    _, bound = lists(price_floor=2.0, max_per_category=1)
    assert bound.effects["price_floor"] == {"removed": 4, "bound": 2, "gave_way": 0}  # a and e, twice
    assert bound.effects["max_per_category"]["bound"] == 2


def test_infeasible_rules_give_the_best_feasible_list_and_say_so() -> None:
    found, bound = lists(k=5, max_per_category=1)
    assert found == ["adfbc", "adfbc"]
    assert bound.effects["max_per_category"]["gave_way"] == 2
    assert bound.effects["max_per_category"]["removed"] == 0
    found, bound = lists(k=6, min_new=6)
    assert found[0] == "bcefad"
    assert bound.effects["min_new"]["gave_way"] == 1  # bob is new, so is everything to him


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(SettingError, match="variety"):
        Rules(variety=2)
    with pytest.raises(SettingError, match="lacks 'aisle'"):
        lists(max_per_category=1, category="aisle")
    with pytest.raises(DataError, match="lacks column 'item_id'"):
        lists(available=pl.DataFrame({"sku": ["a"]}))


def test_rules_come_from_a_file(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["a"]}).write_csv(tmp_path / "open.csv")
    (tmp_path / "r.toml").write_text('available = "open.csv"\nmin_new = 1\n')
    rules = read_rules(tmp_path / "r.toml")
    assert rules.min_new == 1
    assert rules.available["item_id"].to_list() == ["a"]
    for text, words in (
        ("speed = 1", "no rule 'speed'"),
        ("min_new = 'x'", "min_new must be a whole number, at least 0, not 'x'"),
    ):
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(SettingError, match=words):
            read_rules(tmp_path / "r.toml")


def test_the_recommender_keeps_to_rules_and_reports() -> None:
    data = small_data(users=60)
    model = TwoStageRecommender(
        sources=[OwnPurchases(), Popularity()],
        preranker=None,
        ranker=LightGBMRanker(iterations=10, threads=1),
        label_splits=HorizonSplits(28, n=1),
    ).fit(data)
    history = data.history()
    rules = Rules(price_ceiling=2.0, max_per_category=2, min_new=1)
    plain, answer = model.recommend(history, k=5), model.answer(history, k=5, rules=rules)
    ruled, effects = answer.lists, answer.report.rules
    assert effects["price_ceiling"]["bound"] > 0
    assert ruled.height == plain.height
    price = dict(zip(data.items["item_id"], model.prices_, strict=True))
    assert max(price[i] for i in ruled["item_id"]) <= 2.0 < max(price[i] for i in plain["item_id"])
    named = ruled.join(data.items, on="item_id")
    if not effects["max_per_category"]["gave_way"]:
        assert named.group_by("user_id", "category_1").len()["len"].max() <= 2
    assert isinstance(model.recommend_codes(history, 5), Candidates)
    assert model.recommend(history, k=5).equals(plain)
