"""Splits in time: what is known, and the receipts that follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

import polars as pl

from retailrec.components import Component, Count, Days, ShareOrNone
from retailrec.data.prefilters import Prefilter, apply_prefilters
from retailrec.data.retail_data import RetailData
from retailrec.errors import DataError, SettingError

_LEAST_HALF = timedelta(weeks=2)  # what is bought in a week hangs on who comes in it
_STEP = timedelta(days=1)  # between a shopper's last known receipt and the receipt to predict


@dataclass(frozen=True)
class Fold:
    """Events before `cutoff` are known; those in [cutoff, end) are the target."""

    cutoff: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.cutoff >= self.end:
            raise SettingError(f"fold: cutoff {self.cutoff} must lie before end {self.end}.")

    def split(self, data: RetailData) -> Split:
        """The known part and the target's log rows."""
        return Split(data.asof(self.cutoff), data.between(self.cutoff, self.end))


@dataclass(frozen=True, eq=False)
class Split:
    """What is known, and the log rows (same codes) that follow: ``past, target = split``.

    Attributes
    ----------
    shorter : the target covers less than the horizon: it tells an order, but no probabilities
    older : for probabilities alone: an order is learnt from a shorter one instead
    crossed : asks about users with a target alone; of the others everything is known
    """

    past: RetailData
    target: pl.DataFrame
    shorter: bool = False
    older: bool = False
    crossed: bool = False

    def __iter__(self) -> Iterator[Any]:
        return iter((self.past, self.target))

    def filtered(self, prefilters: Sequence[Prefilter]) -> Split:
        """The same split, with fewer items that may be recommended; the target stays whole.

        Raises
        ------
        DataError
            If no item is left.
        """
        return replace(self, past=apply_prefilters(prefilters, self.past)[0])


def rolling_folds(
    end: datetime, *, horizon: timedelta, n: int, stride: timedelta | None = None
) -> list[Fold]:
    """Evaluation windows of equal length, oldest first; the last one ends at `end`.

    Windows touch unless `stride` says how far apart they start. Use whole weeks: shop traffic is
    weekly.

    Raises
    ------
    SettingError
        If `n` < 1, or `horizon` or `stride` is not above zero.

    Examples
    --------
    >>> [f.cutoff.day for f in rolling_folds(datetime(2024, 1, 29), horizon=timedelta(days=7), n=2)]
    [15, 22]
    """
    stride = stride or horizon
    if n < 1 or horizon <= timedelta(0) or stride <= timedelta(0):
        raise SettingError(
            f"rolling_folds: n must be at least 1 and horizon and stride above zero, "
            f"not n={n}, horizon={horizon}, stride={stride}."
        )
    try:
        _ = end - n * stride - horizon
    except OverflowError:
        raise SettingError(
            f"rolling_folds: {n} windows of {stride.days:,} days begin before the calendar does; ask "
            f"for fewer."
        ) from None
    ends = [end - i * stride for i in range(n)]
    return [Fold(e - horizon, e) for e in reversed(ends)]


class LabelSplits(Component, ABC):
    """Splits of known data from which a ranker can learn, oldest first."""

    @abstractmethod
    def splits(self, data: RetailData) -> Iterator[Split]:
        """Splits of `data`, oldest first."""

    def whole(self) -> Self:
        """The same without shorter ones: those that probabilities are learnt from."""
        return self

    def for_both(self, data: RetailData) -> Iterator[Split]:
        """Splits for orders, and those of `whole` for probabilities; each once, oldest first."""
        return self.splits(data)


