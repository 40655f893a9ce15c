"""Nothing is lost and nothing counts twice: pieces, voids, exports that overlap, receipts that come again."""

from __future__ import annotations

import json
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retailrec.data import RetailData
from retailrec.data.cleaning import RECEIPT_RULES, STANDARD_RULES, LineRule, LoadReport
from retailrec.data.files import read_table
from retailrec.data.parsing import MISSING, bare_id, parse_number, without_missing
from retailrec.datasets import load_dataset, open_dataset
from retailrec.errors import DataError
from retailrec.serving.loading import load_data, load_frames
from retailrec.serving.receipts import Line, Posted, accept
from retailrec.serving.store import Store
from retailrec.spark.tasks import add_load_reports, as_part

TEN = datetime(2024, 1, 2, 10)


def lines(*rows: tuple[Any, ...], **columns: Any) -> pl.DataFrame:
    """Lines of ann's receipt 1: item, quantity, value."""
    frame = pl.DataFrame(
        list(rows),
        schema={"item_id": pl.String, "quantity": pl.Float64, "value": pl.Float64},
        orient="row",
    )
    known = {"user_id": pl.lit("ann"), "basket_id": pl.lit(1), "time": pl.lit(TEN)}
    more = {k: v if isinstance(v, list) else pl.lit(v) for k, v in columns.items()}
    series = {k: pl.Series(v) if isinstance(v, list) else v for k, v in (known | more).items()}
    return frame.with_columns(**series)


def test_who_has_nothing_left_is_no_user_but_by_a_table_of_users() -> None:
    void = lines(("tea", 1.0, 2.0), ("tea", -1.0, -2.0), user_id="bob", basket_id=2)
    table = pl.concat([void, lines(("tea", 3.0, 6.0), user_id="cy", basket_id=3), void])
    for users, ids in ((None, ["cy"]), (pl.DataFrame({"user_id": ["ann", "cy"]}), ["ann", "cy"])):
        data = RetailData.from_frames(table, users=users)
        assert data.users["user_id"].to_list() == ids
        assert data.users["user_id"].gather(data.log["user"]).to_list() == ["cy"]


def bought(data: RetailData) -> dict[str, tuple[float, float | None]]:
    """Item -> quantity and value, over all receipts."""
    log = data.log.with_columns(item=data.items["item_id"].gather(data.log["item"]))
    sums = log.group_by("item").agg(pl.col("quantity", "value").sum()).sort("item")
    return {item: (quantity, value) for item, quantity, value in sums.iter_rows()}


def folder(path: Path, *frames: pl.DataFrame, ending: str = "csv") -> RetailData:
    """What is read from a folder of these files, `a`, `b` and so on."""
    path.mkdir(exist_ok=True)
    for name, frame in zip("abcdef", frames, strict=False):
        write = {"csv": frame.write_csv, "parquet": frame.write_parquet}[ending]
        write(path / f"{name}.{ending}")
    data = load_dataset("table", path)
    report = data.report
    assert report.read == report.kept + report.merged + sum(report.rejected.values())
    return data


# -- pieces ----------------------------------------------------------------------------------------


def test_equal_lines_of_a_receipt_are_pieces_and_add_up() -> None:
    data = RetailData.from_frames(lines(("tea", 1, 2), ("jam", 1, 3), ("tea", 1, 2), ("tea", 1, 2)))
    assert bought(data) == {"jam": (1, 3), "tea": (3, 6)}
    assert (data.report.merged, data.report.pieces) == (2, 2)
    assert data.report.rejected == {}


def test_discounts_of_pieces_add_up_too() -> None:
    frame = lines(("tea", 1, 2), ("tea", 1, 2), ("jam", 1, 3), discount=[-0.5, -0.5, 0.25])
    assert RetailData.from_frames(frame).log["discount"].to_list() == [0.25, -1.0]


def test_only_equal_lines_are_called_pieces() -> None:
    frame = lines(("tea", 1, 2), ("tea", 2, 4), ("tea", 1, 2), ("jam", 1, None), ("jam", 1, None))
    report = RetailData.from_frames(frame).report
    assert (report.merged, report.pieces) == (3, 2)


def test_a_table_of_which_every_line_stands_twice_is_said() -> None:
    one = pl.concat(
        lines(("tea", 1, 2), ("jam", 1, 3), ("rice", 2, 4), basket_id=n, user_id=f"u{n}")
        for n in range(9)
    )
    assert RetailData.from_frames(one).report.notes == []
    (note,) = RetailData.from_frames(pl.concat([one, one])).report.notes
    assert note.startswith("every line of 9 receipts stands twice")


# -- voids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("wine", 1, 9), ("wine", -1, -9)], {}),
        ([("wine", 1, 9), ("wine", -1, 9)], {}),  # a value without sign
        ([("wine", 1, 9), ("wine", 1, -9)], {}),  # a quantity without sign
        ([("wine", 3, 27), ("wine", -1, -9)], {"wine": (2, 18)}),
        ([("wine", 0.3, 3), ("wine", 0.6, 6), ("wine", -0.9, -9)], {}),
        ([("wine", 1, 9), ("wine", 0, -2)], {"wine": (1, 7)}),  # a discount in a line of its own
        ([("wine", 1, 9), ("wine", 1, -2)], {"wine": (1, 7)}),
        ([("wine", 1, None), ("wine", -1, None)], {}),
    ],
)
def test_what_is_taken_back_on_its_receipt_was_not_bought(
    rows: list[Any], expected: dict[str, Any], turn: int
) -> None:
    frame = pl.concat([lines(("tea", 1, 2)), lines(*rows)[::turn]])
    data = RetailData.from_frames(frame)
    assert bought(data) == {"tea": (1, 2), **expected}
    assert data.report.rejected == ({} if expected else {"voided on its receipt": len(rows)})
    assert data.report.read == data.report.kept + data.report.merged + sum(
        data.report.rejected.values()
    )


def test_what_is_taken_back_on_a_later_receipt_is_a_return() -> None:
    frame = lines(
        ("tea", 1, 2), ("wine", 1, 9), ("wine", -1, -9), ("gin", -1, -5), basket_id=[1, 1, 2, 1]
    )
    data = RetailData.from_frames(frame)
    assert bought(data) == {"tea": (1, 2), "wine": (1, 9)}
    assert data.report.rejected == {"return or cancellation": 2}
    assert data.items["item_id"].to_list() == ["tea", "wine"]  # gin was never bought
    assert (data.report.n_baskets, data.report.split) == (1, 0)


def test_a_return_with_the_number_of_its_receipt_is_no_visit() -> None:
    frame = lines(
        ("tea", 1, 2), ("tea", -1, -2), ("jam", 1, 3), time=[TEN, TEN + timedelta(days=9), TEN]
    )
    data = RetailData.from_frames(frame)
    assert data.report.split == 0
    assert data.report.rejected == {"return or cancellation": 1}
    assert data.end == datetime(2024, 1, 3)  # a return does not say until when receipts are known


