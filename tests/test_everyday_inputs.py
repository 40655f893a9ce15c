"""Everyday files and frames that went wrong somewhere: each is right, or refused in a sentence."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.datasets import load_dataset
from retailrec.errors import DataError

HEAD = "user_id,item_id,time\n"
LINES = "1,a,2024-01-02\n2,b,2024-01-03\n"
FRAME = pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"], "time": [datetime(2024, 1, 2)] * 2})


def folder(place: Path, files: dict[str, Any]) -> Path:
    """Files below a folder: frames as Parquet, text and bytes as they are."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({"a.csv": HEAD + "12.0,a,2024-01-02\n13,b,2024-01-03\n"}, [12, 13]),
        ({"a.csv": HEAD + "\ufeff7,a,2024-01-02\n\u200b7,b,2024-01-03\n8 ,c,2024-01-04\n"}, ["7", "8"]),
        ({"a.csv": HEAD + LINES, "b.csv": HEAD}, [1, 2]),
        ({"a.csv": HEAD + LINES, "b.csv": ""}, [1, 2]),
        ({"a.csv": HEAD + LINES, "_SUCCESS": "", ".a.csv.crc": "x", "_tmp.csv": HEAD + LINES}, [1, 2]),
        ({"a.csv": HEAD + LINES, "~$a.xlsx": "\x03ann"}, [1, 2]),
        ({"a.csv": HEAD + LINES, "b.csv": (HEAD + "3,c,2024-01-05\n").encode("utf-16")}, [1, 2, 3]),
        ({"a.csv": HEAD + LINES, "b.csv": (HEAD + "3,c,2024-01-05\n").replace(",", ";")}, [1, 2, 3]),
        (
            {
                "a.csv": HEAD + LINES,
                "b.csv.gz": gzip.compress(HEAD.encode()) + gzip.compress(b"3,c,2024-01-05\n"),
            },
            [1, 2, 3],
        ),
        ({"a.csv": HEAD + LINES, "b.csv": "time,item_id,user_id\n2024-01-05,c,3\n"}, [1, 2, 3]),
        (
            {"a.parquet": FRAME, "b.parquet": FRAME.with_columns(user_id=pl.Series([7.0, None]))},
            [1, 2, 7],
        ),
        (
            {
                "a.parquet": FRAME.with_columns(user_id=pl.Series([7.0, None])),
                "b.parquet": FRAME.with_columns(user_id=pl.Series(["7", "8"])),
            },
            ["7", "8"],
        ),
        ({"a.parquet": FRAME.with_columns(pl.col("user_id").cast(pl.Decimal(38, 0)))}, [1, 2]),
        (
            {"a.parquet": FRAME.with_columns(pl.col("user_id").cast(pl.Int128) * 10**25)},
            ["10000000000000000000000000", "20000000000000000000000000"],
        ),
        (
            {
                "y=2023/m=1/a.csv": HEAD + LINES,
                "y=2024/m=2/a.csv": HEAD + LINES,
                "_temporary/0/b.csv": "x",
            },
            [1, 2],
        ),
    ],
)
def test_shoppers_of_files_are_who_they_are(
    tmp_path: Path, files: dict[str, Any], ids: list[Any]
) -> None:
    data = load_dataset("table", folder(tmp_path, files))
    assert data.users["user_id"].to_list() == ids


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a.csv": HEAD + LINES, "b.csv.zst": "x"}, r"holds b\.csv\.zst beside a\.csv"),
        ({"a.csv": HEAD + LINES, "old/b.csv": HEAD + LINES}, r"holds old beside a\.csv"),
        ({"transactions.csv": HEAD + LINES, "transactions.parquet": FRAME}, "can't be told which"),
        ({"a.parquet": FRAME, "_delta_log/0.json": "{}"}, "a table of Delta Lake"),
        ({"a.csv": HEAD + LINES, "b.csv": "user_id,item_id\n3,c\n"}, "the files of .* differ"),
        (
            {
                "a.parquet": FRAME.with_columns(pl.col("time").dt.replace_time_zone("UTC")),
                "b.parquet": FRAME.with_columns(pl.col("time").dt.replace_time_zone("Asia/Tokyo")),
            },
            "differ in what a column holds",
        ),
        ({"a.csv": gzip.compress(b"x")}, "is a gzip file"),
        ({"a.csv": b"PAR1"}, "is a Parquet file"),
        ({"a.csv": b"PK\x03\x04"}, "is a zip file or workbook"),
        ({"a.csv": (HEAD + LINES).encode("utf-16-le")}, "holds a zero byte"),
        *(
            ({"a.csv": (HEAD + LINES + "3,Zo\u00eb,2024-01-05\n").encode(name)}, f"--encoding {name}")
            for name in ("utf-16-le", "utf-16-be")
        ),
        ({"a.parquet": pl.DataFrame()}, "have no column at all"),
        ({"a.parquet": FRAME.with_columns(user_id=pl.Series([b"\0\1", b"\0\2"]))}, "not Binary"),
        (
            {"a.parquet": FRAME.with_columns(user_id=pl.Series([2.0**24, 3], dtype=pl.Float32))},
            "Float32 numbers of 16,777,216 and more",
        ),
        (
            {"a.parquet": FRAME.with_columns(user_id=pl.Series([2.0**53, 3]))},
            "different ids become one",
        ),
    ],
)
def test_what_would_lose_or_mix_lines_is_refused(
    tmp_path: Path, files: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        load_dataset("table", folder(tmp_path, files))


@pytest.mark.parametrize(
    ("ids", "note"),
    [
        (["007", "7", "x"], "1 ids are others with leading zeros or '.0', such as '007' and '7'"),
        (["12.0", "12", "x"], "such as '12.0' and '12'"),
        (["1.23E+12", "x", "y"], "as spreadsheets show long numbers"),
        (["1,23E+12", "x", "y"], "as spreadsheets show long numbers"),
        (["2024-03-01 00:00:00", "x", "y"], "1 ids are dates, such as '2024-03-01 00:00:00'"),
        (["1-Mar", "Mar-01", "y"], "2 ids are dates, such as"),
        ([12345678901234500, 12345678901234600, 3], "a spreadsheet keeps 15 digits"),
    ],
)
def test_ids_that_spreadsheets_have_changed_are_told(ids: list[Any], note: str) -> None:
    frame = pl.DataFrame({"user_id": ids, "item_id": ["a"] * 3, "time": ["2024-01-02"] * 3})
    assert note in " ".join(RetailData.from_frames(frame).report.notes)


def test_a_hidden_sheet_is_not_counted_unseen(tmp_path: Path) -> None:
    xlsxwriter = pytest.importorskip("xlsxwriter")
    for state in ("hide", "very_hidden", "activate"):
        with xlsxwriter.Workbook(tmp_path / "receipts.xlsx") as book:
            for name in ("January", "archive"):
                sheet = book.add_worksheet(name)
                sheet.write_row(0, 0, ["user_id", "item_id", "time"])
                sheet.write_row(1, 0, ["a", "b", "2024-01-02"])
            getattr(sheet, state)()
        if state == "activate":
            assert load_dataset("table", tmp_path / "receipts.xlsx").n_items == 1
        else:
            with pytest.raises(DataError, match="sheet 'archive' is hidden"):
                load_dataset("table", tmp_path / "receipts.xlsx")


def test_ids_that_are_alike_by_nothing_are_not_told() -> None:
    frame = pl.DataFrame({"user_id": ["007", "8", "00A"], "item_id": [1, 2, 10**16 + 1]})
    assert RetailData.from_frames(frame.with_columns(time=pl.lit("2024-01-02"))).report.notes == []


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "koi8-r", "mac-roman"])
def test_a_stated_encoding_does_not_garble_utf_8(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "r.csv").write_text(HEAD + "1,Möhre,2024-01-02\n")
    with pytest.raises(DataError, match="is written in UTF-8 and would be garbled"):
        load_dataset("table", tmp_path / "r.csv", encoding=encoding)


