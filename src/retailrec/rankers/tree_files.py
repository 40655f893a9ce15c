"""Files of trees, checked before a library reads them: its own reader takes what they say on trust.

A child that is no node, a feature that no row has or a count that is too large would make the library
read beyond its memory or walk in circles, and the process would go with it. So every number that is a
place is held against what it is a place in.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import ArtifactError

_DEEPEST = 16  # levels of CatBoost's trees
_OF_NODES = (
    "split_feature",
    "decision_type",
    "left_child",
    "right_child",
    "internal_count",
    "threshold",
    "internal_value",
)
_WHOLE = (*_OF_NODES[:5], "leaf_count")


def lightgbm_text(file: Path) -> str:
    """The text of a LightGBM model whose trees are trees over the columns that it names.

    Raises
    ------
    ArtifactError
        If they are not; a category, several classes and linear leaves, which the ranker never makes,
        are refused as well.
    """
    try:
        text = file.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        _refuse(file, f"it is no plain text ({error.reason})")
    if "\0" in text or "\r" in text:
        _refuse(file, "it holds signs that a model has not")
    head, *trees = text.split("\nTree=")
    facts = _facts(file, head)
    n_columns = _whole(file, facts, "max_feature_idx") + 1
    for name in ("feature_names", "feature_infos"):
        if len(facts.get(name, "").split()) != n_columns:
            _refuse(file, f"{name} are not those of {n_columns} columns")
    for name in ("num_class", "num_tree_per_iteration"):
        if facts.get(name) != "1":
            _refuse(file, f"{name} is {facts.get(name)!r}, expected 1")
    if not trees:
        _refuse(file, "it has no tree")
    trees[-1], mark, _ = trees[-1].partition("\nend of trees\n")
    sizes = [len(f"Tree={tree}\n") for tree in trees]
    if not mark or _places(file, facts, "tree_sizes", len(trees)).tolist() != sizes:
        _refuse(file, "tree_sizes are not those of its trees")
    for number, tree in enumerate(trees):
        first, _, rest = tree.partition("\n")
        if first != str(number):
            _refuse(file, f"tree {number} is called {first[:20]!r}")
        _check_tree(file, number, _facts(file, rest), n_columns)
    return text


def _check_tree(file: Path, number: int, facts: dict[str, str], n_columns: int) -> None:
    leaves = _whole(file, facts, "num_leaves")
    if not 1 <= leaves <= len(facts.get("leaf_value", "")):
        _refuse(file, f"tree {number} has {leaves} leaves")
    if facts.get("num_cat") != "0" or facts.get("is_linear", "0") != "0":
        _refuse(file, f"tree {number} has categories or linear leaves")
    _numbers(file, facts, "leaf_value", leaves)
    if leaves == 1:
        return
    expected = {"leaf_count": leaves} | dict.fromkeys(_OF_NODES, leaves - 1)
    values = {
        name: (_places if name in _WHOLE else _numbers)(file, facts, name, n)
        for name, n in expected.items()
    }
    column, kind = values["split_feature"], values["decision_type"]
    if not ((column >= 0) & (column < n_columns)).all():
        _refuse(file, f"tree {number} asks for a column beyond the {n_columns}")
    if not np.isin(kind, (0, 2, 4, 6, 8, 10)).all():  # numbers only, by how they treat missing ones
        _refuse(file, f"tree {number} has a decision of another type")
    children = np.concatenate([values["left_child"], values["right_child"]])
    parents = np.tile(np.arange(leaves - 1), 2)
    # each node and each leaf hangs on one node that comes before it, so nothing goes in circles
    every = np.sort(children).tolist() == [*range(-leaves, 0), *range(1, leaves - 1)]
    if not every or ((children >= 0) & (children <= parents)).any():
        _refuse(file, f"tree {number} is no tree: its children are not each one's, once")


def catboost_bytes(file: Path) -> bytes:
    """The bytes of a CatBoost model whose symmetric trees are trees over the columns that it names.

    Raises
    ------
    ArtifactError
        If they are not; features other than numbers, which the ranker never makes, are refused too.
    """
    data = file.read_bytes()
    try:
        if data[:4] != b"CBM1" or len(data) != struct.unpack_from("<I", data, 4)[0] + 8:
            _refuse(file, "its length is not what its head says")
        core = _Table(data, 8 + struct.unpack_from("<I", data, 8)[0])
        trees = core.table(1)
        if len(core.offsets(3)) or any(len(trees.offsets(i)) for i in (4, 6, 7, 12, 13, 18)):
            _refuse(file, "it has features other than numbers, which the ranker never makes")
        if len(trees.array(10, "<u4")) or trees.number(0, 0) != 1:
            _refuse(file, "it has trees of another shape, or several values a leaf")
        floats = [_Table(data, at) for at in trees.offsets(5)]
        columns = [table.number(2, -1) for table in floats]
        if sorted(columns) != list(range(len(columns))):
            _refuse(file, "its columns are not numbered one by one")
        n_splits = sum(len(table.array(3, "<f4")) for table in floats)
        splits, sizes, starts = (trees.array(i, "<i4").astype(np.int64) for i in (1, 2, 3))
        values = trees.array(8, "<f8")
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise ArtifactError(_told(file, f"it ends where more should be ({error})")) from error
    if not len(sizes) or not ((sizes >= 0) & (sizes <= _DEEPEST)).all():
        _refuse(file, f"a tree has fewer than no or more than {_DEEPEST} levels")
    if starts.tolist() != (np.cumsum(sizes) - sizes).tolist() or len(splits) != sizes.sum():
        _refuse(file, "its trees do not lie one behind the other")
    if not ((splits >= 0) & (splits < n_splits)).all():
        _refuse(file, f"a tree asks for a split beyond the {n_splits:,}")
    if len(values) != (2**sizes).sum() or not np.isfinite(values).all():
        _refuse(file, "its leaves do not have one finite value each")
    return data


class _Table:
    """A table of a FlatBuffers file; what lies beyond the file raises struct.error or ValueError."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        fields = at - struct.unpack_from("<i", data, at)[0]
        if fields < 0:
            raise ValueError("a table lies before the file")
        size = struct.unpack_from("<H", data, fields)[0]
        self._fields = struct.unpack_from(f"<{max(size - 4, 0) // 2}H", data, fields + 4)

    def _place(self, field: int) -> int:
        """Where the field stands; 0 if it is left out."""
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._at + offset if offset else 0

    def number(self, field: int, default: int) -> int:
        """A field of 32 bits."""
        place = self._place(field)
        return int(struct.unpack_from("<i", self._data, place)[0]) if place else default

    def table(self, field: int) -> _Table:
        place = self._place(field)
        if not place:
            raise ValueError("a part is missing")
        return _Table(self._data, place + struct.unpack_from("<I", self._data, place)[0])

    def array(self, field: int, kind: str) -> NDArray[Any]:
        """A vector of plain numbers; empty if it is left out."""
        place = self._place(field)
        if not place:
            return np.zeros(0, kind)
        start = place + struct.unpack_from("<I", self._data, place)[0]
        count = struct.unpack_from("<I", self._data, start)[0]
        return np.frombuffer(self._data, kind, count, start + 4)

    def offsets(self, field: int) -> list[int]:
        """Where the tables or texts of a vector stand."""
        place = self._place(field)
        if not place:
            return []
        first = place + struct.unpack_from("<I", self._data, place)[0] + 4
        places = self.array(field, "<u4")
        return [first + 4 * i + int(offset) for i, offset in enumerate(places)]


