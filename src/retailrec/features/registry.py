"""What a feature is.

A feature is one function: its name is the column, its docstring the entry in the dictionary, its
`scope` says whose aggregate it is. It gets `Events`, which hold nothing from after `end`, and returns
one float a group:

>>> @feature("pair", unit="receipts")
... def pair_example(e):
...     "Receipts that hold the item."
...     return e.count()
>>> FEATURES.pop("pair_example").unit
'receipts'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from retailrec.errors import SettingError

Scope = Literal["user", "item", "item_week", "pair", "category", "match"]
Floats = NDArray[Any]


@dataclass(frozen=True)
class Feature:
    """A registered feature."""

    name: str
    scope: Scope
    unit: str
    family: str
    meaning: str
    compute: Callable[[Any], Floats]


FEATURES: dict[str, Feature] = {}


def feature(
    scope: Scope, *, unit: str, family: str = ""
) -> Callable[[Callable[[Any], Floats]], Callable[[Any], Floats]]:
    """Register a function as a feature of `scope`, under the function's own name.

    Raises
    ------
    SettingError
        If the name is taken, or the function has no docstring.
    """

    def register(function: Callable[[Any], Floats]) -> Callable[[Any], Floats]:
        name = function.__name__
        if name in FEATURES or not function.__doc__:
            raise SettingError(
                f"feature '{name}' must have a name of its own and a docstring; "
                f"{'the name is taken' if name in FEATURES else 'the docstring is missing'}."
            )
        meaning = " ".join(function.__doc__.split())
        FEATURES[name] = Feature(name, scope, unit, family or scope, meaning, function)
        return function

    return register


def features_of(scope: Scope) -> list[Feature]:
    """Registered features of a scope, in the order of registration."""
    return [f for f in FEATURES.values() if f.scope == scope]