def test_receipts_of_which_nothing_is_left_leave_no_gap() -> None:
    frame = lines(("tea", 1, 2), ("tea", -1, -2), ("jam", 1, 3), ("jam", 1, 3), basket_id=[1, 1, 2, 3])
    assert RetailData.from_frames(frame).log["basket"].to_list() == [0, 1]


# -- exports that overlap --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_receipt_in_two_exports_counts_once_whatever_else_they_say(
    tmp_path: Path, ending: str
) -> None:
    receipt = lines(("tea", 1, 2), ("jam", 2, 3), ("tea", 1, 2))
    one = receipt.with_row_index("").with_columns(exported_at=pl.lit("2024-05-01"))
    other = receipt.with_row_index("", 700).with_columns(exported_at=pl.lit("2024-05-08"))
    data = folder(tmp_path / "x", one, other.select(*reversed(other.columns)), ending=ending)
    assert bought(data) == {"jam": (2, 3), "tea": (2, 4)}
    assert data.report.rejected == {"also in another file": 3}
    assert (data.report.pieces, data.report.notes) == (1, [])


@pytest.mark.parametrize("turn", [1, -1])
def test_a_receipt_exported_half_and_then_whole_is_whole(tmp_path: Path, turn: int) -> None:
    half, whole = lines(("tea", 1, 2)), lines(("tea", 3, 6), ("jam", 1, 3))
    data = folder(tmp_path / "x", *[half, whole][::turn])
    assert bought(data) == {"jam": (1, 3), "tea": (3, 6)}
    assert data.report.rejected == {"other amounts in another file": 1}
    (note,) = data.report.notes
    assert note.startswith("1 items of receipts have other amounts in another file")
    assert "item 'tea' of shopper 'ann', 1 for 2.00 there, 3 for 6.00 where it counts" in note


def test_the_export_that_shows_the_void_counts(tmp_path: Path) -> None:
    before, after = lines(("wine", 1, 9), ("tea", 1, 2)), lines(("wine", 1, 9), ("wine", -1, -9))
    data = folder(tmp_path / "x", before, after)
    assert bought(data) == {"tea": (1, 2)}
    assert data.report.rejected == {"voided on its receipt": 2, "other amounts in another file": 1}
    alone = lines(("wine", -1, -9))  # an export of what changed
    assert bought(folder(tmp_path / "y", before, alone)) == {"tea": (1, 2)}
    three = lines(("tea", 3, 6))
    changes = [
        lines(("tea", -n, -2.0 * n)) for n in (1, 2, 2)
    ]  # what changed, exported again and again
    assert bought(folder(tmp_path / "z", three, *changes)) == {"tea": (1, 2)}


def test_halves_of_a_receipt_add_up(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", lines(("tea", 1, 2)), lines(("jam", 1, 3)))
    assert bought(data) == {"jam": (1, 3), "tea": (1, 2)}
    assert data.report.rejected == {}


def test_parts_that_one_program_wrote_are_one_table(tmp_path: Path) -> None:
    for n in range(3):
        lines(("tea", 1, 2)).write_parquet(tmp_path / f"part-{n:05d}-4f1c.snappy.parquet")
    data = load_dataset("table", tmp_path)
    assert (bought(data), data.report.pieces) == ({"tea": (3, 6)}, 2)
    lines(("tea", 1, 2)).write_parquet(tmp_path / "part-00000-77aa.snappy.parquet")  # of another run
    again = load_dataset("table", tmp_path)
    assert bought(again) == {"tea": (3, 6)}
    assert again.report.differing == 1


def test_sheets_of_a_workbook_are_exports(tmp_path: Path) -> None:
    xlsxwriter = pytest.importorskip("xlsxwriter")
    with xlsxwriter.Workbook(tmp_path / "r.xlsx") as book:
        for sheet in ("2010", "2011"):
            lines(("tea", 1, 2)).write_excel(book, sheet)
    data = load_dataset("table", tmp_path / "r.xlsx")
    assert bought(data) == {"tea": (1, 2)}
    assert data.report.rejected == {"also in another file": 1}


def test_the_same_number_in_two_stores_is_no_double(tmp_path: Path) -> None:
    data = folder(tmp_path / "x", *(lines(("tea", 1, 2), store=s) for s in ("north", "south")))
    assert bought(data) == {"tea": (2, 4)}


@pytest.mark.parametrize("stores", [["north", "south"], ["south", "north"]])
def test_an_export_that_does_not_tell_the_store_is_of_the_one_that_another_tells(
    tmp_path: Path, stores: list[str]
) -> None:
    """Which store came first in the files decided whether the receipt counted twice."""
    rows = ("tea", 1, 2), ("jam", 1, 3)
    known = lines(*rows, store=[stores[0], stores[1]])
    bare = lines(*rows, ("rye", 1, 1), store=[None, None, None]).cast({"store": pl.String})
    for name, frames in {"a": (known, bare), "b": (bare, known)}.items():
        assert bought(folder(tmp_path / name, *frames)) == {"jam": (1, 3), "rye": (1, 1), "tea": (1, 2)}


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["tea", "jam"]),
        st.integers(1, 3),
        st.sampled_from([1.0, 1.0, 2.0, -1.0]),
    ),
    min_size=1,
    max_size=12,
)


def frame_of(rows: list[Any]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "basket_id", "quantity"], orient="row")
    days = pl.col("basket_id").cast(pl.Int64)
    return frame.with_columns(time=pl.lit(TEN) + pl.duration(days=days), value=2 * pl.col("quantity"))


@settings(max_examples=40, deadline=None)
@given(ROWS, st.data())
def test_an_export_that_is_loaded_again_in_part_changes_nothing(rows: list[Any], draw: Any) -> None:
    frame = frame_of([*rows, ("eve", "tea", 1, 1.0)])
    some = draw.draw(st.lists(st.integers(1, 3), max_size=3))
    again = frame.filter(pl.col("basket_id").is_in(some))
    both = pl.concat(
        [
            frame.with_columns(retailrec_file=pl.lit(0)),
            again[::-1].with_columns(retailrec_file=pl.lit(1)),
        ]
    )
    one, other = RetailData.from_frames(frame), RetailData.from_frames(both)
    assert other.log.equals(one.log)
    assert other.report.differing == 0


# -- the store -------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store(str(tmp_path / "store.db")).init()
    yield store
    store.close()


def stored(store: Store, shopper: str = "ann") -> dict[str, dict[str, float]]:
    """Number -> item -> quantity."""
    return {
        r.number: dict(zip(r.items, r.amounts["quantity"].tolist(), strict=True))
        for r in store.history(shopper)
    }


