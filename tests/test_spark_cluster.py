"""A cluster of processes: the same lists, also when one of them is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import spark_support
from retailrec.candidates import OwnPurchases
from retailrec.data import RetailData
from retailrec.evaluation.backtest import backtest
from retailrec.recommender.batch import recommend_from_files
from retailrec.recommender.request import Request
from retailrec.simulator.shop import small_data
from spark_support import QUICK, receipts_of

pytestmark = pytest.mark.slow

WISH: dict[str, Any] = {"horizon_days": 14, "n_folds": 1, "metrics": ("precision@5", "recall@10")}
SCRIPT = """
import sys
from pathlib import Path
import spark_support
from retailrec.candidates import OwnPurchases
from retailrec.evaluation.backtest import backtest
from retailrec.spark import recommend
from retailrec.spark.engine import sampled_data
from test_spark_cluster import WISH

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with spark_support.spark("local-cluster[2,1,1024]") as session:
        tell = lambda step, done=0, total=0: print(step, done, flush=True)
        found = recommend(folder / "model", folder / "receipts.parquet", folder / "there", 5, waves=3, progress=tell)
        data = sampled_data(session, folder / "receipts.parquet", f"file://{folder}/lines", sample=60)
        judged = backtest(data, {"own": OwnPurchases()}, **WISH)
        judged.values.write_parquet(folder / "judged.parquet")
        print("shoppers", found.batch.report.n_shoppers, flush=True)
"""


def executors(above: int) -> list[int]:
    """Processes of Spark's executors below one of ours."""
    parents, found = {}, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int(
                (process / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if b"CoarseGrainedExecutorBackend" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except (OSError, ValueError):
            continue

    def is_below(number: int) -> bool:
        while number > 1 and number != above:
            number = parents.get(number, 0)
        return number == above

    return [number for number in found if is_below(number)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds executors in /proc")
def test_an_executor_killed_in_the_middle_changes_no_list(tmp_path: Path) -> None:
    spark_support.require_spark()
    data = small_data(users=120, weeks=26)
    QUICK.model().fit(data).save(tmp_path / "model")
    receipts_of(data).write_parquet(tmp_path / "receipts.parquet", row_group_size=1000)
    out = tmp_path / "here.parquet"
    local = recommend_from_files(tmp_path / "model", tmp_path / "receipts.parquet", out, Request(k=5))
    more = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    killed, last = 0, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | more) as work:
        assert work.stdout is not None
        for line in work.stdout:
            last = line
            if line.startswith("recommend 1"):
                os.kill(executors(work.pid)[0], signal.SIGKILL)
                killed += 1
    assert work.returncode == 0
    assert killed == 1
    assert last.split() == ["shoppers", str(local.batch.report.n_shoppers)]
    there = pl.read_parquet(tmp_path / "there" / "*.parquet").sort("user_id", "rank")
    assert there.equals(pl.read_parquet(out).sort("user_id", "rank"))
    judged = pl.read_parquet(tmp_path / "judged.parquet")
    here = RetailData.from_frames(pl.read_parquet(tmp_path / "receipts.parquet"))
    assert judged.equals(backtest(here, {"own": OwnPurchases()}, **WISH).values)
    assert judged["user_id"].n_unique() > 60 + 20  # more than the sample
