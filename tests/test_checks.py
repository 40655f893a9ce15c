"""Each check finds the fault that is planted for it, and a quiet week has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from cli_support import refused, retailrec
from conftest import real
from retailrec.checks import CHECKS, Weeks, run_checks, usual
from retailrec.datasets import load_dataset
from retailrec.errors import DataError, SettingError

WEEKS, START = 16, datetime(2024, 1, 1)  # a Monday
NEW = START + timedelta(days=7 * (WEEKS - 1))
Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def lines() -> pl.DataFrame:
    """Sixteen weeks of 90 receipts a day in three stores, from 8 to 20 o'clock."""
    rng = np.random.default_rng(7)
    n_days, per_day = 7 * WEEKS, 90
    n = n_days * per_day
    n_lines = rng.integers(2, 7, n)
    receipt = np.repeat(np.arange(n), n_lines)
    minute = rng.integers(8 * 60, 20 * 60, n)
    user, store = rng.integers(0, 250, n), rng.integers(1, 4, n)
    item = (rng.random(len(receipt)) ** 2 * 300).astype(int)
    quantity = rng.integers(1, 4, len(receipt)).astype(float)
    quantity[rng.random(len(receipt)) < 0.005] *= -1
    price = np.round(1 + rng.random(300) * 9, 2)
    day = receipt // per_day
    time = [
        START + timedelta(days=int(d), minutes=int(minute[r]))
        for d, r in zip(day, receipt, strict=True)
    ]
    frame = pl.DataFrame(
        {
            "user_id": [f"u{u:04d}" for u in user[receipt]],
            "item_id": [f"i{i:04d}" for i in item],
            "basket_id": receipt,
            "time": time,
            "quantity": quantity,
            "value": np.round(quantity * price[item], 2),
            "store": store[receipt],
            "currency": ["EUR"] * len(receipt),
            "file": [f"week-{d // 7}.csv" for d in day],
        }
    )
    return frame.with_columns(pl.col("time").cast(pl.Datetime("us")))


def found(lines: pl.DataFrame, change: Change = lambda new: new) -> dict[str, str]:
    new = lines.filter(pl.col("time") >= NEW)
    weeks = Weeks(change(new), lines.filter(pl.col("time") < NEW))
    return {f.name: f.severity for f in run_checks(weeks)}


def day(n: int) -> pl.Expr:
    return pl.col("time").dt.date() == (NEW + timedelta(days=n)).date()


def some(share: float) -> pl.Expr:
    """A share of the receipts, by their numbers."""
    return pl.col("basket_id") * 7919 % 1000 < share * 1000


def twice(new: pl.DataFrame, **changed: pl.Expr) -> pl.DataFrame:
    return pl.concat([new, new.filter(some(0.2)).with_columns(**changed)])


def with_far_dates(n: int, days: int) -> Change:
    return lambda new: pl.concat(
        [
            new,
            new.head(n).with_columns(
                pl.col("time") + timedelta(days=days), basket_id=-1 - pl.col("basket_id")
            ),
        ]
    )


def shuffled_users(new: pl.DataFrame) -> pl.DataFrame:
    return new.with_columns(user_id="n" + (pl.col("basket_id") % 170).cast(pl.String))