def test_a_receipt_stored_half_is_completed(store: Store) -> None:
    load_frames(store, lines(("tea", 1, 2)))
    found = load_frames(store, lines(("tea", 1, 2), ("jam", 1, 3)))
    assert (found.receipts, found.new, found.completed) == (1, 0, 1)
    assert stored(store) == {"1": {"tea": 1, "jam": 1}}
    version = store.shopper("ann").version
    again = load_frames(store, lines(("tea", 1, 2)))
    assert (again.new, again.completed) == (0, 0)
    assert store.shopper("ann").version == version  # nothing was written


def test_other_amounts_are_named_and_the_larger_ones_count(store: Store) -> None:
    for quantity in (2, 3, 1):
        load = LoadReport("x")
        load_frames(store, lines(("tea", quantity, 2.0 * quantity)), report=load)
    assert stored(store) == {"1": {"tea": 3}}
    (note,) = load.notes
    assert "item 'tea' of receipt '1' of shopper 'ann', 3 for 6.00 there, 1 for 2.00 now" in note


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("written", ["as times", "%Y/%m/%d %H:%M:%S", "%Y%m%d"])
def test_what_a_later_load_takes_back_is_kept_and_said(
    store: Store, numbers: bool, written: str
) -> None:
    def as_written(frame: pl.DataFrame) -> pl.DataFrame:
        if written == "as times":
            return frame
        text = pl.col("time").dt.strftime(written)
        return frame.with_columns(text.cast(pl.Int64) if written == "%Y%m%d" else text)

    both = lines(("tea", 3, 6), ("jam", 1, 3)), lines(("tea", -1, -2), ("jam", 1, 3), ("jam", -1, -3))
    sale, back = both if numbers else (frame.drop("basket_id") for frame in both)
    rye = lines(("rye", 1, 2), basket_id=2, time=TEN + timedelta(days=1)).select(sale.columns)
    load_frames(store, as_written(sale))
    kept = stored(store)
    for day, said in ((0, True), (9, False)):  # nine days later it is a return
        load = LoadReport("x")
        later = back.with_columns(pl.col("time") + timedelta(days=day))
        load_frames(store, as_written(pl.concat([later, rye])), report=load)
        (rest,) = stored(store).keys() - kept.keys()
        assert stored(store) == kept | {rest: {"rye": 1}}
        assert load.rejected == {"voided on its receipt": 2, "return or cancellation": 1}
        assert [note[:42] for note in load.notes] == [
            "2 items of receipts are taken back here, w"
        ] * said


def test_what_single_precision_rounds_is_no_more_of_an_item(store: Store) -> None:
    known = lines(("tea", 0.254, 2.1), ("jam", 1, None))
    load_frames(store, known)
    again = load_frames(store, known.with_columns(pl.col("quantity", "value").cast(pl.Float32)))
    assert (again.new, again.completed) == (0, 0)
    assert stored(store) == {"1": {"tea": 0.254, "jam": 1}}
    assert load_frames(store, lines(("jam", 1, 3))).completed == 1  # its money is known now


def test_receipts_that_the_store_has_under_another_number_are_said(store: Store) -> None:
    said = []
    for number, quantity in (("0001", 1), ("1", 1), ("2", 5)):
        load = LoadReport("x")
        receipt = lines(("tea", quantity, 2.0)).with_columns(basket_id=pl.lit(number))
        load_frames(store, receipt, report=load)
        said += load.notes
    (note,) = said
    assert "1 receipts have the shopper, time and contents of one in the store" in note
    assert "'1' and '0001' of shopper 'ann'" in note
    both = [lines(("tea", 1, 2.0)).with_columns(basket_id=pl.lit(n)) for n in ("0001", "1")]
    notes = RetailData.from_frames(pl.concat(both)).report.notes
    assert notes == [
        "basket_id: 1 ids are others with leading zeros or '.0', such as '0001' and '1', and count "
        "apart; write them alike"
    ]


@pytest.mark.parametrize("turn", [1, -1])
def test_numbers_that_start_anew_are_receipts_of_their_own(store: Store, turn: int) -> None:
    january, june = lines(("tea", 1, 2)), lines(("tea", 2, 4), time=TEN + timedelta(days=170))
    for frame in [january, june][::turn]:
        assert load_frames(store, frame).new == 1
    assert sorted(q["tea"] for q in stored(store).values()) == [1, 2]
    for frame in (january, june, pl.concat([january, june])):
        again = load_frames(store, frame)
        assert (again.new, again.completed) == (0, 0)
    assert len(stored(store)) == 2


def test_two_files_of_a_day_without_numbers_add_up(store: Store) -> None:
    for item in ("tea", "jam", "tea"):
        load_frames(store, lines((item, 1, 2)).drop("basket_id"))
    assert stored(store) == {"20240102T100000": {"tea": 1, "jam": 1}}


def test_the_same_receipts_in_two_ways_count_once(store: Store, tmp_path: Path) -> None:
    frame = pl.concat(
        lines(("tea", n, n), ("jam", 1, 3), basket_id=f"r{n}", time=TEN + timedelta(days=n))
        for n in range(1, 6)
    )
    data = RetailData.from_frames(frame)
    assert load_data(store, data).new == 5  # without numbers
    frame.write_csv(tmp_path / "receipts.csv")
    for path in (tmp_path, tmp_path / "receipts.csv"):
        tables = open_dataset("table", path)
        assert load_frames(store, **vars(tables)).new == 0
    posted = Posted("ann", "r3", TEN + timedelta(days=3), [Line("tea", 3, 3), Line("jam", 1, 3)])
    assert store.add(accept([posted]).receipts).new == 0
    assert len(stored(store)) == 5
    other = Posted("ann", "r3", TEN + timedelta(days=3), [Line("tea", 4, 4), Line("jam", 1, 3)])
    assert store.add(accept([other]).receipts).new == 1


def test_a_folder_keeps_the_numbers_of_receipts(store: Store, tmp_path: Path) -> None:
    frame = lines(("tea", 1, 2), ("jam", 1, 3), basket_id=["17", "18"])
    frame.write_csv(tmp_path / "receipts.csv")
    pl.DataFrame({"user_id": ["ann"], "age": [30]}).write_csv(tmp_path / "users.csv")
    load_frames(store, **vars(open_dataset("table", tmp_path)))
    assert stored(store) == {"17": {"tea": 1}, "18": {"jam": 1}}
    assert store.shopper("ann").attributes == {"age": 30}


