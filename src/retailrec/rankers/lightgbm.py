"""LightGBM, the default ranker: trees as arrays scored by bit vectors, a simple order behind them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.components import Count, Natural, NotNegative, Positive, Range, Seed, Share, Threads
from retailrec.compute.csr import jit
from retailrec.compute.shards import library_threads, n_threads
from retailrec.errors import ArtifactError
from retailrec.rankers.base import Ranker, TrainingFrame, require_both_classes

_PRIOR_FILE = "prior.json"


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
    mean : of what it adds to training rows, from which shares in a score follow

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
        (folder / _PRIOR_FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="ascii")

    @classmethod
    def load(cls, folder: Path, n_columns: int) -> Self | None:
        """What `save` wrote; None where a model has none.

        Raises
        ------
        ArtifactError
            If the file is damaged or names columns that rows do not have.
        """
        file = folder / _PRIOR_FILE
        if not file.exists():
            return None
        try:
            facts = json.loads(file.read_text(encoding="ascii"))
            if "column" in facts:  # of format 2
                facts["columns"] = [facts.pop("column")]
            prior = cls(**facts | {"columns": tuple(facts["columns"])})
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


_OF_NODES = ("split_feature", "decision_type", "left_child", "right_child", "threshold")
_MISSING_IS_NAN = 2  # LightGBM's missing types: 0 none, 1 zeros, 2 NaN
_BLOCK = 256  # rows scored at a time: their columns stay in the second cache


@dataclass(frozen=True, eq=False)
class Trees:
    """The trees of a LightGBM model, so that rows can be scored without the library.

    A node is a mask of the leaves of its left branch; a row that goes right there clears them. When all
    nodes of a tree have been asked, in any order, the row's leaf is the first that is left. There is no
    branch to mispredict, so a block of rows goes through a node in a few vector instructions
    (QuickScorer, Lucchese et al., SIGIR 2015; by blocks of rows: Lucchese et al., SIGIR 2016). Sums are
    taken in the library's order and precision, so scores are equal to its own, bit by bit.

    Attributes
    ----------
    column, threshold, mask : (n_nodes,) of each node; a row goes right where its value is above the
        threshold, the largest float32 that is not above LightGBM's own
    missing_left : (n_nodes,) does a missing value go left?
    leaves : (n_leaves,) float64, from left to right
    first_node, first_leaf : (n_trees + 1,) where each tree's nodes and leaves begin
    """

    column: NDArray[np.int32]
    threshold: NDArray[np.float32]
    mask: NDArray[np.unsignedinteger[Any]]
    missing_left: NDArray[np.bool_]
    leaves: NDArray[np.float64]
    first_node: NDArray[np.int64]
    first_leaf: NDArray[np.int64]

    @classmethod
    def of(cls, text: str, name: str = "the model") -> Self | None:
        """The trees of a model's text; None where a tree has more than 64 leaves.

        Raises
        ------
        ArtifactError
            If a child is no node, a column is not there, a number is none, or the model has a category,
            several classes or linear leaves, which the ranker never makes. LightGBM's own reader takes
            all that on trust and would read beyond its memory.
        """
        head, *texts = text.split("\nTree=")
        facts = _facts(name, head)
        n_columns = _whole(name, facts, "max_feature_idx") + 1
        if len(facts.get("feature_names", "").split()) != n_columns:
            _refuse(name, f"feature_names are not those of {n_columns} columns")
        for one in ("num_class", "num_tree_per_iteration"):
            if facts.get(one) != "1":
                _refuse(name, f"{one} is {facts.get(one)!r}, expected 1")
        if not texts:
            _refuse(name, "it has no tree")
        texts[-1], mark, _ = texts[-1].partition("\nend of trees\n")
        # the library finds a tree by the sizes in the head, whatever stands there
        sizes = [len(f"Tree={tree}\n") for tree in texts]
        if not mark or _places(name, facts, "tree_sizes", len(texts)).tolist() != sizes:
            _refuse(name, "tree_sizes are not those of its trees")
        trees = [_tree(name, number, tree, n_columns) for number, tree in enumerate(texts)]
        most = max(len(tree["leaf_value"]) for tree in trees)
        if most > 64:
            return None
        bits = np.uint32 if most <= 32 else np.uint64
        joined = {key: np.concatenate([tree[key] for tree in trees]) for key in trees[0]}
        ends = [np.cumsum([0, *(len(tree[key]) for tree in trees)]) for key in ("column", "leaf_value")]
        return cls(
            joined["column"].astype(np.int32),
            joined["threshold"],
            joined["mask"].astype(bits),
            joined["missing_left"],
            joined["leaf_value"],
            *ends,
        )

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n_rows,) the sum of each row's leaves, for `x` of (n_rows, n_columns), best by column."""
        columns = np.ascontiguousarray(x.T, np.float32)
        modulus = 37 if self.mask.dtype == np.uint32 else 67  # 2 generates all residues but 0
        place = np.zeros(modulus, np.int64)  # of a single bit, from its residue
        place[[2**bit % modulus for bit in range(8 * self.mask.dtype.itemsize)]] = range(
            8 * self.mask.dtype.itemsize
        )
        return _score(
            columns,
            self.column,
            self.threshold,
            self.mask,
            self.missing_left,
            self.leaves,
            self.first_node,
            self.first_leaf,
            place,
            self.mask.dtype.type(modulus),
        )


