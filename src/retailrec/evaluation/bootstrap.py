"""Confidence intervals by paired bootstrap over shoppers, p by random signs of their differences."""

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
        If models were judged on different numbers of shoppers, or values are no numbers.
    SettingError
        If `level` or `resamples` is out of range.

    Notes
    -----
    Shoppers are drawn with replacement, all models and metrics of a shopper at once, so that what
    makes a shopper easy for every model cancels in differences (Efron & Tibshirani, 1993). Each
    shopper's number of draws is Poisson(1) (Chamandy et al., 2012), for which a block of resamples is
    one matrix product. Intervals are percentiles, and None below six shoppers, of whom no resampling
    can tell; of few shoppers or heavy tails they are rather too narrow. `p` is two-sided, for a
    difference of zero: how often random signs of the shoppers' differences take their sum as far
    (Fisher, 1935); all signs are tried where at most twelve differ, so three can't give less than 0.25.
    It may lie above 1 - `level` where the interval leaves zero out: believe `p`. `p_corrected` holds
    over all comparisons of one metric at once (Holm, 1979).

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
    given = {(model, m): np.asarray(v) for model, of in values.items() for m, v in of.items()}
    for (model, metric), each in given.items():
        if each.ndim != 1 or each.dtype.kind not in "fiub":
            raise DataError(
                f"{metric} of {model} must be one number a shopper, not {each.dtype} of shape "
                f"{each.shape}."
            )
        if n := int(np.isinf(each).sum()):
            raise DataError(
                f"{metric} of {model} is infinite for {n:,} shoppers; give NaN where it is not defined."
            )
    n = max(map(len, given.values()), default=0)
    for (model, metric), each in given.items():
        if len(each) not in (1, n):
            raise DataError(
                f"models were judged on different shoppers: {metric} of {model} has {len(each):,} of "
                f"them, another one {n:,}; give all of them the same judge."
            )
    names = [name for name, each in given.items() if len(each) == n]
    if not names:
        raise DataError("there is no value of a shopper to compare; judge a model first.")
    matrix = np.column_stack([given[name] for name in names])
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
    return Comparison(means, _differences(names, matrix, mean, drawn, tails, seed))


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
    seed: int,
) -> pl.DataFrame:
    """Every two models, metric by metric."""
    models = list(dict.fromkeys(model for model, _ in names))
    at = {name: column for column, name in enumerate(names)}
    pairs = [
        (versus, model, metric)
        for metric in dict.fromkeys(metric for _, metric in names)
        for versus, model in combinations([m for m in models if (m, metric) in at], 2)
    ]
    first = [at[model, metric] for _, model, metric in pairs]
    second = [at[versus, metric] for versus, _, metric in pairs]
    each = matrix[:, first] - matrix[:, second]
    enough = (~np.isnan(each)).sum(axis=0) >= _LEAST_SHOPPERS
    p = sign_flip_p(each, len(drawn), seed)
    rows = []
    for n, (versus, model, metric) in enumerate(pairs):
        a, b = first[n], second[n]
        low, high = _quantiles(drawn[:, a] - drawn[:, b], tails) if enough[n] else (None, None)
        rows.append((model, versus, metric, _or_none(mean[a] - mean[b]), low, high, float(p[n])))
    numbers = dict.fromkeys(("difference", "low", "high", "p"), pl.Float64)
    schema: Any = dict.fromkeys(("model", "versus", "metric"), pl.String) | numbers
    found = pl.DataFrame(rows, schema=schema, orient="row")
    corrected = [holm(of["p"].to_list()) for of in found.partition_by("metric", maintain_order=True)]
    return found.with_columns(
        p_corrected=pl.Series([one for of in corrected for one in of], dtype=pl.Float64)
    )


def sign_flip_p(
    differences: NDArray[np.float64], resamples: int = 10_000, seed: int = 0
) -> NDArray[np.float64]:
    """(n_columns,) two-sided p of paired differences (n, n_columns) of mean zero (Fisher, 1935).

    How often random signs take a column's sum as far from zero; NaN entries are left out.

    Examples
    --------
    >>> sign_flip_p(np.array([[1.0, 0.0], [1.0, 0.2], [1.0, np.nan]])).tolist()
    [0.25, 1.0]
    """
    known = np.nan_to_num(differences)
    n, width = known.shape
    as_far = np.abs(known.sum(axis=0)) - 1e-6 * np.abs(known).sum(axis=0)  # of float32 sums
    few = (known != 0).sum(axis=0) <= _EXACT
    p = np.empty(width)
    for column in np.flatnonzero(few):
        differ = known[known[:, column] != 0, column]
        signs = 1 - 2.0 * ((np.arange(1 << len(differ))[:, None] >> np.arange(len(differ))) & 1)
        p[column] = (np.abs(signs @ differ) >= as_far[column]).mean()
    many, total = known[:, ~few].astype(np.float32), known[:, ~few].sum(axis=0)
    count = np.zeros(many.shape[1])
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _BLOCK_BYTES // (4 * max(n, 1))))
    for start in range(0, resamples if len(count) else 0, block):
        size = min(block, resamples - start)
        bits = np.frombuffer(rng.bytes(size * (n // 8 + 1)), np.uint8).reshape(size, -1)
        plus = np.unpackbits(bits, axis=1, count=n).astype(np.float32)
        count += (np.abs(2 * (plus @ many).astype(np.float64) - total) >= as_far[~few]).sum(axis=0)
    p[~few] = (count + 1) / (resamples + 1)
    return p


def _quantiles(values: NDArray[np.float64], tails: Sequence[float]) -> tuple[Any, Any]:
    known = values[~np.isnan(values)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, tails)
    return float(low), float(high)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