PLANTED: dict[str, list[Change]] = {
    "no_lines": [
        lambda new: new.clear(),
        lambda new: new.with_columns(time=pl.lit(None, pl.Datetime("us"))),
        lambda new: new.with_columns(value=pl.lit(0.0)),
        lambda new: new.with_columns(quantity=-pl.col("quantity")),
    ],
    "missing_days": [
        lambda new: new.filter(~day(0)),
        lambda new: new.filter(~day(2)),
        lambda new: new.filter(~(day(1) | day(2))),
    ],
    "half_days": [lambda new: new.filter(~day(3) | (pl.col("time").dt.hour() < 12))],
    "ends_early": [lambda new: new.filter(~day(6) | (pl.col("time").dt.hour() < 15))],
    "missing_stores": [lambda new: new.filter(pl.col("store") != 2), lambda new: new.drop("store")],
    "new_stores": [
        lambda new: new.with_columns(store=pl.when(some(0.1)).then(pl.lit(9)).otherwise("store"))
    ],
    "fewer_or_more_lines": [lambda new: new.filter(some(0.7))],
    "too_few_lines": [lambda new: new.filter(some(0.4))],
    "repeated_receipts": [lambda new: twice(new, file=pl.lit("again.csv"))],
    "resent_receipts": [lambda new: twice(new, basket_id=pl.col("basket_id") + 1_000_000)],
    "late_lines": [
        lambda new: pl.concat(
            [new, new.filter(some(0.05)).with_columns(pl.col("time") - timedelta(days=9))]
        )
    ],
    "far_dates": [with_far_dates(1, 50), with_far_dates(12, 150), with_far_dates(90, -8800)],
    "clock_moved": [lambda new: new.with_columns(pl.col("time") + timedelta(hours=3))],
    "prices_moved": [
        lambda new: new.with_columns(pl.col("value") * 100),
        lambda new: new.with_columns(pl.col("value") / 1.95583),
    ],
    "some_prices_moved": [
        lambda new: new.with_columns(
            value=pl.when(pl.col("item_id").str.ends_with("3"))
            .then(pl.col("value") * 10)
            .otherwise("value")
        )
    ],
    "units_moved": [lambda new: new.with_columns(pl.col("quantity", "value") * 6)],
    "baskets_moved": [lambda new: new.filter(pl.int_range(pl.len()).over("basket_id") < 2)],
    "returns_moved": [
        lambda new: new.with_columns(
            pl.when(some(0.1)).then(-pl.col("quantity")).otherwise("quantity").alias("quantity")
        ),
        lambda new: new.with_columns(
            value=pl.when(some(0.1)).then(-pl.col("value")).otherwise("value")
        ),
    ],
    "unusable_lines": [
        lambda new: new.with_columns(value=pl.when(some(0.3)).then(0.0).otherwise("value")),
        lambda new: new.with_columns(value=pl.when(some(0.3)).then(None).otherwise("value")),
        lambda new: new.with_columns(item_id=pl.when(some(0.3)).then(None).otherwise("item_id")),
        lambda new: new.with_columns(user_id=pl.when(some(0.3)).then(None).otherwise("user_id")),
        lambda new: new.with_columns(quantity=pl.when(some(0.3)).then(0.0).otherwise("quantity")),
    ],
    "mixed_currencies": [
        lambda new: new.with_columns(
            currency=pl.when(some(0.1)).then(pl.lit("USD")).otherwise("currency")
        )
    ],
    "user_ids_changed": [
        lambda new: new.with_columns(pl.col("user_id").str.to_uppercase()),
        lambda new: new.with_columns(user_id=pl.col("user_id") + " "),
    ],
    "item_ids_changed": [
        lambda new: new.with_columns(
            item_id=pl.when(some(0.3)).then("00" + pl.col("item_id")).otherwise("item_id")
        )
    ],
    "unknown_users": [shuffled_users],
    "unknown_items": [lambda new: new.with_columns(item_id="sku-" + pl.col("item_id").str.tail(3))],
    "guests_as_one_user": [
        lambda new: new.with_columns(
            user_id=pl.when(some(0.3)).then(pl.lit("guest")).otherwise("user_id")
        ),
        lambda new: new.with_columns(
            user_id=pl.when(some(0.3)).then(pl.lit("u9")).otherwise("user_id")
        ),
    ],
    "users_merged_or_split": [
        lambda new: new.with_columns(
            user_id="u"
            + (pl.col("user_id").str.tail(4).cast(pl.Int64) // 2).cast(pl.String).str.zfill(4)
        )
    ],
}


def test_every_check_has_a_planted_example() -> None:
    assert set(PLANTED) == set(CHECKS)


def test_a_quiet_week_has_no_finding(lines: pl.DataFrame) -> None:
    assert found(lines) == {}


@pytest.mark.parametrize(
    ("name", "change"), [(name, c) for name, all_ in PLANTED.items() for c in all_]
)
def test_a_planted_fault_is_found(lines: pl.DataFrame, name: str, change: Change) -> None:
    assert found(lines, change).get(name) == CHECKS[name].severity


def test_weeks_without_a_fault_raise_no_alarm(lines: pl.DataFrame) -> None:
    for back in range(1, 9):
        before = lines.filter(pl.col("time") < NEW - timedelta(days=7 * (back - 1)))
        assert run_checks(Weeks(before)) == []


def test_the_last_seven_days_are_compared_where_no_past_is_given(lines: pl.DataFrame) -> None:
    weeks = Weeks(lines.filter(~day(2)))
    assert (weeks.start, len(weeks.periods)) == (NEW, WEEKS - 1)
    assert [f.name for f in run_checks(weeks)] == ["missing_days", "fewer_or_more_lines"]


def test_a_single_day_is_compared_with_the_same_weekday(lines: pl.DataFrame) -> None:
    new = lines.filter(day(0))
    past = lines.filter(pl.col("time") < NEW)
    assert run_checks(Weeks(new, past)) == []
    assert Weeks(new, past).periods[0]["time"].dt.date().unique().to_list() == [
        (NEW - timedelta(days=7)).date()
    ]
    half = new.filter(pl.col("time").dt.hour() < 12)
    assert {"ends_early", "half_days"} <= {f.name for f in run_checks(Weeks(half, past))}


def test_days_on_which_the_shop_is_closed_are_passed_over(lines: pl.DataFrame) -> None:
    """Also its last day, and half a day; those of past weeks teach nothing, and others still count."""
    past = lines.filter(pl.col("time") < NEW)
    holiday, half = (NEW + timedelta(days=n) for n in (2, 6))
    new = lines.filter((pl.col("time") >= NEW) & ~day(2) & ~(day(6) & (pl.col("time").dt.hour() > 9)))
    names = [f.name for f in run_checks(Weeks(new, past))]
    assert {"missing_days", "half_days", "ends_early", "fewer_or_more_lines"} <= set(names)
    closed = [holiday.date(), half.date()]
    assert run_checks(Weeks(new, past, closed)) == []
    assert [f.name for f in run_checks(Weeks(new.filter(~day(3)), past, closed), ["missing_days"])] == [
        "missing_days"
    ]
    few = past.filter(pl.col("time").dt.date() != (holiday - timedelta(days=7)).date())
    weeks = Weeks(lines.filter(pl.col("time") >= NEW), few, [(holiday - timedelta(days=7)).date()])
    assert [len(before) for _, _, before in weeks.days] == [15, 15, 14, 15, 15, 15, 15]


def test_receipts_without_a_user_stand_under_no_id(lines: pl.DataFrame) -> None:
    new = lines.filter(pl.col("time") >= NEW)
    guests = new.with_columns(user_id=pl.when(some(0.3)).then(None).otherwise("user_id"))
    weeks = Weeks(guests, lines.filter(pl.col("time") < NEW))
    assert run_checks(weeks, ["guests_as_one_user"]) == []


def test_one_low_day_of_the_past_hides_no_half_day(lines: pl.DataFrame) -> None:
    before = (NEW + timedelta(days=3 - 56)).date()
    hours = pl.col("time").dt.hour()
    past = lines.filter((pl.col("time") < NEW) & ~((pl.col("time").dt.date() == before) & (hours > 12)))
    new = lines.filter((pl.col("time") >= NEW) & ~(day(3) & (hours > 10)))
    assert [f.name for f in run_checks(Weeks(new, past), ["half_days"])] == ["half_days"]


def test_a_small_shop_may_have_a_small_day(lines: pl.DataFrame) -> None:
    """Of some six receipts a day two are chance, and of sixty twenty are not."""
    for part, expected in ((0.06, []), (0.66, ["half_days"])):
        few = lines.filter(pl.col("basket_id") * 7919 % 1000 < part * 1000)
        n = max(1, round(2 * part / 0.06))
        day_now = few.filter(day(2))["basket_id"].unique().sort()
        gone = day_now.slice(n)
        new = few.filter((pl.col("time") >= NEW) & ~pl.col("basket_id").is_in(gone.implode()))
        weeks = Weeks(new, few.filter(pl.col("time") < NEW))
        assert len(day_now) > 2 * n
        assert [f.name for f in run_checks(weeks, ["half_days"])] == expected


def test_weeks_without_a_line_before_this_one_teach_no_clock(lines: pl.DataFrame) -> None:
    first = pl.col("time").is_between(START + timedelta(days=3), START + timedelta(days=6))
    weeks = Weeks(lines.filter(first | (pl.col("time") >= NEW)))
    assert [len(period) for period in weeks.periods] == [0] * (WEEKS - 2)
    assert run_checks(weeks) == []


def test_few_past_weeks_teach_no_threshold(lines: pl.DataFrame) -> None:
    late = lines.filter(pl.col("time") >= NEW - timedelta(days=14))
    weeks = Weeks(late.filter(~(day(2) & (pl.col("time") >= NEW))))
    assert not weeks.learnt
    assert run_checks(weeks) == []


def test_a_finding_brings_its_lines(lines: pl.DataFrame) -> None:
    new = with_far_dates(12, 150)(lines.filter(pl.col("time") >= NEW))
    (far,) = run_checks(Weeks(new, lines.filter(pl.col("time") < NEW)), ["far_dates"])
    assert (far.n_rows, far.rows.height) == (12, 12)
    assert "2024-09" in far.message


def test_a_column_that_is_missing_is_said() -> None:
    with pytest.raises(DataError, match=r"lack \['item_id'\]"):
        Weeks(pl.DataFrame({"user_id": [1], "time": [START]}))


def test_what_is_usual_widens_with_the_spread_and_with_fewer_weeks() -> None:
    narrow, wide = usual([100.0] * 20), usual([80.0, 120.0] * 10)
    assert wide[0] < narrow[0] < 100 < narrow[1] < wide[1]
    assert usual([100.0] * 4)[0] < narrow[0]
    assert usual([100.0] * 3) == (0.0, float("inf"))


@pytest.mark.slow
def test_real_weeks_raise_few_alarms() -> None:
    """Coop's last half year: the alarms are two public holidays, 25 April and 1 May 2014."""
    data = load_dataset("table", real("coop100"))
    log = data.log
    frame = log.select(
        "time",
        user_id=data.users["user_id"].gather(log["user"]),
        item_id=data.items["item_id"].gather(log["item"]),
        basket_id="basket",
    )
    refused = []
    for back in range(26):
        end = data.end - timedelta(days=7 * back)
        past = frame.filter(pl.col("time") < end)
        refused += [f.message[:60] for f in run_checks(Weeks(past)) if f.severity == "refuse"]
    assert len(refused) == 2
    assert any("2014-05-01" in message for message in refused)
    assert any("2014-04-25" in message for message in refused)


@pytest.mark.parametrize("column", ["Currency", "currency_code", "Waehrung"])
def test_the_currency_is_known_by_other_names_and_whatever_its_case(
    lines: pl.DataFrame, column: str
) -> None:
    new = pl.col("time") >= NEW
    small = lines.with_columns(
        pl.when(new).then(pl.lit("eur ")).otherwise("currency").alias("currency")
    )
    assert not run_checks(Weeks(small.rename({"currency": column})), ["mixed_currencies"])
    other = lines.with_columns(pl.when(new).then(pl.lit("usd")).otherwise("currency").alias("currency"))
    found = run_checks(Weeks(other.rename({"currency": column})), ["mixed_currencies"])
    assert ["USD" in one.message for one in found] == [True]
    assert found[0].rows.height == lines.filter(new).height


def write_week(lines: pl.DataFrame, folder: Path) -> tuple[Path, Path]:
    """This week's file in a till's own columns, and a file of the weeks before it."""
    theirs = {"user_id": "Kunde", "item_id": "Artikel", "basket_id": "Bon", "time": "Datum"}
    new, past = folder / "week.csv", folder / "past.csv"
    tidy = lines.drop("file", "currency").rename(theirs)
    tidy.filter(pl.col("Datum") >= NEW).write_csv(new, datetime_format="%Y-%m-%d %H:%M")
    tidy.filter(pl.col("Datum") < NEW).write_csv(past, datetime_format="%Y-%m-%d %H:%M")
    return new, past


COLUMNS = "user_id=Kunde,item_id=Artikel,basket_id=Bon,time=Datum"


def test_the_command_says_nothing_of_a_quiet_week_and_refuses_a_broken_one(
    lines: pl.DataFrame, tmp_path: Path
) -> None:
    new, past = write_week(lines, tmp_path)
    quiet = retailrec("check", new, "--against", past, "--columns", COLUMNS)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "nothing found" in quiet.stdout
    rows = new.read_text().splitlines(keepends=True)
    new.write_text("".join(row for row in rows if "2024-04-17" not in row))
    found, bad = tmp_path / "found.json", tmp_path / "rows.csv"
    broken = retailrec(
        "check", new, "--against", past, "--columns", COLUMNS, "--out", found, "--rows", bad
    )
    assert broken.returncode == 4
    assert "refuse missing_days: no line on 2024-04-17" in broken.stdout
    said = json.loads(found.read_text())
    assert said["refused"] is True
    assert (said["start"], said["n_past"]) == ("2024-04-15T00:00:00", WEEKS - 1)
    assert [f["name"] for f in said["findings"]] == ["missing_days", "fewer_or_more_lines"]


def test_a_header_alone_is_refused_by_the_command(lines: pl.DataFrame, tmp_path: Path) -> None:
    new, past = write_week(lines, tmp_path)
    new.write_text(new.read_text().splitlines()[0] + "\n")
    more = ("--out", tmp_path / "found.json", "--page", tmp_path / "page.html")
    for known in (("--against", past), ()):
        run = retailrec("check", new, *known, "--columns", COLUMNS, *more, "--overwrite")
        assert run.returncode == 4
        assert "no_lines" in run.stdout
        assert "0 lines, against" in run.stdout
        found = json.loads((tmp_path / "found.json").read_text())
        assert (found["start"], found["end"], found["n_lines"]) == (None, None, 0)
        for said in (run.stdout, json.dumps(found), (tmp_path / "page.html").read_text()):
            assert "1970" not in said


def test_lines_that_fail_are_written_with_their_check(lines: pl.DataFrame, tmp_path: Path) -> None:
    new, past = write_week(lines, tmp_path)
    text = new.read_text().splitlines(keepends=True)
    new.write_text("".join([*text, text[-1].replace("2024-04-21", "2024-09-21")]))
    bad, page = tmp_path / "rows.parquet", tmp_path / "check.html"
    more = ("--rows", bad, "--page", page)
    run = retailrec("check", new, "--against", past, "--columns", COLUMNS, *more)
    assert run.returncode == 4
    row = pl.read_parquet(bad).row(0, named=True)
    assert (row["check"], row["file"], row["line"]) == ("far_dates", str(new), len(text) + 1)
    shown = page.read_text()
    assert "Receipts checked: refused" in shown
    assert "2024-09-21" in shown.split('<section id="far_dates">')[1].split("</section>")[0]
    assert shown.count("<section") == 2  # the finding, and all checks


def test_the_command_lists_its_checks_and_refuses_one_that_is_none(tmp_path: Path) -> None:
    listed = retailrec("check", "--list")
    refused(retailrec("check"), "name a file or folder of receipts")
    assert all(name in listed.stdout for name in CHECKS)
    refused(retailrec("check", tmp_path, "--only", "no_such"), "there is no check 'no_such'")


def test_what_a_model_keeps_of_reading_holds_with_its_data_set_named_and_no_other_is_mixed_in(
    tmp_path: Path,
) -> None:
    """As `check --model` does: a named data set read without the encoding that its model keeps."""
    from retailrec.jobs.check import check_files

    rows = [
        f"{u},{day:%d/%m/%Y},Caf\u00e9,{i},1,2.5"
        for day in (START + timedelta(days=n) for n in range(60))
        for u in (1, 2)
        for i in (1, 2, 3)
    ]
    file = tmp_path / "till.csv"
    file.write_bytes("\n".join(["user_id,time,shop,item_id,quantity,value", *rows]).encode("cp1252"))
    kept = {"dataset": "table", "encoding": "cp1252", "time_format": "%d/%m/%Y"}
    assert check_files(file, dataset="table", kept=kept).n_lines
    with pytest.raises(SettingError, match="were of 'table', and --dataset says 'ta-feng'"):
        check_files(file, dataset="ta-feng", kept=kept)
    published = {"dataset": "ta-feng", "encoding": "cp1252"}
    with patch("retailrec.jobs.check.open_alike", side_effect=DataError("read alike")) as alike:
        for name in ("ta-feng", "table"):
            with pytest.raises(DataError, match="read alike"):
                check_files(file, dataset=name, kept=published)
    assert [call.args[0] for call in alike.call_args_list] == [published] * 2
