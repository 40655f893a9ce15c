"""What a generated shop's households were going to buy: the right answers, and how good one can get."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from retailrec.errors import DataError

_COLUMNS = ["user_id", "item_id", "p", "p_first", "p_second", "p_any"]


@dataclass(frozen=True)
class Truth:
    """Probabilities that a household buys an item in a window, counted over repeated futures.

    Attributes
    ----------
    frame : one row a household and item, likeliest first within a household: `user_id`, `item_id`,
        `p`; `p_first` and `p_second` from either half of the repetitions; `p_any`, the household's
        probability of buying anything at all
    cutoff, horizon_days : the window
    repetitions : futures that were counted
    """

    frame: pl.DataFrame
    cutoff: datetime
    horizon_days: float
    repetitions: int

    def best_precision(self, k: int, users: pl.Series | None = None) -> tuple[float, float]:
        """Bounds of the best mean precision@k to expect over households that buy.

        A perfect recommender lists the `k` items with the largest p. Only households that buy
        something are judged, and a hit is a purchase, so each counts with p / p_any. Choosing and
        judging on the same repetitions flatters (the upper bound); choosing on one half and judging
        on the other is fair to a choice that knows less (the lower bound).

        Parameters
        ----------
        users : ids of the households that are judged; by default all, weighted by p_any

        Raises
        ------
        DataError
            If none of them is in the truth.

        Examples
        --------
        >>> rows = {"user_id": [1, 1], "item_id": [7, 8], "p": [0.4, 0.1], "p_any": [0.5, 0.5]}
        >>> frame = pl.DataFrame(rows).with_columns(p_first="p", p_second="p")
        >>> Truth(frame, datetime(2000, 1, 1), 28, 200).best_precision(1)
        (0.8, 0.8)
        """
        frame = self.frame
        weight = pl.col("p_any")
        if users is not None:
            frame, weight = frame.filter(pl.col("user_id").is_in(users.implode())), pl.lit(1.0)
        if frame.is_empty():
            raise DataError("truth covers none of the households that are judged.")

        def mean(by: str, judged: str) -> float:
            best = frame.sort("user_id", by, descending=[False, True], maintain_order=True)
            each = best.group_by("user_id").agg(
                (pl.col(judged).head(k).sum() / k / pl.col("p_any").first()).alias("precision"),
                weight.first().alias("weight"),
            )
            weights = each["weight"].to_numpy()
            return float(np.average(each["precision"].to_numpy(), weights=weights))

        return mean("p_first", "p_second"), mean("p", "p")

    def require_window(self, cutoff: datetime, end: datetime) -> None:
        """Raise if this is not the truth of [cutoff, end).

        Raises
        ------
        DataError
            If the windows differ.
        """
        if (self.cutoff, self.cutoff + timedelta(days=self.horizon_days)) != (cutoff, end):
            raise DataError(
                f"truth/ covers {self.horizon_days:g} days from {self.cutoff:%Y-%m-%d}, but "
                f"{cutoff:%Y-%m-%d} to {end:%Y-%m-%d} is judged. Use that --horizon-days, or generate "
                f"the data again with another --truth-days."
            )

    def write(self, folder: Path) -> None:
        """Write ``probabilities.parquet`` and ``window.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.frame.write_parquet(folder / "probabilities.parquet")
        window = {name: getattr(self, name) for name in ("cutoff", "horizon_days", "repetitions")}
        window["cutoff"] = self.cutoff.isoformat()
        (folder / "window.json").write_text(json.dumps(window) + "\n", encoding="utf-8")


def read_truth(folder: Path) -> Truth | None:
    """The truth that `Truth.write` wrote; None where there is none.

    Raises
    ------
    DataError
        If the files are damaged.
    """
    if not (folder / "window.json").is_file():
        return None
    try:
        window: dict[str, Any] = json.loads((folder / "window.json").read_text(encoding="utf-8"))
        frame = pl.read_parquet(folder / "probabilities.parquet", glob=False, columns=_COLUMNS)
        cutoff = datetime.fromisoformat(window["cutoff"])
        return Truth(frame, cutoff, float(window["horizon_days"]), int(window["repetitions"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError, PolarsError) as error:
        raise DataError(
            f"{folder} holds no readable truth ({error}); generate it again with retailrec simulate."
        ) from error
