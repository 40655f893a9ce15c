"""What `retailrec watch` and the checks say of weeks: quiet ones, planted changes, real receipts.

A generated shop publishes quiet weeks; copies of its folder go on with a planted change each. Then
receipts of real shops are published week by week. Every alarm is printed.

    make bench-watch [USERS=300 WEEKS=36 SHOPS="generated coop online-retail"]
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl
from board_data import coop, online_retail
from machine import print_result

from retailrec.data import RetailData
from retailrec.jobs.published import WeekFolder
from retailrec.jobs.watch import LEAST_PAST, watched
from retailrec.jobs.week import publish_week
from retailrec.jobs.week_settings import read_week
from retailrec.simulator.shop import receipt_lines, small_data

CONFIG = """receipts = "exports"
folder = "weeks"
keep = 2
[request]
k = 10
[lists]
change_at_most = 1
short_at_most = 1
coverage_at_least = 0
users_at_least = 0
[model]  # small, so that sixty weeks take minutes
horizon_days = 14
label_windows = 1
n_candidates = 30
ranker = {type = "lightgbm", iterations = 20}
sources = [{type = "own_purchases"}, {type = "popularity"}]
"""
FIRST = 14  # weeks of the first export
AFTER = 4  # weeks that a change is looked at
Change = Callable[[pl.DataFrame], pl.DataFrame]


class Said(NamedTuple):
    """What one published week was said to be: refusals and other findings of checks, alarms."""

    refused: list[str]
    found: list[str]
    alarms: list[str]
    learnt: bool

    def __str__(self) -> str:
        parts = [f"refuse {n}" for n in self.refused] + [f"check {n}" for n in self.found]
        return ", ".join([*parts, *self.alarms]) or "-"


def publish(place: Path, lines: pl.DataFrame, number: int) -> Said:
    """Publish one more export; refusals are noted and accepted."""
    (place / "exports").mkdir(parents=True, exist_ok=True)
    if not (place / "week.toml").is_file():
        (place / "week.toml").write_text(CONFIG)
    lines.write_parquet(place / "exports" / f"week-{number:03}.parquet")
    plan = read_week(place / "week.toml")
    outcome = publish_week(plan)
    assert outcome.checked is not None
    refused = sorted({f.name for f in outcome.checked.findings if f.severity == "refuse"})
    if refused:
        outcome = publish_week(plan, accept=refused)
    if outcome.status != "published" or outcome.checked is None:
        raise SystemExit(f"week {number}: {outcome.reason}")
    seen = watched(WeekFolder(place / "weeks"))
    found = [f.name for f in outcome.checked.findings if f.severity != "refuse"]
    learnt = any(limits is not None for limits in seen["weeks"][-1]["usual"].values())
    return Said(
        refused, found, [alarm["message"].partition(":")[0] for alarm in seen["alarms"]], learnt
    )


def share(column: str, part: float) -> pl.Expr:
    """The same part of the ids of a column each time."""
    return pl.col(column).cast(pl.String).hash(7) % 1000 < part * 1000


def store_opens(new: pl.DataFrame) -> pl.DataFrame:
    """A fourth as many users again, whom nobody knows, in a store that was not there."""
    theirs = new.filter(share("user_id", 0.25)).with_columns(
        user_id="new-" + pl.col("user_id"),
        store=pl.lit("C"),
        basket_id=pl.col("basket_id") + 10_000_000,
    )
    return pl.concat([new, theirs])


def assortment(new: pl.DataFrame) -> pl.DataFrame:
    """A fifth of the items is delisted; others come in their place."""
    other = pl.when(share("item_id", 0.2)).then("new-" + pl.col("item_id")).otherwise("item_id")
    return new.with_columns(item_id=other)


def price_war(new: pl.DataFrame) -> pl.DataFrame:
    """A third of the items costs a fourth less, and half as much again is bought of them."""
    cheap = share("item_id", 0.33)
    return new.with_columns(
        quantity=pl.when(cheap).then(pl.col("quantity") * 1.5).otherwise("quantity"),
        value=pl.when(cheap).then(pl.col("value") * 1.5 * 0.75).otherwise("value"),
    )


def no_sundays(new: pl.DataFrame) -> pl.DataFrame:
    """The export leaves Sundays out."""
    return new.filter(pl.col("time").dt.weekday() != 7)


CHANGES: dict[str, Change] = {
    "a store opens": store_opens,
    "assortment change": assortment,
    "price war": price_war,
    "an export without Sundays": no_sundays,
}


def by_week(lines: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Exports: the first `FIRST` weeks, then one a week; a last week that is not whole is left out."""
    start = lines["time"].min().replace(hour=0, minute=0, second=0)  # type: ignore[union-attr]
    lines = lines.with_columns(week=(pl.col("time") - start).dt.total_days() // 7)
    last = int(lines["week"].max()) if lines["time"].max() is not None else 0  # type: ignore[arg-type]
    yield lines.filter(pl.col("week") < FIRST).drop("week")
    for n in range(FIRST, last):
        yield lines.filter(pl.col("week") == n).drop("week")


def ids_and_store(data: RetailData) -> pl.DataFrame:
    """Receipt lines with ids as text, and each user's store."""
    lines = receipt_lines(data).with_columns(pl.col("user_id", "item_id").cast(pl.String))
    store = pl.when(share("user_id", 0.6)).then(pl.lit("A")).otherwise(pl.lit("B"))
    return lines.with_columns(store=store)


def generated(users: int, weeks: int) -> dict[str, object]:
    """Quiet weeks, and each change after the first half of them."""
    lines = ids_and_store(small_data(users=users, weeks=FIRST + weeks + AFTER + 1))
    exports = list(by_week(lines))
    quiet: list[Said] = []
    rows: dict[str, list[str]] = {}
    with TemporaryDirectory() as home:
        place = Path(home) / "quiet"
        for n, new in enumerate(exports[: weeks + 1]):
            quiet.append(publish(place, new, n))
            print(f"quiet week {n}: {quiet[-1]}")
            if n == weeks // 2:
                for name in CHANGES:
                    shutil.copytree(place, Path(home) / name, symlinks=True)
        for name, change in CHANGES.items():
            for n in range(weeks // 2 + 1, weeks // 2 + 1 + AFTER):
                rows.setdefault(name, []).append(str(publish(Path(home) / name, change(exports[n]), n)))
                print(f"{name}, week {n - weeks // 2}: {rows[name][-1]}")
    judged = [said for said in quiet if said.learnt]
    return {
        "users": users,
        "quiet_weeks_with_thresholds": len(judged),
        "weeks_with_a_false_alarm_of_watch": sum(bool(said.alarms) for said in judged),
        "weeks_with_a_false_refusal": sum(bool(said.refused) for said in quiet[1:]),
        "weeks_with_a_false_warning": sum(bool(said.found) for said in quiet[1:]),
        "changes": rows,
    }


def real(name: str, lines: pl.DataFrame) -> dict[str, object]:
    """A shop's receipts published week by week."""
    said: list[Said] = []
    with TemporaryDirectory() as home:
        for n, new in enumerate(by_week(lines)):
            if new.is_empty():
                continue
            said.append(publish(Path(home), new, n))
            first = new["time"].min()
            print(f"{name}, week from {first:%Y-%m-%d}: {said[-1]}", flush=True)
    judged = [one for one in said if one.learnt]
    return {
        "weeks": len(said) - 1,
        "weeks_with_thresholds": len(judged),
        "weeks_with_an_alarm": sum(bool(one.alarms) for one in judged),
        "weeks_with_a_refusal": sum(bool(one.refused) for one in said[1:]),
        "least_past": LEAST_PAST,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--weeks", type=int, default=36)
    parser.add_argument(
        "--shops", nargs="*", choices=("generated", "coop", "online-retail"), default=["generated"]
    )
    asked = parser.parse_args()
    found: dict[str, object] = {}
    for shop in asked.shops:
        if shop == "generated":
            found[shop] = generated(asked.users, asked.weeks)
        else:
            data = coop() if shop == "coop" else online_retail()
            found[shop] = real(shop, receipt_lines(data))
    print_result("watch", found)


if __name__ == "__main__":
    main()
