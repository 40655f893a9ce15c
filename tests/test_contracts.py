"""What every source promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import CUTOFF, catalogue, changed_after, receipts, shoppers
from retailrec.candidates import (
    GENERATORS,
    CandidateGenerator,
    ItemItem,
    OwnPurchases,
    Pairs,
    PopularInCategories,
    PopularInSegment,
    Popularity,
    ReciprocalRankFusion,
)
from retailrec.data import RetailData
from retailrec.data.history import History
from retailrec.errors import NotFittedError, SettingError
from retailrec.recommender.artifact import load_artifact, save_artifact

VARIANTS: list[CandidateGenerator] = [
    *(g() for name, g in GENERATORS.items()),
    OwnPurchases("recency"),
    OwnPurchases("decay"),
    OwnPurchases("due"),
    OwnPurchases(ties="popular", fill=True),
    OwnPurchases("decay", fill=True),
    Popularity(kind="trending"),
    Popularity(kind="last_year"),
    PopularInSegment(),
    PopularInCategories("category_1"),
    ItemItem("tfidf"),
    ItemItem("bm25", include_self=True, shrinkage=3),
    ItemItem("tfidf", neighbours=1, include_self=True),
    ItemItem("tfidf", within="receipt", profile="last_receipt"),
    ItemItem("cosine", half_life=30, profile="top"),
    ItemItem(within="next_receipt", profile="last_receipt"),
]
each_source = pytest.mark.parametrize("source", VARIANTS, ids=lambda s: repr(s)[:60])


def all_pairs(n_users: int, n_items: int) -> Pairs:
    items = np.tile(np.arange(n_items, dtype=np.int32), n_users)
    return Pairs(np.arange(n_users + 1, dtype=np.int64) * n_items, items)


@each_source
def test_a_source_does_not_see_the_future(source: CandidateGenerator, data: RetailData) -> None:
    answers = []
    for known in (data.asof(CUTOFF), changed_after(5).asof(CUTOFF)):
        fitted = replace(source).fit(known)
        history = known.history()
        answers.append((*fitted.candidates(history, 10), fitted.score(history, all_pairs(40, 30))))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


@each_source
def test_one_shopper_is_the_same_in_a_batch(source: CandidateGenerator, data: RetailData) -> None:
    known = data.asof(CUTOFF)
    fitted = replace(source).fit(known)
    history = known.history()
    items, scores = fitted.candidates(history, 8)
    pair_scores = fitted.score(history, all_pairs(40, 30)).reshape(40, 30)
    for rows in ([3], [20, 3, 7], list(range(40))[::-1]):
        some = history.take(rows)
        np.testing.assert_array_equal(fitted.candidates(some, 8).items, items[rows])
        np.testing.assert_allclose(fitted.candidates(some, 8).scores, scores[rows], rtol=1e-5)
        np.testing.assert_allclose(
            fitted.score(some, all_pairs(len(rows), 30)).reshape(-1, 30),
            pair_scores[rows],
            rtol=1e-5,
            atol=1e-6,
        )


@each_source
def test_candidates_agree_with_score(source: CandidateGenerator, data: RetailData) -> None:
    if source.name == "fusion":
        pytest.skip("its ranks are places among the pairs it is asked about; test_fusion_by_hand")
    known = data.asof(CUTOFF)
    fitted = replace(source).fit(known)
    history = known.history()
    items, scores = fitted.candidates(history, 30)
    everything = fitted.score(history, all_pairs(40, 30)).reshape(40, 30)
    found = items >= 0
    rows = np.nonzero(found)[0]
    np.testing.assert_allclose(scores[found], everything[rows, items[found]], rtol=1e-4, atol=1e-6)


@each_source
def test_unwanted_pairs_are_left_out_before_the_cut(
    source: CandidateGenerator, data: RetailData
) -> None:
    known = data.asof(CUTOFF)
    fitted = replace(source).fit(known)
    history = known.history()
    unwanted = Pairs(history.indptr, history.items)
    items, scores = fitted.candidates(history, 6, unwanted)
    everything = fitted.candidates(history, 100)
    for row in range(len(history)):
        own = history.items[history.indptr[row] : history.indptr[row + 1]]
        stays = (everything.items[row] >= 0) & ~np.isin(everything.items[row], own)
        assert not np.isin(items[row][items[row] >= 0], own).any()
        if source.name != "fusion":  # its ranks hang on how many are asked for
            n = min(int(stays.sum()), 6)
            np.testing.assert_array_equal(items[row, :n], everything.items[row][stays][:6])
            np.testing.assert_allclose(scores[row, :n], everything.scores[row][stays][:6], rtol=1e-5)
        alone = history.take([row])
        found = fitted.candidates(alone, 6, Pairs(alone.indptr, alone.items)).items[0]
        np.testing.assert_array_equal(found, items[row])


@each_source
def test_candidates_are_distinct_allowed_sorted_and_ties_go_to_the_lower_item(
    source: CandidateGenerator, data: RetailData
) -> None:
    known = data.asof(CUTOFF)
    allowed = known.items.with_columns(recommendable=pl.col("item_id") % 3 != 0)
    fitted = replace(source).fit(replace(known, items=allowed))
    items, scores = fitted.candidates(known.history(), 100)  # k is larger than the catalogue
    assert items.shape == scores.shape == (40, 100)
    for row_items, row_scores in zip(items, scores, strict=True):
        n = int((row_items >= 0).sum())
        assert (row_items[n:] == -1).all()
        assert np.isneginf(row_scores[n:]).all()
        assert len(set(row_items[:n])) == n
        assert (row_items[:n] % 3 != 0).all()
        assert np.isfinite(row_scores[:n]).all()
        order = np.lexsort((row_items[:n], -row_scores[:n]))
        assert (order == np.arange(n)).all()


@each_source
def test_what_is_hidden_from_others_stays_with_those_who_bought_it(
    source: CandidateGenerator, data: RetailData
) -> None:
    """Of the candidates of an open shelf, those whose item is neither open to all nor owned are gone."""
    known = data.asof(CUTOFF)
    history = known.history()
    items = known.items.with_columns(
        recommendable=pl.col("item_id") % 5 != 0, discoverable=pl.col("item_id") % 3 != 0
    )
    fitted = replace(source).fit(replace(known, items=items))
    found, _ = fitted.candidates(history, 100)
    open_ = replace(source).fit(known).candidates(history, 100)
    everything = fitted.unfiltered().candidates(history, 100)
    np.testing.assert_array_equal(everything.items, open_.items)
    fresh, _ = fitted.candidates(history, 100, Pairs(history.indptr, history.items))
    for row in range(len(history)):
        own = set(history.items[history.indptr[row] : history.indptr[row + 1]].tolist())
        may = [i for i in open_.items[row].tolist() if i >= 0 and i % 5 and (i % 3 or i in own)]
        if source.name == "fusion":  # its ranks hang on what else is proposed
            assert set(found[row][found[row] >= 0].tolist()) == set(may)
            continue
        assert found[row, : len(may)].tolist() == may
        assert (found[row, len(may) :] == -1).all()
        assert [i for i in fresh[row].tolist() if i >= 0] == [i for i in may if i not in own]


@each_source
def test_unknown_and_empty_shoppers_are_answered(source: CandidateGenerator, data: RetailData) -> None:
    fitted = replace(source).fit(data)
    history = data.history(codes=[-1, 0, -1])
    items, _ = fitted.candidates(history, 5)
    assert items.shape == (3, 5)
    np.testing.assert_array_equal(items[0], items[2])
    assert len(fitted.score(history, all_pairs(3, 30))) == 90
    assert fitted.candidates(data.history(codes=[]), 5).items.shape == (0, 5)


@each_source
def test_fitting_leaves_the_shared_histories_as_they_were(
    source: CandidateGenerator, data: RetailData
) -> None:
    """Sources share one history: a matrix of it lies on the same arrays, and may not be changed."""
    known, fresh = replace(data), replace(data)
    assert len(known.active_users()) == known.n_users  # else a source makes a history of its own
    few = replace(source, longest=2) if isinstance(source, ItemItem) else replace(source)
    few.fit(known).candidates(known.full_history, 5)
    whole = fresh.history()
    for name in ("indptr", "items", "event_indptr", "age", "basket", "quantity", "value"):
        np.testing.assert_array_equal(getattr(known.full_history, name), getattr(whole, name), name)


def all_neighbours(source: CandidateGenerator) -> CandidateGenerator:
    """The source with every item as a neighbour: at the edge of K the lower of two equal ones stays."""
    if isinstance(source, ItemItem):
        return replace(source, neighbours=40)
    if isinstance(source, ReciprocalRankFusion):
        return replace(source, sources=[all_neighbours(s) for s in source.sources])
    return source


@each_source
def test_renaming_items_renames_the_answer(source: CandidateGenerator, data: RetailData) -> None:
    """Item codes mean nothing: with other codes, scores of the same items stay."""
    if source.name in ("als", "content"):
        pytest.skip("a random start goes by the codes")
    order = np.random.default_rng(1).permutation(30)
    moved = RetailData.from_frames(
        receipts().with_columns(item_id=pl.Series(order[receipts()["item_id"].to_numpy()])),
        catalogue().with_columns(item_id=pl.Series(order)),
        shoppers(),
        end=data.end,
    )
    source = all_neighbours(source)
    here, there = replace(source).fit(data), replace(source).fit(moved)
    pairs = all_pairs(40, 30)
    one = here.score(data.history(), pairs).reshape(40, 30)
    other = there.score(moved.history(), pairs).reshape(40, 30)
    told = np.ones(40, np.bool_)
    if getattr(source, "profile", "") == "top":  # of equal items the lower ones are the top
        told = untied_at(data.history(), source, 5)
        assert told.sum() > 20
    np.testing.assert_allclose(one[told], other[told][:, order], rtol=1e-4, atol=1e-6)


def untied_at(history: History, source: Any, n: int) -> np.ndarray:
    """(n_users,) do the shopper's `n`-th and next item weigh differently?"""
    weight = history.counts(source.half_life)
    rows = [np.sort(weight[a:b])[::-1] for a, b in pairwise(history.indptr)]
    return np.array([len(row) <= n or row[n - 1] > row[n] * (1 + 1e-6) for row in rows])


