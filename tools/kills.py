"""End real commands in the middle of their work, and look at what stands there afterwards.

`run`, `recommend`, `save`, `tune` and `backtest` are killed at chosen calls to the system that touch
their target: what stands there must be the old whole set or the new one, and the next call must end
well and leave nothing behind. Then two processes write to one target at a time: never a mixed file.

    make kills N=60 PAIRS=20
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from retailrec.errors import RetailRecError
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import receipt_lines, small_data

CONFIG = """
horizon_days = 14
label_windows = 1
pool_size = 30
n_candidates = 20
threads = 1
prefilters = "none"
metrics = ["precision@5"]
[ranker]
type = "lightgbm"
iterations = 3
threads = 1
[[sources]]
type = "own_purchases"
[[sources]]
type = "popularity"
"""
# counts what touches the place, and ends the process at the call of that number
CHILD = """
import os, signal, sys
place, number, calls = sys.argv[1], int(sys.argv[2]), 0
EVENTS = ("open", "os.", "shutil.", "fcntl.flock", "ctypes.dlsym")
def watch(event, given):
    global calls
    if not event.startswith(EVENTS) or event in ("os.listdir", "os.scandir", "os.putenv"):
        return
    if place in str(given) or event in ("fcntl.flock", "ctypes.dlsym"):
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
sys.argv = sys.argv[:1] + sys.argv[3:]
from retailrec.cli import main
from retailrec.recommender.two_stage import TwoStageRecommender
sys.addaudithook(watch)
try:
    if sys.argv[1] == "save":
        TwoStageRecommender.load(sys.argv[2]).save(sys.argv[3])
    else:
        main()
finally:
    print("calls", calls, flush=True)
"""


class Job(NamedTuple):
    """A command, what it writes to, and how to tell which set stands there.

    Attributes
    ----------
    words : of the command line; ``{k}`` is 2 for the old set and 4 for the new one
    target : file or folder that is written to
    found : what stands there: 2, 4, or None for nothing; raises if it is no whole set
    """

    words: list[str]
    target: Path
    found: Callable[[], int | None]


def results_of(out: Path) -> int | None:
    """The k of a whole set of results."""
    if not (out / "metrics.json").exists():
        return None if not out.exists() or not any(out.iterdir()) else _mixed(f"{out} is half a set")
    k = json.loads((out / "metrics.json").read_text())["settings"]["k"]
    listed = set(json.loads((out / ".retailrec").read_text()))
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {".retailrec"}
    TwoStageRecommender.load(out / "model")
    most = pl.read_parquet(out / "recommendations.parquet").group_by("user_id").len()["len"].max()
    return int(k) if listed == there and most == k else _mixed(f"{out} is a mixture")


def lists_of(file: Path) -> int | None:
    """The k of a whole file of recommendations."""
    if not file.exists():
        return None
    sizes = pl.read_csv(file).group_by("user_id").len()["len"]
    return int(sizes[0]) if sizes.n_unique() == 1 else _mixed(f"{file} is a mixture")


def model_of(folder: Path, k_of: Callable[[TwoStageRecommender], int]) -> int | None:
    """Which of two models was saved."""
    return k_of(TwoStageRecommender.load(folder)) if (folder / "manifest.json").exists() else None


def folds_of(out: Path) -> int | None:
    """The number of folds of a whole backtest."""
    if not (out / "backtest.json").exists():
        return None if not out.exists() or not any(out.iterdir()) else _mixed(f"{out} is half a set")
    text = (out / "backtest.json").read_text()
    cutoffs = {row["cutoff"] for row in json.loads(text)["table"]}
    return len(cutoffs)


def best_of(file: Path) -> int | None:
    """4 for a whole file of best settings: those of two searches can't be told apart."""
    if not file.exists():
        return None
    return 4 if "iterations" in file.read_text() else _mixed(f"{file} was cut")


def _mixed(problem: str) -> int:
    raise RetailRecError(problem)


def call(job: Job, place: Path, k: int, number: int = 0) -> tuple[int, int]:
    """Exit status, and calls that touched the place (0 when it was killed)."""
    words = [w.format(k=k) for w in job.words]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(place), str(number), *words], capture_output=True, text=True
    )
    counted = [line for line in done.stdout.splitlines() if line.startswith("calls ")]
    if done.returncode not in (0, 2, -signal.SIGKILL):
        raise RetailRecError(f"{words[0]} ended with {done.returncode}: {done.stderr[-600:]}")
    return done.returncode, int(counted[-1].split()[1]) if counted else 0


def names(place: Path) -> list[str]:
    """Everything below a place; checksums within names are left out."""
    found = (p.relative_to(place).as_posix() for p in place.rglob("*"))
    return sorted(re.sub(r"[0-9a-f]{16,}", "*", name) for name in found)