@dataclass(frozen=True)
class HorizonSplits(LabelSplits):
    """Label windows of `horizon_days` by the calendar: what comes within the next weeks.

    Attributes
    ----------
    horizon_days : length of a label window
    n : number of windows at the most
    stride_days : distance between two windows' starts; None: they touch
    least_history : a window needs that share of the days known today before it; of a window with
        less, counts, gaps and tenures are other than those that the ranker will see
    half_window : the newest of several windows is half as long, in whole weeks, so that what comes
        before it is nearest to what is known today; rankers that give probabilities leave it out
        for one more window of the whole horizon, and there is none of less than two weeks

    The newest window of the whole horizon is taken in any case.
    """

    horizon_days: Days = 28.0
    n: Count = 3
    stride_days: Days | None = None
    least_history: ShareOrNone = 0.6
    half_window: bool = True

    def folds(self, start: datetime, end: datetime) -> list[Fold]:
        """Label windows of receipts from `start` to `end`, oldest first.

        Examples
        --------
        >>> folds = HorizonSplits(28).folds(datetime(2024, 1, 1), datetime(2024, 12, 1))
        >>> [f"{fold.cutoff:%d %b}" for fold in folds]
        ['06 Oct', '03 Nov', '17 Nov']
        """
        horizon = timedelta(days=self.horizon_days)
        half = timedelta(weeks=self.horizon_days // 14)
        has_half = self.half_window and self.n > 1 and half >= _LEAST_HALF
        shorter = [Fold(end - half, end)] if has_half else []
        stride = None if self.stride_days is None else timedelta(days=self.stride_days)
        folds = rolling_folds(end, horizon=horizon, n=self.n - len(shorter), stride=stride)
        earliest = start + (end - start) * self.least_history
        usable = [f for f in folds if f.cutoff >= earliest]
        usable = usable or [f for f in folds[-1:] if f.cutoff > start]
        return usable + shorter if usable else []

    def whole(self) -> Self:
        """Windows of the whole horizon alone."""
        return replace(self, half_window=False)

    def splits(self, data: RetailData) -> Iterator[Split]:
        """Splits of `data`, oldest first.

        Raises
        ------
        DataError
            If the data is too short for a single window.
        """
        return self._of(self.folds(data.start, data.end), data)

    def for_both(self, data: RetailData) -> Iterator[Split]:
        """Splits for orders, and those of `whole` for probabilities; each once, oldest first.

        Raises
        ------
        DataError
            As `splits`.
        """
        for_orders = self.folds(data.start, data.end)
        for_probabilities = self.whole().folds(data.start, data.end)
        older = [fold for fold in for_probabilities if fold not in for_orders]
        for split in self._of(older + for_orders, data):
            yield replace(split, older=split.past.end in [f.cutoff for f in older])

    def _of(self, folds: list[Fold], data: RetailData) -> Iterator[Split]:
        if not folds:
            raise DataError(
                f"{(data.end - data.start).days} days of receipts, up to {data.end:%Y-%m-%d}, are "
                f"too short for a horizon of {self.horizon_days:g} days; a ranker needs receipts "
                f"before its label window. Bring more data or ask for a shorter horizon."
            )
        for fold in folds:
            shorter = fold.end - fold.cutoff < timedelta(days=self.horizon_days)
            yield replace(fold.split(data), shorter=shorter)


@dataclass(frozen=True)
class NextBasketSplits(LabelSplits):
    """Each shopper's last receipt is the target, then the one before it, and so on.

    Attributes
    ----------
    n : number of label receipts at the most
    parts : parts of the shoppers (2: every other one). A part's last receipts are the target while
        those of the other parts are known, since of shoppers who are asked for later, too, only
        their own next receipt is not known: what others buy at that time is. With 1 no shopper's
        last receipt is known.
    """

    n: Count = 1
    parts: Count = 2

    def splits(self, data: RetailData) -> Iterator[Split]:
        """Splits of `data`, oldest first.

        Raises
        ------
        DataError
            If no shopper has two receipts.
        """
        found: list[Split] = []
        for _ in range(self.n):
            aligned, fold = align_next_basket(data)
            split = fold.split(aligned)
            if split.past.log.is_empty():
                break
            newer, found = found, [split] if self.parts == 1 else _crossed(aligned, fold, self.parts)
            found += newer
            data = split.past
        if not found:
            raise DataError("no shopper has two receipts; a next-basket target needs two.")
        yield from found


def _crossed(aligned: RetailData, fold: Fold, parts: int) -> list[Split]:
    """For each part of the shoppers: all but their last receipts, and these.

    All users' newest known receipt lies one step before the cutoff.
    """
    found: list[Split] = []
    is_last = pl.col("time") >= fold.cutoff
    for part in range(parts):
        asked = pl.col("user") % parts == part
        time = pl.when(asked).then(pl.col("time")).otherwise(pl.col("time") - _STEP)
        log = aligned.log.filter(~(asked & is_last)).with_columns(time=time)
        target = aligned.log.filter(asked & is_last)
        if not target.is_empty():
            past = replace(aligned, log=log, end=fold.cutoff)
            found.append(Split(past, target, crossed=True))
    return found


def align_next_basket(data: RetailData) -> tuple[RetailData, Fold]:
    """`data` with each shopper's clock shifted so that all last receipts fall on one instant.

    The receipt before the last lies one day before that instant, whatever the true gap was, since
    the time of the next receipt is not known beforehand; gaps further back stay as they are. A
    shopper's only receipt is a target without history.

    Returns the shifted data and the fold whose target is exactly the last receipts.
    """
    cutoff = data.end
    log = data.log.with_columns(
        last=pl.col("basket") == pl.col("basket").max().over("user")
    ).with_columns(known=pl.col("time").filter(~pl.col("last")).max().over("user"))
    shifted = (
        pl.when(pl.col("last"))
        .then(pl.lit(cutoff).cast(pl.Datetime("us")))
        .otherwise(pl.col("time") - pl.col("known") + (cutoff - _STEP))
    )
    log = log.with_columns(time=shifted).drop("last", "known")
    fold = Fold(cutoff, cutoff + _STEP)
    return replace(data, log=log, end=fold.end), fold
