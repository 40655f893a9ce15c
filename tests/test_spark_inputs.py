"""What Spark makes of types, folders and odd cells is what one machine makes of them, and so is the account."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import spark_support
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.datasets import load_dataset
from retailrec.datasets.base import Reading
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.recommender.batch import recommend_from_files
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Rules
from spark_support import lists

pytestmark = pytest.mark.slow
ROW = pl.int_range(pl.len())
LINES = pl.select(basket_id=pl.int_range(400) // 2, item_id=pl.int_range(400) % 9 + 1).with_columns(
    user_id=pl.col("basket_id") % 40,
    time=pl.datetime(2024, 1, 1) + pl.duration(hours=pl.col("basket_id") * 3),
    quantity=(ROW % 3 + 1).cast(pl.Float64),
    value=(ROW % 7 + 1) * 1.25,
)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with spark_support.spark("local[2]") as session:
        yield session


def both(session: Any, path: Path, reading: Reading | None = None) -> tuple[RetailData, RetailData]:
    """The data of one machine and of Spark, whose reports are found to be alike."""
    from retailrec.spark.engine import load

    reading = reading or Reading()
    here = load_dataset(
        "table", path, reading.columns, where=reading.where, changed_ids=reading.changed_ids
    )
    there = load(session, path, reading)
    ours, theirs = here.report.as_dict(), there.report.as_dict()
    assert [report.pop("source") for report in (ours, theirs)] == ["table", path.name]
    assert theirs == ours
    assert there.items.equals(here.items)
    assert there.users.equals(here.users)
    assert there.log.equals(here.log)
    assert there.end == here.end
    return here, there


def every(n: int, odd: Any, otherwise: Any) -> pl.Expr:
    """`odd` in every n-th line."""
    return pl.when(ROW % n == 3).then(odd).otherwise(otherwise)


def some_usd() -> pl.Expr:
    return every(5, pl.lit("USD"), pl.lit("EUR")).alias("currency")


KINDS: dict[str, dict[str, Any]] = {
    "hashes of 64 bits without a sign": {
        "user_id": pl.col("user_id").hash(1),
        "item_id": pl.col("item_id").hash(2),
        "basket_id": pl.col("basket_id").cast(pl.UInt64) + every(3, 2**63, 0).cast(pl.UInt64),
    },
    "decimals that are larger": {
        "user_id": pl.col("user_id").cast(pl.Decimal(38, 0))
        + every(7, 10**25, 0).cast(pl.Decimal(38, 0)),
        "item_id": pl.col("item_id").cast(pl.Decimal(12, 2)),
    },
    "numbers with fractions": {
        "user_id": pl.col("user_id") + every(50, 0.5, 0.0),
        "item_id": (pl.col("item_id") + every(50, 0.5, 0.0)).cast(pl.Decimal(12, 2)),
        "store": (pl.col("basket_id") % 4).cast(pl.Float32) + every(9, 0.25, 0.0),
    },
    "times in nanoseconds": {
        "time": pl.col("time").cast(pl.Datetime("ns")) + pl.duration(nanoseconds=ROW)
    },
    "instants in nanoseconds": {
        "time": pl.col("time").cast(pl.Datetime("ns")).dt.replace_time_zone("Asia/Tokyo"),
        "a b": pl.col("time").cast(pl.Datetime("ns")),
    },
    "a clock": {
        "clock": pl.col("time").dt.time(),
        "item_id": pl.time(pl.col("item_id"), 30),
    },
    "no quantity is known": {"quantity": pl.lit(None, pl.Float64)},
    "money is mostly NaN": {"value": every(2, float("nan"), 2.0), "discount": every(5, -1.0, None)},
    "currencies of lines that count": {
        "currency": some_usd(),
        "value": every(5, 0.0, 2.0),
    },
    "currencies of prices": {
        "currency": some_usd(),
        "value": every(5, None, 2.0),
        "price": pl.lit(1.5),
        "status": every(6, pl.lit("cancelled"), pl.lit("paid")),
    },
    "columns that Arrow and Spark call otherwise": {
        "line": ROW,
        "reason": pl.lit("x"),
        "a.b": ROW,
        "lasts": pl.duration(hours=ROW),
        "deep": pl.struct(a=ROW),
        "day": pl.lit(date(2024, 1, 1)),
    },
    "what describes items": {
        "name": every(4, None, pl.format("Carrier bag {}", pl.col("item_id") + ROW // 200 * 7)),
        "category_1": pl.format("C{}", pl.col("item_id") % 3),
        "quantity": every(11, -1.0, 1.0),
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_columns_is_read_as_on_one_machine(session: Any, tmp_path: Path, name: str) -> None:
    file = tmp_path / "lines.parquet"
    LINES.with_columns(**KINDS[name]).write_parquet(file)
    here, _ = both(session, file)
    assert here.report.kept > 300


def test_old_ids_of_floats_and_all_that_is_said_come_in_the_same_order(
    session: Any, tmp_path: Path
) -> None:
    again = LINES[:40].with_columns(pl.lit("0").alias("zero") + pl.col("basket_id").cast(pl.String))
    lines = pl.concat(
        [LINES.cast({"basket_id": pl.String}), again.with_columns(basket_id="zero").drop("zero")]
    )
    late = pl.col("time") + pl.when(ROW > 430).then(timedelta(days=60)).otherwise(timedelta(0))
    lines = lines.with_columns(pl.col("user_id") + every(90, 0.5, 0.0), late, some_usd())
    lines.write_parquet(tmp_path / "lines.parquet")
    rows = [("user", "3", "7"), ("user", "8", "card"), ("item", "5", "9")]
    changed = ChangedIds.of(pl.DataFrame(rows, ["kind", "old", "new"], orient="row"))
    here, _ = both(session, tmp_path / "lines.parquet", Reading(changed_ids=changed))
    assert here.report.changed["user"] > 0
    assert len(here.report.notes) >= 4, here.report.notes


def test_an_item_that_was_voided_alone_and_a_day_to_come_are_counted_and_said(
    session: Any, tmp_path: Path
) -> None:
    void = LINES[:1].with_columns(item_id=pl.lit(77, pl.Int64))
    back = void.with_columns(-pl.col("quantity", "value"))
    late = LINES[100:200].with_columns(pl.col("time") + pl.duration(days=20_000))
    lines = pl.concat([LINES, void, back, late])
    lines.write_parquet(tmp_path / "lines.parquet")
    here, _ = both(session, tmp_path / "lines.parquet")
    assert here.report.n_items == 9
    assert here.n_items == 10
    assert any("yet to come" in note for note in here.report.notes)


def test_a_user_of_whom_nothing_is_left_is_none(session: Any, tmp_path: Path) -> None:
    """All was voided, or dated far from all others; who has a row in the table of users stays."""
    void = LINES[:3].with_columns(user_id=pl.Series([-3, 17, 98]), basket_id=pl.lit(999, pl.Int64))
    back = void.with_columns(-pl.col("quantity", "value"))
    far = LINES[:1].with_columns(pl.lit(99, pl.Int64).alias("user_id"), time=date(1999, 1, 1))
    pl.concat([LINES, void, back, far], how="vertical_relaxed").write_parquet(
        tmp_path / "transactions.parquet"
    )
    here, there = both(session, tmp_path)
    assert here.users["user_id"].to_list() == list(range(40))
    assert there.n_users == here.report.n_users == 40
    pl.DataFrame({"user_id": [-3, 98, *range(8)], "adult": ["yes", "no"] * 5}).write_csv(
        tmp_path / "users.csv"
    )
    here, _ = both(session, tmp_path)
    assert here.users["user_id"].to_list() == [-3, *range(40), 98]
    assert here.users.filter(here.users["user_id"] > 90)["adult"].to_list() == ["no"]


def test_what_is_taken_back_is_judged_by_its_receipt_and_not_by_its_date(
    session: Any, tmp_path: Path
) -> None:
    """Beside a date far from all others: a void over the last midnight, and a return days later."""
    last = LINES["time"].max()
    assert isinstance(last, datetime)
    late = LINES[-2:].with_columns(
        basket_id=pl.lit(999, pl.Int64), time=pl.lit(last.replace(hour=23, minute=59))
    )
    void = late[:1].with_columns(-pl.col("quantity", "value"), pl.col("time") + timedelta(minutes=2))
    back = LINES[:1].with_columns(
        -pl.col("quantity", "value"),
        basket_id=pl.lit(1000, pl.Int64),
        time=pl.lit(last + timedelta(days=4)),
    )
    far = LINES[:1].with_columns(time=pl.datetime(1999, 1, 1))
    pl.concat([LINES, late, void, back, far]).write_parquet(tmp_path / "lines.parquet")
    here, _ = both(session, tmp_path / "lines.parquet")
    assert here.report.rejected == {
        "voided on its receipt": 2,
        "return or cancellation": 1,
        "date far from all others": 1,
    }


@pytest.mark.parametrize("numbers", [True, False])
def test_a_day_on_which_all_was_voided_is_not_the_last_one(
    session: Any, tmp_path: Path, numbers: bool
) -> None:
    last = LINES["time"].max()
    assert last is not None
    voided = LINES[:2].with_columns(
        basket_id=pl.lit(999, pl.Int64), time=pl.lit(last) + timedelta(days=3)
    )
    back = voided.with_columns(-pl.col("quantity", "value"))
    lines = pl.concat([LINES, voided, back])
    end = {}
    for name, rows in {"all": lines, "half": lines[:-1]}.items():
        rows.drop([] if numbers else ["basket_id"]).write_parquet(tmp_path / f"{name}.parquet")
        end[name] = both(session, tmp_path / f"{name}.parquet")[1].end
    assert end["half"] - end["all"] == timedelta(days=3)


def test_a_receipt_number_of_returns_alone_is_not_said_to_be_another(
    session: Any, tmp_path: Path
) -> None:
    back = LINES[:6].with_columns(quantity=pl.lit(-1.0), basket_id=pl.lit("007"))
    pl.concat([LINES.cast({"basket_id": pl.String}), back]).write_parquet(tmp_path / "lines.parquet")
    here, _ = both(session, tmp_path / "lines.parquet")
    assert not here.report.notes


def test_columns_that_seem_to_be_other_ones_are_said_alike(session: Any, tmp_path: Path) -> None:
    """A row number for the receipt's, at one time; and a card that many have."""
    crowd = pl.when(ROW % 4 == 0).then(7).otherwise(pl.col("basket_id"))
    LINES.with_columns(basket_id=ROW, user_id=crowd).write_parquet(tmp_path / "lines.parquet")
    here, _ = both(session, tmp_path / "lines.parquet", Reading(where=["user_id!=7"]))
    (note,) = here.report.notes
    assert "is basket_id the number of a line?" in note
    LINES.with_columns(user_id=crowd).drop("basket_id").write_parquet(tmp_path / "lines.parquet")
    here, _ = both(session, tmp_path / "lines.parquet")
    (note,) = here.report.notes
    assert note.startswith("shopper '7' has 101 of 300 receipts")


