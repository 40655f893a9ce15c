"""`recommend` on Spark beside the local engine: time, memory, bytes shuffled, and a model of the cost.

Generates receipts of X5 RetailHero's kind (43,000 items, some 112 lines a shopper) in standard columns,
fits one model of the profile `large` on 20,000 of the shoppers, and lets both engines answer everybody.
Each run has a process of its own; CPU seconds count the JVM and its Python workers, and their peaks are
read from /proc. The lists of both engines are compared at every size. The cost model is fitted on all
sizes but the one held out, and judged on that one. Exits with 1 if a bar is missed; the bar of time is
that of 45 million lines and is judged at the largest size.

    make bench-spark LINES="1 4 16" HELD_OUT=8
    make bench-spark LINES="1 4 16 45" HELD_OUT=8 INTO=folder    # a rerun goes on
    python benchmarks/spark.py 1 4 16 45 --into folder --prepare    # receipts and model beforehand
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import polars as pl
from machine import print_result

from retailrec.data import RetailData
from retailrec.jobs.settings import Settings
from retailrec.recommender.batch import recommend_from_files
from retailrec.recommender.request import Request
from retailrec.simulator.shop import preset_shop

BARS = {"time_ratio": 1.6, "worker_mb": 1500.0, "shuffle_bytes_a_line": 60.0, "held_out_error": 0.15}
LINES_A_SHOPPER = 112
MASTER = "local[2]"


def write_receipts(folder: Path, millions: float) -> int:
    """Receipts in standard columns, a file a shard of households; number of lines."""
    folder.mkdir(parents=True)
    shop = preset_shop("x5", users=int(millions * 1e6 / LINES_A_SHOPPER))
    n_lines = 0
    clock = pl.col("TRANS_TIME").cast(pl.Int64)
    for number, lines in enumerate(shop.shards()):
        minutes = clock // 100 * 60 + clock % 100
        time = pl.datetime(2000, 1, 1) + pl.duration(days=pl.col("DAY") - 1, minutes=minutes)
        lines.select(
            pl.col("household_key").alias("user_id"),
            pl.col("PRODUCT_ID").alias("item_id"),
            pl.col("BASKET_ID").alias("basket_id"),
            time.alias("time"),
            pl.col("QUANTITY").alias("quantity"),
            pl.col("SALES_VALUE").alias("value"),
        ).write_parquet(folder / f"part-{number:05d}.parquet")
        n_lines += lines.height
    return n_lines


def fit_model(receipts: Path, folder: Path) -> None:
    """One model of the profile `large`, of 20,000 shoppers at most."""
    lines = pl.read_parquet(receipts / "*.parquet")
    data = RetailData.from_frames(lines.filter(pl.col("user_id") <= 20_000))
    Settings(profile="large").for_size(data.n_users).model().fit(data).save(folder)


def answer(engine: str, model: Path, receipts: Path, out: Path, log: Path) -> None:
    """One run; prints what it took."""
    seen = Workers()
    started = perf_counter()
    if engine == "local":
        found: Any = recommend_from_files(model, receipts, out, Request())
    else:
        from retailrec.spark import connect, recommend

        settings = {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.compress": "false",
            "spark.eventLog.rolling.enabled": "false",
            "spark.eventLog.dir": f"file://{log}",
            "spark.driver.memory": "2g",
        }
        session = connect(MASTER, settings)
        began = perf_counter()
        found = recommend(model, receipts, out, 10, session=session)
        seconds = perf_counter() - began
        gateway = session.sparkContext._gateway
        session.stop()
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()  # then its seconds are counted as ours
    total = perf_counter() - started
    seen.stop()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told = {
        "seconds": round(seconds if engine == "spark" else total, 2),
        "with_start": round(total, 2),
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in used) + seen.cpu_seconds, 2),
        "own_peak_mb": used[0].ru_maxrss // 1000,
        "worker_mb": seen.peak_mb,
        "shoppers": found.batch.report.n_shoppers,
        "lists": found.batch.n_rows,
    }
    if engine == "spark":
        told |= of_event_log(log)
    print(json.dumps(told))


class Workers:
    """The most memory that a Python worker of Spark below this process held, and seconds of them all.

    Nobody waits for these processes, so the system does not count their seconds as ours.
    """

    def __init__(self) -> None:
        self.peak_mb = 0
        self._ticks: dict[int, int] = {}
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """No further look."""
        self._done.set()
        self._watcher.join()

    @property
    def cpu_seconds(self) -> float:
        """Of all workers, as they were last seen."""
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        while not self._done.is_set():
            for number in below(os.getpid()):
                process = Path("/proc") / str(number)
                try:
                    if b"pyspark.daemon" in (process / "cmdline").read_bytes():
                        status = (process / "status").read_text()
                        peak = next(x for x in status.splitlines() if x.startswith("VmHWM"))
                        self.peak_mb = max(self.peak_mb, int(peak.split()[1]) // 1000)
                        stat = (process / "stat").read_text().rpartition(")")[2].split()
                        self._ticks[number] = int(stat[11]) + int(stat[12])
                except (OSError, StopIteration):  # it has ended meanwhile
                    continue
            sleep(0.5)


def below(process: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    found = [process]
    for number in found:
        found += children.get(number, [])
    return found[1:]


def of_event_log(log: Path) -> dict[str, float]:
    """Bytes shuffled, and seconds of tasks before and behind the shuffle, from Spark's own log."""
    shuffled, cleaning, answering = 0, 0.0, 0.0
    for file in log.rglob("*"):
        if not file.is_file():
            continue
        for line in file.read_text().splitlines():
            if not line.startswith('{"Event":"SparkListenerTaskEnd"'):
                continue
            metrics = json.loads(line).get("Task Metrics") or {}
            shuffled += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
            seconds = metrics["Executor Run Time"] / 1000
            reads = metrics["Shuffle Read Metrics"]
            if (
                reads["Total Records Read"]
                if "Total Records Read" in reads
                else reads["Local Bytes Read"]
            ):
                answering += seconds
            else:
                cleaning += seconds
    return {
        "shuffled_mb": round(shuffled / 1e6, 2),
        "task_s_before": round(cleaning, 2),
        "task_s_behind": round(answering, 2),
    }


