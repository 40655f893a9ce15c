"""Arms of an experiment by salted hash: stable, reproducible, the same for one shopper as for all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.errors import SettingError

HOLDOUT, TREATED = "holdout", "treated"


def uniform_draws(ids: pl.Series, salt: str) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1), each made of the id's text and the salt alone (SHA-256).

    Examples
    --------
    >>> draws = uniform_draws(pl.Series([1, 2]), "may")
    >>> bool((draws == uniform_draws(pl.Series(["1", "2"]), "may")).all())
    True
    """
    seed = hashlib.sha256(salt.encode())
    draws = np.empty(len(ids))
    for at, text in enumerate(ids.cast(pl.String)):
        digest = seed.copy()
        digest.update(b"\0" + str(text).encode())
        draws[at] = int.from_bytes(digest.digest()[:7], "big") / 2**56
    return draws


def assign_arms(
    ids: pl.Series, shares: Mapping[str, float], *, salt: str, strata: pl.Series | None = None
) -> pl.Series:
    """Arm of each shopper, text of the same length as `ids`.

    Without strata an arm depends on the shopper's id, the salt and the shares alone, whoever else there
    is. With `strata` (a segment of each shopper; null is one of them) every stratum is split as evenly
    as whole shoppers allow: they are ordered by their draw, and the first share of them gets the first
    arm. That is stable for one list of shoppers, but not when others join.

    Parameters
    ----------
    shares : arm -> share above 0; they add up to 1
    salt : another word draws other arms; use the experiment's name

    Raises
    ------
    SettingError
        If shares do not add up to 1.

    Examples
    --------
    >>> arms = assign_arms(pl.Series(range(1000)), {"a": 0.5, "b": 0.5}, salt="may")
    >>> arms.value_counts(sort=True)["count"].to_list()
    [512, 488]
    """
    sizes = np.array(list(shares.values()), float)
    if not len(sizes) or not (sizes > 0).all() or abs(sizes.sum() - 1) > 1e-9:
        raise SettingError(
            f"arms: shares must be above 0 and add up to 1, not {dict(shares)}. Correct them."
        )
    edges = np.cumsum(sizes)[:-1]
    place = uniform_draws(ids, salt)
    if strata is not None:
        table = pl.DataFrame({"stratum": strata.cast(pl.String), "draw": place})
        rank = pl.col("draw").rank("ordinal").over("stratum")
        n = pl.len().over("stratum")
        shift = pl.col("draw").min().over("stratum")  # who gets the odd one is drawn too
        place = table.select(place=(rank - 1 + shift) / n)["place"].to_numpy()
    return pl.Series("arm", np.array(list(shares))[np.searchsorted(edges, place, "right")])
