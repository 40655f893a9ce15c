"""A prior for rankers: a source's order, so that few label windows do not decide alone."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import ArtifactError
from retailrec.rankers.base import TrainingFrame

_FILE = "prior.json"


@dataclass(frozen=True)
class SourcePrior:
    """What a source's order adds to raw scores: - `weight` x log2(rank + 1), the discount of DCG.

    A label window tells what a habit or a bestseller was worth then. Where the next weeks differ, as
    after a holiday, a simple order errs less than what was learnt; a small share of it costs nothing
    elsewhere.

    Parameters
    ----------
    column : place of the source's rank among the columns
    weight : in units of the raw score
    unranked : rank of pairs that the source does not rank
    mean : of what it adds to training rows, so that shares in a score can be told from it

    Examples
    --------
    >>> prior = SourcePrior(column=0, weight=0.5, unranked=7, mean=0.0)
    >>> prior.of(np.array([[1], [3], [np.nan]], np.float32)).tolist()
    [-0.5, -1.0, -1.5]
    """

    column: int
    weight: float
    unranked: float
    mean: float

    @classmethod
    def learnt(
        cls, frame: TrainingFrame, name: str, weight: float, raw: NDArray[np.floating]
    ) -> Self | None:
        """The prior of the column `name` for a ranker with these raw scores; None without that column.

        Parameters
        ----------
        weight : in standard deviations of the raw scores
        raw : (n_rows,) of the rows of `frame`
        """
        if name not in frame.names:
            return None
        column = frame.names.index(name)
        ranks = frame.x[:, column]
        unranked = float(np.nanmax(ranks, initial=0)) + 1
        prior = cls(column, weight * float(np.std(raw)), unranked, 0.0)
        return cls(column, prior.weight, unranked, float(prior.of(frame.x).mean()))

    def of(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n_rows,) what it adds to raw scores."""
        ranks = x[:, self.column].astype(np.float64)
        ranks[np.isnan(ranks)] = self.unranked
        added: NDArray[np.float64] = -self.weight * np.log2(ranks + 1)
        return added

    def save(self, folder: Path) -> None:
        """Write it beside the model."""
        (folder / _FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="ascii")

    @classmethod
    def load(cls, folder: Path, n_columns: int) -> Self | None:
        """What `save` wrote; None where a model has none.

        Raises
        ------
        ArtifactError
            If the file is damaged or names a column that rows do not have.
        """
        file = folder / _FILE
        if not file.exists():
            return None
        try:
            prior = cls(**json.loads(file.read_text(encoding="ascii")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ArtifactError(f"{file} is damaged: {error}. Fit and save the model again.") from error
        numbers = (prior.weight, prior.unranked, prior.mean)
        fits = (
            type(prior.column) is int
            and 0 <= prior.column < n_columns
            and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
            and prior.unranked >= 0
        )
        if not fits:
            raise ArtifactError(
                f"{file} is damaged: column {prior.column!r} of {n_columns} and {numbers!r} are no "
                f"prior. Fit and save the model again."
            )
        return prior