def run(engine: str, model: Path, receipts: Path, folder: Path) -> dict[str, Any]:
    """One run in a process of its own."""
    log = folder / "events"
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir(parents=True)
    out = folder / ("lists.parquet" if engine == "local" else "lists")
    command = [sys.executable, __file__, "--one", engine, str(model), str(receipts), str(out), str(log)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(told.splitlines()[-1]))


def alike(folder: Path) -> bool:
    """Are both engines' lists equal, to the last digit?"""
    here, there = (
        pl.read_parquet(path).sort("user_id", "rank")
        for path in (folder / "lists.parquet", folder / "lists" / "*.parquet")
    )
    return here.equals(there)


def cost_model(rows: list[dict[str, Any]], held_out: float) -> dict[str, Any]:
    """Costs as a start and a rate a million lines, and the error at the size held out."""
    told: dict[str, Any] = {}
    known = [r for r in rows if r["millions"] != held_out]
    asked = next((r for r in rows if r["millions"] == held_out), None)
    for name in ("cpu_seconds", "shuffled_mb"):
        x = np.array([r["lines"] / 1e6 for r in known])
        y = np.array([r["spark"][name] for r in known])
        weight = 1 / y  # a hundredth counts alike at every size
        (start, rate), *_ = np.linalg.lstsq(np.stack([weight, x * weight], 1), y * weight)
        told[name] = {"start": round(float(start), 2), "a_million_lines": round(float(rate), 3)}
        if asked is not None:
            said = start + rate * asked["lines"] / 1e6
            told[name]["error_held_out"] = round(float(said / asked["spark"][name] - 1), 3)
    return told


