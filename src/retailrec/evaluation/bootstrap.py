"""Confidence intervals: paired bootstrap over shoppers, corrected for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import Level, Resamples, Seed, checked
from retailrec.compute.statistics import holm
from retailrec.errors import DataError
from retailrec.metrics.base import Values

_BLOCK_BYTES = 50_000_000
_LEAST_SHOPPERS = 6  # fewer have no interval
_EXACT = 12  # shoppers who differ up to whom all signs are tried


class Comparison(NamedTuple):
    """What `compare_models` gives.

    Attributes
    ----------
    means : `model`, `metric`, `mean`, `low`, `high`, `n` (shoppers for whom it is defined)
    differences : `model`, `versus`, `metric`, `difference` (model less versus), `low`, `high`,
        `p` and `p_corrected`
    """

    means: pl.DataFrame
    differences: pl.DataFrame


@checked
def compare_models(
    values: Mapping[str, Mapping[str, Values]],
    *,
    level: Level = 0.95,
    resamples: Resamples = 10_000,
    seed: Seed = 0,
) -> Comparison:
    """Intervals on each model's means and on the differences between every two models.

    Parameters
    ----------
    values : model -> metric -> (n_shoppers,) values in one order of shoppers, NaN where not defined,
        as `Judge.per_user` gives them; metrics of lists together, of shape (1,), are left out
    level : share of resamples that an interval holds

    Raises
    ------
    DataError
        If models were judged on different numbers of shoppers.
    SettingError
        If `level` or `resamples` is out of range.

    Notes
    -----
    Shoppers are drawn with replacement, all models and metrics of a shopper at once, so that what
    makes a shopper easy for every model cancels in differences (Efron & Tibshirani, 1993). Each
    shopper's number of draws is Poisson(1) (Chamandy et al., 2012), for which a block of resamples is
    one matrix product. Intervals are percentiles, and None below six shoppers, of whom no resampling
    can tell. `p` is two-sided, for a difference of zero, and never below what an exact test can give.
    That test is run where at most twelve shoppers differ: all signs of their differences are tried
    (Fisher, 1935), so three shoppers can't give less than 0.25. `p_corrected` holds over all
    comparisons of one metric at once (Holm, 1979).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> easy = rng.random(500)  # some shoppers are easier than others, for both models
    >>> found = compare_models({
    ...     "ours": {"precision@5": easy + 0.01 * rng.random(500)},
    ...     "theirs": {"precision@5": easy + 0.02},
    ... })
    >>> found.differences.select(pl.col("difference", "low", "high").round(3)).row(0)
    (0.015, 0.015, 0.015)
    >>> found.means.select((pl.col("high") - pl.col("low")).round(3)).row(0)  # far less sure
    (0.051,)
    """
    n = max((len(v) for by_metric in values.values() for v in by_metric.values()), default=0)
    sizes = {name: {len(v) for v in by_metric.values()} - {1, n} for name, by_metric in values.items()}
    if any(sizes.values()):
        raise DataError(
            f"models were judged on different shoppers ({n:,} and {sizes}); give all of them the "
            "same judge."
        )
    names = [(model, m) for model, of in values.items() for m, v in of.items() if len(v) == n]
    if not names:
        raise DataError("there is no value of a shopper to compare; judge a model first.")
    matrix = np.column_stack([values[model][metric] for model, metric in names])
    drawn = _bootstrap_means(matrix, resamples, seed)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(matrix, axis=0) / (~np.isnan(matrix)).sum(axis=0)
    tails = [(1 - level) / 2, (1 + level) / 2]
    rows = []
    for at, (model, metric) in enumerate(names):
        n = int((~np.isnan(matrix[:, at])).sum())
        low, high = _quantiles(drawn[:, at], tails) if n >= _LEAST_SHOPPERS else (None, None)
        rows.append((model, metric, _or_none(mean[at]), low, high, n))
    numbers = dict.fromkeys(("mean", "low", "high"), pl.Float64)
    schema: Any = {"model": pl.String, "metric": pl.String, **numbers, "n": pl.Int64}
    means = pl.DataFrame(rows, schema=schema, orient="row")
    return Comparison(means, _differences(names, matrix, mean, drawn, tails))


def _bootstrap_means(matrix: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples, n_columns) weighted means; NaN entries of a column weigh nothing."""
    n, width = matrix.shape
    known = ~np.isnan(matrix)
    whole = bool(known.all())
    # one column of ones gives the weights' sum where every value is known
    filled = np.where(known, matrix, 0).astype(np.float32)
    extra = np.ones((n, 1), np.float32) if whole else known.astype(np.float32)
    stacked = np.hstack([filled, extra])
    counts = _poisson_table()
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _BLOCK_BYTES // (4 * max(n, 1))))
    drawn = np.empty((resamples, width))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        dice = np.frombuffer(rng.bytes(2 * size * n), np.uint16).reshape(size, n)
        sums = (counts[dice] @ stacked).astype(np.float64)
        weight = sums[:, width:]
        drawn[start : start + size] = np.divide(
            sums[:, :width], weight, out=np.full((size, width), np.nan), where=weight > 0
        )
    return drawn