@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(0, 12))
def test_exports_loaded_one_by_one_are_those_loaded_together(rows: list[Any], cut: int) -> None:
    """In a store as in a folder, where no line takes something back."""
    rows = [(u, i, b, abs(q)) for u, i, b, q in rows]
    frame = frame_of(rows)
    one, other = frame[:cut], frame[cut // 2 :]
    parts = [p for p in (one, other) if p.height]
    both = pl.concat(p.with_columns(retailrec_file=pl.lit(n)) for n, p in enumerate(parts))
    with TemporaryDirectory() as place:
        apart, together = Store(f"{place}/a.db").init(), Store(f"{place}/b.db").init()
        for part in parts:
            load_frames(apart, part)
        load_frames(together, both)
        for user in ("ann", "bob"):
            one_by_one, at_once = stored(apart, user), stored(together, user)
            assert {n: set(items) for n, items in one_by_one.items()} == {
                n: set(items) for n, items in at_once.items()
            }
        apart.close()
        together.close()


def test_returns_do_not_say_until_when_purchases_are_known(store: Store) -> None:
    store.add(accept([Posted("ann", "1", TEN, [Line("tea", 1, 2.0)])]).receipts)
    later = TEN + timedelta(days=9)
    store.add(accept([Posted("ann", "2", later, [Line("tea", -1, -2.0)])]).receipts)
    assert store.shopper("ann").ends == datetime(2024, 1, 3)
    with store.transaction() as connection:
        store.recount(connection)
    assert store.shopper("ann").ends == datetime(2024, 1, 3)


# -- the table of rules ----------------------------------------------------------------------------


def test_every_rule_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    section = text.split("\n## Cleaning\n")[1].split("\n## ")[0]
    for rule in (*STANDARD_RULES, *RECEIPT_RULES):
        assert rule.reason in section


# -- ids, money, dates, catalogues, folders --------------------------------------------------------


def test_ids_that_look_alike_count_apart_and_are_said() -> None:
    ids = ["Tee", "tee", "caf\u00e9", "cafe\u0301", "ice tea", "ice  tea", "rice"]
    data = RetailData.from_frames(lines(*((item, 1, 2) for item in ids)))
    assert data.n_items == 7
    (note,) = data.report.notes
    assert note.startswith("item_id: 6 ids differ from others by case, Unicode form or blanks only")


def test_users_of_the_store_that_are_others_but_for_zeros_are_said(store: Store) -> None:
    said = []
    for users in (["ann", "1", "007", "0009"], ["0001", "7", "009", "Ann", "10"]):
        load = LoadReport("x")
        frame = pl.concat(lines(("tea", 1, 2), user_id=user) for user in users)
        load_frames(store, frame, report=load)
        said += load.notes
    (note,) = said
    assert note.startswith("user_id of the store: 3 ids are others with leading zeros or '.0', such as")
    assert store.alike(["1", "0001", "00007", "x", "010"]) == [("00007", "7"), ("010", "10")]


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_ids_of_a_load_that_differ_by_zeros_are_said(store: Store, column: str) -> None:
    load = LoadReport("x")
    load_frames(
        store, pl.concat(lines(("tea", 1, 2), **{column: i}) for i in ("1", "a", "0001")), report=load
    )
    (note,) = load.notes
    assert f"{column}: 1 ids are others with leading zeros or '.0', such as '0001' and '1'" in note


@given(st.text(max_size=6) | st.sampled_from([" u5 ", "\ufeffu5", "u5\u200b ", "\u00a0u5", "NULL"]))
def test_one_id_is_bared_as_a_column_is(text: str) -> None:
    (column,) = without_missing(pl.Series([text], dtype=pl.String))
    assert column == (None if bare_id(text) in MISSING else bare_id(text))


def test_ids_are_posted_as_a_file_has_them() -> None:
    posted = Posted(
        " ann ", "7\u200b", TEN, [Line("tea ", 1, 2), Line("tea", 1, 2), Line("NULL", 1, 2)]
    )
    found = accept([posted])
    (receipt,) = found.receipts
    assert (receipt.shopper, receipt.number, receipt.items) == ("ann", "7", ("tea",))
    assert found.report.rejected == {"no item": 1}
    with pytest.raises(DataError, match="names none"):
        accept([posted._replace(shopper="nan")])


@pytest.mark.parametrize(
    "cells", [["€2.00", "$3.00", "2.50"], ["€2.00"] * 99 + ["£2.00"], ["2 €", "2 ₽"], ["₩2", "฿2"]]
)
def test_amounts_in_two_currencies_are_refused(cells: list[str]) -> None:
    series = pl.Series("value", cells)
    with pytest.raises(DataError, match="several currencies"):
        parse_number(series, who="lines")
    seen: dict[str, str] = {}  # by parts, each of which has one
    signs = sorted({cell.strip(" .0235") for cell in cells} - {""})[:2]
    one, other = (series.filter(series.str.contains(sign, literal=True)) for sign in signs)
    parse_number(one, who="lines", notation=seen)
    with pytest.raises(DataError, match="several currencies"):
        parse_number(other, who="lines", notation=seen)


def test_one_currency_and_none_may_stand_together() -> None:
    assert parse_number(pl.Series("value", ["€2.00", "3.50"]), who="lines").to_list() == [2.0, 3.5]


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("currency", ["EUR", "eur ", "EUR", None], None),
        ("currency", ["EUR", "USD", "EUR", "EUR"], "3 lines EUR, 1 lines USD"),
        ("Currency_Code", ["978", "840", "", "978"], "2 lines 978, 1 lines 840"),
        ("Währung", ["EUR", "USD", "EUR", "EUR"], "3 lines EUR, 1 lines USD"),
        ("Ccy", ["EUR", "USD", "EUR", "EUR"], "3 lines EUR, 1 lines USD"),
        ("note", ["EUR", "USD", "EUR", "EUR"], None),
    ],
)
def test_several_currencies_are_said_where_receipts_are_loaded(
    column: str, cells: list[str | None], said: str | None
) -> None:
    lines = {"user_id": list("aabb"), "item_id": list("wxyz"), "time": [TEN] * 4, "value": [1.0] * 4}
    notes = RetailData.from_frames(pl.DataFrame(lines | {column: cells})).report.notes
    assert notes == [] if said is None else said in " ".join(notes), notes
    without = pl.DataFrame(lines | {column: cells, "value": [None] * 4})
    assert "currencies" not in " ".join(RetailData.from_frames(without).report.notes)


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("Order Status", ["paid", "Cancelled", "paid", None], "('Cancelled' in 1 of 4 lines)"),
        (
            "financial_status",
            ["paid", "partially_refunded", "paid", "paid"],
            "'partially_refunded' in 1",
        ),
        ("event", ["view", "addtocart", "view", "transaction"], "--where 'event!=view'"),
        ("is_test", [False, True, False, False], "('true' in 1 of 4 lines)"),
        ("Cancelled at", ["", "2024-01-31 10:00", None, ""], "(it is filled in 1 of 4 lines)"),
        ("Статус", ["оплачен", "отменён", "оплачен", "оплачен"], "'отменён' in 1"),
        ("Order Status", ["paid", "shipped", "paid", "paid"], None),
        ("is_test", ["no", "0", "", None], None),
        ("comment", ["cancelled", "", "", ""], None),
    ],
)
def test_a_column_by_which_lines_may_be_no_purchases_is_said(
    column: str, cells: list[str | None], said: str | None
) -> None:
    lines = {"user_id": list("aabb"), "item_id": list("wxyz"), "time": [TEN] * 4}
    notes = RetailData.from_frames(pl.DataFrame(lines | {column: cells})).report.notes
    assert notes == [] if said is None else said in " ".join(notes), notes
    back = pl.DataFrame(lines | {column: cells, "quantity": [1, -1, 1, 1]})
    if said is not None and said.endswith("1"):  # what takes back counts as a return
        assert RetailData.from_frames(back).report.notes == []


