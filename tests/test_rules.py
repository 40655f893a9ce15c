"""Business rules: each does what it says, says how often it bound, and which gave way."""

from __future__ import annotations

import re
from dataclasses import replace
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
from retailrec.recommender.answers import AnswerReport
from retailrec.recommender.catalogue import with_own_stores
from retailrec.recommender.dismissals import Dismissed, check_dismissals, holding
from retailrec.recommender.forbid import Forbid
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Begun, BoundRules, Rules, read_rules
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
            {"available": {"item_id": ["a"], "shop": ["s1"]}},
            "'shop'. It takes item_id and, if wanted, store, from, until",
        ),
        ({"available": {"item_id": ["a"], "start": ["2024-01-01"]}}, "not be read: 'start'"),
        ({"available": {"from": ["2024-01-01"]}}, "available lacks column 'item_id'"),
        ({"available": {"item_id": ["a", None]}}, "available has no item_id in 1 of 2 lines"),
        ({"deny": {"item_id": ["a"]}}, "deny lacks column 'user_id'"),
        ({"deny": {"item_id": ["a"], "user_id": ["bob"], "until": ["2024"]}}, "not be read: 'until'"),
        ({"deny": {"item_id": ["a"], "user_id": [" "]}}, "deny has no user_id in 1 of 1 lines"),
        ({"margin": {"item_id": ["a"]}}, "margin lacks column 'margin'"),
        ({"margin": {"item_id": ["a"], "margin": [1], "store": [2]}}, "not be read: 'store'"),
        ({"margin": {"item_id": ["a"], "margin": [None]}}, "holds no number (up to 10^12) in 1 of 1"),
        ({"margin": {"item_id": ["a"], "margin": [1e300]}}, "holds no number (up to 10^12) in 1 of 1"),
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


def bound_to(users: pl.DataFrame, rules: Rules, **more: object) -> tuple[list[str], BoundRules]:
    """The lists of ann and bob with these attributes."""
    history = replace(HISTORY, users=users)
    bound = BoundRules(rules, ITEMS, PRICES, NOW, **more)
    best = choose(bound, history, 6)
    return ["".join("abcdef"[i] for i in row if i >= 0) for row in best.items], bound


def people(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"user_id": ["ann", "bob"], **columns})


OFFERED = pl.DataFrame(
    {
        "item_id": ["a", "b", "b", "c", "d", "e"],
        "store": ["north", "north", "south", "south", None, "north"],
        "until": [None, None, None, None, None, "2024-01-31"],
    }
)


@pytest.mark.parametrize("column", ["from", "until"])
def test_an_empty_bound_of_time_is_none_and_one_that_is_no_time_is_refused(column: str) -> None:
    for nothing in ([None, None], ["", " "], ["NULL", None]):
        table = pl.DataFrame(
            {"item_id": ["a", "b"], column: nothing}, schema_overrides={column: pl.String}
        )
        assert bound_to(people(), Rules(available=table))[0] == ["ab", "ab"]
        said = pl.DataFrame({"user_id": ["ann", "bob"], "item_id": ["a", "b"], "time": table[column]})
        assert check_dismissals(said)["time"].null_count() == 2
    for odd in ("2024-13-45", "soon"):
        table = pl.DataFrame({"item_id": ["a", "b"], column: ["2024-01-31", odd]})
        with pytest.raises(DataError, match=f"'{column}' of available must hold times or be empty"):
            bound_to(people(), Rules(available=table))


def test_each_user_gets_what_the_own_store_has() -> None:
    rules = Rules(available=OFFERED)
    assert bound_to(people(store=["north", "south"]), rules)[0] == ["abd", "bcd"]
    found, bound = bound_to(people(store=["north", None]), rules)
    assert found == ["abd", "bd"]  # who has no known store gets what every store has
    assert bound.effects["available"]["bound"] == 1
    assert bound.effects["available (store not known)"]["bound"] == 1
    assert bound_to(people(store=["north", "west"]), rules)[0] == ["abd", "bd"]
    assert bound_to(people(), rules, in_store="south")[0] == ["bcd", "bcd"]
    with pytest.raises(SettingError, match=r"users have no attribute 'store'.*--users"):
        bound_to(people(), rules)


def test_numbers_of_stores_are_stores_however_they_are_typed() -> None:
    rules = Rules(available=pl.DataFrame({"item_id": ["a", "b"], "store": [1, 2]}))
    assert bound_to(people(store=[1.0, 2.0]), rules)[0] == ["a", "b"]
    assert bound_to(people(store=["1", "2 "]), rules)[0] == ["a", "b"]


