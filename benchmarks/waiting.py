"""Trees on a machine that other jobs use too: library threads that spin for each other, and that sleep.

Each run is a process of its own, alone and beside one busy process a core; `asleep` is what commands
set (`retailrec.compute.shards.wait_asleep`).

    make bench-waiting
"""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter, process_time

from machine import print_result

_BUSY = "while True: pass"


def train() -> None:
    """Seconds on the clock and of the processors for a ranker on 300,000 rows of 100 columns."""
    import numpy as np

    from retailrec.rankers import LightGBMRanker, TrainingFrame

    rng = np.random.default_rng(0)
    x = np.asfortranarray(rng.random((300_000, 100), np.float32))
    y = (x[:, 0] * rng.random(len(x)) > 0.8).astype(np.float32)
    groups, ones = np.arange(len(x)) // 100, np.ones(len(x), np.float32)
    frame = TrainingFrame(x, y, groups, ones, ones.astype(np.int16), [f"c{n}" for n in range(100)])
    started, busy = perf_counter(), process_time()
    LightGBMRanker(iterations=60).fit(frame)
    print(perf_counter() - started, process_time() - busy)


def measure(asleep: bool, crowded: bool) -> dict[str, float]:
    """One run, with or without a busy process for each core beside it."""
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    env |= {"GOMP_SPINCOUNT": "2000"} if asleep else {}
    others = [
        subprocess.Popen([sys.executable, "-c", _BUSY])
        for _ in range(len(os.sched_getaffinity(0)) if crowded else 0)
    ]
    try:
        command = [sys.executable, __file__, "--train"]
        told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    finally:
        for other in others:
            other.kill()
            other.wait()
    clock, busy = map(float, told.split())
    return {"seconds": round(clock, 1), "processor_seconds": round(busy, 1)}


def main() -> None:
    result = {
        f"{'asleep' if asleep else 'spinning'}, {'crowded' if crowded else 'alone'}": measure(
            asleep, crowded
        )
        for crowded in (False, True)
        for asleep in (False, True)
    }
    for name, told in result.items():
        print(f"{name:20} {told['seconds']} s, {told['processor_seconds']} s of the processors")
    print_result("waiting", result)


if __name__ == "__main__":
    train() if sys.argv[1:] == ["--train"] else main()