def test_columns_under_other_names_are_said_alike(session: Any, tmp_path: Path) -> None:
    lines = LINES.rename({"quantity": "qty", "value": "amount", "user_id": "client"})
    lines.write_parquet(tmp_path / "transactions.parquet")
    items = pl.DataFrame({"item_id": range(1, 10), "department": ["a", "b", "c"] * 3})
    items.write_csv(tmp_path / "items.csv")
    here, _ = both(session, tmp_path, Reading({"user_id": "client"}))
    advised = "user_id=client,quantity=qty,value=amount,category_1=department"
    assert any(note.endswith(f"--columns {advised}") for note in here.report.notes)


def parted(place: Path, name: str, values: list[str]) -> Path:
    for number, value in enumerate(values):
        folder = place / f"{name}={value}"
        folder.mkdir(parents=True)
        part = LINES.filter(ROW % len(values) == number).drop(name, strict=False)
        part.write_parquet(folder / "part-0.parquet")
    return place


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("store", ["007", "012"]),
        ("store", ["7", "12"]),
        ("store", ["1.5", "__HIVE_DEFAULT_PARTITION__"]),
        ("user_id", [f"{n:02d}" for n in range(12)]),
        ("time", ["2024-01-01", "2024-01-02"]),
    ],
)
def test_partitions_are_what_their_folders_say(
    session: Any, tmp_path: Path, column: str, values: list[str]
) -> None:
    both(session, parted(tmp_path / "lines", column, values))