def test_the_own_store_is_the_attribute_or_else_that_of_the_newest_receipt() -> None:
    lines = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 3],
            "item_id": [7, 7, 8, 7, 7],
            "time": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-01", "2024-01-02"],
            "store": ["a", "b", None, "a", None],
        }
    )
    data = RetailData.from_frames(lines)
    assert with_own_stores(data)["_store"].to_list() == ["b", "a", None]
    told = data.with_users(data.users.with_columns(store=pl.Series([None, "c", None])))
    assert with_own_stores(told)["_store"].to_list() == ["b", "c", None]
    with pytest.raises(SettingError, match="neither receipts nor users have a column 'store'"):
        with_own_stores(RetailData.from_frames(lines.drop("store")))


YOUNG = {"category": "wet", "when": "age < 18"}


@pytest.mark.parametrize(
    ("forbid", "ages", "expected"),
    [
        (YOUNG, [17, 18], ["abcf", "abcdef"]),
        (YOUNG, [None, 30], ["abcf", "abcdef"]),  # not known: the safe side
        (YOUNG | {"unknown": "allow"}, [None, 3], ["abcdef", "abcf"]),
        ({"category": ["WET"], "items": ["f", "zz"], "when": "age <= 17"}, ["17", "x"], ["abc", "abc"]),
        ({"items": ["a"]}, [1, 99], ["bcdef", "bcdef"]),  # for everybody
        ({"items": ["a"], "when": "age in ['17', '19']"}, [19.0, 20], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age != 17"}, [17, 20], ["abcdef", "bcdef"]),
        ({"items": ["a"], "when": "age == 0"}, [0, 20], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age >= 10 and age < 20"}, [10, 20], ["bcdef", "abcdef"]),
        (YOUNG, ["16-24", "25-34"], ["abcf", "abcdef"]),  # a range is banned for a part of it
        (YOUNG, ["under 19", "18+"], ["abcf", "abcdef"]),
        (YOUNG, ["Under 15", "over 65"], ["abcf", "abcdef"]),
        (YOUNG, ["12 to 17 years", "18–20"], ["abcf", "abcdef"]),
        (YOUNG, ["50-74K", "34-25"], ["abcf", "abcf"]),  # no range of years
        (YOUNG | {"unknown": "allow"}, ["16-24", "A"], ["abcf", "abcdef"]),
        ({"items": ["a"], "when": "age >= 18"}, ["<18", "<=18"], ["abcdef", "bcdef"]),
        ({"items": ["a"], "when": "age > 65"}, ["65+", "55-65"], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age in [16, 17]"}, ["16-24", "18-24"], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age == 17"}, ["under 18", "17-17"], ["bcdef", "bcdef"]),
        ({"items": ["a"], "when": "age not in [17, 18]"}, ["16-24", "18"], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age == no"}, [False, True], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age != yes"}, ["FALSE", "true"], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age in [false]"}, ["no", "Yes"], ["bcdef", "abcdef"]),
        ({"items": ["a"], "when": "age in ['16-24']"}, ["16-24", "17"], ["bcdef", "abcdef"]),
        (
            {"items": ["a"], "when": "age == 'Köln  Süd'"},
            ["ko\u0308ln süd", "Köln"],
            ["bcdef", "abcdef"],
        ),
    ],
)
def test_what_some_users_must_not_be_offered(forbid: dict, ages: list, expected: list[str]) -> None:
    found, _ = bound_to(people(age=ages), Rules(forbid=[forbid]))
    assert found == expected


def test_one_comparison_that_fails_settles_what_another_leaves_open() -> None:
    rules = Rules(forbid=[{"items": ["a"], "when": "age < 18 and country == 'fi'"}])
    users = people(age=[None, None], country=["se", "fi"])
    found, bound = bound_to(users, rules)
    assert found == ["abcdef", "bcdef"]
    assert bound.effects["forbid"] == {"removed": 0, "bound": 0, "gave_way": 0}
    assert bound.effects["forbid (attribute not known)"]["bound"] == 1


def test_what_is_forbidden_is_none_of_the_user_s_own_pairs_either() -> None:
    """d is wet, and ann bought it; no rule gives way for a short list."""
    found, bound = bound_to(people(age=[12, 12]), Rules(forbid=[YOUNG], min_new=6))
    assert found == ["bcfa", "abcf"]
    assert bound.forbidden(people(age=[12, 40])).tolist() == [
        [False, False, False, True, True, False],
        [False] * 6,
    ]


@pytest.mark.parametrize(
    ("forbid", "words"),
    [
        ({"category": "wet", "when": "agee < 18"}, "no attribute 'agee'.*have age"),
        ({"category": "wett", "when": "age < 18"}, "no category 'wett'.*nothing would be forbidden"),
        ({"items": ["zz"]}, "none of the 1 ids of the items forbidden"),
        ({"when": "age < 18"}, "name what is forbidden"),
        ({"items": ["a", None]}, "items hold an empty id"),
        ({"category": "wet", "when": "__import__('os').system('x')"}, "expected comparisons"),
        ({"category": "wet", "when": "age < young"}, "compares numbers"),
        ({"category": "wet", "unless": "age > 18"}, "forbid has no 'unless'"),
        ({"category": "wet", "unknown": "maybe"}, "unknown must be one of 'forbid', 'allow'"),
        ({"category": "wet", "when": "age < 18 or age > 80"}, "expected comparisons"),
        ({"category": "wet", "when": "age in 3"}, "in takes a list in brackets"),
        ({"category": "wet", "when": "age in []"}, "the list in brackets is empty"),
        ("wet", "must be tables"),
    ],
)
def test_what_makes_no_sense_forbids_nothing_in_silence(forbid: object, words: str) -> None:
    with pytest.raises((SettingError, DataError), match=words):
        bound_to(people(age=[17, 18]), Rules(forbid=[forbid]))


def test_what_of_a_ban_the_catalogue_lacks_is_noted() -> None:
    _, bound = bound_to(people(age=[1, 2]), Rules(forbid=[{"category": ["wet", "beer"]}]))
    assert bound.notes == ("rules: forbid: the catalogue has no category 'beer'.",)
    lists, bound = bound_to(people(age=[1, 2]), Rules(forbid=[{"items": ["a", "b", "only-c"]}]))
    assert lists == ["cdef"] * 2
    assert "only 2 of the 3 ids of the items forbidden are among" in bound.notes[0]


def test_a_ban_that_meets_none_of_many_users_is_said() -> None:
    """As where a value is not written as the table of users has it."""
    idle = {"forbid": {"removed": 0, "bound": 0, "gave_way": 0}}

    def notes(n: int, rules: dict) -> tuple[str, ...]:
        return AnswerReport(n, rules=rules).completed(Request(), None, None).notes

    assert "forbid kept no candidate from any of 20 shoppers" in notes(20, idle)[0]
    assert not notes(19, idle)
    assert not notes(20, idle | {"forbid (attribute not known)": {"removed": 1}})
    assert not notes(20, {"deny": idle["forbid"]})
    one_of_two = {"forbid 1": {"removed": 3}, "forbid 2": {"removed": 0}}
    assert "rules: forbid 2 kept no candidate from any of 20 shoppers" in notes(20, one_of_two)[0]


def test_what_each_of_several_bans_removed_is_told() -> None:
    bans = [{"items": ["a", "b"]}, {"items": ["b", "c"], "when": "age < 18"}, {"items": ["f"]}]
    lists, bound = bound_to(people(age=[12, None]), Rules(forbid=bans))
    assert lists == ["de"] * 2
    removed = {rule: effect["removed"] for rule, effect in bound.effects.items()}
    assert removed == {"forbid 1": 4, "forbid 2": 2, "forbid 2 (attribute not known)": 2, "forbid 3": 2}


def test_a_ban_meets_a_category_in_another_unicode_form() -> None:
    forms = ["Café", "cafe\u0301 ", "CAFÉ"]
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "category_1": [*forms, "tea"]})
    found, note = Forbid(category=["café"]).mask(items)
    assert found.tolist() == [True, True, True, False]
    assert not note


