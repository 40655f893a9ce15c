"""Splits in time: what is known, and the receipts that follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from retailrec.components import Component, Count, Days, ShareOrNone
from retailrec.data.prefilters import Prefilter, apply_prefilters
from retailrec.data.retail_data import RetailData
from retailrec.errors import DataError, SettingError

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


class Split(NamedTuple):
    """What is known, and the log rows (same codes) that follow."""

    past: RetailData
    target: pl.DataFrame

    def filtered(self, prefilters: Sequence[Prefilter]) -> Split:
        """The same split, with fewer items that may be recommended; the target stays whole.

        Raises
        ------
        DataError
            If no item is left.
        """
        return self._replace(past=apply_prefilters(prefilters, self.past)[0])


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
    ends = [end - i * stride for i in range(n)]
    return [Fold(e - horizon, e) for e in reversed(ends)]


class LabelSplits(Component, ABC):
    """Splits of known data from which a ranker can learn, oldest first."""

    @abstractmethod
    def splits(self, data: RetailData) -> Iterator[Split]:
        """Splits of `data`, oldest first."""


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

    The newest window is taken in any case.
    """

    horizon_days: Days = 28.0
    n: Count = 3
    stride_days: Days | None = None
    least_history: ShareOrNone = 0.6

    def folds(self, start: datetime, end: datetime) -> list[Fold]:
        """Label windows of receipts from `start` to `end`, oldest first.

        Examples
        --------
        >>> folds = HorizonSplits(28).folds(datetime(2024, 1, 1), datetime(2024, 12, 1))
        >>> [f"{fold.cutoff:%d %b}" for fold in folds]
        ['08 Sep', '06 Oct', '03 Nov']
        """
        horizon = timedelta(days=self.horizon_days)
        stride = None if self.stride_days is None else timedelta(days=self.stride_days)
        folds = rolling_folds(end, horizon=horizon, n=self.n, stride=stride)
        earliest = start + (end - start) * self.least_history
        usable = [f for f in folds if f.cutoff >= earliest]
        return usable or [f for f in folds[-1:] if f.cutoff > start]

    def splits(self, data: RetailData) -> Iterator[Split]:
        """Splits of `data`, oldest first.

        Raises
        ------
        DataError
            If the data is too short for a single window.
        """
        usable = self.folds(data.start, data.end)
        if not usable:
            raise DataError(
                f"{(data.end - data.start).days} days of receipts are too short for a horizon of "
                f"{self.horizon_days:g} days; a ranker needs receipts before its label window. "
                f"Bring more data or ask for a shorter horizon."
            )
        for fold in usable:
            yield fold.split(data)


@dataclass(frozen=True)
class NextBasketSplits(LabelSplits):
    """Each shopper's last receipt is the target, then the one before it, and so on.

    Attributes
    ----------
    n : number of label receipts at the most
    """

    n: Count = 1

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
            found.append(split)
            data = split.past
        if not found:
            raise DataError("no shopper has two receipts; a next-basket target needs two.")
        yield from reversed(found)


def align_next_basket(data: RetailData) -> tuple[RetailData, Fold]:
    """`data` with each shopper's clock shifted so that all last receipts fall on one instant.

    The receipt before the last lies one day before that instant, whatever the true gap was, since
    the moment of the next visit is not known beforehand; gaps further back stay as they are. A
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
