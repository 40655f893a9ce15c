"""What a ranker does, and scores turned into probabilities on a later window than the ranker's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.components import Component
from retailrec.errors import SettingError


@dataclass
class Calibrator:
    """Isotonic regression of purchases on scores (Zadrozny & Elkan, KDD 2002).

    Between the steps it found, probabilities are read off a straight line, so that a higher score is
    seldom tied with a lower one.
    """

    steps_: NDArray[np.float64] = field(init=False, repr=False, compare=False)  # (2, n): score, p

    def fit(
        self, score: NDArray[np.floating], y: NDArray[np.floating], weights: NDArray[np.floating]
    ) -> Self:
        """Learn from scores of rows that the ranker was not trained on, their labels and weights."""
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1)
        model.fit(score.astype(np.float64), y, sample_weight=weights)
        self.steps_ = np.stack([model.X_thresholds_, model.y_thresholds_]).astype(np.float64)
        return self

    def predict(self, score: NDArray[np.floating]) -> NDArray[np.float32]:
        """Probabilities, rising with the score.

        Examples
        --------
        >>> y = np.array([0, 0, 1, 0, 1, 1], float)
        >>> Calibrator().fit(np.arange(6.0), y, np.ones(6)).predict(np.array([0.0, 2.5, 9.0])).tolist()
        [0.0, 0.5, 1.0]
        """
        return np.interp(score, self.steps_[0], self.steps_[1]).astype(np.float32)


class TrainingFrame(NamedTuple):
    """Rows to learn from.

    Attributes
    ----------
    x : (n_rows, n_columns) float32, missing values NaN
    y : (n_rows,) float32, 1 where the pair was bought in the label window
    groups : (n_rows,) int64, one number a (cutoff, user), rising; later cutoffs come later
    weights : (n_rows,) float32; how many rows it represents when negatives were sampled
    fold : (n_rows,) int16, number of the label window, oldest 0
    names : column names
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    groups: NDArray[np.int64]
    weights: NDArray[np.float32]
    fold: NDArray[np.int16]
    names: list[str]

    def rows(self, mask: NDArray[np.bool_] | NDArray[np.intp]) -> TrainingFrame:
        """Some of the rows."""
        return TrainingFrame(
            self.x[mask],
            self.y[mask],
            self.groups[mask],
            self.weights[mask],
            self.fold[mask],
            self.names,
        )


class Ranker(Component, ABC):
    """Scores candidate rows; higher is better.

    A ranker of one's own is a dataclass that derives from this one; its fields are its settings. It
    needs no registration: a config names it by `type_name`, artifacts by its class.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables."""

    @property
    @abstractmethod
    def gives_probability(self) -> bool:
        """Are the scores probabilities of a purchase?"""

    @abstractmethod
    def fit(self, train: TrainingFrame, valid: TrainingFrame | None = None) -> Self:
        """Learn; with `valid` (a later window) stop when it no longer improves."""

    @abstractmethod
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n_rows,) scores; probabilities where the objective gives them."""

    @abstractmethod
    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n_rows, n_columns) share of each column in the raw score (SHAP values)."""

    @abstractmethod
    def importances(self) -> NDArray[np.float64]:
        """(n_columns,) how much the trees use each column; sums to 1."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model in its library's own format."""

    @abstractmethod
    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""

    @property
    def n_columns(self) -> int | None:
        """Columns of the rows that it learnt from; None where it does not tell."""
        return None

    @property
    def n_trees(self) -> int | None:
        """Trees of the fitted model; None where a number of trees can't be set."""
        return None

    def with_trees(self, n: int) -> Self:
        """The same settings with another number of trees, not fitted.

        Raises
        ------
        SettingError
            If it has no trees.
        """
        raise SettingError(f"{self.name} has no number of trees to set, not even {n}.")

    def first_trees(self, n: int) -> Self:
        """The fitted model, of whose trees it has the first `n` alone.

        Raises
        ------
        SettingError
            If it has no trees.
        """
        raise SettingError(f"{self.name} has no trees of which to take the first {n}.")

    @property
    def takes_prior(self) -> bool:
        """Can sources' orders be added to its scores, and does it leave open how much of them?"""
        return False

    def with_prior(self, columns: Sequence[str], weight: float) -> Self:
        """The same settings with a prior, not fitted; `SourcePrior` says what it adds.

        Raises
        ------
        SettingError
            If it takes none.
        """
        raise SettingError(f"{self.name} takes no prior, not even of {list(columns)} x {weight:g}.")

    def learning_curve(self) -> dict[str, list[float]]:
        """Loss on ``learn`` and ``validation`` rows after each tree, if `fit` had both."""
        return {}


def require_both_classes(y: NDArray[np.float32]) -> None:
    """Raise a SettingError unless some candidates were bought and some were not."""
    if not len(y) or y.min() == y.max():
        raise SettingError(
            f"the ranker needs bought and not bought candidates; all {len(y):,} training rows are "
            f"alike. Use a longer horizon, more sources or more data."
        )
