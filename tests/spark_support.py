"""One Spark session for all tests, and small things to ask of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.jobs.settings import Settings
from retailrec.simulator.shop import small_data

QUICK = Settings(
    horizon_days=14,
    ranker={"type": "lightgbm", "iterations": 5},
    label_windows=1,
    threads=1,
    sources=[{"type": "own_purchases"}, {"type": "popularity"}, {"type": "als", "factors": 8}],
    n_candidates=30,
)
# a young JVM: most of a short test is its start
YOUNG = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
SETTINGS = {
    "spark.sql.shuffle.partitions": "3",
    "spark.driver.extraJavaOptions": YOUNG,
    "spark.executor.extraJavaOptions": YOUNG,
    "spark.driver.memory": "1g",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "500",  # so that shoppers cross batches
}


def require_spark() -> None:
    """Skip where Spark can't run."""
    pytest.importorskip("pyspark", reason="needs PySpark: pip install 'retailrec[spark]'")
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        pytest.skip("needs Java 17 or newer for Spark; .ci/run installs it from Debian")


@contextmanager
def spark(master: str, **more: str) -> Iterator[Any]:
    """A session of its own."""
    require_spark()
    from retailrec.spark import connect

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = connect(master, {**SETTINGS, **more})
    session.sparkContext.setLogLevel("OFF")
    try:
        yield session
    finally:
        session.stop()


def receipts_of(data: RetailData) -> pl.DataFrame:
    return data.log.select(
        data.users["user_id"].gather(data.log["user"]).cast(pl.Int64),
        data.items["item_id"].gather(data.log["item"]).cast(pl.Int64),
        "time",
        pl.col("basket").alias("basket_id"),
        "quantity",
        "value",
    )


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


def write_shop(folder: Path) -> Path:
    """A saved model, and soiled receipts in three files."""
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
