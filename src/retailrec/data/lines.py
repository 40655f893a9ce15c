"""Coded lines in order, settled, one an item of a receipt: steps that use up what they take.

A log of 45 million lines is 2.7 GB on the way. Each step is handed a list with the one frame in it and
takes the frame out, so that no other reference holds it while its columns go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.cleaning import (
    DIFFERS,
    LINE,
    RECEIPT_RULES,
    TAKES_BACK,
    LoadReport,
    first_reason,
    set_aside,
)
from retailrec.schema import ITEM_ID, LOG, USER_ID

CARRIED = {"store": pl.Categorical(), "discount": pl.Float32()}  # optional log columns
_AT_ONCE = 500_000  # lines settled at a time
_SHOWN = 3  # differences that a report names
_DOUBLED_ITEMS = 3  # receipts of fewer items may double by chance


def named(lines: pl.DataFrame, ids: Mapping[str, pl.Series]) -> pl.DataFrame:
    """Coded lines with their ids, for the rejects."""
    known = [ids[c].gather(lines[c]).alias(c) for c in ids if c in lines.columns]
    return lines.with_columns(known).with_columns(pl.col(pl.Categorical).cast(pl.String))


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


def settled(
    lines: list[pl.DataFrame], ids: Mapping[str, pl.Series], report: LoadReport
) -> pl.DataFrame:
    """The lines, used up, but for those that `RECEIPT_RULES` reject; lines are in order.

    Of the lines left, those that take something back hold it as negative quantity and value.
    """
    rows = _to_settle(lines[0])
    if not len(rows):
        return lines.pop()
    quantity, value = (lines[0][c].to_numpy().copy() for c in ("quantity", "value"))
    keep = np.ones(lines[0].height, np.bool_)
    for some in _slices(lines[0], rows):
        found = _judged(lines[0], some)
        at = found["row"].to_numpy()
        quantity[at], value[at] = found["quantity"].to_numpy(), found["value"].to_numpy()
        bad = found.filter(pl.col("reason").is_not_null())
        if bad.is_empty():
            continue
        keep[bad["row"].to_numpy()] = False
        raw = lines[0][bad["row"]].rename({"user": USER_ID, "item": ITEM_ID}).drop("basket")
        raw = named(raw, ids).with_columns(bad["reason"])
        set_aside(raw.sort(LINE), report)
        if (bad["reason"] == DIFFERS).any():
            found = bad.with_columns(raw.select(USER_ID, ITEM_ID, LINE))
            found = found.filter(pl.col("reason") == DIFFERS).unique(["basket", "item"], keep="first")
            report.differing += found.height
            found = found.bottom_k(_SHOWN, by=LINE)
            some_words = [(row[LINE], _difference(row)) for row in found.iter_rows(named=True)]
            report.differences = sorted(report.differences + some_words)[:_SHOWN]
    numbers = (pl.Series("quantity", quantity), pl.Series("value", value).fill_nan(None))
    lines.append(lines.pop().with_columns(numbers))
    del quantity, value, numbers
    return lines.pop() if keep.all() else _some_rows(lines, pl.Series(keep))


def _to_settle(lines: pl.DataFrame) -> NDArray[np.int64]:
    """Rows of items that have a line that takes back, or lines in several exports, on their receipt."""
    odd = _columns(lines, ["quantity", "value"]).select(TAKES_BACK).to_series().to_numpy()
    several = "file" in lines.columns
    if not several and not odd.any():
        return np.zeros(0, np.int64)
    same = _same_as_before(lines)
    if several:
        file = lines["file"].to_numpy()
        odd = odd.copy()
        odd[1:] |= same[1:] & (file[1:] != file[:-1])
        if not odd.any():
            return np.zeros(0, np.int64)
    starts = np.flatnonzero(~same)
    sizes = np.diff(starts, append=len(same))
    return np.flatnonzero(np.repeat(np.logical_or.reduceat(odd, starts), sizes))


def _slices(lines: pl.DataFrame, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows, some at a time, no receipt in two slices."""
    basket = lines["basket"].to_numpy()
    at = 0
    while at < len(rows):
        stop = min(at + _AT_ONCE, len(rows))
        while stop < len(rows) and basket[rows[stop]] == basket[rows[stop - 1]]:
            stop += 1
        yield rows[at:stop]
        at = stop


