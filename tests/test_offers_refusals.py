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
        ({}, {"budget": [{"at_most": 0}]}, "greater than 0"),
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
