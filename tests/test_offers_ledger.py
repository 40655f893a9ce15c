"""The ledger: one schema, whole files, nobody twice."""

from __future__ import annotations

import multiprocessing
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retailrec.errors import DataError
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
        ({"time": "soon"}, "of another kind"),
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
    (tmp_path / "offers-00000001-x.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match="can't be read as a ledger file"):
        ledger.read()
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "offers-00000001-x.parquet")
    with pytest.raises(DataError, match="is no ledger file"):
        ledger.append(rows([2]))


def _append(folder: Path, outcome: Any) -> None:
    try:
        Ledger(folder).append(rows(list(range(200))))
        outcome.put("written")
    except DataError:
        outcome.put("refused")


def test_of_two_writers_of_one_campaign_one_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    outcome = context.Queue()
    writers = [context.Process(target=_append, args=(tmp_path, outcome)) for _ in range(2)]
    for writer in writers:
        writer.start()
    found = sorted(outcome.get(timeout=60) for _ in writers)
    for writer in writers:
        writer.join()
    assert found == ["refused", "written"]
    assert Ledger(tmp_path).read().height == 200
