"""Effects between arms: Welch's intervals, CUPED, segments with correction, sample-ratio mismatch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.errors import DataError, SettingError

METRICS = ("bought", "purchases", "spend", "margin")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """Difference between treated and held-out shoppers in one metric.

    Attributes
    ----------
    metric : such as ``spend``; per shopper
    segment : of the shoppers, ``all`` for everybody
    adjusted : was earlier spend taken out (CUPED)?
    treated, holdout : means, adjusted ones where `adjusted`
    n_treated, n_holdout : shoppers
    difference, low, high : treated less holdout, and its interval
    relative : difference as a share of the holdout's mean; None if that is 0
    p, p_corrected : two-sided; over all segments of a metric at once (Holm, 1979)
    """

    metric: str
    segment: str
    adjusted: bool
    treated: float
    holdout: float
    n_treated: int
    n_holdout: int
    difference: float
    low: float
    high: float
    relative: float | None
    p: float
    p_corrected: float


def difference(
    treated: Floats, holdout: Floats, level: float = 0.95
) -> tuple[float, float, float, float]:
    """Difference of means, its interval, and p, by Welch's t.

    Examples
    --------
    >>> [round(x, 3) for x in difference(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 2.0]))]
    [1.333, -0.715, 3.382, 0.134]
    """
    from scipy.special import stdtr, stdtrit

    squares = [float(v.var(ddof=1)) / len(v) for v in (treated, holdout)]
    change = float(treated.mean() - holdout.mean())
    error = math.sqrt(sum(squares))
    if not error:
        return change, change, change, 1.0 if not change else 0.0
    freedom = sum(squares) ** 2 / sum(
        s**2 / (len(v) - 1) for s, v in zip(squares, (treated, holdout), strict=True)
    )
    edge = float(stdtrit(freedom, (1 + level) / 2))
    p = float(2 * stdtr(freedom, -abs(change) / error))
    return change, change - edge * error, change + edge * error, p


def cuped(values: Floats, before: Floats, is_treated: NDArray[np.bool_]) -> Floats:
    """Values less what earlier values explain, with the same mean; one coefficient for both arms.

    The coefficient is the covariance over the variance, each arm's own summed up with weights of its
    size, so that an effect of the campaign is not taken for a relation.

    Examples
    --------
    >>> before = np.array([1.0, 2.0, 3.0, 4.0])
    >>> cuped(2 * before, before, np.array([True, True, False, False])).tolist()
    [5.0, 5.0, 5.0, 5.0]
    """
    common = spread = 0.0
    for arm in (is_treated, ~is_treated):
        x, y = before[arm], values[arm]
        common += float(((x - x.mean()) * (y - y.mean())).sum())
        spread += float(((x - x.mean()) ** 2).sum())
    slope = common / spread if spread else 0.0
    return values - slope * (before - before.mean())


def effects_of(
    table: pl.DataFrame,
    *,
    metrics: Sequence[str] = METRICS,
    segment: str | None = None,
    level: float = 0.95,
) -> list[Effect]:
    """Effects on each metric: everybody plain and with CUPED, then each segment with CUPED.

    Parameters
    ----------
    table : one row a shopper: `holdout` (bool), the metrics, `spend_before`, and the segment's column

    Raises
    ------
    DataError
        If an arm has fewer than two shoppers.
    SettingError
        If the level does not lie between 0 and 1.
    """
    if not 0 < level < 1:
        raise SettingError(f"experiment: level must lie between 0 and 1, not {level}. Correct it.")
    is_treated = ~table["holdout"].to_numpy()
    sizes = int(is_treated.sum()), int((~is_treated).sum())
    if min(sizes) < 2:
        raise DataError(
            f"experiment: both arms need at least 2 shoppers, got {sizes[0]:,} treated and "
            f"{sizes[1]:,} held out. Without a holdout nobody knows what would have been "
            f"bought anyway; set one."
        )
    before = table["spend_before"].to_numpy()
    effects: list[Effect] = []
    for metric in metrics:
        values = table[metric].to_numpy()
        adjusted = cuped(values, before, is_treated)
        effects.append(_effect(metric, "all", False, values, is_treated, level))
        effects.append(_effect(metric, "all", True, adjusted, is_treated, level))
        if segment is not None:
            effects += _by_segment(metric, adjusted, is_treated, table[segment], level)
    return effects


def srm(n_treated: int, n_holdout: int, planned_holdout: float) -> float:
    """p of arms of these sizes, had shoppers been split as planned (chi-square).

    Examples
    --------
    >>> srm(900, 100, 0.1), srm(950, 50, 0.1) < 1e-6
    (1.0, True)
    """
    from scipy.special import chdtrc

    expected = planned_holdout * (n_treated + n_holdout)
    apart = (n_holdout - expected) ** 2
    return float(chdtrc(1, apart / expected + apart / (n_treated + n_holdout - expected)))


def _effect(
    metric: str,
    segment: str,
    adjusted: bool,
    values: Floats,
    is_treated: NDArray[np.bool_],
    level: float,
) -> Effect:
    treated, holdout = values[is_treated], values[~is_treated]
    change, low, high, p = difference(treated, holdout, level)
    base = float(holdout.mean())
    return Effect(
        metric,
        segment,
        adjusted,
        float(treated.mean()),
        base,
        len(treated),
        len(holdout),
        change,
        low,
        high,
        change / base if base else None,
        p,
        p,
    )


def _by_segment(
    metric: str, values: Floats, is_treated: NDArray[np.bool_], names: pl.Series, level: float
) -> list[Effect]:
    """Each segment with two shoppers in both arms, p corrected over these segments."""
    effects = []
    for name in names.drop_nulls().unique().sort():
        inside = (names == name).fill_null(False).to_numpy()
        if min((inside & is_treated).sum(), (inside & ~is_treated).sum()) >= 2:
            effects.append(_effect(metric, str(name), True, values[inside], is_treated[inside], level))
    order = np.argsort([e.p for e in effects], kind="stable")
    corrected, worst = np.empty(len(effects)), 0.0
    for at, place in enumerate(order):
        worst = max(worst, (len(effects) - at) * effects[place].p)  # Holm, 1979
        corrected[place] = min(worst, 1.0)
    return [
        Effect(**asdict(e) | {"p_corrected": float(p)}) for e, p in zip(effects, corrected, strict=True)
    ]
