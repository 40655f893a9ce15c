"""Seconds and peak memory of each step, from raw receipts to everybody's recommendations.

Generates a shop of X5 RetailHero's kind (43,000 items, 112 lines a shopper) in a temporary folder, then
loads it, fits with the profile that `auto` chooses or the one named, and recommends ten items for every
shopper. Exits with 1 if a bar is missed; the bars are those of 400,000 shoppers.

    make bench-scale USERS=20000 [PROFILE=large]
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import polars as pl
from machine import print_result

from retailrec.batch import recommend_to_file
from retailrec.config import Settings
from retailrec.datasets import load_dataset
from retailrec.datasets.simulate import preset

BARS = {"fit_s": 360.0, "recommend_s": 240.0, "peak_mb": 12_000.0}


class Steps:
    """Seconds and most memory of each step."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        done = threading.Event()
        most = [0]

        def watch() -> None:
            while not done.is_set():
                most[0] = max(most[0], resident_mb())
                sleep(0.05)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - started
            done.set()
            watcher.join()
        self.rows[name] = {"seconds": round(seconds, 1), "peak_mb": max(most[0], resident_mb())}
        print(f"{name:34}{seconds:8.1f} s {self.rows[name]['peak_mb']:8,} MB", flush=True)


def resident_mb() -> int:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // 1_000_000


def main(users: int, profile: str) -> int:
    steps = Steps()
    with TemporaryDirectory() as name:
        folder = Path(name)
        preset("x5", users=users).write(folder)
        with steps.step("load and code"):
            data = load_dataset("complete-journey", folder)
        lines = data.log.height
        settings = Settings(profile=profile).for_size(data.n_users)
        model = settings.model()
        with steps.step("fit"):
            model.fit(data)
        for part, seconds in model.report_["seconds"].items():
            print(f"  {part:32}{seconds:8.1f} s")
        with steps.step("recommend for everybody, and write"):
            recommend_to_file(model, data, folder / "recommendations.parquet", 10)
        answered = pl.scan_parquet(folder / "recommendations.parquet").select(pl.len()).collect().item()
    found = {
        "fit_s": steps.rows["fit"]["seconds"],
        "recommend_s": steps.rows["recommend for everybody, and write"]["seconds"],
        "peak_mb": max(row["peak_mb"] for row in steps.rows.values()),
    }
    missed = [name for name, bar in BARS.items() if found[name] > bar]
    print_result(
        "scale",
        {"users": users, "items": data.n_items, "lines": lines, "profile": settings.profile,
         "steps": steps.rows, "fit_parts": model.report_["seconds"],
         "source_seconds": model.report_["source_seconds"], "recommendations": answered,
         "missed": missed},
    )  # fmt: skip
    print(
        f"{users:,} shoppers, {lines:,} lines: load {steps.rows['load and code']['seconds']:.0f} s, "
        f"fit {found['fit_s']:.0f} s, recommend {found['recommend_s']:.0f} s, "
        f"{1000 * found['recommend_s'] / users:.2f} ms a shopper, {found['peak_mb']:,} MB at most"
        + (f"; MISSED: {', '.join(missed)}" if missed else "")
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "auto"))
