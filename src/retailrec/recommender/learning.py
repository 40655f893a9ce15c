"""Training the ranker: early stopping, and probabilities, both judged on the newest label window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import DataError
from retailrec.rankers import Ranker, TrainingFrame
from retailrec.rankers.calibration import Calibrator


def learnt_ranker(
    frame: TrainingFrame, fresh: Callable[[], Ranker], early_stopping: bool
) -> tuple[Ranker, dict[str, Any]]:
    """A ranker fitted on all label windows, and facts of the fit.

    Parameters
    ----------
    fresh : gives a ranker that has learnt nothing
    early_stopping : the number of trees is learnt on the newest label window first; the facts are then
        ``learning_curve`` and ``trees``. With a single window there is nothing to learn it on.
    """
    newest, ranker = _newest(frame), fresh()
    if not early_stopping or newest.all():
        return ranker.fit(frame), {}
    ranker.fit(frame.rows(~newest), frame.rows(newest))
    facts: dict[str, Any] = {"learning_curve": ranker.learning_curve()}
    trees = ranker.n_trees
    if trees is not None:
        facts["trees"] = trees
        ranker = ranker.with_trees(max(trees, 1))
    return ranker.fit(frame), facts


def calibrated(frame: TrainingFrame, fresh: Callable[[], Ranker]) -> Calibrator:
    """Scores of the newest label window by a ranker of the others, and what they were worth.

    Raises
    ------
    DataError
        If there is one label window only.
    """
    newest = _newest(frame)
    if newest.all():
        raise DataError(
            "calibrate needs at least two label windows beside the pre-ranker's; bring more data "
            "or shorter horizons."
        )
    later = frame.rows(newest)
    score = fresh().fit(frame.rows(~newest)).predict(later.x)
    return Calibrator().fit(score, later.y, later.weights)


def _newest(frame: TrainingFrame) -> NDArray[np.bool_]:
    """(n_rows,) is the row of the newest label window?"""
    newest: NDArray[np.bool_] = frame.fold == frame.fold.max()
    return newest
