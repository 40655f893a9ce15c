"""CatBoost: quick to score."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.components import Count, NotNegative, Positive, Range, Seed, Share, Threads
from retailrec.compute.shards import library_threads, n_threads
from retailrec.errors import ArtifactError
from retailrec.rankers.base import Ranker, TrainingFrame, require_both_classes

_FILE = "catboost.cbm"
_SCORED_ROWS = 2_000  # keep a thread busy


@dataclass
class CatBoostRanker(Ranker, type="catboost"):
    """Oblivious trees (Prokhorenkova et al., NeurIPS 2018).

    Parameters
    ----------
    objective : ``Logloss`` gives probabilities; ``YetiRank`` and ``QuerySoftMax`` order within a
        (cutoff, user)
    iterations, depth, learning_rate, l2_leaf_reg : as in CatBoost
    column_share, borders : share of the columns tried for a tree, split points a column
    early_stopping : rounds without improvement on the later window after which training stops
    monotone : column name -> 1 (rising) or -1 (falling)
    device : ``cpu`` or ``gpu`` (training only)
    threads, seed : None takes the model's
    """

    objective: Literal["Logloss", "YetiRank", "QuerySoftMax"] = "Logloss"
    iterations: Count = 200
    depth: Annotated[int, Range(1, 16)] = 6
    learning_rate: Positive = 0.1
    l2_leaf_reg: NotNegative = 5.0
    column_share: Share = 0.3
    borders: Annotated[int, Range(1, 65_535)] = 128
    early_stopping: Count = 40
    monotone: dict[str, int] = field(default_factory=dict)
    device: Literal["cpu", "gpu"] = "cpu"
    threads: Threads | None = None
    seed: Seed | None = None
    model_: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def name(self) -> str:
        return "catboost" if self.objective == "Logloss" else f"catboost_{self.objective.lower()}"

    @property
    def gives_probability(self) -> bool:
        return self.objective == "Logloss"

    def fit(self, train: TrainingFrame, valid: TrainingFrame | None = None) -> Self:
        """Learn from `train`; with `valid`, keep the number of trees that is best on it."""
        from catboost import CatBoost

        require_both_classes(train.y)
        options: dict[str, Any] = {
            "loss_function": self.objective,
            "iterations": self.iterations,
            "depth": self.depth,
            "learning_rate": self.learning_rate,
            "l2_leaf_reg": self.l2_leaf_reg,
            "random_seed": self.seed or 0,
            "thread_count": n_threads(self.threads),
            "task_type": self.device.upper(),
            "allow_writing_files": False,
            "verbose": False,
            "border_count": self.borders,
            "rsm": self.column_share,
        }
        if self.objective == "Logloss":
            options["boosting_type"] = "Plain"
        if self.monotone:
            options["monotone_constraints"] = {
                k: v for k, v in self.monotone.items() if k in train.names
            }
        if valid is not None:
            options |= {"od_type": "Iter", "od_wait": self.early_stopping, "use_best_model": True}
        self.model_ = CatBoost(options)
        self.model_.fit(self._pool(train), eval_set=None if valid is None else self._pool(valid))
        return self

    @property
    def n_trees(self) -> int:
        """Trees of the fitted model."""
        return int(self.model_.tree_count_)

    def with_trees(self, n: int) -> Self:
        return replace(self, iterations=n)

    def first_trees(self, n: int) -> Self:
        other = copy(self)
        other.model_ = self.model_.copy()
        other.model_.shrink(n)
        return other

    def learning_curve(self) -> dict[str, list[float]]:
        """Loss on training and later window after each tree."""
        results = self.model_.get_evals_result()
        return {part: list(next(iter(losses.values()))) for part, losses in results.items()}

    @property
    def n_columns(self) -> int:
        """Columns of the rows that it learnt from."""
        return len(self.model_.feature_names_)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        kind = "Probability" if self.objective == "Logloss" else "RawFormulaVal"
        if not len(x):
            return np.zeros(0, np.float32)
        threads = library_threads(self.threads, len(x), _SCORED_ROWS)
        # a view, since CatBoost makes read-only what it is given
        out = self.model_.predict(x.view(), prediction_type=kind, thread_count=threads)
        return np.asarray(out[:, 1] if out.ndim == 2 else out, np.float32)

    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        from catboost import Pool

        shap = self.model_.get_feature_importance(Pool(x.view()), type="ShapValues")
        return np.asarray(shap[:, :-1], np.float32)

    def importances(self) -> NDArray[np.float64]:
        gain = np.asarray(self.model_.get_feature_importance(), np.float64)
        return np.asarray(gain / max(float(gain.sum()), 1e-12))

    def save(self, folder: Path) -> None:
        self.model_.save_model(str(folder / _FILE))

    def load(self, folder: Path) -> Self:
        from catboost import CatBoost, CatBoostError

        data = (folder / _FILE).read_bytes()
        self.model_ = CatBoost()
        try:
            # the library reads as far as the head says, beyond the end of a file that was cut
            if data[:4] != b"CBM1" or len(data) != int.from_bytes(data[4:8], "little") + 8:
                raise CatBoostError("its length is not what its head says")
            self.model_.load_model(blob=data)
        except CatBoostError as error:
            raise ArtifactError(
                f"{folder / _FILE} holds no trees that can be used: {error}. Save the model again."
            ) from error
        return self

    def _pool(self, frame: TrainingFrame) -> Any:
        from catboost import Pool

        ranking = self.objective != "Logloss"
        return Pool(
            frame.x.view(),
            frame.y,
            feature_names=frame.names,
            group_id=frame.groups if ranking else None,
            weight=None if ranking else frame.weights,
        )
