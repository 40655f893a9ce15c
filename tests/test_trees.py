"""Files of trees are checked before a library reads them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from retailrec.errors import ArtifactError
from retailrec.rankers import CatBoostRanker, LightGBMRanker, TrainingFrame
from retailrec.rankers.lightgbm import Trees, lightgbm_text


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
    assert Trees.of(lightgbm_text(file)) is not None
    file.write_text(change(text))
    with pytest.raises(ArtifactError, match=problem):
        LightGBMRanker().load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-20], lambda data: data[: len(data) // 2], lambda data: b"CBM2" + data[4:]],
)
def test_symmetric_trees_of_a_file_that_was_cut_are_refused(
    binary: bytes, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "catboost.cbm").write_bytes(change(binary))
    with pytest.raises(ArtifactError, match="its length is not what its head says"):
        CatBoostRanker().load(tmp_path)


def test_bytes_of_another_kind_are_no_symmetric_trees(tmp_path: Path) -> None:
    (tmp_path / "catboost.cbm").write_bytes(b"CBM1" + struct.pack("<I", 12) + b"\x00" * 12)
    with pytest.raises(ArtifactError, match="no trees that can be used"):
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


def test_an_infinite_threshold_parts_missing_values_and_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "lightgbm.txt").write_text(cells("threshold", instead(0, "inf"))(text))
    assert LightGBMRanker().load(tmp_path).n_columns == 4


@pytest.mark.parametrize("leaves", [2, 31, 32, 33, 64])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_scores_are_those_of_the_library_bit_by_bit(leaves: int, missing: float) -> None:
    rng = np.random.default_rng(leaves)
    x = np.asfortranarray(rng.normal(size=(3000, 7)), np.float32)
    x[:, 1] = np.round(x[:, 1])  # many equal values, and zeros
    x[:, 2] = rng.random(3000).astype(np.float32)
    x[rng.random(x.shape) < missing] = np.nan
    x[:, 6] = np.where(x[:, 6] > 0, x[:, 6], np.nan)  # its missing ones tell something
    y = (np.nan_to_num(x[:, 0] + x[:, 1]) + np.isnan(x[:, 6]) + rng.normal(size=3000) > 1) * 1
    data = lgb.Dataset(x, y, params={"verbosity": -1})
    booster = lgb.train({"objective": "binary", "num_leaves": leaves, "verbosity": -1}, data, 40)
    trees = Trees.of(booster.model_to_string())
    assert trees is not None
    asked = np.asfortranarray(rng.normal(size=(1001, 7)), np.float32)
    asked[rng.random(asked.shape) < 0.2] = np.nan
    asked[:3] = [[0.0] * 7, [np.inf] * 7, [-np.inf] * 7]
    asked[3:600, 1] = x[:597, 1]  # on the thresholds, not between them
    np.testing.assert_array_equal(trees.score(asked), booster.predict(asked, raw_score=True))
    row_by_row = np.ascontiguousarray(asked)
    np.testing.assert_array_equal(trees.score(row_by_row), trees.score(asked))


def test_a_value_between_a_threshold_and_its_float32_goes_where_the_library_sends_it() -> None:
    values = np.float32([0.1, 0.3, 0.7, 1.1]).repeat(60)
    x, y = values[:, None], (values > 0.5) * 1
    options = {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 1, "min_data_in_bin": 1}
    text = lgb.train(options, lgb.Dataset(x, y, params=options), 3).model_to_string()
    cut = float(re.search(r"threshold=(\S+)", text)[1])  # type: ignore[index]
    step = np.nextafter(np.float32(cut), np.float32(np.inf))
    near = np.float32([np.nextafter(np.float32(cut), np.float32(-np.inf)), np.float32(cut), step])
    trees, booster = Trees.of(text), lgb.Booster(model_str=text)
    assert trees is not None
    library = booster.predict(near[:, None], raw_score=True)
    assert library[0] != library[2]
    np.testing.assert_array_equal(trees.score(near[:, None]), library)


def test_trees_without_a_split_add_their_only_leaf() -> None:
    x, y = np.zeros((50, 2), np.float32), np.arange(50) % 2
    booster = lgb.train({"objective": "binary", "verbosity": -1}, lgb.Dataset(x, y), 2)
    trees = Trees.of(booster.model_to_string())
    assert trees is not None
    np.testing.assert_array_equal(trees.score(x), booster.predict(x, raw_score=True))


def test_a_tree_without_a_split_may_stand_between_others(rows: TrainingFrame) -> None:
    options = {"objective": "binary", "verbosity": -1, "num_leaves": 40, "min_data_in_leaf": 1}
    more = lgb.train(options, lgb.Dataset(rows.x, rows.y), 2).model_to_string()
    head, first, second = more.split("\nTree=")
    body, end = second.split("\nend of trees\n", 1)
    leaf = "1\nnum_leaves=1\nnum_cat=0\nleaf_value=0.25\nis_linear=0\nshrinkage=1\n\n\n"
    parts = [first, leaf, body.replace("1\n", "2\n", 1)]
    sizes = " ".join(str(len(f"Tree={part}\n")) for part in parts)
    head = re.sub(r"tree_sizes=.*", f"tree_sizes={sizes}", head)
    text = "\nTree=".join([head, *parts]) + "\nend of trees\n" + end
    trees, without = Trees.of(text), Trees.of(more)
    assert trees is not None
    assert without is not None
    np.testing.assert_allclose(trees.score(rows.x), without.score(rows.x) + 0.25, rtol=1e-12)


def test_a_ranker_of_large_trees_is_scored_by_the_library(rows: TrainingFrame) -> None:
    noise = rows._replace(y=np.random.default_rng(0).integers(0, 2, 600).astype(np.float32))
    ranker = LightGBMRanker(
        leaves=90, min_rows=1, l2=0, column_share=1, iterations=3, objective="binary", threads=1
    ).fit(noise)
    assert ranker.trees_ is None
    np.testing.assert_array_equal(
        ranker.predict(rows.x), ranker.model_.predict(rows.x).astype(np.float32)
    )


def test_probabilities_are_those_of_the_library(rows: TrainingFrame) -> None:
    ranker = LightGBMRanker(iterations=20, min_rows=20, objective="binary", threads=1).fit(rows)
    assert ranker.trees_ is not None
    library = ranker.model_.predict(rows.x).astype(np.float32)
    np.testing.assert_array_equal(ranker.predict(rows.x), library)
