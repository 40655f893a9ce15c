"""Generated weeks of `retailrec week`, undisturbed and killed at random moments: equal, and how long.

Each export is published by a process of its own. A second folder gets the same exports, and some of its
calls are killed after a random part of the time that the undisturbed one took; what is published there
after the next call must be equal to the last digit. A full `retailrec run` on the last receipts is what
a week without a fit is compared with.

make bench-week USERS=20000 WEEKS=52 KILLS=30
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from machine import print_result

from retailrec.simulator.shop import receipt_lines, small_data

CONFIG = 'receipts = "exports"\nfolder = "weeks"\nkeep = 3\n[request]\nk = 10\n'
BEFORE = 26  # weeks of the first export


class Call(NamedTuple):
    """How a process ended, and what it took."""

    status: int
    seconds: float
    cpu_seconds: float
    output: str


def call(*words: object, kill_after: float | None = None) -> Call:
    """The command in a process of its own, killed after some seconds if they are given."""
    started = perf_counter()
    command = [sys.executable, "-m", "retailrec", *map(str, words)]
    with TemporaryDirectory() as place:
        with open(Path(place) / "output", "wb+") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            if kill_after is not None:
                sleep(kill_after)
                os.kill(process.pid, signal.SIGKILL)  # or what it left, where it has ended by itself
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        text = (Path(place) / "output").read_text()
    cpu = used.ru_utime + used.ru_stime
    return Call(process.returncode, perf_counter() - started, cpu, text)


def published(place: Path) -> tuple[Any, ...]:
    """What is published but for the clock: manifest and lists."""
    week = place / "weeks" / "current"
    facts = json.loads((week / "manifest.json").read_text())
    for clock in ("run", "files"):
        facts.pop(clock)
    facts["model"].pop("key")  # the model's own report has seconds
    return facts, pl.read_parquet(week / "recommendations.parquet").rows()


def finish(place: Path, alarms: list[str]) -> Call:
    """Call until the week is published; refusals are noted and accepted."""
    accepted: set[str] = set()
    while True:
        more = ("--accept", ",".join(sorted(accepted))) if accepted else ()
        done = call("week", "--config", place / "week.toml", *more)
        if done.status in (0, 3):
            return done
        if done.status != 4:
            raise SystemExit(f"a week ended with {done.status}: {done.output[-800:]}")
        names = {
            line.split()[1].rstrip(":")
            for line in done.output.splitlines()
            if line.startswith("refuse ")
        }
        if not names - accepted:
            raise SystemExit(f"refused without a name: {done.output[-800:]}")
        alarms += sorted(names - accepted)
        accepted |= names


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = small_data(users=given.users, weeks=BEFORE + given.weeks, seed=given.seed)
    lines = receipt_lines(data).with_columns(
        week=(pl.col("time") - data.start.replace(hour=0)).dt.total_days() // 7,
    )
    rng = np.random.default_rng(given.seed)
    killed = rng.integers(0, given.weeks, given.kills)
    alarms: list[str] = []
    spent: dict[str, list[Call]] = {"refit": [], "no_fit": []}
    reached: list[str] = []
    with TemporaryDirectory() as home:
        calm, rough = (Path(home) / name for name in ("calm", "rough"))
        for place in (calm, rough):
            (place / "exports").mkdir(parents=True)
            (place / "week.toml").write_text(CONFIG)
        for n in range(given.weeks):
            new = lines.filter(pl.col("week") < BEFORE if n == 0 else pl.col("week") == BEFORE + n - 1)
            for place in (calm, rough):
                new.drop("week").write_parquet(place / "exports" / f"week-{n:03}.parquet")
            done = finish(calm, alarms)
            want = published(calm)
            spent["refit" if want[0]["model"]["refitted"] else "no_fit"].append(done)
            for part in rng.random(int((killed == n).sum())):
                ended = call(
                    "week", "--config", rough / "week.toml", kill_after=part * done.seconds
                ).status
                reached.append("killed" if ended == -signal.SIGKILL else f"ended with {ended}")
            finish(rough, [])
            (facts, lists), (its_facts, its_lists) = want, published(rough)
            if its_lists != lists or its_facts != facts:
                other = [name for name in facts if its_facts.get(name) != facts[name]]
                raise SystemExit(
                    f"week {n}: after a kill other things are published: {other}, lists "
                    f"are {'equal' if its_lists == lists else 'others'}"
                )
            print(f"week {n}: {done.seconds:.1f} s, {want[0]['model']['reason']}", file=sys.stderr)
        last = call("run", "table", calm / "exports", "--k", 10, "--out", Path(home) / "out")
        if last.status:
            raise SystemExit(f"run ended with {last.status}: {last.output[-800:]}")
    cpu = {
        name: float(np.median([c.cpu_seconds for c in some])) for name, some in spent.items() if some
    }
    wall = {name: float(np.median([c.seconds for c in some])) for name, some in spent.items() if some}
    print_result(
        "week",
        {
            "users": given.users,
            "weeks": given.weeks,
            "lines": int(lines.filter(pl.col("week") < BEFORE + given.weeks - 1).height),
            "kills": {ended: reached.count(ended) for ended in sorted(set(reached))},
            "published_weeks_equal": given.weeks,
            "fits": len(spent["refit"]),
            "false_alarms": alarms,
            "median_seconds": {k: round(v, 1) for k, v in wall.items()}
            | {"run": round(last.seconds, 1)},
            "median_cpu_seconds": {k: round(v, 1) for k, v in cpu.items()}
            | {"run": round(last.cpu_seconds, 1)},
            "last_week_cpu_of_run": round(spent["no_fit"][-1].cpu_seconds / last.cpu_seconds, 3)
            if spent["no_fit"]
            else None,
        },
    )


if __name__ == "__main__":
    main()
