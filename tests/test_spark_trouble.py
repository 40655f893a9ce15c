"""What goes wrong in a real session is said in words; a real Hive table is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spark_support
from retailrec.data.files import read_table
from retailrec.errors import DataError, SettingError
from retailrec.recommender.batch import recommend_from_files
from retailrec.recommender.request import Request
from spark_support import lists

STARVED = """
import sys
from pathlib import Path
import spark_support
from retailrec.errors import SettingError
from retailrec.spark import recommend

if __name__ == "__main__":
    shop, out = map(Path, sys.argv[1:])
    with spark_support.spark("local[1]", **{"spark.executor.pyspark.memory": "600m"}):
        try:
            recommend(shop / "model", shop / "receipts", out / "there", 5)
        except SettingError as error:
            print(error)
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """With a Hive metastore of its own, as a file of settings asks for it."""
    folder = tmp_path_factory.mktemp("hive")
    url = f"jdbc:derby:;databaseName={folder}/metastore;create=true"
    more = {
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": f"file://{folder}/warehouse",
        "spark.hadoop.javax.jdo.option.ConnectionURL": url,
        "spark.driver.extraJavaOptions": f"{spark_support.YOUNG} -Dderby.system.home={folder}",
    }
    with spark_support.spark("local[2]", **more) as session:
        yield session


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spark_support.write_shop(tmp_path_factory.mktemp("trouble"))


def test_a_table_of_a_hive_metastore_is_read(session: Any, shop: Path, tmp_path: Path) -> None:
    """Partitioned by month, in a database of its own, its lines in another order than the files'."""
    from retailrec.spark import recommend

    assert session.conf.get("spark.sql.catalogImplementation") == "hive"
    session.read.parquet(str(shop / "receipts")).createOrReplaceTempView("lines")
    session.sql("CREATE DATABASE sales")
    session.sql(
        "CREATE TABLE sales.receipts (user_id BIGINT, item_id BIGINT, time TIMESTAMP, "
        "basket_id INT, quantity DOUBLE, value DOUBLE) PARTITIONED BY (month INT) STORED AS PARQUET"
    )
    session.sql("SET hive.exec.dynamic.partition.mode=nonstrict")
    session.sql(
        "INSERT INTO sales.receipts PARTITION (month) SELECT user_id, item_id, time, basket_id, "
        "quantity, value, coalesce(month(time), 0) FROM lines"
    )
    told = session.sql("DESCRIBE FORMATTED sales.receipts").collect()
    assert any(row[0] == "Provider" and row[1] == "hive" for row in told)
    there = recommend(shop / "model", "sales.receipts", tmp_path / "there", 5, waves=2)
    out = tmp_path / "here.parquet"
    one = tmp_path / "one.parquet"  # a table is one export, whatever files it was filled from
    read_table(shop / "receipts").write_parquet(one)
    local = recommend_from_files(shop / "model", one, out, Request(k=5))
    assert lists(tmp_path / "there").drop("score").equals(lists(out).drop("score"))
    assert there.load_report.rejected == local.load_report.rejected
    assert there.load_report.kept == local.load_report.kept


def test_another_python_or_none_on_the_workers_is_said(
    session: Any, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retailrec.spark import recommend

    context = session.sparkContext
    monkeypatch.setattr(context, "pythonVer", "3.8")
    with pytest.raises(SettingError, match="run another Python than this program"):
        recommend(shop / "model", shop / "receipts", tmp_path / "there", 5)
    monkeypatch.undo()
    monkeypatch.setattr(context, "pythonExec", "/no/python3")
    with pytest.raises(SettingError, match=r"can't start Python.*spark\.pyspark\.python"):
        recommend(shop / "model", shop / "receipts", tmp_path / "there", 5)


def test_paths_that_can_not_be_reached_are_said(session: Any, shop: Path, tmp_path: Path) -> None:
    from retailrec.spark import recommend

    with pytest.raises(DataError, match="can't reach what it should read or write"):
        recommend(shop / "model", "hdfs://no-such-host.invalid:8020/lines", tmp_path / "there", 5)
    with pytest.raises(DataError, match=r"/proc/none.*can't be made"):
        recommend(shop / "model", shop / "receipts", "/proc/none/there", 5)
    (tmp_path / "words.parquet").write_text("no Parquet at all, but words")
    with pytest.raises(DataError, match="can't reach what it should read or write"):
        recommend(shop / "model", tmp_path / "words.parquet", tmp_path / "there", 5)
    assert not (tmp_path / "there").exists()


def test_a_worker_with_too_little_memory_is_said(session: Any, shop: Path, tmp_path: Path) -> None:
    """In a process of its own: the limit is that of a whole session."""
    done = subprocess.run(
        [sys.executable, "-c", STARVED, str(shop), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "most likely for want of memory" in done.stdout
    assert "spark.executor.pyspark.memory, which is 600m" in done.stdout