def test_receipts_that_are_yet_to_come_are_told() -> None:
    frame = FRAME.with_columns(time=pl.Series(["2099-01-01", "2098-12-31"]))
    assert "yet to come" in RetailData.from_frames(frame).report.notes[0]


def test_years_are_no_day_numbers() -> None:
    with pytest.raises(DataError, match="may be years or days"):
        RetailData.from_frames(FRAME.with_columns(time=pl.Series([2023, 2024])))


def test_a_stated_notation_with_a_zone_tells_the_shops_clock() -> None:
    frame = FRAME.with_columns(time=pl.Series(["01.02.2024 10:00 +0100", "01.07.2024 11:00 +0200"]))
    data = RetailData.from_frames(frame, time_format="%d.%m.%Y %H:%M %z")
    assert data.log["time"].dt.hour().to_list() == [10, 11]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: f.with_columns(item_id=pl.Series([[1], [2]])), "must be integers or text"),
        (lambda f: f.with_columns(time=pl.Series([timedelta(1)] * 2)), "must hold times"),
        (lambda f: f.with_columns(quantity=pl.lit(True)), "must hold numbers"),
        (lambda f: f.lazy().select("nothing"), "the plan of the lazy frame"),
        (lambda f: f.to_pandas().assign(value=[1 + 2j, 2]), "can't be read"),
        (lambda f: f.to_pandas().assign(item_id=[["a"], {"b": 1}]), "must be integers or text"),
        (lambda f: f.to_pandas()["user_id"], "must be a data frame"),
        (lambda f: [f], "must be a data frame"),
        (lambda f: iter([f, f.drop("item_id")]), "lack column 'item_id'"),
    ],
)
def test_frames_that_can_not_be_receipts_are_refused(
    change: Callable[[Any], Any], problem: str
) -> None:
    pytest.importorskip("pandas")
    with pytest.raises(DataError, match=problem):
        RetailData.from_frames(change(FRAME))