def test_a_folder_of_tables_has_a_catalogue_and_users(session: Any, tmp_path: Path) -> None:
    LINES.write_parquet(tmp_path / "transactions.parquet")
    items = pl.DataFrame({"item_id": range(1, 10), "category_1": ["a", "b", "c"] * 3})
    items.write_csv(tmp_path / "items.csv")
    pl.DataFrame({"user_id": range(40), "adult": ["yes", "no"] * 20}).write_csv(tmp_path / "users.csv")
    items.write_csv(tmp_path / "stock.csv")
    here, there = both(session, tmp_path)
    assert there.items["category_1"].to_list() == items["category_1"].to_list()
    assert any("stock.csv were not read" in note for note in here.report.notes)


def test_conditions_meet_the_lines_that_they_meet_on_one_machine(session: Any, tmp_path: Path) -> None:
    kinds = LINES.with_columns(kind=every(4, 2.0, 1.0), word=every(5, pl.lit("back "), pl.lit("sale")))
    conditions = ["kind!=2", "word!=back", "store_of!=7"]
    kinds.with_columns(store_of=pl.lit("north")).write_parquet(tmp_path / "lines.parquet")
    here, _ = both(session, tmp_path / "lines.parquet", Reading(where=conditions))
    assert here.report.rejected == {"kind=2": 100, "word=back": 60}
    assert [note[:38] for note in here.report.notes] == ["no line is left out by store_of=7, as "]


