"""A log in parts is the same log: whatever is split, in whatever order, with whatever in it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import catalogue, receipts, shoppers
from retailrec.data import RetailData
from retailrec.data.files import read_parts, read_table
from retailrec.errors import DataError


def parts(frame: pl.DataFrame, cuts: list[int]) -> list[pl.DataFrame]:
    """The frame, cut before these rows."""
    edges = [0, *sorted(cuts), frame.height]
    return [frame.slice(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]


def same(one: RetailData, other: RetailData) -> None:
    assert one.log.equals(other.log)
    assert one.items.equals(other.items)
    assert one.users.equals(other.users)
    assert one.report.as_dict() == other.report.as_dict()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 900), max_size=6))
def test_parts_are_the_whole(cuts: list[int]) -> None:
    frame = receipts()
    dirt = pl.concat([frame, frame.head(30), frame.tail(7).with_columns(quantity=-pl.col("quantity"))])
    whole = RetailData.from_frames(dirt, catalogue(), shoppers())
    cut = [min(c, dirt.height) for c in cuts]
    same(RetailData.from_frames(iter(parts(dirt, cut)), catalogue(), shoppers()), whole)
    assert whole.report.pieces == 30
    assert whole.report.rejected == {"voided on its receipt": 14}  # both lines of each


def test_a_log_lies_in_one_piece_though_its_parts_were_in_order() -> None:
    frame = pl.DataFrame({"user_id": [1, 1, 2, 3], "item_id": [1, 2, 1, 1], "time": [1, 2, 3, 4]})
    for cuts in ([], [2], [1, 2, 3]):
        assert RetailData.from_frames(iter(parts(frame, cuts))).log.n_chunks() == 1


def test_rejects_are_those_of_the_whole_with_their_ids() -> None:
    frame = receipts()
    dirt = pl.concat([frame, frame.head(3).with_columns(quantity=-pl.col("quantity"))])
    kept = RetailData.from_frames(iter(parts(dirt, [100, 300]))).report.rejects
    assert kept["line"].to_list() == [0, 1, 2, *(frame.height + i for i in range(3))]
    three = frame.head(3).select("user_id", "item_id").rows()
    assert kept.select("user_id", "item_id").rows() == three * 2
    assert set(kept["reason"]) == {"voided on its receipt"}


def test_the_format_of_times_is_learnt_from_all_parts() -> None:
    """The first part alone could be read with day and month either way; the second settles it."""
    frame = pl.DataFrame(
        {
            "user_id": [1, 1, 2],
            "item_id": ["a", "b", "a"],
            "time": ["03/04/2024", "05/04/2024", "25/04/2024"],
        }
    )
    data = RetailData.from_frames(iter(parts(frame, [2])))
    assert data.log["time"].to_list() == [
        datetime(2024, 4, 3),
        datetime(2024, 4, 5),
        datetime(2024, 4, 25),
    ]
    with pytest.raises(DataError, match="day and month can't be told apart"):
        RetailData.from_frames(frame.head(2))


def test_times_that_cannot_be_read_are_rejected_at_the_end_too() -> None:
    times = ["2024-04-03", "soon", "1970-01-01", "2024-04-05"]
    frame = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": ["a", "b", "a", "c"], "time": times})
    report = RetailData.from_frames(iter(parts(frame, [1, 3]))).report
    assert report.rejected == {"no time, or one that can't be read": 1, "impossible date": 1}
    assert report.rejects.select("user_id", "item_id", "line").rows() == [(1, "b", 1), (2, "a", 2)]
    assert report.read == report.kept + 2


def test_ids_that_are_text_in_one_part_are_text_in_all() -> None:
    one = pl.DataFrame({"user_id": [7, 8], "item_id": [1, 2], "time": ["2024-01-01"] * 2})
    other = one.with_columns(item_id=pl.Series(["2", "x"]))
    data = RetailData.from_frames(iter([one, other]))
    assert data.items["item_id"].to_list() == ["1", "2", "x"]
    assert data.users["user_id"].to_list() == [7, 8]
    assert data.log["item"].to_list() == [0, 1, 1, 2]


@pytest.mark.parametrize("kind", [pl.Float64, pl.Decimal(12, 2)])
def test_a_whole_id_is_one_also_where_its_part_has_fractions(kind: Any) -> None:
    """7.0 of a part with 7.5 in it was another shopper than 7 of the part before."""
    one = pl.DataFrame({"user_id": [7, 8], "item_id": [1, 2], "time": ["2024-01-01"] * 2})
    one = one.with_columns(pl.col("user_id").cast(kind))
    other = one.with_columns(user_id=pl.Series(["7", "7.5"]).cast(kind))
    data = RetailData.from_frames(iter([one, other]))
    assert data.users["user_id"].to_list() == ["7", "7.5" if kind == pl.Float64 else "7.50", "8"]


def test_parts_with_other_columns_are_refused() -> None:
    frame = receipts()
    with pytest.raises(DataError, match="the parts of the transactions differ"):
        RetailData.from_frames(iter([frame.head(5), frame.tail(5).drop("quantity")]))
    with pytest.raises(DataError, match="hold no line"):
        RetailData.from_frames(iter([frame.clear()]))


def test_an_item_is_described_by_its_first_line_whatever_part_that_is_in() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1, 2],
            "item_id": ["a"] * 3,
            "name": ["late", None, "first"],
            "time": ["2024-04-09", "2024-04-01", "2024-04-03"],
        }
    )
    for cut in ([], [1], [2], [1, 2]):
        data = RetailData.from_frames(iter(parts(frame, cut)), item_columns=["name"])
        assert data.items["name"].to_list() == ["first"]
        assert data.items["known_from"].to_list() == [datetime(2024, 4, 1)]


def test_a_receipt_in_two_parts_is_one_receipt() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1],
            "item_id": ["a", "b"],
            "basket_id": ["r", "r"],
            "time": ["2024-04-01 10:00:00", "2024-04-01 10:02:00"],
        }
    )
    data = RetailData.from_frames(iter(parts(frame, [1])))
    assert data.report.n_baskets == 1
    assert set(data.log["time"]) == {datetime(2024, 4, 1, 10)}


def test_a_csv_column_is_of_whole_numbers_all_through_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sku,n\n" + "".join(f"{i},{i}\n" for i in range(50)) + "0x,7\n")
    read = list(read_parts(tmp_path / "a.csv", rows=10))
    assert len(read) > 1
    assert {p["sku"].dtype for p in read} == {pl.String()}
    assert {p["n"].dtype for p in read} == {pl.Int64()}
    assert pl.concat(read).equals(read_table(tmp_path / "a.csv"))
    (tmp_path / "b.csv").write_text("sku,n\n1,2\n")
    both = read_table(tmp_path)
    assert both["sku"].dtype == pl.String
    assert both.height == 52


def test_files_are_read_in_parts_of_about_the_size_asked_for(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": np.arange(10_000)})
    frame.write_parquet(tmp_path / "a.parquet")
    sizes = [p.height for p in read_parts(tmp_path / "a.parquet", rows=1000)]
    assert sum(sizes) == 10_000
    assert max(sizes) <= 2000
