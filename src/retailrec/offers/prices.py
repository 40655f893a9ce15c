"""Fixed shadow prices for the online door: an offer is shown if its value exceeds its price."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from retailrec.errors import ArtifactError, DataError
from retailrec.work import write_text

_FORMAT = "retailrec prices 1"


@dataclass(frozen=True)
class Prices:
    """What an offer of each item must be worth to be shown.

    Attributes
    ----------
    campaign : name of the campaign
    value : what offers are worth there, such as ``probability_margin``
    of_offer : item id as text -> price of one offer, negative where a minimum asks for offers
    of_cost : item id as text -> price of one unit of expected cost, from budgets

    Examples
    --------
    >>> prices = Prices("may", "value", {"7": 0.2}, {"7": 1.5})
    >>> prices.price_of([7, 8], expected_cost=[0.1, 0.1]).round(2).tolist()
    [0.35, inf]
    >>> prices.shows([7, 7], value=[0.3, 0.4], expected_cost=[0.1, 0.1]).tolist()
    [False, True]
    """

    campaign: str
    value: str
    of_offer: Mapping[str, float]
    of_cost: Mapping[str, float]

    def price_of(
        self, items: Sequence[object] | pl.Series, expected_cost: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """(n,) price of an offer of each item; infinite for an item that is not in the campaign.

        Parameters
        ----------
        expected_cost : cost x redemption probability of each offer; needed if there is a budget

        Raises
        ------
        DataError
            If an expected cost is negative or not finite, or there are not as many as items.
        """
        names = [str(item) for item in items]
        cost = np.asarray(expected_cost, float)
        if not (np.isfinite(cost) & (cost >= 0)).all() or cost.shape not in ((), (len(names),)):
            raise DataError(
                f"prices: expected_cost must be finite, 0 or more, and one a item ({len(names)}), "
                f"got shape {cost.shape}. Correct it."
            )
        offer = np.array([self.of_offer.get(name, math.inf) for name in names], float)
        return offer + np.array([self.of_cost.get(name, 0.0) for name in names], float) * cost

    def shows(
        self, items: Sequence[object] | pl.Series, value: ArrayLike, expected_cost: ArrayLike = 0.0
    ) -> NDArray[np.bool_]:
        """(n,) whether each offer's value is above its price; NaN never is.

        Raises
        ------
        DataError
            If an expected cost is negative or not finite, or there are not as many as items.
        """
        return np.asarray(value, float) > self.price_of(items, expected_cost)

    def save(self, path: Path) -> None:
        """Write as JSON, in one step."""
        fields = {name: getattr(self, name) for name in ("campaign", "value")}
        prices = {name: dict(getattr(self, name)) for name in ("of_offer", "of_cost")}
        text = json.dumps({"format": _FORMAT} | fields | prices, indent=1, allow_nan=False)
        write_text(text + "\n", path)

    @staticmethod
    def load(path: Path) -> Prices:
        """Prices from a file that `save` wrote.

        Raises
        ------
        ArtifactError
            If the file is missing or holds something else.
        """
        try:
            return _prices_in(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(
                f"{path} holds no prices of a campaign ({error}). Write it with "
                f"`retailrec allocate` or Prices.save."
            ) from error


def _prices_in(content: Any) -> Prices:
    """Prices of what the file holds; any of several errors if it holds something else."""
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']!r}, expected {_FORMAT!r}")
    maps = [
        {str(item): float(price) for item, price in content[name].items()}
        for name in ("of_offer", "of_cost")
    ]
    if not all(math.isfinite(price) for prices in maps for price in prices.values()):
        raise ValueError("a price is no finite number")
    return Prices(str(content["campaign"]), str(content["value"]), *maps)