def test_files_may_hold_times_in_other_units(session: Any, tmp_path: Path) -> None:
    for number, unit in enumerate(("ns", "us", "ms", "ns")):
        some = LINES[number * 100 :][:100].with_columns(pl.col("time").cast(pl.Datetime(unit)))  # type: ignore[arg-type]
        some.write_parquet(tmp_path / f"{number}.parquet")
    both(session, tmp_path)


def test_files_may_hold_whole_numbers_of_other_widths(session: Any, tmp_path: Path) -> None:
    for number, kind in enumerate((pl.Int32, pl.Int64, pl.Int16)):
        some = LINES[number * 100 :][:100].with_columns(pl.col("item_id", "user_id").cast(kind))
        some.write_parquet(tmp_path / f"{number}.parquet")
    both(session, tmp_path)


def test_what_one_machine_refuses_spark_refuses(session: Any, tmp_path: Path) -> None:
    from retailrec.spark.engine import load

    def refused(path: Path, columns: Mapping[str, str] = {}) -> str:
        said = []
        for call in (
            lambda: load_dataset("table", path, columns),
            lambda: load(session, path, Reading(columns)),
        ):
            with pytest.raises((DataError, SettingError)) as error:
                call()
            said.append(str(error.value))
        return said[1]

    def folder(name: str, **files: pl.DataFrame) -> Path:
        (tmp_path / name).mkdir()
        for file, lines in files.items():
            lines.write_parquet(tmp_path / name / f"{file}.parquet")
        return tmp_path / name

    half, nanoseconds = LINES[200:], pl.col("time").cast(pl.Datetime("ns"))
    zoned = half.with_columns(nanoseconds.dt.replace_time_zone("UTC"))
    assert "a.parquet has times without a zone, b.parquet with one" in refused(
        folder("zones", a=LINES[:200].with_columns(nanoseconds), b=zoned)
    )
    assert "files of lacks differ: b.parquet has columns" in refused(
        folder("lacks", a=LINES[:200], b=half.drop("quantity"))
    )
    assert "differ: b.parquet" in refused(folder("more", a=LINES[:200].drop("quantity"), b=half))
    odd = folder("odd", a=LINES[:200], b=half.with_columns(pl.col("user_id").cast(pl.String)))
    with pytest.raises(DataError, match=r"differ in what a column holds: .*b\.parquet has one"):
        load(session, odd, Reading())
    delta = folder("delta", a=LINES)
    (delta / "_delta_log").mkdir()
    assert "is a table of Delta Lake" in refused(delta)
    old = folder("old", a=LINES)
    shutil.copytree(folder("older", a=LINES), old / "older")
    assert "holds older beside a.parquet" in refused(old)
    LINES.write_parquet(tmp_path / "lines.parquet")
    mistyped = refused(tmp_path / "lines.parquet", {"quantitiy": "quantity"})
    assert "names ['quantitiy'], which mean nothing here" in mistyped
    large = LINES.with_columns(item_id=every(50, 0.5, pl.col("item_id") * 3e18))
    large.write_parquet(tmp_path / "large.parquet")
    assert "different ids become one" in refused(tmp_path / "large.parquet")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spark_support.write_shop(tmp_path_factory.mktemp("spark"))


