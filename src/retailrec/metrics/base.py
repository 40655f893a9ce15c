"""How a metric is declared and called.

A metric is a function whose first argument is `hits`, (n_users, k) bool: was the recommendation at
this rank bought? Or it is `items`, (n_users, k) int32 item codes with -1 where a list has ended. It
asks for more by naming it:

- `n_relevant` (n_users,): different items the shopper bought in the window
- `n_recommended` (n_users,): length of the shopper's list, at most k
- `prices` (n_users, k): unit price of each recommended item as known when recommending; NaN unknown
- `spent` (n_users,): money the shopper spent in the window on items with a known price
- `bought_values` (n_users, k): money the shopper spent on each recommended item in the window
- `buyer_share` (n_users, k): share of the shoppers with history who had bought the item before
- `is_popular` (n_users, k) bool: is the item among the k that most shoppers had bought before?
- `categories` (n_users, k): category code of each recommended item; -1 not known
- `is_recommendable` (n_users, k) bool: might the item have been recommended?
- `n_recommendable`: items that might have been recommended

It returns one value a shopper, NaN where the metric is not defined for the shopper; or one value in
all, shape (1,), where it describes the lists together.

``repeat_`` and ``explore_`` before the name of a metric that asks for `hits` and `n_relevant` alone
judge the same list by the purchases of items that the shopper had, or had not, bought before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.components import checked
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

    @property
    def together(self) -> bool:
        """Does it describe the lists together, with one value in all?"""
        return "n_recommendable" in self.needs


METRICS: dict[str, Metric] = {}
_PARTS = {
    "repeat": {"hits": "repeat_hits", "n_relevant": "n_repeats"},
    "explore": {"hits": "explore_hits", "n_relevant": "n_explored"},
}


@checked
def metric(function: Callable[..., Values]) -> Callable[..., Values]:
    """Register a metric under the function's name."""
    needs = tuple(inspect.signature(function).parameters)
    name = function.__name__
    METRICS[name] = Metric(name, inspect.getdoc(function) or "", needs, function)
    return function


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """part / whole, NaN where the whole is 0."""
    out = np.full(len(whole), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


@checked
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
    metric = METRICS.get(name) or _of_part(name)
    if metric is None:
        raise SettingError(
            f"there is no metric '{name}'; expected one of {', '.join(METRICS)}, "
            f"written as precision@5."
        )
    if not k.isdecimal() or int(k) < 1:
        raise SettingError(f"metric '{text}' needs a k of at least 1, written as {name}@5.")
    return metric, int(k)


def longest(metrics: Sequence[str]) -> int:
    """The longest list that one of the metrics looks at.

    Raises
    ------
    SettingError
        If there is none, or one is unknown.
    """
    if not metrics:
        raise SettingError("there is no metric; name at least one, such as precision@5.")
    return max(parse_metric(m)[1] for m in metrics)


def _of_part(name: str) -> Metric | None:
    """The metric of ``repeat_`` or ``explore_`` purchases alone."""
    part, _, whole = name.partition("_")
    base, needs = METRICS.get(whole), _PARTS.get(part, {})
    if base is None or not set(base.needs) <= set(needs):
        return None
    kind = {"repeat": "repeat", "explore": "first"}[part]
    meaning = f"{base.meaning.splitlines()[0]} Only {kind} purchases of an item count."
    return Metric(name, meaning, tuple(needs[n] for n in base.needs), base.compute)


# what lists and truth alone do not say, and the table of `evaluate` that says it
_COMES_WITH = dict.fromkeys(
    ("categories", "n_recommendable", "is_recommendable"), "items"
) | dict.fromkeys(
    ("repeat_hits", "explore_hits", "n_repeats", "n_explored", "buyer_share", "is_popular"), "history"
)


def compute_metric(text: str, context: dict[str, Any]) -> Values:
    """(n_users,) values of one metric; `context` holds the arrays at some k' >= k.

    Raises
    ------
    SettingError
        If the metric asks for something that `context` lacks.
    """
    metric, k = parse_metric(text)
    arguments: list[Any] = []
    for need in metric.needs:
        value = context.get(need)
        if value is None:
            file = _COMES_WITH.get(need)
            give = (
                "nothing here tells" if file is None else f"comes with {file} (--{file} of the command)"
            )
            raise SettingError(
                f"metric '{metric.name}' asks for '{need}', which {give}. Give that, or leave the "
                f"metric out."
            )
        if need == "is_popular":  # rank of the item in popularity, from 1
            value = value <= k
        arguments.append(_first(value, k, missing=-1 if need in ("items", "categories") else 0))
        if need == "n_recommended":
            arguments[-1] = np.minimum(value, k)
    return metric.compute(*arguments)


def _first(value: Any, k: int, *, missing: float) -> Any:
    """The first k columns; a list shorter than k is counted over k."""
    if np.ndim(value) != 2 or value.shape[1] == k:
        return value
    if value.shape[1] > k:
        return value[:, :k]
    return np.pad(value, ((0, 0), (0, k - value.shape[1])), constant_values=missing)