def _poisson_table() -> NDArray[np.float32]:
    """Poisson(1) draws by a 16-bit die: entry d is the draw of die d, exact to 2**-16."""
    chance = np.exp(-1.0)
    edges, total = [], 0.0
    for drawn in range(1, 12):
        total += chance
        edges.append(total)
        chance /= drawn
    return np.searchsorted(edges, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32)


def _differences(
    names: Sequence[tuple[str, str]],
    matrix: NDArray[np.float64],
    mean: NDArray[np.float64],
    drawn: NDArray[np.float64],
    tails: Sequence[float],
) -> pl.DataFrame:
    """Every two models, metric by metric."""
    frames = []
    models = list(dict.fromkeys(model for model, _ in names))
    for metric in dict.fromkeys(metric for _, metric in names):
        place = {model: at for at, (model, of) in enumerate(names) if of == metric}
        rows = []
        for versus, model in combinations([model for model in models if model in place], 2):
            a, b = place[model], place[versus]
            step = drawn[:, a] - drawn[:, b]
            step = step[~np.isnan(step)]
            each = matrix[:, a] - matrix[:, b]
            each = each[~np.isnan(each)]
            enough = len(each) >= _LEAST_SHOPPERS
            low, high = _quantiles(step, tails) if enough else (None, None)
            least = min((step <= 0).sum(), (step >= 0).sum())
            p = exact_p(each, min(1.0, 2 * (int(least) + 1) / (len(step) + 1)))
            rows.append((model, versus, metric, _or_none(mean[a] - mean[b]), low, high, p))
        corrected = holm([row[-1] for row in rows])
        frames += [(*row, c) for row, c in zip(rows, corrected, strict=True)]
    numbers = dict.fromkeys(("difference", "low", "high", "p", "p_corrected"), pl.Float64)
    schema: Any = dict.fromkeys(("model", "versus", "metric"), pl.String) | numbers
    return pl.DataFrame(frames, schema=schema, orient="row")


def exact_p(differences: NDArray[np.float64], resampled: float = 0.0) -> float:
    """Two-sided p of paired differences: exact where few differ, else `resampled` above a floor.

    Examples
    --------
    >>> exact_p(np.array([1.0, 1.0, 1.0])), exact_p(np.array([0.0, 0.2]))
    (0.25, 1.0)
    """
    differ = differences[differences != 0]
    if len(differ) > _EXACT:
        return max(resampled, 2.0 ** (1 - len(differ)))
    signs = 1 - 2.0 * ((np.arange(1 << len(differ))[:, None] >> np.arange(len(differ))) & 1)
    sums = np.abs(signs @ differ)
    return float((sums >= sums[0] * (1 - 1e-9)).mean())


def _quantiles(values: NDArray[np.float64], tails: Sequence[float]) -> tuple[Any, Any]:
    known = values[~np.isnan(values)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, tails)
    return float(low), float(high)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
