"""Seconds, processor seconds and peak memory of each step, from receipts to all users' lists.

Generates a shop of X5 RetailHero's kind (43,000 items, 112 lines a shopper) in a temporary folder, then
loads it, fits with the profile that `auto` chooses or the one named, and recommends ten items for every
shopper. Each size has a process of its own. With several sizes it ends with how each step grows: the
power of the number of shoppers that its time follows, 1 being in proportion. Exits with 1 if a bar is
missed; the bars of seconds and memory are those of 400,000 shoppers.

    make bench-scale USERS="20000 100000 400000" [PROFILE=large]
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, sleep
from typing import Any

import polars as pl
from machine import print_result

from retailrec.datasets import load_dataset
from retailrec.jobs.settings import Settings
from retailrec.recommender import batch
from retailrec.recommender.stage_one import StageOne
from retailrec.simulator.shop import preset_shop
from retailrec.work import Work

BARS = {"fit_s": 360.0, "recommend_s": 240.0, "peak_mb": 12_000.0}
BAR_GROWTH = 1.05  # in proportion, and a little for the noise of a machine
FIT = {  # what `fit` calls its steps, and what they are called here
    "label windows": "rows of label windows",
    "ranker": "train the ranker",
    "sources": "sources",
    "features": "features",
}


class Steps:
    """Seconds, processor seconds and most memory of each step; one ends where the next begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.processor: dict[str, float] = defaultdict(float)
        self.peak_mb: dict[str, int] = defaultdict(int)
        self._name, self._since, self._used = "", perf_counter(), process_time()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def begin(self, name: str) -> None:
        """The step that comes now; steps of one name are added up."""
        now, used = perf_counter(), process_time()
        self.seconds[self._name] += now - self._since
        self.processor[self._name] += used - self._used
        self._name, self._since, self._used = name, now, used

    def end(self) -> None:
        """No further step."""
        self.begin("")
        self._done.set()
        self._watcher.join()
        for found in (self.seconds, self.processor, self.peak_mb):
            found.pop("", None)

    def _watch(self) -> None:
        while not self._done.is_set():
            self.peak_mb[self._name] = max(self.peak_mb[self._name], resident_mb())
            sleep(0.05)


def resident_mb() -> int:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // 1_000_000


def timed(owner: Any, name: str, part: str, spent: dict[str, float]) -> None:
    """Count the seconds of a function, those of all threads together."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def counted(*args: Any, **more: Any) -> Any:
        started = perf_counter()
        try:
            return function(*args, **more)
        finally:
            spent[part] += perf_counter() - started

    setattr(owner, name, counted)


def one(users: int, profile: str) -> dict[str, Any]:
    """All steps at one size."""
    steps = Steps()
    with TemporaryDirectory() as name:
        folder = Path(name)
        preset_shop("x5", users=users).write(folder)
        steps.begin("load and code")
        data = load_dataset("complete-journey", folder)
        settings = Settings(profile=profile).for_size(data.n_users)
        model = settings.model()
        steps.begin(FIT["label windows"])
        model.fit(data, lambda step, *_: steps.begin(FIT[step]))
        spent: dict[str, float] = defaultdict(float)  # of recommending, by what it is spent on
        timed(StageOne, "pool", "match", spent)
        timed(type(model.features_), "rows", "features", spent)
        timed(type(model.ranker_), "predict", "score", spent)
        timed(Work, "keep", "write", spent)
        timed(batch, "_combine", "write", spent)
        steps.begin("recommend and write")
        batch.recommend_to_file(model, data, folder / "recommendations.parquet", 10)
        steps.end()
        answered = pl.scan_parquet(folder / "recommendations.parquet").select(pl.len()).collect().item()
    return {
        "users": users,
        "items": data.n_items,
        "lines": data.log.height,
        "profile": settings.profile,
        "seconds": {k: round(v, 2) for k, v in steps.seconds.items()},
        "processor": {k: round(v, 2) for k, v in steps.processor.items()},
        "peak_mb": steps.peak_mb,
        "recommend_parts": {k: round(v, 2) for k, v in spent.items()},
        "recommendations": answered,
        "fit_s": round(sum(steps.seconds[k] for k in FIT.values()), 1),
        "recommend_s": round(steps.seconds["recommend and write"], 1),
    }


def show(found: dict[str, Any]) -> None:
    """A table of the steps."""
    for step, seconds in found["seconds"].items():
        used = found["processor"][step]
        print(f"{step:28}{seconds:9.1f} s{used:9.1f} s of the processor {found['peak_mb'][step]:8,} MB")
    total = sum(found["recommend_parts"].values())
    parts = ", ".join(f"{k} {v / total:.0%}" for k, v in found["recommend_parts"].items())
    print(f"  of recommending, by time in all threads: {parts}")


def main(sizes: list[int], profile: str) -> int:
    rows, missed = [], []
    for users in sizes:
        run = subprocess.run(
            [sys.executable, __file__, "--one", str(users), profile],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = json.loads(run.stdout.splitlines()[-1])
        peak = found["all_mb"] = max(found["peak_mb"].values())
        show(found)
        late = [k for k, bar in BARS.items() if (peak if k == "peak_mb" else found[k]) > bar]
        missed += [f"{k} at {users:,}" for k in late]
        print(
            f"{users:,} shoppers, {found['lines']:,} lines, {found['profile']}: "
            f"load {found['seconds']['load and code']:.0f} s, fit {found['fit_s']:.0f} s, "
            f"recommend {found['recommend_s']:.0f} s, {1000 * found['recommend_s'] / users:.3f} ms a "
            f"shopper, {peak:,} MB at most\n",
            flush=True,
        )
        rows.append(found)
    growth = {}
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        times = log(last["users"] / first["users"])
        for step, seconds in first["seconds"].items():
            growth[step] = round(log(last["seconds"][step] / max(seconds, 0.01)) / times, 2)
        for step in ("fit_s", "recommend_s"):
            growth[step] = round(log(last[step] / first[step]) / times, 2)
            missed += [f"growth of {step}"] * (growth[step] > BAR_GROWTH)
        print(
            f"{first['users']:,} to {last['users']:,} shoppers, time follows their number to the power"
        )
        print(", ".join(f"{step} {power}" for step, power in growth.items()))
    print_result("scale", {"sizes": rows, "growth": growth, "missed": missed})
    if missed:
        print(f"MISSED: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(one(int(sys.argv[2]), sys.argv[3])))
    else:
        *wanted, named = sys.argv[1:]
        sys.exit(main([int(n) for n in wanted], named))
