"""The same lists and the same account of the receipts from Spark as from one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import spark_support
from retailrec.data import RetailData
from retailrec.jobs.recommend import recommend_from_files
from retailrec.jobs.settings import Settings
from retailrec.simulator.shop import small_data

QUICK = Settings(
    horizon_days=14, ranker={"type": "lightgbm", "iterations": 5}, label_windows=1, threads=1,
    sources=[{"type": "own_purchases"}, {"type": "popularity"}, {"type": "als", "factors": 8}], n_candidates=30,
)  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with spark_support.spark("local[2]") as session:
        yield session


def receipts_of(data: RetailData) -> pl.DataFrame:
    return data.log.select(
        data.users["user_id"].gather(data.log["user"]).cast(pl.Int64),
        data.items["item_id"].gather(data.log["item"]).cast(pl.Int64),
        "time", pl.col("basket").alias("basket_id"), "quantity", "value",
    )  # fmt: skip


def soiled(lines: pl.DataFrame) -> pl.DataFrame:
    """The lines with some of everything that cleaning is there for."""
    n = pl.int_range(pl.len())
    lines = lines.with_columns(
        quantity=pl.when(n % 101 == 5).then(-1.0).otherwise(pl.col("quantity")),
        value=pl.when(n % 103 == 7).then(0.0).when(n % 107 == 3).then(None).otherwise(pl.col("value")),
        user_id=pl.when(n % 211 == 9).then(None).otherwise(pl.col("user_id")),
        time=pl.when(n == 40)
        .then(pl.datetime(1985, 1, 1))
        .when(n == 77)
        .then(None)
        .otherwise(pl.col("time")),
    )
    again = lines.gather_every(50)
    more = lines.gather_every(60).with_columns(pl.col("value") + 1)  # another line of the same item
    unknown = lines.gather_every(70).with_columns(item_id=pl.lit(10**9, pl.Int64))
    return pl.concat([lines, again, more, unknown])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, and soiled receipts in three files."""
    folder = tmp_path_factory.mktemp("spark")
    data = small_data(users=120, weeks=26)
    QUICK.model().fit(data).save(folder / "model")
    lines = soiled(receipts_of(data))
    (folder / "receipts").mkdir()
    for number in range(3):
        part = lines.filter(pl.int_range(pl.len()) * 3 // pl.len() == number)
        part.write_parquet(folder / "receipts" / f"b{number} of 3.parquet", row_group_size=1000)
    return folder


def lists(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path / "*.parquet" if path.is_dir() else path).sort("user_id", "rank")


def test_lists_and_the_account_are_those_of_one_machine(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    here = recommend_from_files(
        shop / "model", shop / "receipts", None, 5, {}, tmp_path / "here.parquet"
    )
    there = recommend(
        shop / "model", shop / "receipts", tmp_path / "there", 5, waves=3, shard_lines=700
    )
    assert lists(tmp_path / "there").equals(lists(tmp_path / "here.parquet"))
    one, other = here.load_report.as_dict(), there.load_report.as_dict()
    assert one == other
    assert here.batch == there.batch