@pytest.mark.parametrize("cell", [None, "", "NaN"])
@pytest.mark.parametrize("column", ["quantity", "value"])
def test_a_column_without_content_is_said(column: str, cell: str | None) -> None:
    lines = {"user_id": list("aabb"), "item_id": list("wxyz"), "time": [TEN] * 4}
    for cells, said in (
        ([cell] * 4, "4 of 4"),
        ([cell] * 3 + ["1"], "3 of 4"),
        (["1", *[cell]] * 2, ""),
    ):
        report = RetailData.from_frames(pl.DataFrame(lines | {column: cells})).report
        assert report.empty == {column: cells.count(cell)}
        expected = [f"column {column!r} is empty in {said} lines"] if said else []
        assert [note.partition(",")[0] for note in report.notes] == expected
    assert RetailData.from_frames(pl.DataFrame(lines)).report.notes == []
    priced = pl.DataFrame(lines | {column: [cell] * 4, "price": [2.0] * 4})
    assert len(RetailData.from_frames(priced).report.notes) == (column == "quantity")


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("value", 1e308, "impossible amount"),
        ("value", -1e13, "impossible amount"),
        ("quantity", 1e13, "impossible amount"),
        ("quantity", "1e400", "quantity is not a number"),
        ("quantity", 1e-320, "zero quantity"),
        ("value", 1e12, None),
        ("value", None, None),
    ],
)
def test_amounts_of_which_sums_would_be_no_numbers_are_counted(
    column: str, cell: object, reason: str | None
) -> None:
    lines = {"user_id": list("aabb"), "item_id": list("wxyz"), "time": [TEN] * 4, "value": [1.0] * 4}
    odd = pl.Series(column, [cell, "1", "1", "1"], strict=False, dtype=pl.String)
    data = RetailData.from_frames(pl.DataFrame(lines).with_columns(odd))
    assert data.report.rejected == ({} if reason is None else {reason: 1})


def daily(n: int = 1800) -> pl.DataFrame:
    days = [TEN + timedelta(days=i % 90) for i in range(n)]
    return pl.DataFrame(
        {"user_id": [i % 30 for i in range(n)], "item_id": [i % 61 for i in range(n)]}
    ).with_columns(time=pl.Series(days))


@pytest.mark.parametrize(("days", "n", "left_out"), [(50, 1, True), (150, 20, False), (20, 2, False)])
def test_lines_far_from_all_others_are_left_out_or_said(days: int, n: int, left_out: bool) -> None:
    last = TEN + timedelta(days=89)
    stray = daily(n).with_columns(time=pl.lit(last + timedelta(days=days)))
    report = RetailData.from_frames(pl.concat([daily(), stray])).report
    assert report.rejected == ({"date far from all others": n} if left_out else {})
    if left_out:
        assert report.notes == []
        return
    (note,) = report.notes
    assert f"the last {n} of 1,{800 + n} lines have dates far from the others" in note
    assert f"{(last + timedelta(days=days)):%Y-%m-%d}, {days} days apart" in note


@pytest.mark.parametrize(("number", "said"), [("line", True), ("receipt", False), (None, False)])
def test_a_number_of_the_line_in_place_of_the_receipt_s_is_said(number: str | None, said: bool) -> None:
    """1,800 lines, twenty on each of 90 receipts."""
    frame = daily().with_columns(user_id=pl.lit("ann"), line=pl.int_range(pl.len()))
    frame = frame.with_columns(receipt=pl.col("time").dt.ordinal_day())
    columns = {} if number is None else {"basket_id": number}
    report = RetailData.from_frames(frame, columns=columns).report
    assert report.n_baskets == (1800 if said else 90)
    assert [n.split(":")[0] for n in report.notes] == (
        ["1,800 of 1,800 receipts have the shopper and the time of another one"] if said else []
    )


def test_a_return_dates_no_receipt_whether_others_bought_the_item_or_not() -> None:
    mine = lines(("tea", -1.0, -2.0), ("milk", 1.0, 3.0)).with_columns(
        time=pl.Series([TEN, TEN + timedelta(minutes=1)])
    )
    other = lines(("tea", 1.0, 2.0), user_id="bob", basket_id=2)
    for frame in (mine, pl.concat([mine, other])):
        data = RetailData.from_frames(frame)
        ann = data.users["user_id"].to_list().index("ann")
        log = data.log.filter(pl.col("user") == ann)
        assert log["time"].to_list() == [TEN + timedelta(minutes=1)]


def test_a_card_that_many_have_is_seen_whichever_part_it_came_in() -> None:
    """Alone with few others it is compared with the users of all parts."""
    whole, parts = LoadReport("lines"), []
    for receipts in ({"a": 3, "till": 500}, {f"c{n}": 2 + n % 5 for n in range(90)}):
        part = LoadReport("part", n_baskets=sum(receipts.values()))
        part.count_visits(pl.Series(list(receipts)), np.array(list(receipts.values())))
        parts.append(json.loads(json.dumps(as_part(part))))
    add_load_reports(parts, whole, int)
    assert whole.crowds == [("till", 500)]
    assert whole.visits[500] == 1


def test_users_who_are_many_are_said_and_left_out_by_a_condition(tmp_path: Path) -> None:
    """Every second line is of the card 0, which everybody has who has none."""
    n = pl.int_range(pl.len())
    frame = daily().with_columns(user_id=pl.when(n % 2 == 1).then(0).otherwise(1 + n % 500))
    frame.rename({"user_id": "card"}).write_csv(tmp_path / "lines.csv")
    columns = {"user_id": "card"}
    data = load_dataset("table", tmp_path / "lines.csv", columns)
    (note,) = data.report.notes
    assert note.startswith("shopper '0' has 45 of 945 receipts, far more than others")
    assert note.endswith("--where 'user_id!=0'")
    for where in ("user_id!=0", "card != 0"):
        kept = load_dataset("table", tmp_path / "lines.csv", columns, where=[where])
        assert kept.report.rejected == {"card=0": 900}
        assert 0 not in kept.users["user_id"].to_list()
        assert kept.report.notes == []
    both = load_dataset(
        "table", tmp_path / "lines.csv", columns, where=["card!=0", "card!=1", "card=3"]
    )
    assert both.users["user_id"].to_list() == [3]