@jit
def _score(
    columns: Any,
    column: Any,
    threshold: Any,
    mask: Any,
    missing_left: Any,
    leaves: Any,
    first_node: Any,
    first_leaf: Any,
    place: Any,
    modulus: Any,
) -> Any:
    """(n_rows,) sums of leaves; `columns` is (n_columns, n_rows)."""
    n = columns.shape[1]
    out = np.zeros(n)
    zero = modulus - modulus
    one = modulus // modulus
    full = ~zero
    left = np.empty(_BLOCK, mask.dtype)
    for start in range(0, n, _BLOCK):
        m = min(_BLOCK, n - start)
        for tree in range(len(first_node) - 1):
            for row in range(m):
                left[row] = full
            for node in range(first_node[tree], first_node[tree + 1]):
                values = columns[column[node], start : start + m]
                above, gone = threshold[node], mask[node]
                if missing_left[node]:
                    for row in range(m):
                        left[row] &= gone if values[row] > above else full
                else:
                    for row in range(m):
                        left[row] &= full if values[row] <= above else gone
            for row in range(m):
                first = left[row] & (~left[row] + one)
                out[start + row] += leaves[first_leaf[tree] + place[first % modulus]]
    return out


def _tree(name: str, number: int, text: str, n_columns: int) -> dict[str, NDArray[Any]]:
    """Nodes and leaves of one tree, checked."""
    first, _, rest = text.partition("\n")
    if first != str(number):
        _refuse(name, f"tree {number} is called {first[:20]!r}")
    facts = _facts(name, rest)
    n_leaves = _whole(name, facts, "num_leaves")
    if not 1 <= n_leaves <= len(facts.get("leaf_value", "")):
        _refuse(name, f"tree {number} has {n_leaves} leaves")
    if facts.get("num_cat") != "0" or facts.get("is_linear", "0") != "0":
        _refuse(name, f"tree {number} has categories or linear leaves")
    values = _numbers(name, facts, "leaf_value", n_leaves)
    n = n_leaves - 1
    if not n:
        return {
            "column": np.zeros(0, np.int64),
            "threshold": np.zeros(0, np.float32),
            "mask": np.zeros(0, np.uint64),
            "missing_left": np.zeros(0, np.bool_),
            "leaf_value": values,
        }
    column, kind, left, right = (_places(name, facts, key, n) for key in _OF_NODES[:4])
    for key, count in (("leaf_count", n_leaves), ("internal_count", n)):
        _places(name, facts, key, count)
    _numbers(name, facts, "internal_value", n)
    threshold = _numbers(name, facts, "threshold", n)
    if not ((column >= 0) & (column < n_columns)).all():
        _refuse(name, f"tree {number} asks for a column beyond the {n_columns}")
    if not np.isin(kind, (0, 2, 8, 10)).all():  # numbers, with no missing values or NaN for them
        _refuse(name, f"tree {number} has a decision of another type")
    # each node and each leaf hangs on one node that comes before it, so nothing goes in circles
    children = np.concatenate([left, right])
    every = np.sort(children).tolist() == [*range(-n_leaves, 0), *range(1, n)]
    if not every or ((children >= 0) & (children <= np.tile(np.arange(n), 2))).any():
        _refuse(name, f"tree {number} is no tree: its children are not each one's, once")
    below = [0] * n  # leaves below each node
    for node in range(n - 1, -1, -1):
        below[node] = sum(1 if c < 0 else below[c] for c in (int(left[node]), int(right[node])))
    begin, order, masks = [0] * n, [0] * n_leaves, [0] * n
    for node in range(n):
        at = begin[node]
        for child in (int(left[node]), int(right[node])):
            size = 1 if child < 0 else below[child]
            if child < 0:
                order[at] = ~child
            else:
                begin[child] = at
            if child == left[node]:
                masks[node] = ~(((1 << size) - 1) << at) & (2**64 - 1)
            at += size
    with np.errstate(over="ignore"):
        as_float32 = threshold.astype(np.float32)
    down = as_float32.astype(np.float64) > threshold
    as_float32[down] = np.nextafter(as_float32[down], np.float32(-np.inf))
    # where LightGBM saw no missing value in training, it takes one for 0
    missing_left = np.where(kind >> 2 == _MISSING_IS_NAN, kind & 2 != 0, threshold >= 0)
    return {
        "column": column,
        "threshold": as_float32,
        "mask": np.array(masks, np.uint64),
        "missing_left": missing_left,
        "leaf_value": values[order],
    }