def test_bans_come_from_a_file(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["a", "d"]}).write_csv(tmp_path / "bottles.csv")
    (tmp_path / "r.toml").write_text(
        '[[forbid]]\ncategory = ["wet"]\nwhen = "age < 18"\n'
        '[[forbid]]\nitems = "bottles.csv"\nunknown = "allow"\n'
    )
    first, second = read_rules(tmp_path / "r.toml").forbid
    assert (first.category, first.when, first.unknown) == (["wet"], "age < 18", "forbid")
    assert second.items == ("a", "d")
    (tmp_path / "r.toml").write_text('forbid = "wet"\n')
    with pytest.raises(SettingError, match=r"write forbid as tables"):
        read_rules(tmp_path / "r.toml")


def test_an_item_that_was_dismissed_is_away_for_some_weeks_with_its_category_if_said() -> None:
    said = pl.DataFrame(
        {
            "user_id": ["ann", "ann", "bob", "bob", "bob"],
            "item_id": ["a", "e", "b", "zz", "f"],
            "time": ["2024-01-05", "2024-01-20", "2024-01-25", None, None],
            "category": [None, "yes", "0", "True", "1"],
            "weeks": [None, None, 1, 2, None],
        }
    )
    frame = check_dismissals(said)
    now, late = datetime(2024, 2, 1), datetime(2024, 2, 20)
    # ann: a is over after 4 weeks on 2 February, e takes d along; bob: b until 1 February, f has no
    # category
    expected = {now: ["bcf", "abcde"], late: ["abcdef", "abcde"]}
    for at, lists in expected.items():
        dismissed = Dismissed(holding(frame, at, None), ITEMS)
        assert bound_to(people(), Rules(), dismissed=dismissed)[0] == lists
    ever = check_dismissals(frame.with_columns(weeks=pl.lit(1e12)))  # that is for good
    assert holding(ever, late, None).height == frame.height
    before = holding(frame, now, datetime(2024, 1, 20))  # answers as of a time know what was said then
    assert before["item_id"].to_list() == ["a", "zz", "f"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"user_id": ["ann"]}, "dismissals lacks column 'item_id'"),
        ({"user_id": ["ann"], "item_id": [" "]}, "no item_id in 1 of 1 lines"),
        ({"user_id": ["ann"], "item_id": ["a"], "until": ["2024"]}, "would not be read: 'until'"),
        ({"user_id": ["ann"], "item_id": ["a"], "category": ["dry"]}, "true or false, not 'dry'"),
        ({"user_id": ["ann"], "item_id": ["a"], "weeks": [0]}, "weeks must be numbers above 0"),
        (
            {"user_id": ["ann", "bob"], "item_id": ["a", "a"], "time": ["2024-01-31", "Monday"]},
            "'time' of dismissals must hold times or be empty; 1 cells are neither, such as 'Monday'",
        ),
    ],
)
def test_dismissals_are_checked(columns: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_dismissals(pl.DataFrame(columns))


def test_an_item_of_the_last_list_stays_unless_another_is_better_by_the_margin() -> None:
    """The six scores .9 to .4 have a standard deviation of .1708, so .5 of it is .085."""
    last = pl.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": ["d", "f", "zz"]})

    def best(k: int, steady: float, **rules: object) -> tuple[list[str], BoundRules]:
        bound = BoundRules(Rules(**rules), ITEMS, PRICES, NOW, previous=last, steady=steady)
        found = choose(bound, HISTORY, k)
        assert found.scores[1].tolist() == SCORE[6 : 6 + k].tolist()
        return ["".join("abcdef"[i] for i in row if i >= 0) for row in found.items], bound

    assert best(3, 0.5)[0] == ["abc", "abc"]  # .6 + .085 is less than .7
    found, bound = best(3, 0.6)  # .6 + .102 is more
    assert found == ["abd", "abc"]
    assert bound.effects["steady"] == {"removed": 0, "bound": 1, "gave_way": 0}
    assert best(3, 3.0)[0] == ["dfa", "abc"]
    rules = Rules(price_ceiling=5.0)  # f costs 6, and no margin brings back what is forbidden
    forbidden = BoundRules(rules, ITEMS, PRICES, NOW, previous=last, steady=9.0)
    items = choose(forbidden, HISTORY, 4)
    assert [int(i) for i in items.items[0]] == [3, 0, 1, 2]
    np.testing.assert_allclose(items.scores[0], [0.6, 0.9, 0.8, 0.7])  # the ranker's own


def test_a_margin_needs_lists_and_lists_a_margin() -> None:
    lists = pl.DataFrame({"user_id": ["ann"], "item_id": ["a"], "rank": [1]})
    assert Request(previous=lists, steady=1.0).previous.columns == ["user_id", "item_id"]
    with pytest.raises(SettingError, match="say by how much"):
        Request(previous=lists)
    with pytest.raises(DataError, match="must have user_id and item_id"):
        Request(previous=lists.drop("user_id"), steady=1)
    with pytest.raises(DataError, match="no id in 1 of 1"):
        Request(previous=lists.with_columns(item_id=pl.lit(None)), steady=1)


def test_ids_in_another_notation_are_said_even_where_most_meet() -> None:
    listed = pl.DataFrame({"item_id": [*"abcd", "E"]})
    for rules in ({"available": listed}, {"deny": listed.with_columns(user_id=pl.lit("bob"))}):
        _, bound = lists(**rules)
        assert "1 of the 5 ids of the rule" in bound.notes[0]
        assert "by notation only: 'E' there, 'e' here" in bound.notes[0]
    assert lists(available=pl.DataFrame({"item_id": [*"abcd", "new"]}))[1].notes == ()
