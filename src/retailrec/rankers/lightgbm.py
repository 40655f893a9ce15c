"""LightGBM: the default ranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.components import Count, Natural, NotNegative, Positive, Range, Seed, Share, Threads
from retailrec.compute.shards import library_threads, n_threads
from retailrec.rankers.base import Ranker, TrainingFrame, require_both_classes
from retailrec.rankers.prior import SourcePrior
from retailrec.rankers.trees import Trees, lightgbm_text

_FILE = "lightgbm.txt"
_MOST_ROWS = 10_000  # of one query: LightGBM refuses more
_THREAD_ROWS = 20_000  # keep a thread busy; with fewer they wait for each other, spinning
_SCORED_ROWS = 2_000  # likewise, when scoring
_PRIOR_WEIGHT = 0.05  # of a prior that is given without one
_SPREAD_ROWS = 50_000  # tell the spread of scores
_BIN_ROWS = 100_000  # tell the split points; LightGBM holds them as doubles meanwhile
_BATCH_ROWS = 16_384  # that it is handed at a time


@dataclass
class LightGBMRanker(Ranker, type="lightgbm"):
    """Leaf-wise trees (Ke et al., NeurIPS 2017).

    Parameters
    ----------
    objective : ``binary`` gives probabilities; ``lambdarank`` orders within a (cutoff, shopper);
        where that is more than 10,000 rows, LightGBM's limit, within equal parts of them
    iterations, leaves, learning_rate, min_rows : as in LightGBM
    early_stopping : rounds without improvement on the later window after which training stops
    prior, prior_weight : columns with sources' ranks whose order is added to the scores of
        ``lambdarank``, and how much of it, in standard deviations of the scores; see `SourcePrior`.
        Nothing is added where rows have no such columns, nor to probabilities. Where no column is
        named the recommender chooses, and the weight too unless it is given
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
    prior: str | Sequence[str] | None = None
    prior_weight: NotNegative | None = None
    threads: Threads | None = None
    seed: Seed | None = None
    model_: Any = field(init=False, repr=False, compare=False, default=None)
    trees_: Trees | None = field(init=False, repr=False, compare=False, default=None)
    prior_: SourcePrior | None = field(init=False, repr=False, compare=False, default=None)
    _curve: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def name(self) -> str:
        return "lightgbm" if self.objective == "binary" else "lightgbm_lambdarank"

    @property
    def gives_probability(self) -> bool:
        return self.objective == "binary"

    @property
    def takes_prior(self) -> bool:
        return self.objective == "lambdarank" and self.prior is None and self.prior_weight != 0

    def with_prior(self, columns: Sequence[str], weight: float) -> Self:
        given = self.prior_weight
        return replace(self, prior=list(columns), prior_weight=weight if given is None else given)

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
            "num_threads": min(n_threads(self.threads), 1 + len(train.y) // _THREAD_ROWS),
            "seed": self.seed or 0,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            "lambdarank_truncation_level": 20,
            "bin_construct_sample_cnt": 1_000_000,  # of the rows that `_telling` takes, all
            "metric": "ndcg" if self.objective == "lambdarank" else "binary_logloss",
            "eval_at": [5],
        }
        if self.monotone:
            options["monotone_constraints"] = [self.monotone.get(n, 0) for n in train.names]
        kept = np.ones(len(train.y), np.bool_)
        if self.objective == "lambdarank":  # without a purchase there is no order to learn
            kept = np.isin(train.groups, train.groups[train.y > 0])
        telling = kept & _telling(train.x, int(kept.sum()))
        if (telling == kept).all():
            data = self._dataset(train.rows(kept), options)
        else:
            bins = self._dataset(train.rows(telling), options).construct()
            data = self._dataset(train, options, bins, kept).construct()
            del bins
        later: dict[str, Any] = {}
        self._curve = {}
        if valid is not None:
            later = {
                "valid_sets": [data, self._dataset(valid, options, data)],
                "valid_names": ["learn", "validation"],
                "callbacks": [
                    lgb.early_stopping(self.early_stopping, verbose=False),
                    lgb.record_evaluation(self._curve),
                ],
            }
        self.model_ = lgb.train(options, data, self.iterations, **later)
        self.trees_ = Trees.of(self.model_.model_to_string())
        self.prior_ = None
        weight = _PRIOR_WEIGHT if self.prior_weight is None else self.prior_weight
        if self.objective == "lambdarank" and self.prior and weight:
            names = [self.prior] if isinstance(self.prior, str) else self.prior
            rows = np.flatnonzero(kept)
            some = train.rows(rows[:: len(rows) // _SPREAD_ROWS + 1])
            self.prior_ = SourcePrior.learnt(some, names, weight, self._raw(some.x))
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
        raw = self._raw(x)
        if self.gives_probability:
            return np.asarray(1 / (1 + np.exp(-raw)), np.float32)
        return np.asarray(raw if self.prior_ is None else raw + self.prior_.of(x), np.float32)

    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        threads = library_threads(self.threads, len(x), _SCORED_ROWS)
        shap = self.model_.predict(x, pred_contrib=True, num_threads=threads)
        if self.prior_ is not None:
            columns = list(self.prior_.columns)
            shap[:, columns] += ((self.prior_.of(x) - self.prior_.mean) / len(columns))[:, None]
        return np.asarray(shap[:, :-1], np.float32)

    def importances(self) -> NDArray[np.float64]:
        gain = np.asarray(self.model_.feature_importance("gain"), np.float64)
        return gain / max(gain.sum(), 1e-12)

    def save(self, folder: Path) -> None:
        self.model_.save_model(str(folder / _FILE))
        if self.prior_ is not None:
            self.prior_.save(folder)

    def load(self, folder: Path) -> Self:
        import lightgbm as lgb

        text = lightgbm_text(folder / _FILE)
        self.trees_ = Trees.of(text, str(folder / _FILE))
        self.model_ = lgb.Booster(model_str=text)
        self.prior_ = SourcePrior.load(folder, self.model_.num_feature())
        return self

    def _raw(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n_rows,) what the trees say: log odds, or a place in the order."""
        if self.trees_ is not None:
            return self.trees_.score(x)
        threads = library_threads(self.threads, len(x), _SCORED_ROWS)
        scores: NDArray[np.float64] = self.model_.predict(x, raw_score=True, num_threads=threads)
        return scores

    def _dataset(
        self,
        frame: TrainingFrame,
        options: dict[str, Any],
        reference: Any = None,
        kept: NDArray[np.bool_] | None = None,
    ) -> Any:
        """The frame in bins, those of `reference` if given; of `kept` rows alone, not copied."""
        import lightgbm as lgb

        y, groups, weights = frame.y, frame.groups, frame.weights
        if kept is not None:
            y, groups, weights = y[kept], groups[kept], weights[kept]
        sizes = _queries(np.unique(groups, return_counts=True)[1])
        ranking = self.objective == "lambdarank"
        return lgb.Dataset(
            frame.x if kept is None else _in_batches()(frame.x, np.flatnonzero(kept)),
            y,
            group=sizes if ranking else None,
            weight=None if ranking else weights,
            feature_name=[f"column_{i}" for i in range(len(frame.names))],  # it refuses : " [ ] { } ,
            reference=reference,
            params=options,
            free_raw_data=True,
        )


@cache
def _in_batches() -> Any:
    """Some rows of a matrix, which LightGBM takes batch by batch; its base is not imported before."""
    import lightgbm as lgb

    class Rows(lgb.Sequence):
        batch_size = _BATCH_ROWS

        def __init__(self, x: NDArray[np.float32], rows: NDArray[np.intp]) -> None:
            self.x, self.rows = x, rows

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: Any) -> NDArray[np.float32]:
            return self.x[self.rows[index]]

    return Rows


def _telling(x: NDArray[np.float32], n_kept: int) -> NDArray[np.bool_]:
    """(n_rows,) which rows split points are learnt from, about 100,000 of the `n_kept` at the most.

    A row is drawn by what it holds. LightGBM's own sample hangs on the number of rows: one more, as
    rounding on another processor can make it, and all split points move.
    """
    share = 1.0
    while share * n_kept > 1.5 * _BIN_ROWS:
        share /= 2
    if share == 1:
        return np.ones(len(x), np.bool_)
    mixed = np.zeros(len(x), np.uint64)
    for column in np.linspace(0, x.shape[1] - 1, num=min(x.shape[1], 12), dtype=int):
        bits = np.ascontiguousarray(x[:, column]).view(np.uint32)
        mixed = (mixed ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share


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