def _facts(file: Path, text: str) -> dict[str, str]:
    """Lines ``name=value``; one that stands twice is refused: readers differ in which counts."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, mark, value = line.partition("=")
        if mark and name in found:
            _refuse(file, f"{name[:40]!r} stands twice")
        if mark:
            found[name] = value
    return found


def _whole(file: Path, facts: dict[str, str], name: str) -> int:
    value = facts.get(name, "")
    if not value.isdecimal() or len(value) > 7:
        _refuse(file, f"{name} is {value[:40]!r}, expected a whole number")
    return int(value)


def _numbers(file: Path, facts: dict[str, str], name: str, count: int) -> NDArray[np.float64]:
    """So many numbers, finite but for thresholds, which part what is missing from the rest."""
    try:
        values: Sequence[float] = [float(cell) for cell in facts.get(name, "").split()]
    except ValueError as error:
        raise ArtifactError(_told(file, f"{name} holds what is no number ({error})")) from error
    # a split of missing values from all others lies at infinity
    fits = (lambda v: not math.isnan(v)) if name == "threshold" else math.isfinite
    if len(values) != count or not all(map(fits, values)):
        _refuse(file, f"{name} holds {len(values)} numbers or infinite ones, expected {count}")
    return np.array(values, np.float64)


def _places(file: Path, facts: dict[str, str], name: str, count: int) -> NDArray[np.int64]:
    """So many whole numbers, written as such: readers differ in what they make of 1e1."""
    cells = facts.get(name, "").split()
    if len(cells) != count or not all(re.fullmatch(r"-?\d{1,9}", cell) for cell in cells):
        _refuse(file, f"{name} holds {len(cells)} cells or what is no whole number, expected {count}")
    return np.array(cells, np.int64)


def _told(file: Path, problem: str) -> str:
    return f"{file} holds no trees that can be used: {problem}. Save the model again."


def _refuse(file: Path, problem: str) -> NoReturn:
    raise ArtifactError(_told(file, problem))
