"""A prior for rankers: sources' orders, so that few label windows do not decide alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
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
    """What sources' orders add to raw scores: - `weight` x log2(rank + 1), the discount of DCG.

    A label window tells what a habit or a bestseller was worth then. Where the next weeks differ, as
    after a holiday, or where there are few users to learn from, a simple order errs less than what was
    learnt. Of several sources the mean is added.

    Parameters
    ----------
    columns : places of the sources' ranks among the columns
    weight : in units of the raw score
    unranked : rank of pairs that a source does not rank
    mean : of what it adds to training rows, so that shares in a score can be told from it

    Examples
    --------
    >>> prior = SourcePrior(columns=(0,), weight=0.5, unranked=7, mean=0.0)
    >>> prior.of(np.array([[1], [3], [np.nan]], np.float32)).tolist()
    [-0.5, -1.0, -1.5]
    """

    columns: tuple[int, ...]
    weight: float
    unranked: float
    mean: float

    @classmethod
    def learnt(
        cls, frame: TrainingFrame, names: Sequence[str], weight: float, raw: NDArray[np.floating]
    ) -> Self | None:
        """The prior of columns for a ranker with these raw scores; None where rows lack one of them.

        Parameters
        ----------
        names : of the columns
        weight : in standard deviations of the raw scores
        raw : (n_rows,) of the rows of `frame`
        """
        if not names or not set(names) <= set(frame.names):
            return None
        columns = tuple(frame.names.index(name) for name in names)
        unranked = float(np.nanmax(frame.x[:, columns], initial=0)) + 1
        prior = cls(columns, weight * float(np.std(raw)), unranked, 0.0)
        return cls(columns, prior.weight, unranked, float(prior.of(frame.x).mean()))

    def of(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n_rows,) what it adds to raw scores."""
        added = np.zeros(len(x))
        for column in self.columns:
            ranks = x[:, column].astype(np.float64)
            ranks[np.isnan(ranks)] = self.unranked
            added -= np.log2(ranks + 1)
        added *= self.weight / len(self.columns)
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
            If the file is damaged or names columns that rows do not have.
        """
        file = folder / _FILE
        if not file.exists():
            return None
        try:
            told = json.loads(file.read_text(encoding="ascii"))
            if "column" in told:  # of format 2
                told["columns"] = [told.pop("column")]
            prior = cls(**told | {"columns": tuple(told["columns"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ArtifactError(f"{file} is damaged: {error}. Fit and save the model again.") from error
        numbers = (prior.weight, prior.unranked, prior.mean)
        fits = (
            len(prior.columns) > 0
            and all(type(column) is int and 0 <= column < n_columns for column in prior.columns)
            and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
            and prior.unranked >= 0
        )
        if not fits:
            raise ArtifactError(
                f"{file} is damaged: columns {prior.columns!r} of {n_columns} and {numbers!r} are no "
                f"prior. Fit and save the model again."
            )
        return prior
