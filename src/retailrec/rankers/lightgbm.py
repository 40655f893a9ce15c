"""LightGBM: the default ranker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.components import Count, Natural, NotNegative, Positive, Range, Seed, Share, Threads
from retailrec.compute.shards import library_threads, n_threads
from retailrec.rankers.base import Ranker, TrainingFrame, require_both_classes
from retailrec.rankers.tree_files import lightgbm_text

_FILE = "lightgbm.txt"
_MOST_ROWS = 10_000  # of one query: LightGBM refuses more


@dataclass
class LightGBMRanker(Ranker, type="lightgbm"):
    """Leaf-wise trees (Ke et al., NeurIPS 2017).

    Parameters
    ----------
    objective : ``binary`` gives probabilities; ``lambdarank`` orders within a (cutoff, shopper);
        where that is more than 10,000 rows, LightGBM's limit, within equal parts of them
    iterations, leaves, learning_rate, min_rows : as in LightGBM
    early_stopping : rounds without improvement on the later window after which training stops
    threads, seed : None takes the model's
    """

    objective: Literal["binary", "lambdarank"] = "lambdarank"
    iterations: Count = 120
    leaves: Annotated[int, Range(2, 131_072)] = 31
    learning_rate: Positive = 0.08
    min_rows: Natural = 100
    column_share: Share = 0.2
    l2: NotNegative = 5.0
    early_stopping: Count = 40
    monotone: dict[str, int] = field(default_factory=dict)
    threads: Threads | None = None
    seed: Seed | None = None
    model_: Any = field(init=False, repr=False, compare=False, default=None)
    _curve: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def name(self) -> str:
        return "lightgbm" if self.objective == "binary" else "lightgbm_lambdarank"

    @property
    def gives_probability(self) -> bool:
        return self.objective == "binary"

    def fit(self, train: TrainingFrame, valid: TrainingFrame | None = None) -> Self:
        """Learn from `train`; with `valid`, keep the number of trees that is best on it."""
        import lightgbm as lgb

        require_both_classes(train.y)
        options: dict[str, Any] = {
            "objective": self.objective,
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_rows,
            "feature_fraction": self.column_share,
            "lambda_l2": self.l2,
            "num_threads": n_threads(self.threads),
            "seed": self.seed or 0,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            "lambdarank_truncation_level": 20,
            # split points from all rows: a sample's would hang on the exact number of rows
            "bin_construct_sample_cnt": 1_000_000,
            "metric": "ndcg" if self.objective == "lambdarank" else "binary_logloss",
            "eval_at": [5],
        }
        if self.monotone:
            options["monotone_constraints"] = [self.monotone.get(n, 0) for n in train.names]
        if self.objective == "lambdarank":  # without a purchase there is no order to learn
            train = train.rows(np.isin(train.groups, train.groups[train.y > 0]))
        data = self._dataset(train)
        later: dict[str, Any] = {}
        self._curve = {}
        if valid is not None:
            later = {
                "valid_sets": [data, self._dataset(valid, data)],
                "valid_names": ["learn", "validation"],
                "callbacks": [
                    lgb.early_stopping(self.early_stopping, verbose=False),
                    lgb.record_evaluation(self._curve),
                ],
            }
        self.model_ = lgb.train(options, data, self.iterations, **later)
        return self

    def with_trees(self, n: int) -> Self:
        return replace(self, iterations=n)

    def learning_curve(self) -> dict[str, list[float]]:
        """The metric (NDCG@5, or log loss) on training rows and later window after each tree."""
        return {part: list(next(iter(values.values()))) for part, values in self._curve.items()}

    @property
    def n_trees(self) -> int:
        """Trees that predictions use."""
        return int(self.model_.best_iteration) or int(self.model_.num_trees())

    @property
    def n_columns(self) -> int:
        """Columns of the rows that it learnt from."""
        return int(self.model_.num_feature())

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(x):
            return np.zeros(0, np.float32)
        return np.asarray(self.model_.predict(x, num_threads=library_threads(self.threads)), np.float32)

    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        shap = self.model_.predict(x, pred_contrib=True, num_threads=library_threads(self.threads))
        return np.asarray(shap[:, :-1], np.float32)

    def importances(self) -> NDArray[np.float64]:
        gain = np.asarray(self.model_.feature_importance("gain"), np.float64)
        return gain / max(gain.sum(), 1e-12)

    def save(self, folder: Path) -> None:
        self.model_.save_model(str(folder / _FILE))

    def load(self, folder: Path) -> Self:
        import lightgbm as lgb

        self.model_ = lgb.Booster(model_str=lightgbm_text(folder / _FILE))
        return self

    def _dataset(self, frame: TrainingFrame, reference: Any = None) -> Any:
        import lightgbm as lgb

        sizes = _queries(np.unique(frame.groups, return_counts=True)[1])
        ranking = self.objective == "lambdarank"
        return lgb.Dataset(
            frame.x,
            frame.y,
            group=sizes if ranking else None,
            weight=None if ranking else frame.weights,
            feature_name=[f"column_{i}" for i in range(len(frame.names))],  # it refuses : " [ ] { } ,
            reference=reference,
            free_raw_data=True,
        )


def _queries(sizes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Rows of each query: a group above LightGBM's limit becomes equal parts.

    Examples
    --------
    >>> _queries(np.array([3, 20_001])).tolist()
    [3, 6667, 6667, 6667]
    """
    parts = -(-sizes // _MOST_ROWS)
    group = np.repeat(np.arange(len(sizes)), parts)
    number = np.arange(len(group)) - np.repeat(np.cumsum(parts) - parts, parts)
    return np.asarray(sizes[group] // parts[group] + (number < sizes[group] % parts[group]), np.int64)
