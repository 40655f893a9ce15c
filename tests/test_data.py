"""Ids, cleaning, cutting time, histories."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CUTOFF, receipts
from retailrec.data import RetailData
from retailrec.data.cleaning import LineRule
from retailrec.data.files import read_table
from retailrec.data.paths import data_files
from retailrec.data.splits import Fold, rolling_folds
from retailrec.errors import DataError


def frame(**columns: list[object]) -> pl.DataFrame:
    n = max(len(v) for v in columns.values())
    given = {"user_id": ["a"] * n, "item_id": [1] * n, "time": ["2024-01-01"] * n}
    return pl.DataFrame(given | columns)


lines = st.lists(
    st.tuples(
        st.sampled_from(["x", "y", "zz", "07", "7"]),
        st.integers(-3, 5),
        st.integers(0, 40),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=60,
)


def from_lines(rows: list[tuple[str, int, int, int]]) -> RetailData:
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "day", "quantity"], orient="row")
    days = pl.lit(datetime(2024, 1, 1)) + pl.duration(days=pl.col("day"))
    return RetailData.from_frames(table.with_columns(time=days).drop("day"))


@given(lines)
@settings(max_examples=60, deadline=None)
def test_ids_come_back_as_they_went_in(rows: list[tuple[str, int, int, int]]) -> None:
    data = from_lines(rows)
    back = {
        (data.users["user_id"][u], data.items["item_id"][i], t)
        for u, i, t in data.log.select("user", "item", "time").iter_rows()
    }
    given_rows = {(u, i, datetime(2024, 1, 1) + timedelta(days=d)) for u, i, d, _ in rows}
    assert back == given_rows
    assert data.users["user_id"].is_sorted()
    assert data.items["item_id"].is_sorted()


def test_whole_numbers_in_a_csv_are_integers_and_meet_text_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id,time\n7,007,2024-01-01\n12,008,2024-01-02\n")
    items = pl.DataFrame({"item_id": ["007"], "name": ["tea"]})
    users = pl.DataFrame({"user_id": ["12", "7"], "age": [20, 30]})
    data = RetailData.from_frames(read_table(tmp_path / "r.csv"), items, users)
    assert data.users.rows() == [(7, 30), (12, 20)]
    assert data.items.select("item_id", "name").rows() == [("007", "tea"), ("008", None)]
    with pytest.raises(DataError, match="hold text such as 'x'"):
        RetailData.from_frames(read_table(tmp_path / "r.csv"), None, pl.DataFrame({"user_id": ["x"]}))


@given(lines)
@settings(max_examples=60, deadline=None)
def test_every_line_is_accounted_for(rows: list[tuple[str, int, int, int]]) -> None:
    report = from_lines(rows).report
    assert report.read == len(rows)
    assert report.read == report.kept + report.merged + sum(report.rejected.values())


@given(lines, st.integers(-2, 42))
@settings(max_examples=60, deadline=None)
def test_past_and_target_are_disjoint_adjacent_and_add_up(
    rows: list[tuple[str, int, int, int]], day: int
) -> None:
    data = from_lines(rows)
    cutoff = datetime(2024, 1, 1) + timedelta(days=day)
    if cutoff >= data.end:
        return
    past, target = Fold(cutoff, data.end).split(data)
    assert past.log.height + target.height == data.log.height
    assert (past.log["time"] < cutoff).all()
    assert (target["time"] >= cutoff).all()  # an event exactly on the cutoff is target
    assert past.end == cutoff


@given(lines)
@settings(max_examples=60, deadline=None)
def test_a_history_holds_the_log(rows: list[tuple[str, int, int, int]]) -> None:
    data = from_lines(rows)
    history = data.history()
    events = {
        (int(u), int(history.items[p]), round(float(a)))
        for u, p, a in zip(history.user_of_event, history.pair_of_event, history.age, strict=True)
    }
    expected = {
        (u, i, (data.end - t).days) for u, i, t in data.log.select("user", "item", "time").iter_rows()
    }
    assert events == expected
    for row in range(len(history)):
        items = history.items[history.indptr[row] : history.indptr[row + 1]]
        assert (np.diff(items) > 0).all()
    counts = data.log.group_by("user", "item").len().sort("user", "item")["len"]
    np.testing.assert_array_equal(history.counts(), counts.to_numpy())


def test_history_of_chosen_shoppers_equals_rows_of_the_whole(data: RetailData) -> None:
    whole = data.history()
    for users in ([5], [9, 2, 30], list(range(10, 20)), [4, 6, 5, 7]):
        chosen, taken = data.history(codes=users), whole.take(users)
        for name in ("indptr", "items", "event_indptr", "age", "basket", "quantity", "value"):
            np.testing.assert_array_equal(getattr(chosen, name), getattr(taken, name), name)
        assert chosen.users.equals(taken.users)


def test_all_rows_of_a_history_are_taken_without_a_copy(data: RetailData) -> None:
    history = data.history()
    assert history.take(slice(0, len(history))) is history
    assert (
        history.take(slice(1, len(history))).users["user_id"].to_list()
        == history.users["user_id"].to_list()[1:]
    )


def test_history_of_chosen_shoppers_where_values_are_unknown_or_the_log_lies_in_pieces(
    data: RetailData,
) -> None:
    n = data.log.height
    log = data.log.with_columns(value=pl.when(pl.int_range(n) % 3 > 0).then("value"))
    pieces = pl.concat([log.slice(0, n // 2), log.slice(n // 2)], rechunk=False)
    assert pieces["value"].n_chunks() == 2
    for known in (log, pieces):
        changed = replace(data, log=known)
        chosen, taken = changed.history(codes=[9, 2, 30]), changed.history().take([9, 2, 30])
        assert np.isnan(chosen.value).any()
        for name in ("indptr", "items", "event_indptr", "age", "basket", "quantity", "value"):
            np.testing.assert_array_equal(getattr(chosen, name), getattr(taken, name), name)


def test_receipts_by_hand() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [2, 2, 1, 1, 1],
            "item_id": ["b", "a", "a", "b", "a"],
            "basket_id": [7, 7, 9, 9, 8],
            "time": ["2024-01-03"] * 4 + ["2024-01-01"],
            "value": [1.0, 2.0, 2.0, 2.0, 4.0],
        }
    )
    data = RetailData.from_frames(frame)
    log = data.log.with_columns(value=pl.when(pl.col("value") != 2).then("value"))
    found = replace(data, log=log).receipts()
    assert found["user"].to_list() == [0, 0, 1]
    assert found["time"].dt.day().to_list() == [1, 3, 3]
    assert found["lines"].to_list() == [1, 2, 2]
    assert found["value"].to_list() == [4.0, None, 1.0]
    assert data.asof(datetime(2024, 1, 1)).receipts().is_empty()
    unknown = RetailData.from_frames(frame.drop("value")).receipts()
    assert unknown["value"].null_count() == 3


def test_an_event_on_the_cutoff_is_not_known(data: RetailData) -> None:
    assert (data.log["time"] == CUTOFF).any()
    assert (data.asof(CUTOFF).log["time"] < CUTOFF).all()
    assert data.between(CUTOFF, CUTOFF + timedelta(days=1)).height > 0
    before = data.between(CUTOFF - timedelta(days=30), CUTOFF)
    assert before.height > 0
    assert (before["time"] < CUTOFF).all()


def test_the_future_can_not_be_asked_for(data: RetailData) -> None:
    with pytest.raises(DataError, match="not known"):
        data.asof(data.end + timedelta(seconds=1))
    with pytest.raises(DataError, match=r"at or past end=.*\.asof"):
        RetailData.from_frames(receipts(), end=CUTOFF)


def test_names_from_receipts_are_not_known_before_the_first_one() -> None:
    table = frame(item_id=[1, 2], name=["early", "late"], time=["2024-01-01", "2024-02-01"])
    data = RetailData.from_frames(table, item_columns=["name"])
    assert data.asof(datetime(2024, 1, 15)).items["name"].to_list() == ["early", None]
    # with its first receipt on the cut itself an item is not known yet
    assert data.asof(datetime(2024, 2, 1)).items["name"].to_list() == ["early", None]
    assert data.asof(datetime(2024, 2, 1, 0, 0, 1)).items["name"].to_list() == ["early", "late"]


def test_the_first_line_dates_a_basket() -> None:
    table = frame(basket_id=[1, 1], item_id=[1, 2], time=["2024-01-01 23:59:00", "2024-01-02 00:01:00"])
    assert RetailData.from_frames(table).log["time"].n_unique() == 1


def test_an_item_twice_on_a_receipt_is_one_row() -> None:
    table = frame(basket_id=[1, 1, 1], item_id=[1, 1, 2], quantity=[1, 2, 1], value=[2.0, 3.0, 1.0])
    data = RetailData.from_frames(table)
    assert data.report.merged == 1
    assert data.log.select("item", "quantity", "value").rows() == [(0, 3.0, 5.0), (1, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user_id": ["a", None]}, "no shopper"),
        ({"item_id": ["a", " "]}, "no item"),
        ({"time": ["2024-01-01", "soon"]}, "no time, or one that can't be read"),
        ({"time": ["2024-01-01", "1924-01-01"]}, "impossible date"),
        ({"quantity": [1, -1], "item_id": [1, 2]}, "return or cancellation"),
        ({"quantity": [1, 0]}, "zero quantity"),
        ({"quantity": ["1", "many"]}, "quantity is not a number"),
        ({"value": [1.0, 0.0]}, "zero price"),
        ({"value": [1.0, -2.0], "item_id": [1, 2]}, "return or cancellation"),
        ({"quantity": [1, -1], "basket_id": [1, 2]}, "return or cancellation"),
        ({"price": ["1", "x"]}, "value is not a number"),
    ],
)
def test_each_kind_of_dirt_is_counted_and_kept_aside(columns: dict, reason: str) -> None:
    report = RetailData.from_frames(frame(**columns)).report
    assert report.rejected == {reason: 1}
    assert report.examples == {reason: [1]}
    assert report.rejects["reason"].to_list() == [reason]
    assert report.kept == 1


def test_a_rule_of_ones_own() -> None:
    rule = LineRule("test shop", pl.col("shop") == "test")
    report = RetailData.from_frames(frame(shop=["test", "real"]), rules=[rule]).report
    assert report.rejected == {"test shop": 1}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], datetime(2000, 1, 2)),
        ([20240101, 20240229], datetime(2024, 2, 29)),
        (["20240101", "20240229"], datetime(2024, 2, 29)),
        (["2024-01-01", "2024-02-29"], datetime(2024, 2, 29)),
        (["2024-01-01T10:00:00", "2024-02-29T10:00:00"], datetime(2024, 2, 29, 10)),
        (["1/31/2024", "2/29/2024"], datetime(2024, 2, 29)),
        (["31/1/2024", "29/2/2024"], datetime(2024, 2, 29)),
        (["31.01.2024", "29.02.2024"], datetime(2024, 2, 29)),
        ([datetime(2024, 1, 1), datetime(2024, 2, 29)], datetime(2024, 2, 29)),
    ],
)
def test_times_in_many_forms(values: list, expected: datetime) -> None:
    assert RetailData.from_frames(frame(time=values)).log["time"].max() == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": ["2024-01-01", "31/01/2024"]}, "two formats"),
        ({"time": ["01/02/2024", "03/04/2024"]}, "day and month can't be told apart"),
        ({"time": ["soon", "later"]}, "must hold times"),
        ({"time": [170000, 170001]}, "expected day numbers"),
        ({"quantity": ["one", "two"]}, "must hold numbers"),
        ({"quantity": [-1, -2]}, "none of the 2 lines is a usable purchase"),
    ],
)
def test_what_can_not_be_guessed_is_refused(columns: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RetailData.from_frames(frame(**columns))


def test_a_missing_column_says_what_to_do() -> None:
    table = pl.DataFrame({"user_id": [1], "item_id": [2], "date": ["2024-01-01"]})
    with pytest.raises(DataError, match=r"lack column 'time'.*Map it with columns=\{'time': 'date'\}"):
        RetailData.from_frames(table)
    with pytest.raises(DataError, match="lack column 'when'"):
        RetailData.from_frames(table, columns={"time": "when"})
    assert RetailData.from_frames(table, columns={"time": "date"}).log.height == 1


@pytest.mark.parametrize(
    ("missing", "others", "told"),
    [
        ("time", ["order_number", "days_since_prior_order"], None),
        ("time", ["order_number", "InvoiceDate"], "InvoiceDate"),
        ("user_id", ["Customer ID", "user_age"], "Customer ID"),
        ("user_id", ["user_age", "store"], None),
        ("item_id", ["item_price", "StockCode"], "StockCode"),
        ("item_id", ["item_name"], None),
    ],
)
def test_only_a_column_that_may_be_meant_is_advised(
    missing: str, others: list[str], told: str | None
) -> None:
    there = {c for c in ("user_id", "item_id", "time") if c != missing}
    cells = {"InvoiceDate": "2024-01-31"}
    lines = pl.DataFrame({c: [cells.get(c, 1)] for c in (*there, *others)})
    with pytest.raises(DataError, match=f"lack column '{missing}'") as error:
        RetailData.from_frames(lines)
    advice = f"Map it with columns={{'{missing}': '{told}'"
    assert (advice if told else "if one of them holds it, map it").lower() in str(error.value).lower()
    assert told or not any(f"={other}" in str(error.value) for other in others)


def test_levels_of_an_index_that_have_names_are_columns() -> None:
    table = receipts().to_pandas()
    whole = RetailData.from_frames(table)
    indexed = RetailData.from_frames(table.set_index(["user_id", "time"]))
    assert indexed.log.equals(whole.log)


def test_an_address_is_not_taken_for_a_path() -> None:
    with pytest.raises(DataError, match=r"s3://bucket/x\.parquet is an address; only files of this"):
        data_files(Path("s3://bucket/x.parquet"))


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars"])
def test_frames_of_other_libraries(library: str) -> None:
    table = receipts()
    other = {"pandas": table.to_pandas, "pyarrow": table.to_arrow, "polars": table.clone}[library]()
    assert RetailData.from_frames(other).log.equals(RetailData.from_frames(table).log)


def test_the_order_of_lines_means_nothing() -> None:
    mixed = receipts().sample(fraction=1, shuffle=True, seed=4)
    assert RetailData.from_frames(mixed).log.equals(RetailData.from_frames(receipts()).log)


def test_the_end_itself_can_be_asked_for_and_no_event_lies_on_it(data: RetailData) -> None:
    assert data.asof(data.end).log.equals(data.log)
    last = data.log["time"].max()
    with pytest.raises(DataError, match="at or past end"):
        replace(data, end=last)
    assert replace(data, end=last + timedelta(microseconds=1)).log.height == data.log.height


@pytest.mark.parametrize("size", [7, 13, 40, 41])
def test_parts_of_the_histories_are_all_of_them(data: RetailData, size: int) -> None:
    """Also where one shopper is left over."""
    parts = list(data.histories_in_parts(size))
    assert [len(p) for p in parts] == [min(size, 40 - at) for at in range(0, 40, size)]
    ids = pl.concat([p.users["user_id"] for p in parts])
    assert ids.to_list() == data.users["user_id"].to_list()
    items = np.concatenate([p.items for p in parts])
    np.testing.assert_array_equal(items, data.history().items)


def test_of_two_descriptions_of_an_item_the_first_counts() -> None:
    items = pl.DataFrame({"item_id": [1, 1, 5], "name": ["tea", "coffee", "never sold"]})
    data = RetailData.from_frames(frame(item_id=[1]), items)
    assert data.items.select("item_id", "name").rows() == [(1, "tea"), (5, "never sold")]


def test_counts_fall_by_half_with_every_half_life(data: RetailData) -> None:
    history = data.history()
    found = history.counts(half_life=30)
    ages = (data.end - data.log["time"]).dt.total_seconds() / 86_400
    log = data.log.with_columns(weight=0.5 ** (ages / 30))
    expected = log.group_by("user", "item").agg(pl.col("weight").sum()).sort("user", "item")["weight"]
    np.testing.assert_allclose(found, expected.to_numpy(), rtol=1e-5)
    newest = data.log.group_by("user").agg(pl.col("basket").max()).sort("user")["basket"]
    np.testing.assert_array_equal(history.last_basket[data.active_users()], newest.to_numpy())


def test_windows_a_stride_apart_overlap_or_leave_gaps() -> None:
    end, week = datetime(2024, 3, 1), timedelta(days=7)
    for stride in (timedelta(days=3), timedelta(days=10)):
        folds = rolling_folds(end, horizon=week, n=3, stride=stride)
        assert [f.end for f in folds] == [end - 2 * stride, end - stride, end]
        assert all(f.end - f.cutoff == week for f in folds)


def test_stores_and_discounts_are_of_the_fingerprint_too() -> None:
    """An interrupted job took over lists of other stores' shelves."""
    lines = pl.DataFrame({"user_id": [1, 2], "item_id": [7, 8], "time": ["2024-01-01"] * 2})
    told = [
        RetailData.from_frames(lines.with_columns(**more)).fingerprint()
        for more in (
            {},
            {"store": pl.Series(["north", "south"])},
            {"store": pl.Series(["south", "north"])},
            {"discount": pl.Series([0.5, 0.0])},
            {"discount": pl.Series([0.0, 0.5])},
        )
    ]
    assert len({*told}) == len(told)
    south = lines.with_columns(store=pl.Series(["north", "south"]))
    assert RetailData.from_frames(south[::-1]).fingerprint() == told[1]


def test_rows_and_requests_without_an_id_are_said() -> None:
    """They went in silence, or came back as a list for a shopper of no name."""
    users = pl.DataFrame({"user_id": [1, None], "adult": ["yes", "no"]})
    data = RetailData.from_frames(frame(item_id=[1]), None, users)
    assert "users: 1 rows have no id and are left out" in data.report.notes
    with pytest.raises(DataError, match="1 of 2 shoppers asked for have no id"):
        data.history([1, None])
