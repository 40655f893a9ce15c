"""LightGBM's trees as arrays: checked before anything reads them, scored by bit vectors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.csr import jit
from retailrec.errors import ArtifactError

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
