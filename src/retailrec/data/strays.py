"""Lines dated far from all others: one wrong year would else move the start or the end of the data."""

from __future__ import annotations

import numpy as np
import polars as pl

from retailrec.data.cleaning import LineRule

_FAR = "date far from all others"
_LINES_A_STRAY = 300  # among so many lines one may be a stray
_FAR_DAYS, _FAR_GAPS = 60, 4  # far is further than so many days, and so many of the longest other gap


def far_rule(days: pl.DataFrame) -> LineRule | None:
    """A rule against a handful of dates that lie far before or after all others, if there are any.

    One wrong year among thousands of lines would else move the start or the end of the data. `days` are
    `time` (dates) and `n`, the lines of each.
    """
    days = days.sort("time")
    n = days["n"].to_numpy().astype(np.int64)
    few = n.sum() // _LINES_A_STRAY
    if not few:
        return None
    day = days["time"].dt.epoch("d").to_numpy()
    gap = np.diff(day)
    early = np.flatnonzero(np.cumsum(n)[:-1] <= few)  # gaps that part few lines from the rest
    late = np.flatnonzero(np.cumsum(n[::-1])[::-1][1:] <= few)
    inner = np.delete(gap, np.union1d(early, late))
    least = max(_FAR_DAYS, _FAR_GAPS * int(inner.max(initial=0)))
    low = max((i + 1 for i in early if gap[i] > least), default=0)
    high = min((i for i in late if gap[i] > least), default=len(day) - 1)
    if low == 0 and high == len(day) - 1:
        return None
    first, last = days["time"][int(low)], days["time"][int(high)]
    return LineRule(_FAR, ~pl.col("time").dt.date().is_between(first, last))
