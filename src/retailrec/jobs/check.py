"""Check files of receipts against earlier ones, and lists before they are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from retailrec.checks import CHECKS, Finding, Weeks, run_checks
from retailrec.compute.progress import Progress, silent
from retailrec.data.cleaning import LoadReport, kept_lines, parse_lines
from retailrec.data.files import located, stack
from retailrec.datasets import open_alike, open_dataset
from retailrec.datasets.base import PLAIN, Reading, Tables
from retailrec.errors import SettingError


@dataclass(frozen=True)
class Checked:
    """What the checks found.

    Attributes
    ----------
    findings : the most severe first
    start, end : of the days in question; None where no line has a time
    n_lines : lines in question
    n_past : past weeks (or as many days) that were learnt from
    """

    findings: list[Finding]
    start: datetime | None
    end: datetime | None
    n_lines: int
    n_past: int

    @classmethod
    def of(cls, weeks: Weeks, findings: list[Finding]) -> Checked:
        """Findings on the weeks."""
        dated = weeks.lines["time"].is_not_null().any()
        start, end = (weeks.start, weeks.end) if dated else (None, None)
        return cls(findings, start, end, weeks.lines.height, len(weeks.periods))

    @property
    def refused(self) -> bool:
        """May nothing be published from these receipts?"""
        return any(f.severity == "refuse" for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it; the failing lines are left out."""
        return {
            "start": None if self.start is None else self.start.isoformat(),
            "end": None if self.end is None else self.end.isoformat(),
            "n_lines": self.n_lines,
            "n_past": self.n_past,
            "refused": self.refused,
            "findings": [found.as_dict() for found in self.findings],
        }

    def rows(self) -> pl.DataFrame:
        """The lines concerned, each with the `check` that found it; one may stand there twice."""
        frames = [
            f.rows.select(pl.lit(f.name).alias("check"), pl.all())
            for f in self.findings
            if "time" in f.rows.columns
        ]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame({"check": []})


def check_files(
    receipts: Path,
    against: Path | None = None,
    *,
    dataset: str = "table",
    reading: Reading = PLAIN,
    kept: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    closed: Sequence[date] = (),
    progress: Progress = silent,
) -> Checked:
    """Findings of the checks in `names`, or of all, on a file or folder of receipts.

    `against` holds earlier receipts; without it the last seven days are compared with those before.
    `kept` is how a model's receipts were read: what is not said is as there. `closed` are days on which
    the shop is closed: see `Weeks`.

    Raises
    ------
    SettingError
        If there is no such check or data set, or another one than the model's.
    DataError
        If a file can't be read.
    """
    if unknown := sorted(set(names) - set(CHECKS)):
        raise SettingError(f"there is no check '{unknown[0]}'; expected some of {', '.join(CHECKS)}.")
    was = kept.get("dataset", "table") if kept else dataset
    if dataset not in ("table", was):
        raise SettingError(
            f"check: the model's receipts were of '{was}', and --dataset says '{dataset}'; leave one "
            f"of the two out."
        )
    read = []
    for file in [receipts] if against is None else [receipts, against]:
        progress(f"read {file}")
        tables = open_alike(kept, file, reading) if kept else open_dataset(dataset, file, reading)
        read.append((typed_lines(tables), tables.report.spans))
    progress("check")
    weeks = Weeks(read[0][0], None if against is None else read[1][0], closed)
    found = [
        replace(one, rows=located(one.rows, read[0][1])) for one in run_checks(weeks, names or None)
    ]
    return Checked.of(weeks, found)


def typed_lines(tables: Tables) -> pl.DataFrame:
    """Typed lines, of one's own table those that are purchases; of a header alone, none."""
    raw = stack(list(tables.transactions))
    if not raw.is_empty():
        lines = parse_lines(
            raw, tables.columns, time_format=tables.time_format, changed_ids=tables.changed_ids
        )
        own = tables.report.reading.get("dataset") == "table"
        return kept_lines(lines, tables.rules, LoadReport("check")) if own else lines
    named = raw.rename({theirs: ours for ours, theirs in tables.columns.items()}, strict=False)
    kinds = {"time": pl.Datetime("us"), "quantity": pl.Float64(), "value": pl.Float64()}
    return named.cast({c: kind for c, kind in kinds.items() if c in named.columns})


# --- lists ------------------------------------------------------------------------------------------

LIST_CHECKS = ("fewer_users", "short_lists", "coverage_fell", "share_of_new", "lists_changed")


class ListBounds(BaseModel):
    """What lists must keep to, or they are not published.

    Attributes
    ----------
    users_at_least : users with a list, as a share of last week's
    short_at_most : share of lists with fewer items than asked for
    coverage_at_least : different items in all lists, as a share of last week's
    new_at_least, new_at_most : share of listed items that the user has not bought before
    change_at_most : share of listed items that the user's list of last week did not have
    """

    model_config = ConfigDict(extra="forbid")

    users_at_least: float = Field(default=0.8, ge=0)
    short_at_most: float = Field(default=0.1, ge=0, le=1)
    coverage_at_least: float = Field(default=0.5, ge=0)
    new_at_least: float = Field(default=0, ge=0, le=1)
    new_at_most: float = Field(default=1, ge=0, le=1)
    change_at_most: float = Field(default=0.9, ge=0, le=1)


def check_lists(
    lists: Mapping[str, Any],
    last: Mapping[str, Any] | None,
    change: Mapping[str, Any] | None,
    bounds: ListBounds,
) -> list[Finding]:
    """What is out of bounds; each refuses.

    Parameters
    ----------
    lists, last : of `describe_lists`, this week's and last week's
    change : of `change_of`

    Examples
    --------
    >>> lists = {"users": 10, "items": 5, "short": 0.3, "new": 0.5}
    >>> [found.name for found in check_lists(lists, None, None, ListBounds())]
    ['short_lists']
    """
    said: dict[str, str] = {}
    if last is not None:
        for name, what, bound in (
            ("fewer_users", "users", "users_at_least"),
            ("coverage_fell", "items", "coverage_at_least"),
        ):
            least = getattr(bounds, bound) * last[what]
            if lists[what] < least:
                said[name] = (
                    f"lists have {lists[what]:,} {what}, last week's {last[what]:,}; {least:,.0f} "
                    f"are asked for (lists.{bound})."
                )
    if lists["short"] > bounds.short_at_most:
        said["short_lists"] = (
            f"{lists['short']:.1%} of the lists are short, {bounds.short_at_most:.1%} are allowed "
            f"(lists.short_at_most)."
        )
    if not bounds.new_at_least <= lists["new"] <= bounds.new_at_most:
        said["share_of_new"] = (
            f"{lists['new']:.1%} of the listed items are new to their user, {bounds.new_at_least:.1%} "
            f"to {bounds.new_at_most:.1%} are allowed (lists.new_at_least, new_at_most)."
        )
    if change is not None and change["share"] > bounds.change_at_most:
        said["lists_changed"] = (
            f"{change['share']:.1%} of the listed items were not in the user's list of last week, "
            f"{bounds.change_at_most:.1%} are allowed (lists.change_at_most)."
        )
    return [Finding(name, "refuse", message) for name, message in said.items()]
