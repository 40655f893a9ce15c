"""Tests and intervals that evaluation and experiments share: Welch's t, chi-square, Holm."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Difference(NamedTuple):
    """A difference of means (or a mean), its interval, and the two-sided p of no difference."""

    change: float
    low: float
    high: float
    p: float


def welch(treated: Floats, control: Floats, level: float = 0.95) -> Difference:
    """Difference of means of two groups, its interval, and p, by Welch's t.

    Examples
    --------
    >>> [round(x, 3) for x in welch(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 2.0]))]
    [1.333, -0.715, 3.382, 0.134]

    Two groups in which all are alike are not sure to differ: the spread of all together, which the
    difference itself makes larger, takes the place of theirs.

    >>> [round(x, 3) for x in welch(np.ones(2), np.zeros(2))]
    [1.0, -1.484, 3.484, 0.225]
    """
    from scipy.stats import t, ttest_ind

    change = float(treated.mean() - control.mean())
    if not np.ptp(treated) and not np.ptp(control):
        if not change:
            return Difference(change, change, change, 1.0)
        n, m = len(treated), len(control)
        error = float(np.concatenate([treated, control]).std(ddof=1)) * (1 / n + 1 / m) ** 0.5
        edge = float(t.ppf((1 + level) / 2, n + m - 2)) * error
        p = float(2 * t.sf(abs(change) / error, n + m - 2))
        return Difference(change, change - edge, change + edge, p)
    with warnings.catch_warnings():  # of a group in which all are alike
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ttest_ind(treated, control, equal_var=False)
        low, high = found.confidence_interval(level)
    return Difference(change, float(low), float(high), float(found.pvalue))


def mean_interval(values: Floats, level: float = 0.95) -> Difference:
    """Mean of independent values, its interval by Student's t, and p of a mean of 0.

    Examples
    --------
    >>> [round(x, 3) for x in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.484, 4.484, 0.074]
    """
    from scipy.stats import t

    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    if not error:  # all alike: as `welch`, by their spread around 0
        if not mean:
            return Difference(mean, mean, mean, 1.0)
        error = abs(mean) / (len(values) - 1) ** 0.5
    edge = float(t.ppf((1 + level) / 2, len(values) - 1)) * error
    return Difference(
        mean, mean - edge, mean + edge, float(2 * t.sf(abs(mean) / error, len(values) - 1))
    )


def shares_p(counts: ArrayLike, shares: ArrayLike) -> float:
    """p of these counts, had all users been drawn with these shares (chi-square).

    Examples
    --------
    >>> shares_p([900, 100], [0.9, 0.1]), shares_p([950, 50], [0.9, 0.1]) < 1e-6
    (1.0, True)
    """
    from scipy.stats import chisquare

    counts = np.asarray(counts, float)
    return float(chisquare(counts, np.asarray(shares, float) * counts.sum()).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p-values that hold for all comparisons at once (Holm, 1979).

    Examples
    --------
    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    out[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p, float)[order])
    return [float(x) for x in np.minimum(out, 1.0)]
