"""What the tests of the week share: a generated shop whose exports come week by week."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from cli_support import Run, retailrec
from retailrec.simulator.shop import receipt_lines, small_data

CONFIG = """
receipts = "exports"
folder = "weeks"
keep = 3
[request]
k = 5
[model]
horizon_days = 14
label_windows = 1
n_candidates = 20
threads = 1
[model.ranker]
type = "lightgbm"
iterations = 5
threads = 1
[[model.sources]]
type = "own_purchases"
[[model.sources]]
type = "popularity"
"""
FIRST, LAST = 14, 18  # weeks of the first export, and of the shop


@cache
def weekly_lines() -> pl.DataFrame:
    """Receipt lines of a generated shop, with the number of their week."""
    data = small_data(users=80, weeks=LAST, items=300)
    start = data.start.replace(hour=0)
    return receipt_lines(data).with_columns(week=(pl.col("time") - start).dt.total_days() // 7)


def published_shop(place: Path, lines: pl.DataFrame, config: str = CONFIG) -> Path:
    """A folder with a first week that is published."""
    (place / "exports").mkdir()
    lines.filter(pl.col("week") < FIRST).drop("week").write_csv(place / "exports" / "first.csv")
    (place / "week.toml").write_text(config)
    assert call(place).returncode == 0
    return place


def call(place: Path, *more: object) -> Run:
    return retailrec("week", "--config", place / "week.toml", *more)


def deliver(place: Path, lines: pl.DataFrame, n: int) -> Path:
    """The export of week n."""
    file = place / "exports" / f"week-{n}.csv"
    lines.filter(pl.col("week") == n).drop("week").write_csv(file)
    return file


def current(place: Path) -> str:
    return os.readlink(place / "weeks" / "current")


def manifest(place: Path, name: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (place / "weeks" / (name or "current") / "manifest.json").read_text()
    )
    return found


def tree(place: Path) -> dict[str, tuple[int, int]]:
    """Every file of the weeks, with its inode and time of change."""
    return {
        p.relative_to(place).as_posix(): (p.lstat().st_ino, p.lstat().st_mtime_ns)
        for p in (place / "weeks").rglob("*")
    }
