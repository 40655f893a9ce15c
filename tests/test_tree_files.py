"""Files of trees are checked before a library reads them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retailrec.errors import ArtifactError
from retailrec.rankers import CatBoostRanker, LightGBMRanker, TrainingFrame
from retailrec.rankers.tree_files import _Table, catboost_bytes, lightgbm_text


@pytest.fixture(scope="module")
def rows() -> TrainingFrame:
    rng = np.random.default_rng(3)
    x = np.asfortranarray(rng.random((600, 4)), np.float32)
    y = (x[:, 0] + x[:, 2] > 1.2).astype(np.float32)
    groups, weights = np.repeat(np.arange(30), 20), np.ones(600, np.float32)
    return TrainingFrame(x, y, groups, weights, np.zeros(600, np.int16), list("abcd"))


@pytest.fixture(scope="module")
def text(rows: TrainingFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("lightgbm")
    LightGBMRanker(iterations=3, leaves=5, min_rows=20, threads=1).fit(rows).save(folder)
    return (folder / "lightgbm.txt").read_text()


@pytest.fixture(scope="module")
def binary(rows: TrainingFrame, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("catboost")
    CatBoostRanker(iterations=3, depth=3, threads=1).fit(rows).save(folder)
    return (folder / "catboost.cbm").read_bytes()


def cells(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    """Change a line of the first tree, and the size that the head states, as a forger would."""

    def changed(text: str) -> str:
        head, first, *others = text.split("\nTree=")
        line = next(row for row in first.split("\n") if row.startswith(f"{name}="))
        new = f"{name}={' '.join(change(line.partition('=')[2].split()))}"
        grown = first.replace(line, new)
        sizes = re.search(r"tree_sizes=(\d+)", head)
        assert sizes is not None
        size = int(sizes[1]) + len(grown) - len(first)
        return "\nTree=".join([head.replace(sizes[0], f"tree_sizes={size}"), grown, *others])

    return changed


def instead(place: int, value: str) -> Callable[[list[str]], list[str]]:
    return lambda row: [*row[:place], value, *row[place + 1 :]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (cells("left_child", instead(0, "99")), "no tree"),
        (cells("left_child", instead(0, "0")), "no tree"),
        (cells("right_child", instead(1, "-99")), "no tree"),
        (cells("left_child", lambda row: row[::-1]), "no tree"),
        (cells("left_child", lambda row: row[:-1]), "left_child holds"),
        (cells("left_child", instead(0, "1e1")), "left_child holds"),
        (cells("split_feature", instead(0, "4")), "beyond the 4"),
        (cells("split_feature", instead(0, "-1")), "beyond the 4"),
        (cells("decision_type", instead(0, "1")), "another type"),
        (cells("leaf_value", instead(0, "nan")), "leaf_value holds"),
        (cells("leaf_value", lambda row: [*row, "0"]), "leaf_value holds"),
        (cells("leaf_count", lambda row: []), "leaf_count holds"),
        (cells("num_leaves", lambda row: ["4000000"]), "4000000 leaves"),
        (cells("num_leaves", lambda row: ["-1"]), "num_leaves is"),
        (cells("num_cat", lambda row: ["1"]), "categories"),
        (lambda text: re.sub(r"tree_sizes=\d+", "tree_sizes=9999999", text), "tree_sizes"),
        (lambda text: text.replace("max_feature_idx=3", "max_feature_idx=9"), "9 columns|10 columns"),
        (lambda text: text.replace("num_class=1", "num_class=5"), "num_class"),
        (lambda text: text.replace("end of trees", "end of"), "tree_sizes"),
        (lambda text: text.replace("num_class=1", "num_class=1\nnum_class=1"), "twice"),
        (lambda text: text[: len(text) // 3], "tree_sizes|no tree"),
        (lambda text: text.replace("tree", "tr\0e", 1), "signs"),
        (lambda text: text.replace("tree", "trée", 1), "no plain text"),
    ],
)
def test_trees_that_are_none_are_refused(
    text: str, tmp_path: Path, change: Callable[[str], str], problem: str
) -> None:
    file = tmp_path / "lightgbm.txt"
    file.write_text(text)
    assert lightgbm_text(file) == text
    file.write_text(change(text))
    with pytest.raises(ArtifactError, match=problem):
        LightGBMRanker().load(tmp_path)


SPLITS, SIZES, STARTS = 1, 2, 3  # vectors of CatBoost's table of trees


def ints(data: bytes, vector: int, place: int, value: int) -> bytes:
    """The bytes with one number of a vector of trees changed."""
    trees = _Table(data, 8 + struct.unpack_from("<I", data, 8)[0]).table(1)
    first = trees.array(vector, "<i4").__array_interface__["data"][0]
    at = first - np.frombuffer(data, "u1").__array_interface__["data"][0] + 4 * place
    return data[:at] + struct.pack("<i", value) + data[at + 4 :]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: ints(data, SIZES, 1, 40), "levels"),
        (lambda data: ints(data, SIZES, 1, -1), "levels"),
        (lambda data: ints(data, SIZES, 1, 2), "one behind the other"),
        (lambda data: ints(data, STARTS, 2, 99), "one behind the other"),
        (lambda data: ints(data, SPLITS, 1, 100_000), "a split beyond"),
        (lambda data: ints(data, SPLITS, 0, -1), "a split beyond"),
        (lambda data: data[:-20], "its length"),
        (lambda data: data[:4] + struct.pack("<I", 12) + data[8:20], "ends where more|parts|length"),
        (lambda data: data[:8] + struct.pack("<I", 2**31) + data[12:], "ends where more"),
        (lambda data: b"CBM2" + data[4:], "its length"),
        (lambda data: b"", "its length|ends where"),
    ],
)
def test_symmetric_trees_that_are_none_are_refused(
    binary: bytes, tmp_path: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    file = tmp_path / "catboost.cbm"
    file.write_bytes(binary)
    assert catboost_bytes(file) == binary
    file.write_bytes(change(binary))
    with pytest.raises(ArtifactError, match=problem):
        CatBoostRanker().load(tmp_path)


def test_what_was_checked_predicts_as_before(rows: TrainingFrame, tmp_path: Path) -> None:
    for kind in (LightGBMRanker, CatBoostRanker):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        fitted = kind(iterations=4, threads=1).fit(rows)
        fitted.save(folder)
        loaded = kind(threads=1).load(folder)
        np.testing.assert_array_equal(loaded.predict(rows.x), fitted.predict(rows.x))
        np.testing.assert_array_equal(loaded.contributions(rows.x), fitted.contributions(rows.x))
        assert loaded.n_columns == 4
