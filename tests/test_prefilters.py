"""Every registered prefilter, on a small table by hand, with items exactly on its bounds."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import polars.selectors as cs
import pytest

from retailrec.data import RetailData
from retailrec.data.prefilters import (
    PREFILTERS,
    PRESETS,
    AllowItems,
    DenyItems,
    MinBuyers,
    MinItemsInCategory,
    MostSold,
    Prefilter,
    PriceBetween,
    SoldWithin,
    StillSold,
    apply_prefilters,
    preset,
)
from retailrec.errors import DataError, SettingError

END = datetime(2024, 2, 1)
# item, category -> (shopper, days before the end, units, money of the line)
SALES = {
    ("a", "dry"): [("ann", 1, 1, 2.0), ("bob", 1, 1, 2.0)],  # two buyers, a unit costs exactly 2
    ("b", "dry"): [("ann", 7, 3, 3.0), ("ann", 9, 1, 9.0)],  # 12 for four units: 3; last sold on day 7
    ("c", "dry"): [("ann", 8, 1, 50.0), ("bob", 8, 1, 50.0), ("cat", 8, 1, 50.0)],  # exactly 50
    ("d", "wet"): [("cat", 30, 4, 40.0)],  # 10 a unit, sold long ago; units as of b
    ("e", "wet"): [("bob", 2, 2, 200.0)],  # 100 a unit
    ("f", "wet"): [],  # in the catalogue, never sold
    ("g", None): [("ann", 3, 9, 27.0)],  # no category
}
EVERYTHING = "abcdefg"


@pytest.fixture(scope="module")
def shelf() -> RetailData:
    rows = [
        (user, item, END - timedelta(days=days), units, money)
        for (item, _), lines in SALES.items()
        for user, days, units, money in lines
    ]
    schema = ["user_id", "item_id", "time", "quantity", "value"]
    items = pl.DataFrame([*SALES], schema=["item_id", "category_1"], orient="row")
    return RetailData.from_frames(pl.DataFrame(rows, schema=schema, orient="row"), items, end=END)


def left(data: RetailData) -> str:
    """Letters of the items that may be recommended to those who never bought them."""
    return "".join(data.items.filter(pl.Series(data.discoverable))["item_id"])


CASES: dict[type[Prefilter], list[tuple[Prefilter, str]]] = {
    MinItemsInCategory: [
        (MinItemsInCategory(2), "abcdef"),  # wet sold two items, f is not one of them, and may stay
        (MinItemsInCategory(3), "abc"),
        (MinItemsInCategory(4), ""),
    ],
    PriceBetween: [
        (PriceBetween(2, 50), "bdfg"),  # neither 2 nor 50 is between; an unknown price stays
        (PriceBetween(1.99, 50.01), "abcdfg"),
        (PriceBetween(3.01, 1000), "cdef"),  # b costs 3: by units, and not the mean of 1 and 9
        (PriceBetween(0, 9.99), "abfg"),
    ],
    MostSold: [
        (MostSold(1), "g"),
        (MostSold(2), "bg"),  # b and d sold four units each: the lower item
        (MostSold(3), "bdg"),
        (MostSold(7), "abcdeg"),  # what was never sold is not among them
    ],
    SoldWithin: [
        (SoldWithin(7), "abeg"),  # seven days ago to the minute is within
        (SoldWithin(6.99), "aeg"),
        (SoldWithin(8), "abceg"),
    ],
    MinBuyers: [
        (MinBuyers(1), "abcdeg"),
        (MinBuyers(2), "ac"),  # b was bought twice, by one shopper
        (MinBuyers(3), "c"),
    ],
    StillSold: [
        # on two days, a silence t after a span s has the chance s / (s + t). b: sold on two days, two
        # days apart, and silent for six since: 2 / 8. All others were sold on one day and stay
        (StillSold(days=6, chance=0.25), EVERYTHING),
        (StillSold(days=6, chance=0.26), "acdefg"),
        (StillSold(days=7, chance=0.26), EVERYTHING),  # six days are too few to tell
    ],
    AllowItems: [(AllowItems(["b", "g", "nothing we sell"]), "bg"), (AllowItems([]), "")],
    DenyItems: [(DenyItems(["b", "g", "nothing we sell"]), "acdef"), (DenyItems([]), EVERYTHING)],
}


def test_every_prefilter_is_judged_here() -> None:
    assert set(CASES) == set(PREFILTERS.values())
    for kind, cases in CASES.items():
        assert all(isinstance(prefilter, kind) for prefilter, _ in cases)
        assert len({kept for _, kept in cases}) > 1, f"{kind.__name__}: all cases keep the same items"


@pytest.mark.parametrize(
    ("prefilter", "kept"), [case for cases in CASES.values() for case in cases], ids=repr
)
def test_a_prefilter_keeps_what_it_says(prefilter: Prefilter, kept: str, shelf: RetailData) -> None:
    filtered = prefilter(shelf)
    assert left(filtered) == kept
    assert filtered.log.equals(shelf.log)  # histories stay whole
    flags = cs.by_name("recommendable", "discoverable", require_all=False)
    assert filtered.items.drop(flags).equals(shelf.items.drop(flags))
    hides_from_all = isinstance(prefilter, AllowItems | DenyItems | StillSold)  # these can't be bought
    assert filtered.recommendable.sum() == (len(kept) if hides_from_all else len(EVERYTHING))


def test_ids_that_are_numbers_may_be_given_as_text(shelf: RetailData) -> None:
    table = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "time": ["2024-01-01"] * 2})
    data = RetailData.from_frames(table)
    assert AllowItems(["7"])(data).items["recommendable"].to_list() == [True, False]
    assert DenyItems(["7"])(data).items["recommendable"].to_list() == [False, True]


def test_the_level_may_be_another_and_must_be_there(shelf: RetailData) -> None:
    renamed = shelf.with_items(shelf.items.rename({"category_1": "category_2"}))
    assert left(MinItemsInCategory(3, level="category_2")(renamed)) == "abc"
    with pytest.raises(DataError, match="items lack column 'category_1'"):
        MinItemsInCategory(3)(renamed)


def test_without_any_prices_all_stay(shelf: RetailData) -> None:
    table = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "time": ["2024-01-01"] * 2})
    assert PriceBetween(2, 50)(RetailData.from_frames(table)).discoverable.all()


def test_filters_take_turns_and_say_what_each_removed(shelf: RetailData) -> None:
    """An item that one has hidden stays hidden, whatever the next one thinks of it."""
    data, told = apply_prefilters(
        [MinBuyers(2), PriceBetween(1, 49), AllowItems(list(EVERYTHING))], shelf
    )
    assert left(data) == "a"
    assert data.recommendable.all()  # to those who bought it; AllowItems named all
    assert [(t["removed"], t["left"]) for t in told] == [(5, 2), (1, 1), (0, 1)]
    assert told[0]["prefilter"] == "MinBuyers(n=2)"
    with pytest.raises(DataError, match="leaves no item of 7"):
        apply_prefilters([MinBuyers(4)], shelf)


def test_a_prefilter_knows_what_was_known(shelf: RetailData) -> None:
    """Three days before the end, g had just been sold and e had not."""
    then = shelf.asof(END - timedelta(days=2, hours=1))
    assert left(MinBuyers(1)(then)) == "bcdg"
    assert left(SoldWithin(5)(then)) == "bg"


def test_presets_are_what_the_docs_say() -> None:
    assert preset("none") == ()
    assert preset("default") == ()
    assert preset("walk-through") == (MinItemsInCategory(150), PriceBetween(2, 50), MostSold(5000))
    assert set(PRESETS) == {"none", "default", "walk-through"}
    with pytest.raises(SettingError, match="no prefilter preset 'strict'"):
        preset("strict")
