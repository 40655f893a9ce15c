"""Scores to probabilities, learnt on a later window than the ranker's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray


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
