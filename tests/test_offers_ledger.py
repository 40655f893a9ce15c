"""The ledger: one schema, whole files, nobody twice."""

from __future__ import annotations

import multiprocessing
import queue
import re
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retailrec.errors import DataError
from retailrec.offers.allocation import allocate
from retailrec.offers.campaign import Campaign
from retailrec.offers.ledger import LEDGER, Ledger, ledger_frame

MAY = datetime(2024, 5, 1)


def rows(users: list[int], campaign: str = "may", time: datetime = MAY) -> pl.DataFrame:
    n = len(users)
    return pl.DataFrame(
        {
            "campaign": [campaign] * n,
            "user_id": users,
            "item_id": list(range(100, 100 + n)),
            "time": [time] * n,
            "rank": [1] * n,
            "propensity": [1.0] * n,
        }
    )


def test_rows_come_back_in_the_schema(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.read().is_empty()
    ledger.append(rows([3, 1]))
    ledger.append(rows([5], campaign="june", time=datetime(2024, 6, 1)))
    found = ledger.read()
    assert dict(found.schema) == dict(LEDGER)
    assert found["user_id"].to_list() == ["3", "1", "5"]
    assert ledger.read(["june"])["user_id"].to_list() == ["5"]
    assert ledger.read(since=MAY, until=datetime(2024, 6, 1)).height == 2
    assert ledger.append(rows([])) is None


def test_an_instant_with_a_zone_is_told_by_its_own_clock(tmp_path: Path) -> None:
    ledger, now = Ledger(tmp_path), datetime(2024, 5, 8, tzinfo=timezone(timedelta(hours=2)))
    ledger.append(rows([1]))
    assert ledger.read(since=now - timedelta(days=7), until=now).height == 1
    assert ledger.read(until=now - timedelta(days=7)).is_empty()
    pairs = pl.DataFrame({"user_id": [1, 2], "item_id": ["tea", "tea"], "value": 1.0})
    campaign = Campaign(name="june", holdout=0.01, cap=[{"days": 7.0, "at_most": 1}])
    found = allocate(pairs, campaign, ledger=ledger, now=now)
    assert found.shoppers.rows() == [(1, "treated", 0), (2, "treated", 1)]
    for made in (found.ledger_rows(now), found.meant(pairs, campaign, now)):
        assert set(made["time"]) == {datetime(2024, 5, 8)}


def test_offers_are_counted_by_shopper_and_item(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(rows([1, 2]))
    ledger.append(rows([1, 2], campaign="june", time=datetime(2024, 6, 1)))
    ledger.append(
        pl.DataFrame(
            {"campaign": ["july"], "user_id": [1], "time": [MAY], "rank": [0], "holdout": [True]}
        )
    )
    assert ledger.offers_of().rows() == [("1", 2), ("2", 2)]
    assert ledger.offers_of(until=datetime(2024, 5, 20)).rows() == [("1", 1), ("2", 1)]
    assert ledger.offers_of(item=True).rows() == [("1", "100", 2), ("2", "101", 2)]


def test_a_shopper_gets_a_campaign_once_unless_allowed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(rows([1, 2]))
    with pytest.raises(DataError, match="1 shoppers already stand in campaign 'may', such as 2"):
        ledger.append(rows([2, 3]))
    assert ledger.read().height == 2
    ledger.append(rows([2, 3]), again=True)
    assert ledger.read().height == 4


def test_two_offers_at_one_rank_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(DataError, match="shopper 1 has two offers at one rank"):
        ledger.append(rows([1, 1]))
    twice = rows([1, 1]).with_columns(item_id=pl.lit(7), rank=pl.Series([1, 2]))
    with pytest.raises(DataError, match="shopper 1 has one item twice"):
        ledger.append(twice)
    assert ledger.read().is_empty()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rank": -1}, "rank must be 0"),
        ({"rank": 0}, "an item stands at rank 1 or more"),
        ({"propensity": 0.0}, "propensity must lie above 0"),
        ({"propensity": 1.1}, "propensity must lie above 0"),
        ({"propensity": float("nan")}, "propensity must lie above 0"),
        ({"propensity": None}, "every shown slot needs its propensity"),
        ({"holdout": True}, "a held-out shopper is shown nothing"),
        ({"score": float("inf")}, "score must be a number"),
        ({"campaign": None}, "column 'campaign' is empty in 1 rows"),
        ({"time": "soon"}, "column 'time' of ledger rows must hold times"),
        ({"rank": "first"}, "of another kind"),
        ({"rank": 1.5}, "'rank' must be whole"),
    ],
)
def test_bad_rows_are_a_sentence(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    bad = rows([1]).with_columns(**{name: pl.lit(value) for name, value in change.items()})
    with pytest.raises(DataError, match=re.escape(sentence)):
        Ledger(tmp_path / "ledger").append(bad)
    assert not list(tmp_path.rglob("*.parquet"))


def test_missing_columns_are_named() -> None:
    with pytest.raises(DataError, match="lack column 'time'"):
        ledger_frame(rows([1]).drop("time"))
    with pytest.raises(DataError, match="must be a data frame"):
        ledger_frame({"campaign": "may"})


def test_a_file_that_is_no_ledger_file_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(rows([1]))
    other = tmp_path / f"offers-00000001-{'0' * 16}.parquet"
    other.write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match="can't be read as a ledger file"):
        ledger.read()
    pl.DataFrame({"a": [1]}).write_parquet(other)
    with pytest.raises(DataError, match="is no ledger file"):
        ledger.append(rows([2]))