def lightgbm_text(file: Path) -> str:
    """The text of a file that may hold a LightGBM model; `Trees.of` checks what it says.

    Raises
    ------
    ArtifactError
        If it is no plain text.
    """
    try:
        text = file.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        _refuse(str(file), f"it is no plain text ({error.reason})")
    if "\0" in text or "\r" in text:
        _refuse(str(file), "it holds signs that a model has not")
    return text


def _facts(name: str, text: str) -> dict[str, str]:
    """Lines ``name=value``; one that stands twice is refused: readers differ in which counts."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        key, mark, value = line.partition("=")
        if mark and key in found:
            _refuse(name, f"{key[:40]!r} stands twice")
        if mark:
            found[key] = value
    return found


def _whole(name: str, facts: dict[str, str], key: str) -> int:
    value = facts.get(key, "")
    if not value.isdecimal() or len(value) > 7:
        _refuse(name, f"{key} is {value[:40]!r}, expected a whole number")
    return int(value)


def _numbers(name: str, facts: dict[str, str], key: str, count: int) -> NDArray[np.float64]:
    """So many numbers, finite but for thresholds, which part what is missing from the rest."""
    try:
        values = np.array(facts.get(key, "").split(), np.float64)
    except ValueError as error:
        _refuse(name, f"{key} holds what is no number ({error})")
    # a split of missing values from all others lies at infinity
    fits = ~np.isnan(values) if key == "threshold" else np.isfinite(values)
    if len(values) != count or not fits.all():
        _refuse(name, f"{key} holds {len(values)} numbers or infinite ones, expected {count}")
    return values


def _places(name: str, facts: dict[str, str], key: str, count: int) -> NDArray[np.int64]:
    """So many whole numbers, written as such: readers differ in what they make of 1e1."""
    cells = facts.get(key, "").split()
    if len(cells) != count or not all(re.fullmatch(r"-?\d{1,9}", cell) for cell in cells):
        _refuse(name, f"{key} holds {len(cells)} cells or what is no whole number, expected {count}")
    return np.array(cells, np.int64)


def _refuse(name: str, problem: str) -> NoReturn:
    raise ArtifactError(f"{name} holds no trees that can be used: {problem}. Save the model again.")


_FILE = "lightgbm.txt"
_MOST_ROWS = 10_000  # of one query: LightGBM refuses more
_THREAD_ROWS = 20_000  # keep a thread busy; with fewer they wait for each other, spinning
_SCORED_ROWS = 2_000  # likewise, when scoring
_TREES = 120
_FEW_LISTS = 1_500  # teach half as many trees
_PRIOR_WEIGHT = 0.05  # of a prior that is given without one
_SPREAD_ROWS = 50_000  # tell the spread of scores
_BIN_ROWS = 100_000  # tell the split points; LightGBM holds them as doubles meanwhile
_BATCH_ROWS = 16_384  # that it is handed at a time


@dataclass
class LightGBMRanker(Ranker, type="lightgbm"):
    """Leaf-wise trees (Ke et al., NeurIPS 2017).

    Parameters
    ----------
    objective : ``binary`` gives probabilities; ``lambdarank`` orders within a (cutoff, user);
        where that is more than 10,000 rows, LightGBM's limit, within equal parts of them
    iterations, leaves, learning_rate, min_rows : as in LightGBM; no iterations: what `usual_trees` says
    early_stopping : rounds without improvement on the later window after which training stops
    prior, prior_weight : columns with sources' ranks whose order is added to the scores of
        ``lambdarank``, and how much of it, in standard deviations of the scores; see `SourcePrior`.
        Nothing is added where rows have no such columns, nor to probabilities. Where no column is
        named the recommender chooses, and the weight too unless it is given
    threads, seed : None takes the model's
    """

    objective: Literal["binary", "lambdarank"] = "lambdarank"
    iterations: Count | None = None
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
            "force_col_wise": True,  # by row, sums and so trees hang on the number of threads
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
        iterations = self.iterations or (_TREES if valid is not None else self.usual_trees(train))
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
        self.model_ = lgb.train(options, data, iterations, **later)
        self.trees_ = Trees.of(self.model_.model_to_string())
        self.prior_ = None
        weight = _PRIOR_WEIGHT if self.prior_weight is None else self.prior_weight
        if self.objective == "lambdarank" and self.prior and weight:
            names = [self.prior] if isinstance(self.prior, str) else self.prior
            rows = np.flatnonzero(kept)
            some = train.rows(rows[:: len(rows) // _SPREAD_ROWS + 1])
            self.prior_ = SourcePrior.learnt(some, names, weight, self._raw(some.x))
        return self

    def usual_trees(self, train: TrainingFrame) -> int:
        """120; to order lists, half as many where fewer than 1,500 with a purchase teach."""
        few = len(np.unique(train.groups[train.y > 0])) < _FEW_LISTS
        return _TREES // 2 if few and self.objective == "lambdarank" else _TREES

    def with_trees(self, n: int) -> Self:
        return replace(self, iterations=n)

    def first_trees(self, n: int) -> Self:
        import lightgbm as lgb

        other, text = copy(self), self.model_.model_to_string(num_iteration=n)
        other.model_, other.trees_ = lgb.Booster(model_str=text), Trees.of(text)
        return other

    def learning_curve(self) -> dict[str, list[float]]:
        """The metric (NDCG@5, or log loss) on training rows and later window after each tree."""
        return {part: list(next(iter(values.values()))) for part, values in self._curve.items()}

    @property
    def n_trees(self) -> int:
        """Trees that predictions use."""
        best = int(self.model_.best_iteration)  # below 0 where a model was read
        return best if best > 0 else int(self.model_.num_trees())

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
