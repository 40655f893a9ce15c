"""Kernels against plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from retailrec.compute import csr as kernels
from retailrec.compute import csr as pairs
from retailrec.compute import groups, topk


def csr(seed: int, rows: int = 9, columns: int = 12, density: float = 0.4) -> sparse.csr_matrix:
    matrix = sparse.random(rows, columns, density, format="csr", random_state=seed, dtype=np.float32)
    matrix.data = np.round(matrix.data * 4) / 4 + 0.25  # many ties
    matrix.sort_indices()
    return matrix


@given(st.integers(0, 1000), st.integers(1, 15))
@settings(max_examples=50, deadline=None)
def test_topk_is_sorting(seed: int, k: int) -> None:
    m = csr(seed)
    items, scores = topk.topk_rows(m.indptr, m.indices, m.data, k)
    for row in range(m.shape[0]):
        pairs = sorted(zip(-m[row].data, m[row].indices, strict=True))[:k]
        n = len(pairs)
        assert items[row, :n].tolist() == [i for _, i in pairs]
        np.testing.assert_array_equal(scores[row, :n], [-s for s, _ in pairs])
        assert (items[row, n:] == -1).all()


def test_topk_leaves_nan_and_minus_infinity_out() -> None:
    scores = np.array([np.nan, 1, -np.inf, 2], np.float32)
    items, _ = topk.topk_rows(np.array([0, 4]), np.arange(4, dtype=np.int32), scores, 4)
    assert items.tolist() == [[3, 1, -1, -1]]


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_product_is_the_matrix_product(seed: int) -> None:
    w, s, b = csr(seed), csr(seed + 1, 12, 12), csr(seed + 2)
    allowed = np.arange(12) % 4 != 1
    dense = (w @ s).toarray() + b.toarray()
    touched = ((w != 0).astype(int) @ (s != 0).astype(int) + (b != 0).astype(int)).toarray() > 0
    _, scores = topk.product_topk(
        w.indptr,
        w.indices,
        w.data,
        s.indptr,
        s.indices,
        s.data,
        b.indptr,
        b.indices,
        b.data,
        allowed,
        5,
    )
    for row in range(9):
        expected = [(-dense[row, i], i) for i in range(12) if touched[row, i] and allowed[i]]
        best = sorted((round(float(v), 4), i) for v, i in expected)[:5]
        np.testing.assert_allclose(scores[row, : len(best)], [-v for v, _ in best], rtol=1e-3)
    pool = csr(seed + 3)
    total, largest = kernels.product_gather(
        w.indptr, w.indices, w.data, s.indptr, s.indices, s.data, pool.indptr, pool.indices, 12
    )
    rows = np.repeat(np.arange(9), np.diff(pool.indptr))
    np.testing.assert_allclose(total, (w @ s).toarray()[rows, pool.indices], rtol=1e-4, atol=1e-6)
    terms = w.toarray()[rows] * s.toarray()[:, pool.indices].T
    np.testing.assert_allclose(largest, terms.max(axis=1), rtol=1e-5)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_find_union_rank_and_best(seed: int) -> None:
    a, b = csr(seed), csr(seed + 1)
    place = kernels.find_pairs(a.indptr, a.indices, b.indptr, b.indices)
    rows = np.repeat(np.arange(9), np.diff(b.indptr))
    expected = [a[r, i] if a[r, i] else None for r, i in zip(rows, b.indices, strict=True)]
    assert [a.data[p] if p >= 0 else None for p in place] == expected
    indptr, items = kernels.union_rows(b.indptr, b.indices[::1].copy(), 9)
    np.testing.assert_array_equal(indptr, b.indptr)
    np.testing.assert_array_equal(items, b.indices)
    ranks = kernels.rank_in_rows(b.indptr, b.data)
    for row in range(9):
        part = slice(b.indptr[row], b.indptr[row + 1])
        np.testing.assert_array_equal(ranks[part], [1 + (b.data[part] > v).sum() for v in b.data[part]])
    best = topk.best_in_rows(b.indptr, b.data, 3)
    top, _ = topk.topk_rows(b.indptr, b.indices, b.data, 3)
    for row in range(9):
        part = slice(b.indptr[row], b.indptr[row + 1])
        assert set(b.indices[part][best[part]]) == set(top[row][top[row] >= 0])


def test_ranks_of_any_floats() -> None:
    scores = np.array([0.0, -0.0, -2, 1e-30, -np.inf, np.inf, -1e-30, -2, 3, 3], np.float32)
    ranks = kernels.rank_in_rows(np.array([0, 0, len(scores)]), scores)
    np.testing.assert_array_equal(ranks, [1 + (scores > s).sum() for s in scores])


def test_small_kernels() -> None:
    block = np.arange(6, dtype=np.float32).reshape(3, 2)
    out = np.zeros((3, 3), np.float32)
    kernels.gather(block, np.array([2, -1, 0]), out, 1)
    np.testing.assert_array_equal(out, [[0, 4, 5], [0, np.nan, np.nan], [0, 0, 1]])
    buyers = groups.count_buyers(np.array([0, 0, 0, 4, 4, 5]), np.array([1, 2, 1, 1, 1, 0]), 4)
    assert buyers.tolist() == [1, 2, 1, 0]
    held, after = csr(5, 30, 6), csr(7, 30, 6)
    similarity = csr(6, 6, 6)
    columns, others = held.tocsc(), after.tocsc()
    common = kernels.common_counts(
        *(columns.indptr, columns.indices, others.indptr, others.indices),
        *(similarity.indptr, similarity.indices),
    )
    both = (held != 0).astype(int).T @ (after != 0).astype(int)
    rows = np.repeat(np.arange(6), np.diff(similarity.indptr))
    np.testing.assert_array_equal(common, both.toarray()[rows, similarity.indices])
    values = np.random.default_rng(0).random((4, 9)).astype(np.float32)
    largest = topk.keep_largest(values, 3)
    np.testing.assert_array_equal(largest, np.sort(np.argsort(-values, axis=1)[:, :3], axis=1))
    assert pairs.row_of_pair(np.array([0, 2, 2, 3])).tolist() == [0, 0, 2]


def test_dot_pairs() -> None:
    rng = np.random.default_rng(1)
    users, items = rng.random((3, 5)).astype(np.float32), rng.random((7, 5)).astype(np.float32)
    got = kernels.dot_pairs(users, items, np.array([0, 2, 2, 4]), np.array([0, 6, 1, 2], np.int32))
    expected = [users[0] @ items[0], users[0] @ items[6], users[2] @ items[1], users[2] @ items[2]]
    assert got == pytest.approx(expected, rel=1e-5)


def test_sums_and_extremes_by_group_and_by_run() -> None:
    rng = np.random.default_rng(3)
    values = np.where(rng.random(500) < 0.2, np.nan, rng.normal(size=500)).astype(np.float32)
    codes = np.sort(rng.integers(0, 40, 500))
    codes[codes == 7] = 8  # a group without anything
    starts = np.flatnonzero(np.append(True, np.diff(codes) > 0))
    present = codes[starts]
    shuffled = rng.permutation(500)
    for group in range(40):
        own = values[codes == group].astype(np.float64)
        known = own[~np.isnan(own)]
        expected = (known.sum(), known.max(initial=-np.inf), known.min(initial=np.inf))
        by_code = (
            groups.group_sums(codes[shuffled], values[shuffled], 40)[group],
            groups.group_extremes(codes[shuffled], values[shuffled], 40, 1.0)[group],
            groups.group_extremes(codes[shuffled], values[shuffled], 40, -1.0)[group],
        )
        if not len(known):
            assert by_code[0] == 0
            assert np.isnan(by_code[1])
            continue
        np.testing.assert_allclose(by_code, expected, rtol=1e-6)
        run = int(np.searchsorted(present, group))
        by_run = (
            groups.run_sums(starts, 500, values)[run],
            groups.run_extremes(starts, 500, values, 1.0)[run],
            groups.run_extremes(starts, 500, values, -1.0)[run],
        )
        np.testing.assert_allclose(by_run, expected, rtol=1e-6)


def test_groups_are_numbered_by_row_and_code() -> None:
    events = np.array([2, 0, 2, -1, 1, 1])  # rows: three events, none, three
    pairs = np.array([2, 1, 0, 2, 1, -1])  # rows: two pairs, two, two
    of_event, n, of_pair = groups.number_groups(
        np.array([0, 3, 3, 6]), events, np.array([0, 2, 4, 6]), pairs, 3
    )
    assert of_event.tolist() == [0, 1, 0, 2, 3, 3]
    assert n == 4
    assert of_pair.tolist() == [0, -1, -1, -1, 3, -1]


def test_order_in_rows_is_a_stable_sort_of_each_row() -> None:
    rng = np.random.default_rng(4)
    indptr = np.array([0, 10, 10, 37, 60])
    items = rng.integers(0, 6, 60)
    rows = np.repeat(np.arange(4), np.diff(indptr))
    expected = np.lexsort((np.arange(60), items, rows))
    np.testing.assert_array_equal(kernels.order_in_rows(indptr, items), expected)


def test_a_missing_item_is_no_pair_of_the_row_before() -> None:
    keys = pairs.pair_keys(np.arange(3)[:, None], np.array([[4, -1], [-1, -1], [0, 4]]), 5)
    assert keys.tolist() == [[4, -1], [-1, -1], [10, 14]]
    rows, items = pairs.pairs_of_keys(keys[keys >= 0], 5)
    assert (rows.tolist(), items.tolist()) == ([0, 2, 2], [4, 0, 4])


def _plus_one(n: Any) -> Any:
    return n + 1


@pytest.mark.parametrize("state", ["whole", "no index", "no code", "full", "nowhere"])
def test_a_kernel_is_kept_on_the_disk_and_runs_without_it(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba.core import caching

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert kernels.compiled()(_plus_one)(1) == 2
    for file in tmp_path.rglob({"no index": "*.nbi", "no code": "*.nbc"}.get(state, "none")):
        file.write_bytes(b"")  # as a loss of power may leave it
    if state == "full":
        for file in tmp_path.rglob("*.nb?"):
            file.unlink()
        monkeypatch.setattr(caching.IndexDataCacheFile, "_open_for_write", full)
    if state == "nowhere":
        monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    for again in (False, True):
        kernel = kernels.compiled()(_plus_one)
        assert kernel(1) == 2
        found = sum(kernel.stats.cache_hits.values())
        assert found == (state == "whole" or (again and state in ("no index", "no code")))
