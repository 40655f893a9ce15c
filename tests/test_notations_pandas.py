"""Columns and times of every kind that pandas frames hold, and columns that stand twice."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from retailrec.data import RetailData
from retailrec.errors import DataError


def base(**change: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {"user_id": [1, 2, 3], "item_id": [10, 20, 30], "time": ["2024-01-01"] * 3} | change
    )


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("item_id", ["A1", 20, 30], ["20", "30", "A1"]),
        ("item_id", [10, "20B", 30], ["10", "20B", "30"]),
        ("item_id", [10, 20.0, "x"], ["10", "20", "x"]),
        ("item_id", pd.Series([10, 20, 30], dtype="uint16"), [10, 20, 30]),
        ("item_id", pd.Categorical(["a", "b", "c"]), ["a", "b", "c"]),
        ("item_id", pd.Categorical([1, "b", "c"]), ["1", "b", "c"]),
        ("item_id", [b"a", b"b", b"c"], ["a", "b", "c"]),
        ("item_id", [10**20, 10**20 + 1, 3], ["100000000000000000000", "100000000000000000001", "3"]),
        ("item_id", np.array([2**63 + 5, 7, 9], np.uint64), ["7", "9", "9223372036854775813"]),
        ("item_id", pd.array([1, 2, 3], dtype="Int64"), [1, 2, 3]),
    ],
)
def test_pandas_columns_of_all_kinds_are_ids(column: str, cells: Any, expected: list[Any]) -> None:
    assert RetailData.from_frames(base(**{column: cells})).items[column].to_list() == expected


def test_missing_objects_are_missing() -> None:
    report = RetailData.from_frames(base(user_id=[1, None, "x"], item_id=[np.nan, pd.NA, "y"])).report
    assert report.rejected == {"no item": 1, "no shopper": 1}


@pytest.mark.parametrize(
    "times",
    [
        pd.period_range("2024-01-01", periods=3, freq="D"),
        pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]).tz_localize("Europe/Berlin"),
        [date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)],
        [datetime(2024, 1, 1), pd.Timestamp("2024-01-02"), date(2024, 1, 3)],
        ["2024-01-01", datetime(2024, 1, 2), date(2024, 1, 3)],
    ],
)
def test_pandas_times_of_all_kinds(times: Any) -> None:
    data = RetailData.from_frames(base(time=times))
    assert data.log["time"].dt.date().to_list() == [date(2024, 1, d) for d in (1, 2, 3)]


def test_two_columns_of_one_name_are_refused() -> None:
    doubled = pd.concat([base(value=1.0), base(value=2.0)[["value"]]], axis=1)
    with pytest.raises(DataError, match="two columns called 'value'"):
        RetailData.from_frames(doubled)
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["user_id", "time", "time"])
    with pytest.raises(DataError, match="two columns called 'time'"):
        RetailData.from_frames(table)
    with pytest.raises(DataError, match="must be a data frame"):
        RetailData.from_frames([1, 2])
