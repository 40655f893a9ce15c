"""Coded lines in order, without doubles, one an item of a receipt: steps that use up what they take.

A log of 45 million lines is 2.7 GB on the way. Each step is handed a list with the one frame in it and
takes the frame out, so that nobody else holds it while its columns go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.cleaning import LINE, LoadReport, set_aside
from retailrec.schema import ITEM_ID, LOG, USER_ID

CARRIED = {"store": pl.Categorical(), "discount": pl.Float32()}  # optional log columns
_DOUBLE = "exact double line"


def named(lines: pl.DataFrame, ids: Mapping[str, pl.Series]) -> pl.DataFrame:
    """Coded lines with their ids, for the rejects."""
    known = [ids[c].gather(lines[c]).alias(c) for c in ids if c in lines.columns]
    return lines.with_columns(known).drop("digest").with_columns(pl.col(pl.Categorical).cast(pl.String))


def in_order(lines: list[pl.DataFrame]) -> pl.DataFrame:
    """The lines, used up, in order of receipt and item, and of one item on one receipt as they came."""
    place, at = np.empty(lines[0].height, np.int64), 0
    for part in _columns(lines[0], ["basket", "item"]).iter_slices(1_000_000):  # few temporaries
        here = place[at : at + part.height]
        here[:] = part["basket"].to_numpy()
        here *= 2**32
        here += part["item"].to_numpy()
        at += part.height
    if (place[1:] >= place[:-1]).all():
        return lines.pop()
    order = pl.DataFrame({"place": place}).with_row_index("row").sort("place", maintain_order=True)
    rows = order["row"]
    del place, order
    return _some_rows(lines, rows)


def _same_as_before(lines: pl.DataFrame) -> NDArray[np.bool_]:
    """(n_lines,) are the line's item and receipt those of the line before?"""
    item, basket = lines["item"].to_numpy(), lines["basket"].to_numpy()
    same = np.zeros(len(item), np.bool_)
    same[1:] = (item[1:] == item[:-1]) & (basket[1:] == basket[:-1])
    return same


def without_doubles(
    lines: list[pl.DataFrame], ids: Mapping[str, pl.Series], report: LoadReport
) -> pl.DataFrame:
    """The lines, used up, but for those that repeat an earlier one in every column."""
    same = _same_as_before(lines[0])
    same[:-1] |= same[1:]
    rows = pl.DataFrame({"row": np.flatnonzero(same)})
    rows = rows.hstack(_columns(lines[0], ["basket", "item", "digest", LINE])[rows["row"]])
    first = rows.sort(LINE).unique(["basket", "item", "digest"], keep="first")
    doubles = rows.join(first, on="row", how="anti").sort("row")["row"]
    if doubles.is_empty():
        return lines.pop()
    bad = lines[0][doubles].rename({"user": USER_ID, "item": ITEM_ID}).drop("basket")
    set_aside(named(bad, ids).with_columns(reason=pl.lit(_DOUBLE)).sort(LINE), report)
    keep = np.ones(lines[0].height, np.bool_)
    keep[doubles.to_numpy()] = False
    return _some_rows(lines, pl.Series(keep))


def merged(lines: list[pl.DataFrame]) -> pl.DataFrame:
    """One row an item of a receipt, of lines that are used up.

    Quantities and known values are added up; the rest is as on the first line.
    """
    wanted = [*LOG, *(c for c in CARRIED if c in lines[0].columns)]
    same = _same_as_before(lines[0])
    if not same.any():
        return _columns(lines.pop(), wanted)
    starts = np.flatnonzero(~same)
    value = lines[0]["value"].to_numpy()  # null, which is NaN here, where not known
    known = ~np.isnan(value)
    total = np.add.reduceat(np.where(known, value, 0), starts)
    total[np.add.reduceat(known, starts, dtype=np.int64) == 0] = np.nan
    quantity = np.add.reduceat(lines[0]["quantity"].to_numpy(), starts)
    del value, known
    lines.append(_columns(lines.pop(), wanted))
    first = _some_rows(lines, pl.Series(~same))
    return first.with_columns(
        pl.Series("value", total).fill_nan(None), pl.Series("quantity", quantity)
    ).select(wanted)


def _columns(lines: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Some columns; `select` would first make one piece of all columns of a frame that is in many."""
    return pl.DataFrame([lines[name] for name in names])


def _some_rows(lines: list[pl.DataFrame], rows: pl.Series) -> pl.DataFrame:
    """Rows of the one frame in `lines`, by place or mask; it is used up, two columns at a time.

    All at once they would be in memory twice.
    """
    columns, taken = lines.pop().get_columns(), []
    while columns:
        pair = pl.DataFrame(columns[:2])
        del columns[:2]
        taken.append(pair.filter(rows) if rows.dtype == pl.Boolean else pair[rows])
        del pair
    return pl.concat(taken, how="horizontal")