def test_ids_that_never_come_twice_are_said() -> None:
    lines = daily().with_columns(line=pl.int_range(pl.len()))
    (note,) = RetailData.from_frames(
        lines, columns={"user_id": "line", "item_id": "user_id"}
    ).report.notes
    assert note == "each of 1,800 shoppers has one receipt: is user_id the number of a receipt?"
    (note,) = RetailData.from_frames(lines, columns={"item_id": "line"}).report.notes
    assert note == "each of 1,800 items was bought once: is item_id the number of a line?"
    day = lines.with_columns(time=pl.lit(TEN))
    assert RetailData.from_frames(day, columns={"user_id": "line"}).report.notes == []


@pytest.mark.parametrize(("of_one", "said"), [(1.0, True), (0.6, True), (0.4, False), (0.0, False)])
def test_a_value_that_is_the_price_of_a_piece_is_said(of_one: float, said: bool) -> None:
    """Every second line has three pieces; some of these say what one costs."""
    frame = daily().with_columns(n=pl.int_range(pl.len())).with_columns(item_id=pl.col("n") // 2 % 53)
    price, several = 1.0 + pl.col("item_id") % 7, pl.col("n") % 2 == 1
    wrong = several & (pl.col("n") < 1800 * of_one)
    frame = frame.with_columns(quantity=pl.when(several).then(3.0).otherwise(1.0)).with_columns(
        value=price * pl.when(wrong).then(1.0).otherwise(pl.col("quantity"))
    )
    notes = RetailData.from_frames(frame.drop("n")).report.notes
    assert [note for note in notes if " is that of one piece" not in note] == []
    assert len(notes) == said


@pytest.mark.parametrize(
    ("money", "said"),
    [
        ({"price": pl.col("paid") * pl.col("quantity")}, "too much by as many times"),
        ({"price": pl.col("paid")}, None),
        (
            {"value": pl.col("paid").sum().over("basket_id"), "quantity": pl.lit(1)},
            "the same on 90 of 90 receipts",
        ),
        ({"value": pl.lit(5.0), "quantity": pl.lit(1)}, None),  # a shop of one price
    ],
)
def test_money_that_is_not_that_of_a_line_is_said(money: dict[str, pl.Expr], said: str | None) -> None:
    """Money of a line as `price`, and a receipt's total on each of its lines."""
    frame = daily().with_columns(n=pl.int_range(pl.len())).with_columns(item_id=pl.col("n") // 2 % 53)
    frame = frame.with_columns(
        quantity=1.0 + pl.col("n") % 2 * 2,
        paid=1.0 + pl.col("item_id") % 7 + pl.col("n") // 2 // 53 / 100,
        basket_id=pl.col("time").dt.ordinal_day(),
    )
    notes = RetailData.from_frames(frame.with_columns(**money).drop("n", "paid")).report.notes
    assert notes == [] if said is None else [said in note for note in notes] == [True], notes


@pytest.mark.parametrize(
    "name", ["Walk-in", "cash customer", "Laufkunde", "(blank)", "Consumidor final", "99999", "0000"]
)
def test_a_name_for_who_has_no_card_is_said(name: str) -> None:
    users = pl.Series([name] * 30 + [f"c{n % 40}" for n in range(120)])
    lines = pl.DataFrame({"user_id": users, "item_id": "tea", "basket_id": range(150)})
    lines = lines.with_columns(time=pl.lit(TEN) + pl.duration(minutes=pl.col("basket_id")))
    notes = RetailData.from_frames(lines).report.notes
    assert [f"shopper {name!r} has 30 of 150 receipts" in note for note in notes] == [True], notes
    other = lines.with_columns(pl.col("user_id").replace(name, "Cash & Carry"))
    assert RetailData.from_frames(other).report.notes == []


@pytest.mark.parametrize("mask", ["**** **** 12", "XXXX-XXXX-12", "####", "••••12"])
def test_masked_ids_are_said(mask: str) -> None:
    lines = pl.DataFrame({"user_id": [mask, "Xaver"], "item_id": ["a", "#1"], "time": [TEN] * 2})
    (note,) = RetailData.from_frames(lines).report.notes
    assert note.startswith(f"user_id: 1 ids are masked, such as {mask!r}")


def test_large_ids_that_went_through_floating_point_are_said() -> None:
    own = pl.Series([2**62 + 977 * n for n in range(1, 40)])
    lines = pl.DataFrame({"item_id": list(range(39)), "time": [TEN] * 39})
    assert RetailData.from_frames(lines.with_columns(user_id=own)).report.notes == []
    (note,) = RetailData.from_frames(
        lines.with_columns(user_id=own.cast(pl.Float64).cast(pl.Int64))
    ).report.notes
    assert "ids of 16 digits and more" in note
    assert "floating point" in note


@pytest.mark.parametrize("empty", [["user_id"], ["time"], ["user_id", "time"]])
def test_what_a_receipt_s_first_line_alone_says_is_named(empty: list[str]) -> None:
    lines = pl.DataFrame({"user_id": list("aab"), "item_id": list("xyz"), "time": [f"{TEN}"] * 3})
    first = pl.int_range(3) == 0
    gone = lines.with_columns(pl.when(first).then(name).alias(name) for name in empty)
    notes = RetailData.from_frames(gone).report.notes
    assert [note.split(";")[0] for note in notes] == [
        f"column {name!r} is empty in 2 of 3 lines, which are left out" for name in empty
    ]
    assert all("first line alone" in note for note in notes)


def test_a_catalogue_that_describes_an_item_twice_is_said() -> None:
    items = pl.DataFrame(
        {"item_id": ["tea", "jam", "tea", "jam"], "name": ["Tea", "Jam", "Tee", "Jam"]}
    )
    data = RetailData.from_frames(lines(("tea", 1, 2), ("jam", 1, 3)), items)
    assert data.items["name"].to_list() == ["Jam", "Tea"]
    (note,) = data.report.notes
    assert note.startswith(
        "items: 2 rows repeat the id of an earlier one, of which 1 ids are described"
    )


def test_an_id_that_a_table_has_in_two_notations_is_one() -> None:
    frame = lines(("7", 1, 2), ("8", 1, 3), user_id=5).cast({"item_id": pl.Int64})
    items = pl.DataFrame({"name": ["Tea", "Jam", "Tee"], "item_id": ["7", "8", "7.0"]})
    users = pl.DataFrame({"age": [40, 40], "user_id": ["5", "5.0"]})
    data = RetailData.from_frames(frame, items, users)
    assert data.items.select("item_id", "name").rows() == [(7, "Tea"), (8, "Jam")]
    assert data.users.rows() == [(5, 40)]
    said = [note for note in data.report.notes if "repeat" in note]
    assert [note.split(" repeat")[0] for note in said] == ["items: 1 rows", "users: 1 rows"]
    assert all(f"such as {one};" in note for note, one in zip(said, (7, 5), strict=True))


def test_what_stands_beside_named_receipts_is_said_or_refused(tmp_path: Path) -> None:
    frame = lines(("tea", 1, 2))
    frame.write_csv(tmp_path / "receipts.csv")
    pl.DataFrame({"store": [1], "city": ["x"]}).write_csv(tmp_path / "stores.csv")
    report = load_dataset("table", tmp_path).report
    assert report.notes == [f"folder {tmp_path}: beside receipts.csv, stores.csv were not read"]
    frame.write_parquet(tmp_path / "2024-02.parquet")
    with pytest.raises(DataError, match=r"holds 2024-02.parquet beside receipts.csv, with the same"):
        load_dataset("table", tmp_path)


def workbook(path: Path, cell: str, much: int = 0) -> Path:
    """A workbook of `user_id` in A1 and a number in another cell, after `much` blanks."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    packed = "http://schemas.openxmlformats.org/package/2006"
    row = cell.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{packed}/content-types">'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/></Types>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rels}"><sheets>'
        '<sheet name="S" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{packed}/relationships"><Relationship '
        f'Id="rId1" Type="{rels}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "_rels/.rels": f'<Relationships xmlns="{packed}/relationships"><Relationship Id="rId1" '
        f'Type="{rels}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{" " * much}<row r="1">'
        '<c r="A1" t="inlineStr"><is><t>user_id</t></is></c></row>'
        f'<row r="{row}"><c r="{cell}"><v>1</v></c></row></sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, text in files.items():
            book.writestr(name, text)
    return path


def test_a_workbook_that_asks_for_more_than_it_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastexcel")
    assert read_table(workbook(tmp_path / "a.xlsx", "A2")).height == 1
    far = workbook(tmp_path / "b.xlsx", "XFD1048576")
    assert far.stat().st_size < 2000
    with pytest.raises(DataError, match="has 2 cells, but reaches to column XFD and row 1,048,576"):
        read_table(far)
    monkeypatch.setattr("retailrec.data.files._MOST_BYTES", 1 << 20)
    with pytest.raises(DataError, match="unpacks to"):
        read_table(workbook(tmp_path / "c.xlsx", "A2", 3 << 20))


def test_types_of_arrow_that_polars_has_not_are_refused_in_words() -> None:
    pa = pytest.importorskip("pyarrow")
    plain = {"user_id": [1, 2], "item_id": ["a", "b"], "time": ["2024-01-01", "2024-01-02"]}
    odd = pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval())
    with pytest.raises(DataError, match="a column of the Table can't be read"):
        RetailData.from_frames(pa.table(plain | {"x": odd}))
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))
    assert RetailData.from_frames(pa.table(plain | {"value": flags})).report.rejected == {
        "zero price": 1
    }
    with pytest.raises(DataError, match="none of the 2 lines"):
        RetailData.from_frames(pa.table(plain | {"time": pa.nulls(2)}))


def test_what_is_posted_is_known_though_a_till_dated_its_lines(store: Store) -> None:
    parts = lines(("tea", 1, 2), ("jam", 1, 3), ("tea", 2, 4), ("rye", 1, 1)).drop("basket_id")
    parts = parts.with_columns(time=pl.lit(TEN) + pl.duration(seconds=pl.Series([0, 40, 90, 40_000])))
    assert load_frames(store, parts).new == 4
    said = [Line("tea", 3, 6), Line("jam", 1, 3)]
    assert store.add(accept([Posted("ann", "7", TEN, said)]).receipts) == (0, 1, 0, ())
    for other in ([Line("tea", 2, 4)], [*said, Line("rye", 1, 1)]):
        number = f"8{len(other)}"
        for new in (True, False):  # what differs is named as a load names it, and once
            found = store.add(accept([Posted("ann", number, TEN, other)]).receipts)
            assert found.new == new
            assert found.beside == ((("ann", number, "20240102T100000"),) if new else ())


def test_a_part_of_a_receipt_whose_number_started_anew_completes_it(store: Store) -> None:
    two = [("tea", 1, 2), ("jam", 1, 3)]
    dated = [
        lines(*two, time=[TEN + timedelta(days=d), TEN + timedelta(days=d, seconds=40)]) for d in (0, 9)
    ]
    assert load_frames(store, pl.concat(dated)).new == 2
    for frame in (dated[1][1:], dated[0][1:], dated[1]):
        found = load_frames(store, frame)
        assert (found.new, found.completed) == (0, 0)
    assert len(stored(store)) == 2


def test_receipts_that_version_0_2_called_by_their_time_are_known_without_numbers(store: Store) -> None:
    called = [(0, [Line("tea", 1, 2)]), (0, [Line("jam", 1, 3)]), (60, [Line("rye", 1, 1)])]
    for n, (later, items) in enumerate(called):
        time = TEN + timedelta(seconds=later)
        number = f"{time:%Y%m%dT%H%M%S}.000000-000{n % 2}"
        store.add(accept([Posted("ann", number, time, items)]).receipts)
    kept = stored(store)
    rows = lines(("tea", 1, 2), ("jam", 1, 3), ("rye", 1, 1), ("oil", 1, 5)).drop("basket_id")
    rows = rows.with_columns(time=pl.lit(TEN) + pl.duration(seconds=pl.Series([0, 0, 60, 60])))
    found = load_frames(store, rows[:3])
    assert (found.new, found.completed, stored(store)) == (0, 0, kept)
    found = load_frames(store, rows)  # of the second one more is known
    assert (found.new, found.completed) == (0, 1)
    assert stored(store) == kept | {"20240102T100100.000000-0000": {"rye": 1, "oil": 1}}


def test_returns_without_a_user_are_loaded_again(store: Store) -> None:
    """As Online Retail has them: an invoice that begins with C, and no customer."""
    rule = LineRule("return or cancellation", pl.col("basket_id").str.starts_with("C"))
    sale = pl.concat(
        [
            lines(("tea", 1, 2), basket_id="1"),
            lines(("tea", -1, -2), user_id=None, basket_id="C2"),
            lines(("tea", -1, -2), time=None, basket_id="C3"),
            lines(("tea", -1, -2), basket_id="C4"),
        ],
        how="vertical_relaxed",
    )
    for new in (1, 0):
        load = LoadReport("x")
        assert load_frames(store, sale, rules=[rule], report=load).new == new
        assert (load.rejected, load.notes) == ({"return or cancellation": 3}, [])


def test_what_is_taken_back_of_a_number_that_was_used_again_is_said(store: Store) -> None:
    sale = pl.concat([lines(("tea", 1, 2), time=TEN + timedelta(days=day)) for day in range(3)])
    load_frames(store, sale)
    load = LoadReport("x")
    back = lines(("tea", -1, -2), ("jam", 1, 1), time=TEN + timedelta(days=1))
    load_frames(store, back, report=load)
    (note,) = load.notes
    assert note.startswith("1 items of receipts are taken back here"), note


@pytest.mark.parametrize("hours", [-7, 1, 5.75])
def test_exports_of_two_zones_without_numbers_are_said_at_the_second_load(
    store: Store, hours: float
) -> None:
    at = [TEN + timedelta(hours=37 * n, seconds=n) for n in range(40)]
    sale = lines(*[(f"i{n % 3}", 1 + n % 2, 2.0) for n in range(40)], time=at).drop("basket_id")
    load_frames(store, sale[:30])
    load, shifted = LoadReport("x"), sale.with_columns(pl.col("time") + timedelta(hours=hours))
    assert load_frames(store, shifted[20:], report=load).new == 20
    (note,) = load.notes
    assert note.startswith("10 receipts have the shopper and contents of one in the store"), note
    load, chance = LoadReport("x"), sale[:4].with_columns(pl.col("time") - timedelta(hours=3))
    load_frames(store, chance, report=load)  # few: a user may buy the same again
    assert not load.notes


@pytest.mark.parametrize("days", [-1462, -1, 1])  # spreadsheets count days from either of two
def test_numbers_that_come_again_on_another_day_with_the_same_contents_are_said(
    store: Store, days: int
) -> None:
    """Instacart's orders have days that count from the last one, so a later export moves them all."""
    at = [TEN + timedelta(days=4 * n) for n in range(6)]
    sale = lines(*[("tea", 1 + n, 2.0) for n in range(6)], time=at, basket_id=[*"abcdef"])
    load_frames(store, sale)
    load, later = LoadReport("x"), sale.with_columns(pl.col("time") + timedelta(days=days))
    assert load_frames(store, later, report=load).new == 6
    (note,) = load.notes
    assert note.startswith("6 receipts have the shopper, number and contents of one in the store on"), (
        note
    )
    load, again = LoadReport("x"), later.with_columns(pl.col("time") + timedelta(days=99), quantity=9)
    assert load_frames(store, again, report=load).new == 6  # a till began again
    assert not load.notes


@pytest.mark.parametrize("year", [1985, 2024])
@pytest.mark.parametrize("numbers_first", [True, False])
def test_a_till_that_dates_its_lines_counts_once_with_and_without_numbers(
    store: Store, numbers_first: bool, year: int
) -> None:
    times = ["10:00:01", "10:00:40", "10:01:10", "17:00:00", "17:00:02"]
    lines = pl.DataFrame(
        {
            "user_id": [1] * 5,
            "item_id": [7, 8, 7, 7, 9],  # the first item once more, and another receipt
            "time": [f"{year}-01-01 {time}" for time in times],
            "value": [1.0, 2.0, 1.0, 1.0, None],
        }
    )
    numbered = lines.with_columns(basket_id=pl.Series([1, 1, 1, 2, 2]))
    first, then = (numbered, lines) if numbers_first else (lines, numbered)
    assert load_frames(store, first).new == (2 if numbers_first else 5)
    found = load_frames(store, then)
    assert (found.new, found.completed) == (0, 0)
    other = then.with_columns(pl.col("value") + 1)  # other amounts are other receipts
    assert load_frames(store, other.with_columns(user_id=pl.lit(2))).new > 0
    mixed = lines.with_columns(item_id=pl.Series([7, 8, 7, 7, 8]))
    if numbers_first:
        assert load_frames(store, mixed).new == 2  # the first receipt is there, the second another one


@pytest.mark.parametrize("numbers_first", [True, False])
def test_receipts_that_overlap_or_hold_a_void_count_once_with_and_without_numbers(
    store: Store, numbers_first: bool
) -> None:
    lines = pl.DataFrame(
        {
            "user_id": ["ann"] * 7,
            "basket_id": [1, 2, 1, 2, 1, 1, 1],
            "item_id": ["tea", "oat", "jam", "rye", "oil", "jam", "tea"],
            "time": [TEN + timedelta(seconds=s) for s in (0, 5, 9, 14, 20, 30, 41)],
            "quantity": [1, 1, 1, 2, 1, -1, 2],
            "value": [2.0, 2.0, 3.0, 3.0, 5.0, -3.0, 4.0],
        }
    )
    frames = [lines, lines.drop("basket_id")][:: 1 if numbers_first else -1]
    load_frames(store, frames[0])
    report = LoadReport("x")
    found = load_frames(store, frames[1], report=report)
    voided = {"20240102T100009": {"jam": 1}}  # without numbers the void is a return
    whole = {"1": {"tea": 3, "oil": 1}, "2": {"oat": 1, "rye": 2}}
    if numbers_first:
        assert (found.new, stored(store)) == (1, whole | voided)
    else:
        assert (found.new, len(stored(store))) == (0, 6)
    assert not [note for note in report.notes if "both count" in note]


@pytest.mark.parametrize("numbers_first", [True, False])
def test_an_export_that_begins_in_the_middle_of_a_receipt_is_said_beside_one_with_numbers(
    store: Store, numbers_first: bool
) -> None:
    at = [TEN + timedelta(seconds=s) for s in (0, 40, 70)]
    whole = lines(("tea", 1, 2.0), ("jam", 2, 6.0), ("oil", 1, 5.0), time=at)
    frames = [whole, whole[1:].drop("basket_id")][:: 1 if numbers_first else -1]
    load_frames(store, frames[0])
    report = LoadReport("x")
    assert load_frames(store, frames[1], report=report).new == (2 if numbers_first else 1)
    (note,) = report.notes
    assert note.startswith(f"{2 if numbers_first else 1} receipts begin during one in the store")
    report, other = LoadReport("x"), lines(("tea", 1, 2.0), time=TEN + timedelta(days=3))
    load_frames(store, other if numbers_first else other.drop("basket_id"), report=report)
    second = lines(("tea", 3, 2.0), time=TEN + timedelta(days=3, hours=2))  # more of it
    load_frames(store, second.drop("basket_id") if numbers_first else second, report=report)
    assert report.notes == []


@pytest.mark.parametrize("numbers_first", [True, False])
def test_a_second_that_has_two_receipts_by_number_and_without_is_said(
    store: Store, numbers_first: bool
) -> None:
    known, other = lines(("tea", 2, 4)), lines(("tea", 1, 2))
    frames = [known, other.drop("basket_id")] if numbers_first else [known.drop("basket_id"), other]
    report = LoadReport("x")
    load_frames(store, frames[0])
    assert load_frames(store, frames[1], report=report).new == 1
    (note,) = report.notes
    assert note.startswith("1 receipts begin in the second of one in the store")


def test_a_number_that_comes_again_hours_later_is_said(store: Store) -> None:
    load_frames(store, lines(("tea", 1, 2), store="north"))
    for hours in (0.5, 2):
        report = LoadReport("x")
        later = lines(("tea", 1, 2), store="south", time=TEN + timedelta(hours=hours))
        assert load_frames(store, later, report=report).new == 0
    (note,) = report.notes
    assert "'1' of shopper 'ann', 2024-01-02 10:00 there, 12:00 now" in note
