"""Item-item neighbours and profiles by dense formulas: how many are kept, which, and what a shopper weighs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from conftest import CUTOFF
from retailrec.candidates import ItemItem, Pairs
from retailrec.candidates.base import reference_history
from retailrec.candidates.item_item import keep_top
from retailrec.data import RetailData
from retailrec.data.history import History
from retailrec.simulator.shop import small_data


@pytest.fixture(scope="module")
def known(data: RetailData) -> RetailData:
    return data.asof(CUTOFF)


def held(known: RetailData, within: str, half_life: float | None = None) -> NDArray[np.float64]:
    """(shoppers or receipts, items) weights that similarities are made of."""
    if within == "receipt":
        log = known.log.with_columns(row=pl.col("basket").rank("dense").cast(pl.Int64) - 1)
        out = np.zeros((log["row"].n_unique(), known.n_items))
        out[log["row"].to_numpy(), log["item"].to_numpy()] = 1
        return out
    out = np.zeros((known.n_users, known.n_items))
    for user, item, time in known.log.select("user", "item", "time").iter_rows():
        days = (known.end - time).total_seconds() / 86_400
        out[user, item] += 1 if half_life is None else 0.5 ** (days / half_life)
    return np.sqrt(out)


def cosine(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(weights, axis=0)
    return weights.T @ weights / np.maximum(np.outer(length, length), 1e-12)


def rarity(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `implicit` does with items as documents: a shopper who holds few items says more of each."""
    return np.log(weights.shape[1]) - np.log1p((weights > 0).sum(axis=1, keepdims=True))


def tfidf(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(weights) * rarity(weights)


def bm25(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """K1 = 100 and B = 0.5."""
    size = weights.sum(axis=0)
    norm = 0.5 + 0.5 * size / size.mean()
    return weights * 101 / (100 * norm + weights) * rarity(weights)


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("within", ["shopper", "receipt"])
def test_an_item_keeps_its_k_nearest(known: RetailData, within: str, include_self: bool) -> None:
    """As many as asked for, and the best of them, itself counted only where it is wanted."""
    dense = cosine(held(known, within))
    if not include_self:
        np.fill_diagonal(dense, 0)
    for k in (1, 4, 9):
        source = ItemItem(neighbours=k, within=within, include_self=include_self, threads=1)  # type: ignore[arg-type]
        found = source.fit(known).similarity_
        for item in range(known.n_items):
            best = np.sort(dense[item][dense[item] > 1e-9])[::-1][:k]
            np.testing.assert_allclose(np.sort(found[item].data)[::-1], best, rtol=1e-4)
        assert np.diff(found.indptr).max() == k
        rows = np.repeat(np.arange(known.n_items), np.diff(found.indptr))
        np.testing.assert_allclose(found.data, dense[rows, found.indices], rtol=1e-4)


@pytest.mark.parametrize(
    ("weighting", "within", "half_life"),
    [
        ("tfidf", "shopper", None),
        ("tfidf", "receipt", None),
        ("bm25", "shopper", None),
        ("cosine", "shopper", 20.0),
        ("tfidf", "shopper", 20.0),
    ],
)
def test_weightings_by_their_formulas(
    known: RetailData, weighting: str, within: str, half_life: float | None
) -> None:
    weights = held(known, within, half_life)
    expected = {
        "cosine": lambda: cosine(weights),
        "tfidf": lambda: cosine(tfidf(weights)),
        "bm25": lambda: bm25(weights).T @ bm25(weights),
    }[weighting]()
    source = ItemItem(
        weighting,
        neighbours=known.n_items,
        within=within,
        half_life=half_life,
        include_self=True,  # type: ignore[arg-type]
        threads=1,
    )
    found = source.fit(known).similarity_.toarray()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("within", ["shopper", "receipt"])
def test_shrinkage_counts_who_holds_both(known: RetailData, within: str) -> None:
    weights = held(known, within)
    common = (weights > 0).astype(float).T @ (weights > 0)
    expected = cosine(weights) * common / (common + 3)
    source = ItemItem(
        neighbours=known.n_items,
        within=within,
        shrinkage=3,
        include_self=True,
        threads=1,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(source.fit(known).similarity_.toarray(), expected, rtol=1e-4, atol=1e-6)


def profile_by_hand(history: History, user: int, profile: str) -> dict[int, float]:
    """Item -> weight of one shopper."""
    pairs = range(history.indptr[user], history.indptr[user + 1])
    events = {p: range(history.event_indptr[p], history.event_indptr[p + 1]) for p in pairs}
    weights = {int(history.items[p]): float(np.sqrt(len(events[p]))) for p in pairs}
    if profile == "last_receipt":
        newest = max((int(history.basket[e]) for es in events.values() for e in es), default=-1)
        return {int(history.items[p]): 1.0 for p in pairs if newest in history.basket[list(events[p])]}
    if profile == "top":
        best = sorted(weights, key=lambda item: (-weights[item], item))[:5]
        return {item: weights[item] for item in best}
    return weights


@pytest.mark.parametrize("profile", ["history", "last_receipt", "top"])
def test_profiles_by_hand(known: RetailData, profile: str) -> None:
    """What of a history counts: all of it, the newest receipt, or the five items bought most."""
    source = ItemItem(neighbours=known.n_items, profile=profile, threads=1).fit(known)  # type: ignore[arg-type]
    similarity = source.similarity_.toarray()
    history = known.history()
    m = known.n_items
    pairs = Pairs(
        np.arange(len(history) + 1, dtype=np.int64) * m,
        np.tile(np.arange(m, dtype=np.int32), len(history)),
    )
    found = source.score(history, pairs).reshape(len(history), m)
    listed = source.candidates(history, 6)
    differ = 0
    for user in range(len(history)):
        weights = profile_by_hand(history, user, profile)
        expected = sum((w * similarity[i] for i, w in weights.items()), np.zeros(m))
        np.testing.assert_allclose(found[user], expected, rtol=1e-4, atol=1e-6)
        n = int((listed.items[user] >= 0).sum())
        np.testing.assert_allclose(
            listed.scores[user, :n], np.sort(expected[expected > 0])[::-1][:n], rtol=1e-4
        )
        differ += weights != profile_by_hand(history, user, "history")
    assert (differ > 10) == (profile != "history")


def test_the_top_items_of_a_tie_are_the_lower_ones() -> None:
    data = RetailData.from_frames(
        pl.DataFrame({"user_id": ["a"] * 4 + ["b"], "item_id": [1, 2, 3, 4, 9], "time": [1] * 5})
    )
    weights = np.array([1, 2, 1, 1, 7], np.float32)
    assert keep_top(data.history(), weights, 2).tolist() == [1, 2, 0, 0, 7]


def test_a_reference_sample_is_as_large_as_asked_and_the_same_for_a_seed() -> None:
    data = small_data(users=60, weeks=20)
    whole = ItemItem(threads=1).fit(data).similarity_
    one, same, other = (
        ItemItem(reference=20, seed=s, threads=1).fit(data).similarity_ for s in (1, 1, 2)
    )
    assert (one != same).nnz == 0
    assert (one != other).nnz > 0
    users = data.user_codes(reference_history(data, 20, 1).users["user_id"])
    assert len(users) == 20
    assert set(users) <= set(data.active_users())
    drawn = RetailData(
        data.log.filter(pl.col("user").is_in(users.tolist())), data.items, data.users, data.end
    )
    expected = ItemItem(threads=1).fit(drawn).similarity_
    np.testing.assert_allclose(one.toarray(), expected.toarray(), rtol=1e-5)
    assert (one != whole).nnz > 0
