"""Ids, numbers, times and frames in the notations that people and programs use."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retailrec.data import RetailData, parsing
from retailrec.data.cleaning import parse_lines
from retailrec.data.parsing import as_instant, ids_meet, parse_number, parse_time
from retailrec.datasets import load_dataset
from retailrec.errors import DataError, SettingError


def receipts(**columns: Any) -> pl.DataFrame:
    n = len(next(iter(columns.values())))
    base = {"user_id": list(range(n)), "item_id": list(range(n)), "time": ["2024-01-01"] * n}
    return pl.DataFrame(base | columns, strict=False)


NOBODY = [
    "nan",
    "NaN",
    "NULL",
    "null",
    "None",
    "NA",
    "N/A",
    "<NA>",
    "",
    "  ",
    "#N/A",
    "\\N",
    "NaT",
    "(null)",
]


@pytest.mark.parametrize("word", NOBODY)
@pytest.mark.parametrize(("column", "reason"), [("user_id", "no shopper"), ("item_id", "no item")])
def test_words_for_nothing_are_nobody(word: str, column: str, reason: str) -> None:
    report = RetailData.from_frames(receipts(**{column: ["ann", word, "Nantes"]})).report
    assert report.rejected == {reason: 1}


def test_a_cell_without_value_or_quantity_keeps_its_line() -> None:
    frame = receipts(value=["2.5", "", None, "NULL"], quantity=["2", None, "", "nan"])
    data = RetailData.from_frames(frame)
    assert data.report.kept == 4
    assert data.log["value"].to_list() == [2.5, None, None, None]
    assert data.log["quantity"].to_list() == [2, 1, 1, 1]
    floats = RetailData.from_frames(receipts(value=[2.5, float("nan")], quantity=[float("nan"), 3]))
    assert floats.log["quantity"].to_list() == [1, 3]
    priced = RetailData.from_frames(receipts(value=[None, 7.0], price=[2.0, 3.0], quantity=[2, 2]))
    assert priced.log["value"].to_list() == [4.0, 7.0]


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["2", "2,50", "12,5"], [2, 2.5, 12.5]),
        (["1.234,50", "2", "0,250"], [1234.5, 2, 0.25]),
        (["1,234.50", "2", "1,234"], [1234.5, 2, 1234]),
        (["1,234,567", "12"], [1234567, 12]),
        (["1 234,50", "1\u00a0000,00", "3"], [1234.5, 1000, 3]),
        (["1'234.50", "2"], [1234.5, 2]),
        (["$2.50", "$ 3", "4.00 $"], [2.5, 3, 4]),
        (["-2,50", "+3,1"], [-2.5, 3.1]),
        (["1e3", "2.5"], [1000, 2.5]),
        (["1.234", "2.500"], [1.234, 2.5]),  # kilograms: a point is a point unless commas say otherwise
        (["1.234.567,8", "2"], [1234567.8, 2]),
        ([",5", "2"], [0.5, 2]),
        (["1.234,50-", "(2,50)", "3"], [-1234.5, -2.5, 3]),  # as ledgers write what is taken back
        (["($2.50)", "$3.00-", "$1"], [-2.5, -3, 1]),
        (["\u22122.50", "2"], [-2.5, 2]),
        (["1.234", "1.5", "990"], [1.234, 1.5, 990]),
        (["1.250", "2", "0.500", "120"], [1.25, 2, 0.5, 120]),
    ],
)
def test_numbers_in_one_notation_are_read(cells: list[str], numbers: list[float]) -> None:
    assert parse_number(pl.Series("value", cells), who="lines").to_list() == numbers


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["2,50", "2.50"], "decimal commas and decimal points"),
        (["1,234", "5"], "may part thousands or decimals"),
        (["12.990", "990", "1.490"], "in '12.990' the point may part thousands or decimals"),
        (["$12.990", "$990"], "whole numbers such as '990' have none"),
        (["12.-", "13.-"], "must hold numbers"),
        (["two", "three", "4"], "must hold numbers"),
        (["1.5"] * 200 + ["x"] * 20, "must hold numbers; 20 of 220 cells do not"),
        ([True, False], "must hold numbers, not Boolean"),
    ],
)
def test_numbers_in_two_notations_are_refused(cells: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_number(pl.Series("value", cells), who="lines")


def test_what_a_ledger_takes_back_in_brackets_voids_its_line() -> None:
    lines = receipts(user_id=[1, 1, 1], item_id=["tea", "rice", "tea"], value=["2.50", "3", "(2.50)"])
    data = RetailData.from_frames(lines.with_columns(basket_id=pl.lit(7)))
    assert data.log["value"].to_list() == [3.0]
    assert data.report.rejected == {"voided on its receipt": 2}


@pytest.mark.parametrize(
    ("amounts", "quantity"),
    [(["2,50", "3"], 3.0), (["1,234.50", "3"], 3000.0), (["2", "3"], None), (["2.50", "3"], None)],
)
@pytest.mark.parametrize("column", ["value", "price"])
def test_amounts_tell_what_the_comma_of_quantities_is(
    column: str, amounts: list[str], quantity: float | None
) -> None:
    """As tills write pieces with three decimals."""
    lines = receipts(quantity=["3,000", "1,000"], **{column: amounts})
    if quantity is None:
        with pytest.raises(DataError, match="'3,000' the comma may part thousands or decimals"):
            RetailData.from_frames(lines)
        return
    assert RetailData.from_frames(lines).log["quantity"].to_list() == [quantity, quantity / 3]


def test_parts_of_one_column_must_agree_on_the_decimal_mark() -> None:
    one, other = receipts(value=["2,50", "3"]), receipts(value=["2.50", "3"])
    with pytest.raises(DataError, match="decimals written with ',' in one part"):
        RetailData.from_frames(iter([one, other]))
    later = receipts(value=["1.234", "3,5"]).with_columns(user_id=pl.col("user_id") + 5)
    whole = RetailData.from_frames(iter([one, later]))
    assert whole.log["value"].to_list() == [2.5, 3.0, 1234.0, 3.5]
    with pytest.raises(DataError, match=r"holds '1\.234' in a part without decimal commas"):
        RetailData.from_frames(iter([receipts(value=["1.234", "3"]), one]))


LAST = datetime(2024, 2, 29, 17, 30)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2024-02-29T17:30:00Z"], LAST),
        (["2024-02-29T17:30:00.000Z"], LAST),
        (["2024-02-29 17:30:00 UTC"], LAST),
        (["2024-02-29T17:30:00+01:00", "2024-06-01T10:00:00+02:00"], datetime(2024, 6, 1, 10)),
        (["2024-02-29 17:30:00+0100"], LAST),
        (["29-02-2024", "01-02-2024"], datetime(2024, 2, 29)),
        (["29-02-2024 17:30", "01-02-2024 10:00"], LAST),
        (["29.02.24", "01.02.24"], datetime(2024, 2, 29)),
        (["02/29/24", "02/01/24"], datetime(2024, 2, 29)),
        (["2/29/2024 5:30 PM", "2/28/2024 10:00 am"], LAST),
        (["29/02/2024 05:30:00 PM"], LAST),
        (["24-01-31", "24-02-29"], datetime(2024, 2, 29)),  # not of 2031
        (["29-Feb-2024", "01-Feb-2024"], datetime(2024, 2, 29)),
        (["29 February 2024"], datetime(2024, 2, 29)),
        (["Feb 29, 2024"], datetime(2024, 2, 29)),
        (["20240229T173000"], LAST),
        (["2024-02-29 17:30:00,250"], LAST + timedelta(milliseconds=250)),
        (["2024-02-29", "2024-02-29 17:30"], LAST),  # a day and a clock in one column
        (["20240229"], datetime(2024, 2, 29)),
        (["202402291730"], LAST),
        ([20240229173000], LAST),
        ([19782], datetime(2024, 2, 29)),  # days since 1970
        ([45351], datetime(2024, 2, 29)),  # a spreadsheet's
        (["45351.729166666664"], LAST),
        ([45351.7291666667], LAST),  # as spreadsheets keep 15 digits
        (["45351.7291666662"], LAST),
        ([1709227800], LAST),
        ([1709227800000], LAST),
        ([1709227800000000], LAST),
        ([101, 102, 8825, 201, 301, 401], datetime(2024, 2, 28)),
        ([8825], datetime(2024, 2, 28)),  # days since 2000: 1 is its first day
        ([date(2024, 2, 29)], datetime(2024, 2, 29)),
        ([datetime(2024, 2, 29, 17, 30, tzinfo=UTC)], LAST),
    ],
)
def test_everyday_notations_of_times(cells: list[Any], expected: datetime) -> None:
    found = parse_time(pl.Series("time", cells), who="lines")
    assert found.null_count() == 0
    assert found.max() == expected


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["01-02-2024", "03-04-2024"], "day and month can't be told apart"),
        (["01/02/24", "03/04/24"], "day and month can't be told apart"),
        (["24-01-20", "24-02-19"], "told apart"),  # of 2024, or 24 January 2020?
        (["2024-01-01T10:00:00+01:00", "2024-01-01T10:00:00-05:00"], "times of different zones"),
        (["2024-01-01T10:00:00Z", "2024-01-01T10:00:00"], "times of different zones"),
        (["next week"], "must hold times"),
        ([170000], "expected day numbers"),
        ([111, 211, 1011, 2111, 3011, 311], "look like days and months without a year"),  # 1 November
        (["0201", "3112"] * 20 + ["1102", "1503", "907"], "must hold times"),
        (["1231", "1101", "1030", "915", "820"], "days and months without a year"),
        (["010224", "020224"], "state the notation"),  # of a file of the first days of a month
        ([True], "must hold times, not Boolean"),
    ],
)
def test_times_that_can_not_be_told_are_refused(cells: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_time(pl.Series("time", cells), who="lines")


@pytest.mark.parametrize("share", [2, 30])
@pytest.mark.parametrize("most", ["dates", "numbers"])
def test_dates_beside_numbers_of_days_or_seconds_are_two_notations(most: str, share: int) -> None:
    """As spreadsheets export a column of which they took some cells for dates."""
    day = [datetime(2024, 1, 1) + timedelta(days=n) for n in range(300)]
    dates, days = [f"{d:%Y-%m-%d}" for d in day], [str(45292 + n) for n in range(300)]
    seconds = [f"{d.replace(tzinfo=UTC).timestamp():.0f}" for d in day]
    for numbers in (days, seconds):
        usual, others = (dates, numbers) if most == "dates" else (numbers, dates)
        cells = [others[n] if n % share == 1 else usual[n] for n in range(300)]
        with pytest.raises(DataError, match=r"dates in two formats.*numbers"):
            parse_time(pl.Series("time", cells), who="lines")
    cells = [("0", "-1")[n % 2] if n % 30 == 1 else dates[n] for n in range(300)]  # for none
    assert parse_time(pl.Series("time", cells), who="lines").null_count() == 10


def test_dates_of_six_digits_are_read_where_that_is_stated() -> None:
    cells = pl.Series("time", ["010224", "150224"])
    assert parse_time(cells, who="lines", time_format="%d%m%y").to_list() == [
        datetime(2024, 2, 1),
        datetime(2024, 2, 15),
    ]


@pytest.mark.parametrize("day", parsing._DATES)
def test_each_notation_is_among_those_tried_on_what_it_can_read(day: str) -> None:
    for clock in parsing._CLOCKS:
        written = [LAST.strftime((day + clock).replace("%.f", part)) for part in ("", ".%f")]
        written += [written[0].upper(), written[0].lower(), written[0].replace(" ", "  ")]
        written += [written[0].replace("02", "2")]
        for cell in pl.Series(written):
            if parsing._fits(pl.Series([cell]), day + clock):
                found = {one.day: one.clocks for one in parsing._candidates(pl.Series([cell]))}
                assert clock in found[day], cell


def test_a_stated_notation_settles_it() -> None:
    cells = pl.Series("time", ["01-02-2024", "03-04-2024"])
    found = parse_time(cells, who="lines", time_format="%d-%m-%Y")
    assert found.to_list() == [datetime(2024, 2, 1), datetime(2024, 4, 3)]
    frame = receipts(time=cells.to_list())
    assert RetailData.from_frames(frame, time_format="%d-%m-%Y").report.last == datetime(2024, 4, 3)
    with pytest.raises(DataError, match="not written as '%Y'"):
        parse_time(cells, who="lines", time_format="%Y")
    with pytest.raises((DataError, SettingError)):
        parse_time(cells, who="lines", time_format="no format")


def many(n: int = 1700) -> pl.DataFrame:
    days = pl.Series("time", [datetime(2024, 1, 1) + timedelta(days=i % 150) for i in range(n)])
    return pl.DataFrame(
        {"user_id": [i % 40 for i in range(n)], "item_id": list(range(n))}
    ).with_columns(days)


@pytest.mark.parametrize("year", [1990, 2034, 2025])
@pytest.mark.parametrize("as_text", [False, True])
def test_one_wrong_date_among_thousands_names_its_line(year: int, as_text: bool) -> None:
    good = many()
    bad = pl.DataFrame({"user_id": [1], "item_id": [5], "time": [datetime(year, 5, 1)]})
    frame = pl.concat([good.head(900), bad, good.tail(800)]).with_columns(name=pl.lit("x"))
    if as_text:
        frame = frame.with_columns(pl.col("time").dt.strftime("%Y-%m-%d"))
    data = RetailData.from_frames(frame, item_columns=["name"])
    assert data.report.examples == {"date far from all others": [900]}
    assert data.end == RetailData.from_frames(good).end
    assert data.items["known_from"].max() < data.end
    assert data.report.read == data.report.kept + data.report.merged + 1


def test_a_pause_of_the_shop_is_no_wrong_date() -> None:
    late = many(50).with_columns(pl.col("time") + pl.duration(days=400))
    report = RetailData.from_frames(pl.concat([many(), late])).report
    assert report.rejected == {}


def test_a_receipt_number_that_comes_again_is_another_receipt() -> None:
    rows = [
        ("ann", "tea", "2024-01-02 10:00:00", 17),
        ("ann", "tea", "2024-06-28 11:00:00", 17),
        ("ann", "milk", "2024-06-28 11:00:00", 17),
        ("bob", "tea", "2024-02-01 09:00:00", 4),
        ("eve", "tea", "2024-02-01 23:50:00", 9),
        ("eve", "rice", "2024-02-02 00:10:00", 9),
        ("eve", "milk", "2024-02-01 08:00:00", 8),
        ("eve", "tea", "2024-02-01 20:00:00", 8),
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "time", "basket_id"], orient="row")
    for parts in (
        iter([frame]),
        iter([frame[:1], frame[1:]]),
        iter([frame[i : i + 1] for i in range(8)]),
    ):
        data = RetailData.from_frames(parts)
        assert data.report.split == 1
        assert data.report.n_baskets == 5
        assert data.log["basket"].unique().sort().to_list() == [0, 1, 2, 3, 4]
        ann = data.log.filter(pl.col("user") == 0)
        assert ann["time"].to_list() == [datetime(2024, 1, 2, 10)] + [datetime(2024, 6, 28, 11)] * 2
        assert data.report.kept == 8


def test_numbers_that_start_anew_every_day_make_daily_receipts() -> None:
    days = [datetime(2024, 1, 1 + d, 12) for d in range(20) for _ in range(2)]
    frame = pl.DataFrame(
        {"user_id": [1] * 40, "item_id": ["a", "b"] * 20, "basket_id": [1] * 40, "time": days}
    )
    data = RetailData.from_frames(frame)
    assert (data.report.n_baskets, data.report.split, data.report.merged) == (20, 19, 0)
    assert data.log["time"].to_list() == days


def test_catalogues_that_do_not_meet_the_receipts_are_reported() -> None:
    frame = receipts(item_id=["000500", "000501", "000502"])
    items = pl.DataFrame({"item_id": [500, 501, 502], "name": ["a", "b", "c"]})
    (note,) = RetailData.from_frames(frame, items).report.notes
    assert "500, 501 there, '000500', '000501' here" in note
    assert "leading zeros" in note
    some = pl.DataFrame({"user_id": [2], "age": [30]})  # a table may describe a few shoppers only
    assert RetailData.from_frames(frame, None, some).report.notes == []
    blanks = receipts(item_id=["A1  ", "B2 ", "C3"])
    named = pl.DataFrame({"item_id": ["A1", "B2", "C3"], "name": ["a", "b", "c"]})
    data = RetailData.from_frames(blanks, named)
    assert data.items["name"].to_list() == ["a", "b", "c"]
    assert data.report.notes == []


@pytest.mark.parametrize(
    ("ids", "known", "hint"),
    [
        (["007"], ["7", "8"], "leading zeros"),
        (["7.0"], [7, 8], "decimal part"),
        (["a-1"], ["a1"], "letters and digits"),
        (["A1"], ["a1"], "lower case"),
        (["x"], [7], "of one system"),
    ],
)
def test_ids_that_do_not_meet_say_how_they_would(ids: list[Any], known: list[Any], hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        ids_meet(pl.Series(ids), pl.Series(known), who="a", whose="b")
    assert ids_meet(pl.Series(known), pl.Series(known), who="a", whose="b") is None


@pytest.mark.parametrize(
    "name", ["line", "reason", "digest", "user", "item", "basket", "text", "row", "place", "code", "n"]
)
def test_a_column_may_have_any_name(name: str) -> None:
    frame = receipts(**{name: ["x", "y", "z"]})
    late = frame.with_columns(quantity=pl.Series([1, -1, 1]))
    report = RetailData.from_frames(late, item_columns=[]).report
    assert report.kept == 2
    assert report.rejects["line"].to_list() == [1]
    items = pl.DataFrame({"item_id": [0, 1, 2], name: ["a", "b", "c"]})
    data = RetailData.from_frames(receipts(value=[1, 2, 3]), items)
    assert data.asof(data.end).items[name].to_list() == ["a", "b", "c"]


def test_attributes_called_like_ours_keep_their_values() -> None:
    items = pl.DataFrame({"item_id": [0, 1], "known_from": ["a", "b"], "recommendable": ["c", "d"]})
    data = RetailData.from_frames(receipts(value=[1, 2]), items)
    assert data.asof("2024-01-01").items["known_from_"].to_list() == ["a", "b"]
    assert data.recommendable.all()


def test_a_category_with_blanks_is_no_other_and_a_word_for_none_is_none() -> None:
    cells = ["tea", " tea ", "", "NULL", "\u200btea"]
    items = pl.DataFrame({"item_id": range(5), "category_1": cells})
    there = receipts(value=range(1, 6))
    tidy = ["tea", "tea", None, None, "tea"]
    tables = [items, items.cast({"category_1": pl.Categorical})]
    for table in tables:
        assert RetailData.from_frames(there, table).items["category_1"].to_list() == tidy
    on_lines = there.with_columns(items["category_1"])
    of_lines = RetailData.from_frames(on_lines, item_columns=["category_1"])
    assert of_lines.items["category_1"].to_list() == tidy
    users = pl.DataFrame({"user_id": range(5), "store": cells})
    assert RetailData.from_frames(there, None, users).users["store"].to_list() == tidy
    first = there.with_columns(item_id=pl.lit(7), category_1=pl.Series(["", "NULL", " ", "ale", "tea"]))
    found = RetailData.from_frames(first, item_columns=["category_1"])
    assert found.items["category_1"].to_list() == ["ale"]


def test_lists_among_attributes_are_left_out_with_a_note() -> None:
    frame = receipts(value=[1, 2])
    users = pl.DataFrame({"user_id": [0, 1], "tags": [["a"], ["b", "c"]], "age": [20, 30]})
    data = RetailData.from_frames(frame.with_columns(more=pl.Series([{"a": 1}, {"a": 2}])), None, users)
    assert data.users.columns == ["user_id", "age"]
    assert "tags" in data.report.notes[0]
    nested = receipts(value=[1, 2]).with_columns(user_id=pl.Series([["a"], ["b"]]))
    with pytest.raises(DataError, match="must be integers or text"):
        RetailData.from_frames(nested)


@pytest.mark.parametrize("inner", [[[b"a"], [b"b"]], [{"x": b"a"}, {"x": b"\xff"}], [[None], []]])
def test_bytes_within_lists_cost_no_line(inner: list[Any]) -> None:
    kind = pl.List(pl.Binary) if isinstance(inner[0], list) else pl.Struct({"x": pl.Binary})
    frame = receipts(value=[1, 2]).with_columns(blob=pl.Series(inner, dtype=kind))
    assert RetailData.from_frames(frame).log.height == 2
    texts = parse_lines(frame)["blob"].to_list()
    assert len(texts) == 2
    assert all(isinstance(text, str) for text in texts)


def test_one_column_in_two_roles() -> None:
    frame = pl.DataFrame(
        {"user_id": [1, 1], "product": ["tea", "rice"], "date": ["2024-01-02", "2024-01-03"]}
    )
    mapping = {"item_id": "product", "name": "product", "time": "date", "basket_id": "date"}
    data = RetailData.from_frames(frame, columns=mapping, item_columns=["name"])
    assert data.items.select("item_id", "name").rows() == [("rice", "rice"), ("tea", "tea")]
    assert data.report.n_baskets == 2


@pytest.mark.parametrize(
    "t",
    [
        datetime(2024, 2, 1),
        date(2024, 2, 1),
        "2024-02-01",
        np.datetime64("2024-02-01"),
        pd.Timestamp("2024-02-01"),
        datetime(2024, 2, 1, tzinfo=UTC),
        datetime(2024, 2, 1, 3, tzinfo=timezone(timedelta(hours=3))),
        "2024-02-01T00:00:00Z",
    ],
)
def test_instants_in_many_forms(t: Any) -> None:
    times = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)]
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "time": times})
    data = RetailData.from_frames(frame, end="2024-04-01")
    assert data.end == datetime(2024, 4, 1)
    past = data.asof(t)
    assert (past.end, past.log.height) == (datetime(2024, 2, 1), 1)
    assert (data.between("2024-01-01", t).height, data.between(t, data.end).height) == (1, 1)


def test_an_instant_is_told_on_the_clock_of_the_receipts() -> None:
    times = pl.Series("time", [datetime(2024, 1, 1)]).dt.replace_time_zone("Asia/Tokyo")
    data = RetailData.from_frames(receipts(value=[1]).with_columns(times))
    assert data.asof(datetime(2024, 1, 1, 2, tzinfo=UTC)).end == datetime(2024, 1, 1, 11)
    for wrong in ("soon", 5, None, np.datetime64("NaT")):
        with pytest.raises(DataError, match="must be an instant"):
            as_instant(wrong, who="asof")
        with pytest.raises(DataError, match="between must be an instant"):
            data.between(data.start, wrong)


def test_parts_in_different_zones_are_refused() -> None:
    frame = receipts(value=[1]).with_columns(pl.Series("time", [datetime(2024, 1, 1)]))
    zones = [frame.with_columns(pl.col("time").dt.replace_time_zone(z)) for z in ("UTC", "Asia/Tokyo")]
    with pytest.raises(DataError, match="zone UTC in one, Asia/Tokyo in another"):
        RetailData.from_frames(iter(zones))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_zone_that_is_an_offset_shows_its_clock(unit: str, tmp_path: Path) -> None:
    """Pandas makes one of texts with +05:30; Polars knows no such zone, and panicked."""
    there = timezone(timedelta(hours=5, minutes=30))
    moment = pa.array([datetime(2024, 2, 29, 22, 30, tzinfo=there)] * 3, pa.timestamp(unit, "+05:30"))
    table = pa.table({"user_id": [1, 2, 3], "item_id": [1, 2, 3], "time": moment, "sent": moment})
    pq.write_table(table, tmp_path / "lines.parquet")
    late = datetime(2024, 2, 29, 18, tzinfo=UTC)
    for data in (
        RetailData.from_frames(table),
        RetailData.from_frames(table.to_pandas()),
        load_dataset("table", tmp_path / "lines.parquet"),
    ):
        assert data.log["time"].to_list() == [datetime(2024, 2, 29, 22, 30)] * 3
        assert data.asof(late).end == datetime(2024, 2, 29, 23, 30)
    pq.write_table(
        table.rename_columns(["client", "item_id", "at", "sent"]), tmp_path / "lines.parquet"
    )
    with pytest.raises(DataError, match="lack columns 'user_id', 'time'"):  # with a guess
        load_dataset("table", tmp_path / "lines.parquet")
    unknown = table.set_column(2, "time", moment.cast(pa.timestamp("us", "Mars/Olympus")))
    with pytest.raises(DataError, match="zone 'Mars/Olympus', which is not known; give one such as"):
        RetailData.from_frames(unknown)


def test_a_timestamp_beyond_any_calendar_is_one_line_less(tmp_path: Path) -> None:
    days = [1_704_067_200 + 86_400 * n for n in range(3)]
    for far in (10**14, -(10**14), 8 * 10**12):  # milliseconds and microseconds that are called seconds
        table = pa.table(
            {
                "user_id": [1, 2, 3, 4],
                "item_id": [1, 2, 3, 4],
                "time": pa.array([*days, far], pa.timestamp("s")),
            }
        )
        for data in (RetailData.from_frames(table), RetailData.from_frames(pl.DataFrame(table))):
            assert data.report.rejected == {"impossible date": 1}
            assert data.end == datetime(2024, 1, 4)


@pytest.mark.parametrize(("mine", "theirs"), [("%m/%d/%Y", "%d/%m/%Y"), ("%d.%m.%y", "%m.%d.%y")])
def test_a_file_of_a_folder_whose_days_and_months_seem_swapped_is_named(
    tmp_path: Path, mine: str, theirs: str
) -> None:
    def write(name: str, month: int, days: int, notation: str) -> None:
        dates = (date(2024, month, day + 1).strftime(notation) for day in range(days))
        lines = "".join(f"{n},7,{text}\n" for n, text in enumerate(dates))
        (tmp_path / name).write_text("user_id,item_id,time\n" + lines)

    write("january.csv", 1, 31, mine)
    write("february.csv", 2, 12, mine)
    assert load_dataset("table", tmp_path).report.notes == []
    write("february.csv", 2, 12, theirs)
    (note,) = load_dataset("table", tmp_path).report.notes
    assert "february.csv: its dates, such as" in note
    assert "2024-01-02; with day and month the other way round" in note
    assert load_dataset("table", tmp_path, time_format=mine).report.notes == []