def kill_often(name: str, job: Job, place: Path, kills: int) -> Counter[str]:
    """Outcomes of so many kills, spread over the calls of the command."""
    call(job, place, 2)
    pristine = place.with_name(place.name + ".old")
    shutil.rmtree(pristine, ignore_errors=True)
    shutil.copytree(place, pristine, symlinks=True)
    status, total = call(job, place, 4)
    after, seen = names(place), Counter[str]()
    if status or job.found() != 4 or not total:
        raise RetailRecError(f"{name} does not work undisturbed: {status}, {total} calls")
    for turn in range(kills):
        number = 1 + turn * (total - 1) // max(kills - 1, 1)
        shutil.rmtree(place)
        shutil.copytree(pristine, place, symlinks=True)
        status, _ = call(job, place, 4, number)
        which = job.found()
        if which is None:
            raise RetailRecError(f"{name}, call {number}: the old set is gone and no new one is there")
        seen["old" if which == 2 else "new"] += 1
        if turn % 3 == 0:
            again, _ = call(job, place, 4)
            left = Counter(names(place)) - Counter(after)
            if again or job.found() != 4 or left:
                raise RetailRecError(f"{name}, call {number}: the next one ended with {again}, {left}")
            seen["went on"] += 1
    print(f"{name}: {total} calls, killed at {kills}: {dict(seen)}", flush=True)
    return seen


def two_at_once(job: Job, place: Path, rounds: int) -> None:
    """Two processes with one target: each ends well or refuses, and the file is one of theirs."""
    seen = Counter[str]()
    for _ in range(rounds):
        pair = []
        for k in (2, 4):
            words = [w.format(k=k) for w in job.words]
            command = [sys.executable, "-c", CHILD, str(place), "0", *words]
            pair.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        ends = [process.wait() for process in pair]
        which = job.found()
        if not set(ends) <= {0, 2} or which is None or ends == [2, 2]:
            raise RetailRecError(f"two at once ended with {ends} and left {which}")
        if 2 in ends and which != (2, 4)[ends.index(0)]:
            raise RetailRecError(f"the file is of k={which}, whose process refused")
        seen["both" if ends == [0, 0] else "one refused"] += 1
    print(f"two at once: {rounds} rounds, {dict(seen)}, 0 mixed", flush=True)


def jobs(shop: Path, place: Path) -> dict[str, Job]:
    """The commands, on a small shop, all of which write below `place`."""
    receipts, config = str(shop / "receipts.parquet"), str(shop / "quick.toml")
    common = ["table", receipts, "--config", config, "--quiet"]
    out, offers, tuned = place / "out", place / "offers.csv", place / "tuned.toml"
    return {
        "run": Job(
            ["run", *common, "--no-report", "--k", "{k}", "--out", str(out)],
            out,
            lambda: results_of(out),
        ),
        "recommend": Job(
            [
                "recommend",
                "--model",
                str(shop / "m2"),
                "--history",
                receipts,
                "--quiet",
                "--k",
                "{k}",
                "--out",
                str(offers),
            ],
            offers,
            lambda: lists_of(offers),
        ),
        "save": Job(
            ["save", str(shop) + "/m{k}", str(place / "model")],
            place / "model",
            lambda: model_of(place / "model", lambda model: {2: 2, 3: 4}[len(model.sources)]),
        ),
        "backtest": Job(
            ["backtest", *common, "--folds", "{k}", "--store", str(place / "folds"), "--out", str(out)],
            out,
            lambda: folds_of(out),
        ),
        "tune": Job(
            [
                "tune",
                *common,
                "--folds",
                "1",
                "--trials",
                "1",
                "--study",
                str(place / "study"),
                "--out",
                str(tuned),
            ],
            tuned,
            lambda: best_of(tuned),
        ),
    }


def prepare(shop: Path) -> None:
    """Receipts, settings, and two models to save and to recommend from."""
    from retailrec.candidates import OwnPurchases, Popularity
    from retailrec.rankers import LightGBMRanker

    data = small_data(users=60, weeks=30)
    receipt_lines(data).write_parquet(shop / "receipts.parquet")
    (shop / "quick.toml").write_text(CONFIG)
    sources = [OwnPurchases(), Popularity(), Popularity(kind="trending", days=60)]
    for k in (2, 3):
        model = TwoStageRecommender(
            sources=sources[:k],
            prefilters=[],
            preranker=None,
            pool_size=30,
            n_candidates=30,
            threads=1,
            ranker=LightGBMRanker(iterations=3),
        )
        model.fit(data).save(shop / ("m2" if k == 2 else "m4"))


def main() -> None:
    """Kill, look, say what was found; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=60, help="kills in all")
    parser.add_argument("--pairs", type=int, default=20, help="rounds of two processes")
    parser.add_argument("--only", default="save,recommend,run,tune,backtest")
    options = parser.parse_args()
    wanted = options.only.split(",")
    with TemporaryDirectory() as name:
        shop = Path(name) / "shop"
        shop.mkdir()
        prepare(shop)
        for command in wanted:
            place = Path(name) / command
            place.mkdir()
            job = jobs(shop, place)[command]
            kill_often(command, job, place, -(-options.n // len(wanted)))
        if options.pairs:
            place = Path(name) / "pairs"
            place.mkdir()
            two_at_once(jobs(shop, place)["recommend"], place, options.pairs)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        main()
    except RetailRecError as error:
        print(f"failed: {error}")
        sys.exit(1)
