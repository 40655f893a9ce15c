"""Pairs and campaigns that an allocation can't be made of are refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retailrec.errors import DataError, SettingError
from retailrec.offers.allocation import allocate
from retailrec.offers.campaign import read_campaign

GOOD = {
    "user_id": [1, 2],
    "item_id": ["a", "b"],
    "value": [1.0, 2.0],
    "cost": [1.0, 1.0],
    "probability": [0.5, 0.5],
}


@pytest.mark.parametrize(
    ("change", "settings", "sentence"),
    [
        (
            {"value": [float("nan"), 1.0]},
            {},
            "column 'value' must be a finite number in every row; 1 rows differ",
        ),
        ({"value": [float("inf"), 1.0]}, {}, "column 'value' must be a finite number"),
        ({"value": [None, 1.0]}, {}, "column 'value' must be a finite number"),
        ({"cost": [-1.0, 1.0]}, {"budget": [{"at_most": 5}]}, "column 'cost' must be 0 or more"),
        ({"cost": [None, 1.0]}, {"budget": [{"at_most": 5}]}, "column 'cost' must be 0 or more"),
        ({"cost": None}, {"budget": [{"at_most": 5}]}, "pairs lack column 'cost'"),
        (
            {"probability": [1.5, 1.0]},
            {"budget": [{"at_most": 5}]},
            "column 'probability' must lie between 0 and 1",
        ),
        ({"item_id": ["a", None]}, {}, "1 rows lack 'item_id'"),
        (
            {"user_id": [1, 1], "item_id": ["a", "a"]},
            {},
            "1 pairs stand twice, such as shopper 1 and item a",
        ),
        (
            {"user_id": [], "item_id": [], "value": [], "cost": [], "probability": []},
            {},
            "there is no pair",
        ),
        ({}, {"budget": [{"at_most": 0}]}, "greater than or equal to 0.000000000001"),
        ({}, {"budget": [{"at_most": 4e-290}]}, "greater than or equal to 0.000000000001"),
        ({}, {"offers": {"at_least": 2, "at_most": 1}}, "no answer can keep to both"),
        ({}, {"limit": [{"by": "product", "at_least": 5, "at_most": 2}]}, "no answer can keep to both"),
        (
            {},
            {"limit": [{"by": "product", "of": "a", "at_least": 5}, {"by": "product", "at_most": 2}]},
            "no answer can keep to both",
        ),
        (
            {},
            {"limit": [{"by": "product", "of": "z", "at_most": 2}]},
            "speaks of product 'z', which neither",
        ),
        ({}, {"exclusion": [{"products": ["a", "z"]}]}, "speaks of product 'z'"),
        ({}, {"limit": [{"by": "supplier", "at_most": 2}]}, "no items were given"),
        (
            {},
            {"limit": [{"by": "product", "at_most": "stock"}]},
            "'stock' names a column of the items; no items",
        ),
        ({}, {"offers": {"at_most": 2**31}}, "less than or equal to 1000000000"),
        ({}, {"offers": {"at_most": 2**32 + 1}}, "less than or equal to 1000000000"),
        ({}, {"offers": {"at_most": True}}, "valid integer"),
        ({}, {"limit": [{"by": "product", "at_most": 2**40}]}, "limit.0.at_most is 1099511627776"),
        ({}, {"variety": [{"by": "category", "at_most": 2**40}]}, "less than or equal to 1000000000"),
        ({}, {"cap": [{"days": 1e12, "at_most": 1}]}, "less than or equal to 36500"),
        ({}, {"budget": [{"at_most": True}]}, "valid number"),
        ({}, {"holdout": "0.1"}, "valid number"),
        ({}, {"cap": [{"days": True, "at_most": 1}]}, "valid number"),
        ({}, {"again": "no"}, "valid boolean"),
        ({}, {"budget": [{"at_most": 1e300}]}, "less than or equal to 1000000000000000"),
        ({"value": [1e308, 1.0]}, {}, "column 'value' must be at most 1,000,000,000,000,000"),
        ({}, {"limit": [{"by": "product"}]}, "needs at_most, at_least or both"),
        ({}, {"limit": [{"by": "shelf", "at_most": 1}]}, "Input should be 'product'"),
        ({}, {"floor": [{"column": "segment"}]}, "asks for the segment 'segment'; no users were given"),
        ({}, {"value": "__import__('os')"}, "Input should be 'value'"),
        ({}, {"value": "probability_margin"}, "pairs lack column 'margin'"),
        ({}, {"stock": 5}, "expected one of name, value"),
        ({}, {"holdout": 0.999999}, "all 2 shoppers are held out"),
    ],
)
def test_bad_input_is_a_sentence(
    change: dict[str, Any], settings: dict[str, Any], sentence: str
) -> None:
    columns = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises((DataError, SettingError), match=re.escape(sentence)):
        allocate(pl.DataFrame(columns), {"name": "x"} | settings)


def test_campaign_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="can't be read"):
        read_campaign(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(SettingError, match="is no valid TOML"):
        read_campaign(tmp_path / "bad.toml")
    (tmp_path / "typo.toml").write_text('name = "x"\n[[limit]]\nby = "product"\natmost = 3\n')
    with pytest.raises(SettingError, match="expected one of by, of, at_most, at_least"):
        read_campaign(tmp_path / "typo.toml")


STOCK = {"name": "x", "limit": [{"by": "product", "at_most": "stock"}]}


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ({"item_id": ["A", "B"], "stock": [1, 1]}, "They would meet in lower case"),
        (
            {"item_id": ["a", "c"], "stock": [1, 1]},
            "1 of the 2 items of the pairs have no row there, such as b",
        ),
        ({"item_id": ["a", "b"], "stock": ["1 pc", "2"]}, "item a has 1 pc"),
        ({"item_id": ["a", "b"], "stock": [1.7, 2]}, "item a has 1.7"),
        ({"item_id": ["a", "b"], "stock": [-1, 2]}, "item a has -1"),
        ({"item_id": ["a", "b"], "stock": [True, False]}, "must hold numbers"),
    ],
)
def test_a_stock_that_would_not_be_kept_is_refused(items: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=re.escape(sentence)):
        allocate(pl.DataFrame(GOOD), STOCK, items=pl.DataFrame(items))


def test_bounds_of_groups_need_a_row_for_every_item() -> None:
    items = pl.DataFrame({"item_id": ["A", "B"], "supplier": ["s", "t"], "category": ["c", "d"]})
    for settings in (
        {"limit": [{"by": "supplier", "at_most": 1}]},
        {"variety": [{"by": "category", "at_most": 1}]},
        {"budget": [{"by": "supplier", "at_most": 1}]},
    ):
        with pytest.raises(DataError, match="none of the 2 ids of the pairs' items"):
            allocate(pl.DataFrame(GOOD), {"name": "x"} | settings, items=items)


def test_what_a_bound_does_not_count_is_told() -> None:
    items = pl.DataFrame(
        {"item_id": ["a", "b", "z"], "supplier": ["s", None, "t"], "stock": [1, None, 3]}
    )
    limits = [
        {"by": "supplier", "at_most": 1},
        {"by": "supplier", "of": "t", "at_most": 1},
        {"by": "product", "of": "z", "at_most": 1},
        {"by": "product", "at_most": "stock"},
    ]
    users = pl.DataFrame({"user_id": [1, 7], "segment": ["old", "new"]})
    campaign = {"name": "x", "limit": limits, "floor": [{"column": "segment"}]}
    found = allocate(pl.DataFrame(GOOD), campaign, items=items, users=users)
    assert found.report.notes == (
        "1 shoppers of the pairs have no row in the users, such as 2: no segment counts them.",
        "1 items of the pairs have no supplier, such as b: no bound by supplier counts them.",
        "supplier t has no pair to offer: its bound counts nothing.",
        "product z has no pair to offer: its bound counts nothing.",
    )
    with pytest.raises(DataError, match="none of the 2 ids of the pairs' shoppers"):
        allocate(
            pl.DataFrame(GOOD), campaign, items=items, users=users.with_columns(pl.col("user_id") + 70)
        )


def test_a_supplier_with_blanks_is_no_other_and_a_blank_is_none() -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "supplier": ["s", "s "]})
    pairs = pl.DataFrame(
        {"user_id": [1, 1, 2, 2], "item_id": ["a", "b"] * 2, "value": [2.0, 1.0, 2.0, 1.0]}
    )
    for limit in ({"by": "supplier", "at_most": 1}, {"by": "supplier", "of": " s", "at_most": 1}):
        assert allocate(pairs, {"name": "x", "limit": [limit]}, items=items).report.n_offers == 1
    variety = {"name": "x", "offers": {"at_most": 2}, "variety": [{"by": "supplier", "at_most": 1}]}
    assert allocate(pairs, variety, items=items).report.n_offers == 2
    none = items.with_columns(supplier=pl.Series(["  ", "NULL"]))
    notes = allocate(pairs, variety, items=none).report.notes
    assert notes == (
        "2 items of the pairs have no supplier, such as a: no bound by supplier counts them.",
    )
    other = items.with_columns(supplier=pl.Series(["s", "S"]))
    assert "'S' and 's', and count apart" in allocate(pairs, variety, items=other).report.notes[0]
    users = pl.DataFrame({"user_id": [1, 2], "segment": ["new ", None]})
    floor = {"name": "x", "floor": [{"column": "segment", "of": "new"}]}
    assert not allocate(pairs, floor, users=users).report.minima_given_way
    numbers = items.with_columns(supplier=pl.Series([7.0, None]))
    limit = {"by": "supplier", "of": 7, "at_most": 1}
    assert allocate(pairs, {"name": "x", "limit": [limit]}, items=numbers).report.n_offers == 2