def say(text: str) -> None:
    """Progress, apart from the figures."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def prepared(millions: float, place: Path) -> tuple[Path, Path, int]:
    """Receipts, the model and the number of lines; generated unless an earlier call did it."""
    receipts, model = place / f"receipts-{millions:g}", place / "model"
    written = place / f"lines-{millions:g}"
    if not written.exists():
        say(f"{millions:g} million lines: generate")
        shutil.rmtree(receipts, ignore_errors=True)
        written.write_text(str(write_receipts(receipts, millions)))
    if not model.exists():
        say("fit the model")
        fit_model(receipts, model)
    return receipts, model, int(written.read_text())


def measured(millions: float, place: Path) -> dict[str, Any]:
    """Both engines at one size; what an earlier call finished is read from the folder."""
    kept = place / f"row-{millions:g}.json"
    row: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"millions": millions}
    if "equal" in row:
        say(f"{millions:g} million lines: read from {kept}")
        return row
    receipts, model, row["lines"] = prepared(millions, place)
    for engine in ("local", "spark"):
        if engine not in row:
            say(f"{millions:g} million lines: {engine}, load {os.getloadavg()[0]:.1f}")
            row[engine] = run(engine, model, receipts, place)
            kept.write_text(json.dumps(row))
    row["equal"] = alike(place)
    kept.write_text(json.dumps(row))
    for made in (place / "lists.parquet", place / "lists"):
        made.unlink() if made.is_file() else shutil.rmtree(made)
    return row


def main(sizes: list[float], held_out: float, place: Path) -> int:
    rows: list[dict[str, Any]] = []
    equal = True
    for millions in sorted({*sizes, held_out}):
        row = measured(millions, place)
        rows.append(row)
        equal &= row["equal"]
        lines, here, there = row["lines"], row["local"], row["spark"]
        bytes_a_line = 1e6 * there["shuffled_mb"] / lines
        print(
            f"{lines / 1e6:6.2f} M lines, {there['shoppers']:,} shoppers: local "
            f"{here['seconds']:.0f} s "
            f"({here['cpu_seconds']:.0f} CPU s, {here['own_peak_mb']:,} MB), Spark "
            f"{there['seconds']:.0f} s and {there['with_start'] - there['seconds']:.0f} s of start "
            f"({there['cpu_seconds']:.0f} CPU s, worker {there['worker_mb']:,} MB, "
            f"{bytes_a_line:.1f} bytes shuffled a line){'' if row['equal'] else ', LISTS DIFFER'}",
            flush=True,
        )
    costs = cost_model(rows, held_out)
    for name, cost in costs.items():
        print(
            f"{name:16} {cost['start']:8.2f} + {cost['a_million_lines']:.3f} a million lines; "
            f"{cost.get('error_held_out', 0):+.1%} at {held_out:g} million, held out"
        )
    largest = rows[-1]
    found = {
        "time_ratio": largest["spark"]["seconds"] / largest["local"]["seconds"],
        "worker_mb": max(r["spark"]["worker_mb"] for r in rows),
        "shuffle_bytes_a_line": max(1e6 * r["spark"]["shuffled_mb"] / r["lines"] for r in rows),
        "held_out_error": abs(costs["cpu_seconds"].get("error_held_out", 0.0)),
    }
    missed = [name for name, bar in BARS.items() if found[name] > bar]
    for name, bar in BARS.items():
        print(f"{name:22} {found[name]:9.3f} of at most {bar:g}{'  MISSED' if name in missed else ''}")
    print_result("spark", {"rows": rows, "costs": costs, "found": found, "lists_equal": equal})
    return 1 if missed or not equal else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        answer(sys.argv[2], *(Path(p) for p in sys.argv[3:7]))
    else:
        from tempfile import TemporaryDirectory

        asked = argparse.ArgumentParser()
        asked.add_argument("millions", nargs="*", type=float, default=[1.0, 4.0, 16.0])
        asked.add_argument("--held-out", type=float, default=8.0)
        asked.add_argument("--into", type=Path, help="keep what is finished here; a rerun goes on")
        asked.add_argument("--prepare", action="store_true", help="generate into --into, no more")
        told = asked.parse_args()
        with TemporaryDirectory(prefix="retailrec-bench-") as name:
            place = told.into or Path(name)
            place.mkdir(parents=True, exist_ok=True)
            if told.prepare:
                for millions in sorted({*told.millions, told.held_out}):
                    prepared(millions, place)
                sys.exit(0)
            sys.exit(main(told.millions, told.held_out, place))