def _judged(lines: pl.DataFrame, rows: NDArray[np.int64]) -> pl.DataFrame:
    """What becomes of rows: `row`, `quantity`, `value`, and `reason` if they are rejected.

    A line of positive quantity and negative value takes its pieces back if it takes back at least half
    of what they cost; else it is a discount on them.
    """
    some: tuple[NDArray[Any], ...] = tuple(lines[c].to_numpy()[rows] for c in ("basket", "item"))
    quantity, value = (lines[c].to_numpy()[rows] for c in ("quantity", "value"))  # NaN: not known
    back = (quantity < 0) | (value < 0)
    file = lines["file"].to_numpy()[rows] if "file" in lines.columns else np.zeros(len(rows), np.int32)
    if "file" in lines.columns and "store" in lines.columns:
        some = *some, _stores(some, lines["store"][rows])
    if "file" in lines.columns:
        file = _with_what_it_takes_back(some, file, back, quantity)
        order = np.lexsort((file, *some[::-1]))
        some, rows = tuple(key[order] for key in some), rows[order]
        quantity, value, back, file = quantity[order], value[order], back[order], file[order]
    runs, item_of = _runs(some, file)
    size = np.diff(runs, append=len(rows))
    run = np.repeat(np.arange(len(runs)), size)

    def added(numbers: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(numbers, runs)

    bought, paid = added(np.where(back, 0, quantity)), added(np.where(back, 0, value))
    with np.errstate(invalid="ignore"):
        discount = (quantity == 0) | (
            (quantity > 0) & (np.abs(value) * bought[run] < paid[run] * quantity / 2)
        )
    quantity = np.where(back, np.where(discount, 0, -np.abs(quantity)), quantity)
    value = np.where(back, -np.abs(value), value)
    totals = pl.DataFrame(
        {"bought": bought, "paid": paid, "quantity": added(quantity), "value": added(value)}
    ).with_columns(pl.col("paid", "value").fill_nan(None))
    best = _best(item_of, size, totals, file[runs])
    of_best = totals.select(counts="quantity", counts_for="value")[pl.Series(best[item_of])]
    agree = [
        ((totals[own] - of_best[theirs]).abs() <= 1e-6 * (1 + totals[own].abs())).fill_null(True)
        for own, theirs in (("quantity", "counts"), ("value", "counts_for"))
    ]
    totals = totals.with_columns(
        best=pl.Series(best[item_of] == np.arange(len(runs))), same=agree[0] & agree[1]
    ).with_columns(first_reason(RECEIPT_RULES))
    of_run = totals.select("reason", total="quantity", paid="value").hstack(of_best)[pl.Series(run)]
    of_row = {"row": rows, "basket": some[0], "item": some[1], "quantity": quantity, "value": value}
    return pl.DataFrame(of_row).hstack(of_run)


def _stores(item: tuple[NDArray[Any], ...], stores: pl.Series) -> NDArray[np.int64]:
    """Numbers of stores, in order of their names; one that is not known is the first of its item's."""
    frame = pl.DataFrame(
        {str(n): key for n, key in enumerate(item)} | {"store": stores.cast(pl.String)}
    )
    known = pl.col("store").fill_null(pl.col("store").min().over(str(n) for n in range(len(item))))
    return frame.select(known.rank("dense").fill_null(0).cast(pl.Int64)).to_series().to_numpy()


def _with_what_it_takes_back(
    item: tuple[NDArray[Any], ...],
    file: NDArray[np.int32],
    back: NDArray[np.bool_],
    quantity: NDArray[np.float64],
) -> NDArray[np.int32]:
    """`file`, where an export that only takes an item back goes to the first one that has bought it.

    Of several such exports the one that takes most back does.
    """
    if not back.any():
        return file
    frame = pl.DataFrame(
        {str(n): key for n, key in enumerate(item)}
        | {"file": file, "back": back, "quantity": np.abs(quantity)}
    )
    key, bought = [str(n) for n in range(len(item))], ~pl.col("back")
    first = pl.col("file").filter(bought).min().over(key)
    frame = frame.with_columns(
        first=first,
        taken=pl.when(~bought.any().over(*key, "file")).then(
            pl.col("quantity").sum().over(*key, "file")
        ),
    )
    most = pl.col("file").filter(pl.col("taken") == pl.col("taken").max()).min().over(key)
    moved = pl.col("taken").is_not_null() & (pl.col("file") == most)
    return frame.select(
        pl.when(moved).then(pl.col("first").fill_null(pl.col("file"))).otherwise("file").alias("file")
    )["file"].to_numpy()


def _runs(
    item: tuple[NDArray[Any], ...], file: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the lines of an item in one export start, and which item that is, counted from 0."""
    new_item = np.ones(len(file), np.bool_)
    new_item[1:] = False
    for key in item:
        new_item[1:] |= key[1:] != key[:-1]
    new_run = new_item.copy()
    new_run[1:] |= file[1:] != file[:-1]
    runs = np.flatnonzero(new_run)
    return runs, np.cumsum(new_item)[runs] - 1


def _best(
    item_of: NDArray[np.int64], size: NDArray[np.int64], totals: pl.DataFrame, file: NDArray[np.int32]
) -> NDArray[np.int64]:
    """(n_items,) the run that counts: with most lines of the item, of those with most of it."""
    value = totals["value"].fill_null(-1).to_numpy()
    order = np.lexsort((file, -value, -totals["quantity"].to_numpy(), -size, item_of))
    first = np.flatnonzero(np.diff(item_of[order], prepend=-1))
    return order[first]


def _difference(row: Mapping[str, Any]) -> str:
    """An item whose amounts differ between exports, in words."""
    there, here = (
        f"{row[quantity]:g}" + ("" if row[value] is None else f" for {row[value]:.2f}")
        for quantity, value in (("total", "paid"), ("counts", "counts_for"))
    )
    return f"item {row[ITEM_ID]!r} of shopper {row[USER_ID]!r}, {there} there, {here} where it counts"


def merged(lines: list[pl.DataFrame], report: LoadReport) -> pl.DataFrame:
    """One row an item of a receipt, of lines that are used up; `report` gains how many were merged.

    Quantities, known values and known discounts are added up; the rest is as on the first line.
    """
    names = [*LOG, *(c for c in CARRIED if c in lines[0].columns)]
    same = _same_as_before(lines[0])
    if not same.any():
        return _columns(lines.pop(), names)
    # most lines are alone: only runs of several are taken out, compared and added up
    starts = np.flatnonzero(~same)
    several = np.diff(starts, append=len(same)) > 1
    in_run = same.copy()
    in_run[starts[several]] = True
    run = lines[0].filter(pl.Series(in_run))
    quantity, value = run["quantity"].to_numpy(), run["value"].to_numpy()
    at = np.flatnonzero(~same[in_run])
    equal = _equal_lines(quantity, value, at)
    report.merged, report.pieces = int(same.sum()), int(equal.sum())
    sizes = np.diff(at, append=len(run))
    twice = several.copy()
    twice[several] = (sizes % 2 == 0) & (equal == sizes - 1)
    report.doubled = _doubled(lines[0]["basket"].to_numpy()[starts], twice)
    totals = {"quantity": np.add.reduceat(quantity, at), "value": _known_sum(value, at)}
    if "discount" in names:
        totals["discount"] = _discounts(run["discount"].to_numpy(), quantity, value, at)
    del value, quantity, equal, run, in_run, twice
    lines.append(_columns(lines.pop(), names))
    first = _some_rows(lines, pl.Series(~same))
    places = pl.Series(np.flatnonzero(several))
    return first.with_columns(
        first[name].scatter(places, pl.Series(total).fill_nan(None).cast(first[name].dtype))
        for name, total in totals.items()
    ).select(names)


def _equal_lines(
    quantity: NDArray[np.float64], value: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(n_runs,) lines that say the same as another one of their run, but for the first of these."""
    sizes = np.diff(starts, append=len(quantity))
    equal = np.zeros(len(starts), np.int64)
    two = np.flatnonzero(sizes == 2)
    equal[two] = _alike(quantity, value, starts[two], starts[two] + 1)
    more = np.flatnonzero(sizes > 2)
    for at in range(0, len(more), _AT_ONCE // 4):
        runs = more[at : at + _AT_ONCE // 4]
        run = np.repeat(np.arange(len(runs)), sizes[runs])
        rows = np.arange(len(run)) + np.repeat(
            starts[runs] - np.cumsum(sizes[runs]) + sizes[runs], sizes[runs]
        )
        rows = rows[np.lexsort((value[rows], quantity[rows], run))]
        same = (run[1:] == run[:-1]) & _alike(quantity, value, rows[:-1], rows[1:])
        equal[runs] = np.bincount(run[1:][same], minlength=len(runs))
    return equal


def _alike(
    quantity: NDArray[np.float64],
    value: NDArray[np.float64],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Do two lines say the same?"""
    unknown = np.isnan(value[one]) & np.isnan(value[other])
    return (quantity[one] == quantity[other]) & ((value[one] == value[other]) | unknown)


def _known_sum(numbers: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums of what is known in each run; NaN where nothing is."""
    known = ~np.isnan(numbers)
    total = np.add.reduceat(np.where(known, numbers, 0).astype(np.float64, copy=False), starts)
    total[np.add.reduceat(known, starts, dtype=np.int64) == 0] = np.nan
    return total


def _discounts(
    discount: NDArray[Any], quantity: NDArray[Any], value: NDArray[Any], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Discounts added up, less those of lines that take back, whatever their sign."""
    back = (quantity < 0) | (value < 0)
    if not back.any():
        return _known_sum(discount, starts)
    total = _known_sum(np.where(back, np.nan, discount), starts)
    less = np.nan_to_num(_known_sum(np.where(back, np.abs(discount), np.nan), starts))
    return np.sign(total) * np.maximum(np.abs(total) - less, 0)


def _doubled(basket: NDArray[np.int32], twice: NDArray[np.bool_]) -> int:
    """Receipts of which every line stands twice: exports that were put together into one table?

    `basket` and `twice` have a place an item of a receipt: does it have an even number of equal lines?
    """
    receipt = np.flatnonzero(np.diff(basket, prepend=-1))
    large = np.diff(receipt, append=len(basket)) >= _DOUBLED_ITEMS
    return int((np.logical_and.reduceat(twice, receipt) & large).sum())


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
