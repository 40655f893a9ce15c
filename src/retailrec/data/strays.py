"""Lines dated far from all others: one wrong year would else move the start or the end of the data."""

from __future__ import annotations

import numpy as np
import polars as pl

from retailrec.data.cleaning import LineRule

_FAR = "date far from all others"
_FAR_DAYS, _FAR_GAPS = 28, 4  # far is further than so many days, and so many of the longest other gap
_LINES_A_STRAY = 300  # among so many lines one may be a stray, which is left out
_ODD_DAYS, _ODD_SHARE = 14, 0.05  # of so few lines that lie so far from the rest a report speaks


def far_rule(days: pl.DataFrame) -> LineRule | None:
    """A rule against a handful of dates that lie far before or after all others, if there are any.

    One wrong year among thousands of lines would else move the start or the end of the data. `days` are
    `time` (dates) and `n`, the lines of each.
    """
    days = days.sort("time")
    few = int(days["n"].sum()) // _LINES_A_STRAY
    low, high = _bulk(days, few, _FAR_DAYS)
    if low == 0 and high == days.height - 1:
        return None
    first, last = days["time"][low], days["time"][high]
    return LineRule(_FAR, ~pl.col("time").dt.date().is_between(first, last))


def far_notes(days: pl.DataFrame) -> list[str]:
    """What a report says of lines that are left and lie apart from the rest, by a clock or rightly."""
    days = days.sort("time")
    total = int(days["n"].sum())
    low, high = _bulk(days, int(total * _ODD_SHARE), _ODD_DAYS)
    notes = []
    for where, some, near, far in (
        ("first", days[:low], low, low - 1),
        ("last", days[high + 1 :], high, high + 1),
    ):
        if some.is_empty():
            continue
        pause = abs((days["time"][far] - days["time"][near]).days)
        span = " to ".join(dict.fromkeys(str(some["time"][place]) for place in (0, -1)))
        notes.append(
            f"the {where} {int(some['n'].sum()):,} of {total:,} lines have dates far from the others: "
            f"{span}, {pause:,} days apart; the data {'begin' if where == 'first' else 'end'} there. "
            f"If a clock was wrong, leave these lines out"
        )
    return notes


def _bulk(days: pl.DataFrame, few: int, least_days: int) -> tuple[int, int]:
    """First and last row of the dates that hold all but `few` lines on either side of a long gap."""
    n = days["n"].to_numpy().astype(np.int64)
    if not few or len(n) < 2:
        return 0, len(n) - 1
    gap = np.diff(days["time"].dt.epoch("d").to_numpy())
    early = np.flatnonzero(np.cumsum(n)[:-1] <= few)  # gaps that part few lines from the rest
    late = np.flatnonzero(np.cumsum(n[::-1])[::-1][1:] <= few)
    inner = np.delete(gap, np.union1d(early, late))
    least = max(least_days, _FAR_GAPS * int(inner.max(initial=0)))
    low = max((int(i) + 1 for i in early if gap[i] > least), default=0)
    high = min((int(i) for i in late if gap[i] > least), default=len(n) - 1)
    return low, high