def test_a_copy_of_a_ledger_file_counts_nothing_twice_and_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    file = ledger.append(rows([1]))
    assert file is not None
    for name in (f"{file.stem} (copy).parquet", "offers-backup.parquet"):
        copied = Path(shutil.copy(file, tmp_path / name))
        for use in (ledger.read, ledger.require, lambda: ledger.append(rows([2]))):
            with pytest.raises(DataError, match=f"{re.escape(name)} is no name that a ledger gives"):
                use()
        copied.unlink()
    assert ledger.read().height == 1


def test_ids_with_blanks_in_the_file_of_another_system_meet(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    file = ledger.append(rows([1]))
    assert file is not None
    pl.read_parquet(file).with_columns(pl.col("user_id") + "  ").write_parquet(file)
    assert ledger.offers_of()["user_id"].to_list() == ["1"]


@pytest.mark.parametrize("column", ["holdout", "rank", "time", "campaign"])
def test_a_row_of_which_nothing_is_known_is_neither_held_out_nor_treated(
    column: str, tmp_path: Path
) -> None:
    """As another system may write it: it counted as treated, or as no offer."""
    ledger = Ledger(tmp_path)
    file = ledger.append(rows([1, 2]))
    assert file is not None
    pl.read_parquet(file).with_columns(
        pl.when(pl.col("user_id") == "1").then(pl.col(column))
    ).write_parquet(file)
    uses: list[Callable[[], Any]] = [
        ledger.read,
        ledger.offers_of,
        lambda: ledger.read(["may"], until=datetime(2100, 1, 1)),
        lambda: ledger.offers_around(MAY, timedelta(days=28)),
    ]
    for use in uses:
        with pytest.raises(DataError, match=f"column '{column}' is empty in 1 rows"):
            use()


def _append(folder: Path, outcome: Any) -> None:
    outcome.put("ready")
    Ledger(folder).append(rows(list(range(200))))
    outcome.put("written")


def test_a_writer_waits_until_another_has_looked_and_written(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    outcome = context.Queue()
    ledger = Ledger(tmp_path)
    with ledger.recording():
        writer = context.Process(target=_append, args=(tmp_path, outcome))
        writer.start()
        assert outcome.get(timeout=60) == "ready"
        with pytest.raises(queue.Empty):
            outcome.get(timeout=1)
        assert ledger.read().is_empty()
    assert outcome.get(timeout=60) == "written"
    writer.join()
    assert ledger.read().height == 200


def test_rows_stand_in_the_ledger_once_the_block_has_ended_well(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with ledger.recording() as record:
        file = record(rows([1]))
        assert ledger.read().is_empty()
    assert ledger._files() == [file]

    def fail(ledger: Ledger, found: pl.DataFrame) -> None:
        with ledger.recording() as record:
            record(found)
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        fail(ledger, rows([2]))
    assert ledger.read()["user_id"].to_list() == ["1"]
    assert list(ledger.folder.iterdir()) == [file]
    other = Ledger(tmp_path / "other")
    with pytest.raises(DataError, match="lack column"):
        fail(other, pl.DataFrame({"user_id": [1]}))
    assert not other.folder.exists()


def test_offers_around_a_moment_are_the_most_of_any_period_that_holds_it(tmp_path: Path) -> None:
    """Days before (-) and after the moment; a period of 7 days that holds it."""
    for days, most in (
        ([0], 1),  # the same moment counts
        ([-7, -8], 1),
        ([-5, -1, 3], 2),  # -5 and 3 are 8 days apart
        ([-4, -1, 3], 3),
        ([5, 6, 7, 8], 3),
    ):
        ledger = Ledger(tmp_path / str(days))
        times = [MAY + timedelta(days=d) for d in days]
        ledger.append(rows([1] * len(days)).with_columns(time=pl.Series(times)), again=True)
        found = ledger.offers_around(MAY, timedelta(days=7))
        assert found.rows() == [("1", most)], days
    assert ledger.offers_around(MAY + timedelta(days=5), timedelta(0)).rows() == [("1", 1)]
    whole = ledger.offers_around(datetime(1, 1, 2), timedelta(days=36_500), item=True)
    assert whole.is_empty()


def test_a_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    row = {"campaign": ["may"], "user_id": [7], "item_id": [3], "rank": [1], "propensity": [1.0]}
    time = [datetime(2024, 5, 1)]
    file = Ledger(tmp_path / "ledger").append(pl.DataFrame(row | {"time": time}))
    assert file is not None
    assert [oct(path.stat().st_mode)[-3:] for path in (file.parent, file)] == ["700", "600"]
