"""Arms of an experiment by salted hash: stable, reproducible, the same for one user as for all.

Batch allocation, the service and code of one's own draw by these functions, so that one salt gives a
user one arm wherever the draw is made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import polars as pl

from retailrec.components import checked
from retailrec.compute.draws import uniform_draws
from retailrec.data.ids import id_series
from retailrec.data.parsing import bare_id
from retailrec.errors import DataError, SettingError

HOLDOUT, TREATED = "holdout", "treated"


@checked
def arm_of(user: str | int, shares: Mapping[str, float], *, salt: str) -> str:
    """The user's arm, as `assign_arms` without strata gives it.

    Raises
    ------
    SettingError
        If shares do not add up to 1.

    Examples
    --------
    >>> shares = {"a": 0.5, "b": 0.5}
    >>> [arm_of(user, shares, salt="may") for user in (1, "1", 2, 3)]
    ['b', 'b', 'a', 'a']
    """
    names, edges = _intervals(shares)
    return names[bisect_right(edges, uniform_draws([bare_id(str(user))], salt)[0])]


@checked
def assign_arms(
    ids: Any, shares: Mapping[str, float], *, salt: str, strata: pl.Series | None = None
) -> pl.Series:
    """Arm of each user, text of the same length as `ids`.

    Without strata an arm depends on the user's id as text (7.0 is 7, as in files), the salt and the
    shares alone, whoever else there is and in whatever order the shares are written. With `strata` (a
    segment of each user; null is one of them) every stratum is split as evenly as whole users allow:
    they are ordered by their draw, and the first share of them gets the first arm. That is stable for
    one list of users, but not when others join.

    Parameters
    ----------
    shares : arm -> share above 0; they add up to 1
    salt : another word draws other arms; use the experiment's name

    Raises
    ------
    SettingError
        If shares do not add up to 1.
    DataError
        If strata are not as many as ids.

    Examples
    --------
    >>> arms = assign_arms(pl.Series(range(1000)), {"a": 0.5, "b": 0.5}, salt="may")
    >>> arms.value_counts(sort=True)["count"].to_list()
    [512, 488]
    """
    names, edges = _intervals(shares)
    place = uniform_draws(id_series(ids, who="ids"), salt)
    if strata is not None:
        if len(strata) != len(place):
            raise DataError(f"strata are of {len(strata):,} users, and ids of {len(place):,}.")
        table = pl.DataFrame({"stratum": strata.cast(pl.String), "draw": place})
        rank = pl.col("draw").rank("ordinal").over("stratum")
        n = pl.len().over("stratum")
        shift = pl.col("draw").min().over("stratum")  # who gets the odd one is drawn too
        place = table.select(place=(rank - 1 + shift) / n)["place"].to_numpy()
    return pl.Series("arm", np.array(names)[np.searchsorted(edges, place, "right")])


def _intervals(shares: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """Arms by name, the holdout last, and where each but the last one ends in [0, 1)."""
    names = sorted(shares, key=lambda name: (name == HOLDOUT, name))
    sizes = [float(shares[name]) for name in names]
    if not sizes or not all(size > 0 for size in sizes) or abs(sum(sizes) - 1) > 1e-9:
        raise SettingError(
            f"arms: shares must be above 0 and add up to 1, not {dict(shares)}. Correct them."
        )
    return names, list(accumulate(sizes))[:-1]