def test_users_are_read_as_on_one_machine_whatever_their_attributes(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    """Types that Spark lacks; a name of the file's own; a row again; a list."""
    from retailrec.spark import recommend

    users = pl.DataFrame({"who": [3, 7, 8, 9, 3, None]}).with_columns(
        kind=pl.lit("a").cast(pl.Categorical),
        level=pl.lit(7, pl.UInt8),
        paid=pl.lit("1.50").cast(pl.Decimal(10, 2)),
        adult=pl.lit(value=True),
        since=pl.lit(date(2020, 1, 1)),
        at=pl.lit(time(8, 30)),
        nothing=pl.lit(None),
        tags=pl.lit([["a"]]).first(),
    )
    users.write_parquet(tmp_path / "users.parquet")
    rules = Rules(forbid=[{"items": [5, 6], "when": "adult == true and level > 5"}])
    out, given = tmp_path / "here.parquet", {"reading": Reading({"user_id": "who"})}
    lines = pl.read_parquet(shop / "receipts" / "*.parquet").rename({"user_id": "who"})
    lines.write_parquet(tmp_path / "lines.parquet")
    files = (shop / "model", tmp_path / "lines.parquet")
    given |= {"users": tmp_path / "users.parquet"}
    local = recommend_from_files(*files, out, Request(k=4, rules=rules), **given)
    there = recommend(*files, tmp_path / "there", Request(k=4, rules=rules), **given)
    assert lists(tmp_path / "there").equals(lists(out))
    assert there.batch == local.batch
    assert there.load_report.as_dict() == local.load_report.as_dict()
    assert any("repeat the id" in note for note in there.load_report.notes)


def test_items_unknown_to_the_model_are_those_of_which_something_is_left(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    lines = pl.concat([pl.read_parquet(file) for file in (shop / "receipts").iterdir()])
    new = lines.filter(pl.col("item_id").is_not_null() & (pl.col("quantity") > 0))[:3]
    new = new.with_columns(
        item_id=pl.Series([10**7, 10**8, 10**6]), basket_id=pl.lit(10**6, pl.Int64), value=pl.lit(2.0)
    )
    back = new[:1].with_columns(-pl.col("quantity", "value"))
    pl.concat([lines, new, back], how="vertical_relaxed").write_parquet(tmp_path / "lines.parquet")
    files = (shop / "model", tmp_path / "lines.parquet")
    local = recommend_from_files(*files, tmp_path / "here.parquet", Request(k=3))
    there = recommend(*files, tmp_path / "there", Request(k=3))
    assert there.batch == local.batch
    assert there.batch.report.unknown_items == (10**6, 10**8, 10**9)


def test_lists_whose_users_are_written_otherwise_are_refused_as_on_one_machine(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    """What users do not want to see was shown to all of them, without a word."""
    from retailrec.spark import recommend

    pairs = pl.DataFrame({"user_id": [10**6 + 3, 10**6 + 7], "item_id": [1, 2]})
    for request, who in (
        (Request(k=3, dismissals=pairs), "dismissals"),
        (Request(k=3, rules=Rules(deny=pairs)), "the rule deny"),
        (Request(k=3, previous=pairs.with_columns(rank=1), steady=0.2), "the previous lists"),
        (Request(k=100_000), "k=100000"),
    ):
        said = []
        for call, out in ((recommend_from_files, "here.parquet"), (recommend, "there")):
            with pytest.raises(RetailRecError) as error:
                call(shop / "model", shop / "receipts", tmp_path / out, request)
            said.append(str(error.value))
        assert who in said[1]
        assert said[0].partition(":")[0] == said[1].partition(":")[0]


def test_users_asked_for_are_looked_for_in_all_receipts_as_on_one_machine(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    """Before the first receipt all are unknown, which is no reason to refuse; ids of others are."""
    from retailrec.spark import recommend

    users, request = tmp_path / "users.parquet", Request(k=3, at=datetime(1990, 1, 1))
    ids = load_dataset("table", shop / "receipts").users["user_id"]
    calls = ((recommend_from_files, "here.parquet"), (recommend, "there"))
    for asked, refused in ((ids.head(5), False), (ids.head(5) + 10**6, True)):
        asked.to_frame().write_parquet(users)
        told = []
        for call, out in calls:
            try:
                answers = call(shop / "model", shop / "receipts", tmp_path / out, request, users=users)
                told.append(answers.batch.report)
            except DataError as error:
                told.append("the shoppers in the receipts" in str(error))
        assert told[0] == told[1]
        assert (told[0] is True) == refused


def test_a_file_without_a_user_is_refused_as_on_one_machine(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    users = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": [None, None]}, {"user_id": pl.Int64}).write_parquet(users)
    for call, out in ((recommend_from_files, "here.parquet"), (recommend, "there")):
        with pytest.raises(DataError, match="there is no shopper to recommend for"):
            call(shop / "model", shop / "receipts", tmp_path / out, Request(k=3), users=users)