def pandas_column(column: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    def made() -> Any:
        pd = pytest.importorskip("pandas")
        return FRAME.to_pandas().assign(**{column: make(pd)})

    return made


@pytest.mark.parametrize(
    ("made", "users"),
    [
        (lambda: FRAME.with_columns(pl.col("item_id").cast(pl.Enum(["b", "a"]))), [1, 2]),
        (lambda: FRAME.with_columns(value=pl.Series([Decimal("1.25"), None])), [1, 2]),
        (lambda: FRAME.with_columns(time=pl.Series([date(2024, 1, 2)] * 2)), [1, 2]),
        (lambda: iter([FRAME.with_columns(user_id=pl.Series([1.0, None])), FRAME]), [1, 2]),
        (pandas_column("user_id", lambda pd: pd.Categorical([1, 2])), [1, 2]),
        (pandas_column("user_id", lambda pd: pd.array([1, None], "Int64")), [1]),
        (pandas_column("user_id", lambda pd: [1, "2x"]), ["1", "2x"]),
        (pandas_column("value", lambda pd: [Decimal("1.5"), None]), [1, 2]),
        (pandas_column("user_id", lambda pd: [Decimal("1.00"), Decimal("2.00")]), [1, 2]),
        (pandas_column("user_id", lambda pd: [Decimal("1.00"), Decimal("2.50")]), ["1", "2.50"]),
        (pandas_column("user_id", lambda pd: [Decimal("1.00"), "x"]), ["1", "x"]),
        (pandas_column("user_id", lambda pd: [Decimal("1.00"), Decimal("NaN")]), [1]),
        (pandas_column("user_id", lambda pd: [7, Decimal("1E+999999")]), ["1E+999999", "7"]),
        (pandas_column("time", lambda pd: [date(2024, 1, 2), datetime(2024, 1, 2)]), [1, 2]),
        (
            pandas_column("user_id", lambda pd: pd.Series([np.int64(7), np.float32(8)], dtype=object)),
            ["7", "8"],
        ),
    ],
)
def test_frames_of_many_kinds_are_receipts(made: Callable[[], Any], users: list[Any]) -> None:
    data = RetailData.from_frames(made())
    assert data.users["user_id"].to_list() == users
    report = data.report
    assert report.read == report.kept + report.merged + sum(report.rejected.values())


def test_a_header_that_stands_twice_in_a_workbook_is_refused(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["user_id", "item_id", "time", "time"])
    book.active.append([1, "a", datetime(2024, 1, 2), datetime(2024, 5, 2)])
    book.save(tmp_path / "r.xlsx")
    with pytest.raises(DataError, match="two columns called 'time'"):
        load_dataset("table", tmp_path / "r.xlsx")


def test_lists_in_a_pandas_catalogue_are_left_out_with_a_note() -> None:
    pd = pytest.importorskip("pandas")
    items = pd.DataFrame({"item_id": ["a", "b"], "tags": [["x"], ["y", "z"]]})
    data = RetailData.from_frames(FRAME, items)
    assert "hold lists or spans of time and are left out" in data.report.notes[0]


def test_spans_of_time_are_no_attributes() -> None:
    users = FRAME.select("user_id").unique().with_columns(member_for=timedelta(days=9))
    data = RetailData.from_frames(FRAME, users=users)
    assert "columns ['member_for'] hold lists or spans of time" in data.report.notes[0]
    assert data.users.columns == ["user_id"]


def test_a_recommender_takes_a_frame_of_receipts() -> None:
    from retailrec.candidates import Popularity

    source = Popularity(days=9).fit(FRAME)  # type: ignore[arg-type]
    assert len(source.share_) == 2


@pytest.mark.parametrize(
    ("condition", "kept", "said"),
    [
        ("kind!=2", 80, False),
        ("kind=1.0", 80, False),
        ("word!=back", 80, False),
        ("word=sale", 80, False),
        ("word!=Back", 120, True),
        ("word!=bakc", 120, True),
    ],
)
def test_a_condition_meets_whole_numbers_and_words_as_they_are_read(
    tmp_path: Path, condition: str, kept: int, said: bool
) -> None:
    """A column of fractions holds 2.0, so `kind!=2` left returns in without a word."""
    n = pl.int_range(120, eager=True)
    lines = pl.DataFrame({"user_id": n % 9, "item_id": n % 5}).with_columns(
        time=pl.datetime(2024, 1, 1) + pl.duration(hours=7 * n),
        kind=pl.when(n % 3 == 0).then(2.0).otherwise(1.0),
        word=pl.when(n % 3 == 0).then(pl.lit("back ")).otherwise(pl.lit("sale")),
    )
    lines.write_parquet(tmp_path / "lines.parquet")
    report = load_dataset("table", tmp_path / "lines.parquet", where=[condition]).report
    assert report.kept == kept
    assert any("no line is left out by" in note for note in report.notes) == said