@each_source
def test_a_source_survives_saving(source: CandidateGenerator, data: RetailData, tmp_path) -> None:
    fitted = replace(source).fit(data)
    save_artifact(fitted, tmp_path / "model")
    types = {g.__name__: g for g in GENERATORS.values()}
    loaded = load_artifact(tmp_path / "model", types)
    for one, other in zip(
        fitted.candidates(data.history(), 7), loaded.candidates(data.history(), 7), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@each_source
def test_fitting_twice_gives_the_same(source: CandidateGenerator, data: RetailData) -> None:
    one, other = (replace(source).fit(data).candidates(data.history(), 9) for _ in range(2))
    np.testing.assert_array_equal(one.items, other.items)
    np.testing.assert_array_equal(one.scores, other.scores)


@each_source
def test_a_source_holds_nothing_personal(source: CandidateGenerator, data: RetailData) -> None:
    """Fitted state is about items; similar-shopper sources keep a sample of the size they were told."""
    sample = 7
    if source.name in ("tifu_knn", "up_cf"):
        source = replace(source, reference=sample)  # type: ignore[call-arg]
    fitted = replace(source).fit(data)
    sizes = {
        name: value.shape
        for name, value in vars(fitted).items()
        if name.endswith("_") and hasattr(value, "shape")
    }
    assert "allowed_" in sizes
    for name, shape in sizes.items():
        assert data.n_users not in shape, name
    bounded = [name for name, shape in sizes.items() if sample in shape]
    assert bool(bounded) == (source.name in ("tifu_knn", "up_cf"))


def test_a_source_says_what_is_wrong(data: RetailData) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        Popularity().candidates(data.history(), 5)
    with pytest.raises(SettingError, match="k must be at least 1"):
        Popularity().fit(data).candidates(data.history(), 0)
