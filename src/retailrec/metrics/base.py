"""How a metric is declared and called.

A metric is a function whose first argument is `hits`, (n_users, k) bool: was the recommendation at
this rank bought? It asks for more by naming it:

- `n_relevant` (n_users,): different items the shopper bought in the window
- `prices` (n_users, k): unit price of each recommended item as known when recommending; NaN unknown
- `spent` (n_users,): money the shopper spent in the window on items with a known price
- `bought_values` (n_users, k): money the shopper spent on each recommended item in the window
- `n_recommended` (n_users,): length of the shopper's list, at most k

It returns one value a shopper; NaN means that the metric is not defined for the shopper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import SettingError

Hits = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A registered metric."""

    name: str
    meaning: str
    needs: tuple[str, ...]
    compute: Callable[..., Values]


METRICS: dict[str, Metric] = {}


def metric(function: Callable[..., Values]) -> Callable[..., Values]:
    """Register a metric under the function's name."""
    needs = tuple(inspect.signature(function).parameters)
    name = function.__name__
    METRICS[name] = Metric(name, inspect.getdoc(function) or "", needs, function)
    return function


def parse_metric(text: str) -> tuple[Metric, int]:
    """The metric and k of a name such as ``precision@5``.

    Raises
    ------
    SettingError
        If the name is unknown or k is not a number above 0.

    Examples
    --------
    >>> found, k = parse_metric("precision@5")
    >>> found.name, k
    ('precision', 5)
    """
    name, _, k = text.partition("@")
    if name not in METRICS:
        raise SettingError(
            f"there is no metric '{name}'; expected one of {', '.join(METRICS)}, "
            f"written as precision@5."
        )
    if not k.isdecimal() or int(k) < 1:
        raise SettingError(f"metric '{text}' needs a k of at least 1, written as {name}@5.")
    return METRICS[name], int(k)


def compute_metric(text: str, context: dict[str, Any]) -> Values:
    """(n_users,) values of one metric; `context` holds the arrays at some k' >= k.

    Raises
    ------
    SettingError
        If the metric asks for something that `context` lacks.
    """
    found, k = parse_metric(text)
    arguments = []
    for need in found.needs:
        if context.get(need) is None:
            raise SettingError(f"metric '{found.name}' asks for '{need}'; pass it to evaluate(...).")
        value = context[need]
        arguments.append(value[:, :k] if value.ndim == 2 else value)
        if need == "n_recommended":
            arguments[-1] = np.minimum(value, k)
    hits = arguments[0]
    if hits.shape[1] < k:  # a list shorter than k is counted over k
        pad = k - hits.shape[1]
        arguments = [
            np.pad(a, ((0, 0), (0, pad)), constant_values=0) if a.ndim == 2 else a for a in arguments
        ]
    return found.compute(*arguments)
