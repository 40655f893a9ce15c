"""Receipt numbers that come again: one number, several visits."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

ONE_VISIT_US = 6 * 3_600_000_000  # a receipt may go on after midnight for so long
_DAY_US = 86_400_000_000


def came_again(first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Is it another visit: on another day, and more than a few hours later?"""
    return (last - first > ONE_VISIT_US) & (last // _DAY_US > first // _DAY_US)


def split_receipts(
    codes: list[NDArray[np.int32]],
    parts: list[pl.DataFrame],
    keys: NDArray[np.int64],
    times: NDArray[np.int64],
    again: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each visit its own receipt where tills start their numbers anew; `codes` change in place.

    Returns
    -------
    key (shopper and number) and first time of each receipt
    """
    rows = [np.flatnonzero(again[code]) for code in codes]
    time = np.concatenate(
        [p["time"].to_physical().to_numpy()[r] for p, r in zip(parts, rows, strict=True)]
    )
    code = np.concatenate([c[r] for c, r in zip(codes, rows, strict=True)])
    order = np.lexsort((time, code))
    time, code = time[order], code[order]
    new = np.ones(len(time), np.bool_)
    new[1:] = (code[1:] != code[:-1]) | came_again(time[:-1], time[1:])
    # what goes on and on without a pause is parted by days
    start = np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))
    new[1:] |= (time[1:] - time[start[1:]] > _DAY_US) & (time[1:] // _DAY_US > time[:-1] // _DAY_US)
    visit = np.cumsum(new) - 1
    of_line = np.empty(len(order), np.int64)
    of_line[order] = len(times) + visit
    stops = np.cumsum([len(r) for r in rows])
    for c, r, stop in zip(codes, rows, stops, strict=True):
        c[r] = of_line[stop - len(r) : stop]
    parted = np.flatnonzero(again)
    keys, times = np.concatenate([keys, keys[code[new]]]), np.concatenate([times, time[new]])
    keys[parted] = np.iinfo(np.int64).max  # to the end: no line has them any more
    return keys, times
