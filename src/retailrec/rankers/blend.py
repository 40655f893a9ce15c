"""A blend of rankers: the mean of their scores in standard units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import ArtifactError
from retailrec.rankers.base import Ranker, TrainingFrame
from retailrec.rankers.catboost import CatBoostRanker
from retailrec.rankers.lightgbm import LightGBMRanker


@dataclass
class BlendRanker(Ranker, type="blend"):
    """Mean of the parts' scores, each turned into standard units of its training rows.

    Ranks within a request would make one row's score depend on the others; standard units (of the
    logit, for probabilities) order alike and do not.

    Parameters
    ----------
    parts : the rankers
    """

    parts: list[Ranker] = field(
        default_factory=lambda: [
            CatBoostRanker(iterations=80, learning_rate=0.2),
            LightGBMRanker(),
        ]
    )
    parts_: list[Ranker] = field(init=False, repr=False, compare=False)
    centre_: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    scale_: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "blend"

    @property
    def gives_probability(self) -> bool:
        return False

    @property
    def takes_prior(self) -> bool:
        return any(part.takes_prior for part in self.parts)

    def with_prior(self, columns: Sequence[str], weight: float) -> Self:
        parts = [part.with_prior(columns, weight) if part.takes_prior else part for part in self.parts]
        return replace(self, parts=parts)

    def fit(self, train: TrainingFrame, valid: TrainingFrame | None = None) -> Self:
        """Fit every part, then measure its scores' centre and spread."""
        self.parts_ = [replace(part).fit(train, valid) for part in self.parts]  # type: ignore[type-var]
        raw = [_standard(part, train.x) for part in self.parts_]
        self.centre_ = np.array([r.mean() for r in raw], np.float64)
        self.scale_ = np.array([max(r.std(), 1e-9) for r in raw], np.float64)
        return self

    @property
    def n_columns(self) -> int | None:
        """Columns of the rows that it learnt from."""
        found = {part.n_columns for part in self.parts_}
        return found.pop() if len(found) == 1 else -1

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.zeros(len(x))
        for part, centre, scale in zip(self.parts_, self.centre_, self.scale_, strict=True):
            total += (_standard(part, x) - centre) / scale
        return (total / len(self.parts_)).astype(np.float32)

    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        shares = [p.contributions(x) / s for p, s in zip(self.parts_, self.scale_, strict=True)]
        return np.asarray(np.mean(shares, axis=0), np.float32)

    def importances(self) -> NDArray[np.float64]:
        return np.mean([part.importances() for part in self.parts_], axis=0)

    def save(self, folder: Path) -> None:
        for number, part in enumerate(self.parts_):
            (folder / f"part_{number}").mkdir()
            part.save(folder / f"part_{number}")
        np.save(folder / "standard.npy", np.stack([self.centre_, self.scale_]), allow_pickle=False)

    def load(self, folder: Path) -> Self:
        self.parts_ = [replace(part) for part in self.parts]  # type: ignore[type-var]
        for number, part in enumerate(self.parts_):
            part.load(folder / f"part_{number}")
        standard = np.load(folder / "standard.npy", allow_pickle=False)
        right = standard.shape == (2, len(self.parts_)) and standard.dtype == np.float64
        if not right or not np.isfinite(standard).all() or (standard[1] <= 0).any():
            raise ArtifactError(
                f"{folder / 'standard.npy'} holds no centre and spread of {len(self.parts_)} rankers. "
                f"Save the model again."
            )
        self.centre_, self.scale_ = standard
        return self


def _standard(part: Ranker, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """A part's scores; log-odds where they are probabilities."""
    score = part.predict(x).astype(np.float64)
    if not part.gives_probability:
        return score
    clipped = np.clip(score, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(clipped / (1 - clipped)))
