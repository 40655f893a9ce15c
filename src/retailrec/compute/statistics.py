"""Tests and intervals that evaluation and experiments share: t, chi-square, Holm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Difference(NamedTuple):
    """A difference of means (or a mean), its interval, and the two-sided p of no difference.

    Where values that are all alike don't tell how far others may lie, `low` and `high` are NaN.
    """

    change: float
    low: float
    high: float
    p: float


def difference_of_means(treated: Floats, control: Floats, level: float = 0.95) -> Difference:
    """Difference of means of two groups, its interval, and p: Welch's t or Student's, the wider one.

    Of 50 users of whom one in 50 buys, one or none did: the spread of so small a group is chance, and
    Welch's p alone is below .05 in 4 of 10 experiments without an effect. That of both groups together
    is not.

    Examples
    --------
    >>> some, few = np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 2.0])
    >>> [round(x, 3) for x in difference_of_means(some, few)]
    [1.333, -0.715, 3.382, 0.134]

    Two groups in which all are alike are not sure to differ: the spread of all together, which the
    difference itself makes larger, takes the place of theirs.

    >>> [round(x, 3) for x in difference_of_means(np.ones(2), np.zeros(2))]
    [1.0, -1.484, 3.484, 0.225]
    """
    from scipy.stats import t

    def spread(values: Floats) -> float:
        return float(values.var(ddof=1)) if np.ptp(values) else 0.0

    n, m = len(treated), len(control)
    one, other = spread(treated) / n, spread(control) / m
    both = (one * n * (n - 1) + other * m * (m - 1)) / (n + m - 2)
    both = both or spread(np.concatenate([treated, control]))
    if not both:
        return Difference(0.0, np.nan, np.nan, 1.0)
    found = [(both * (1 / n + 1 / m), n + m - 2.0)]
    if welch := one + other:
        share = one / welch
        found += [(welch, 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1)))]
    change = float(treated.mean() - control.mean())
    edge, error, freedom = max(
        (float(t.ppf((1 + level) / 2, freedom)) * square**0.5, square**0.5, freedom)
        for square, freedom in found
    )
    p = float(2 * t.sf(abs(change) / error, freedom))
    return Difference(change, change - edge, change + edge, p)


def mean_interval(values: Floats, level: float = 0.95) -> Difference:
    """Mean of independent values, its interval by Student's t, and p of a mean of 0.

    Values that are all 0 are 0 surely, as what equal lists differ by; where they are what was seen, and
    another value may come, ask first whether there is one.

    Examples
    --------
    >>> [round(x, 3) for x in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.484, 4.484, 0.074]
    """
    from scipy.stats import t

    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    if not error:  # all alike: as two such groups, by their spread around 0
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
