"""Own purchases and like texts, by their formulas."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from conftest import CUTOFF
from retailrec.candidates import Content, OwnPurchases, Pairs, PopularInCategories, Popularity
from retailrec.candidates.pool import merge_pool
from retailrec.data import RetailData


@pytest.fixture(scope="module")
def known(data: RetailData) -> RetailData:
    return data.asof(CUTOFF)


def ages_of_pairs(known: RetailData) -> dict[tuple[int, int], list[float]]:
    """(shopper, item) -> days since each receipt with it, oldest first."""
    out: dict[tuple[int, int], list[float]] = {}
    for user, item, time in known.log.sort("time").select("user", "item", "time").iter_rows():
        days = (known.end - time).total_seconds() / 86_400
        out.setdefault((user, item), []).append(days)
    return out


def own_scores(source: OwnPurchases, known: RetailData) -> dict[tuple[int, int], float]:
    n, m = known.n_users, known.n_items
    pairs = Pairs(np.arange(n + 1, dtype=np.int64) * m, np.tile(np.arange(m, dtype=np.int32), n))
    found = source.fit(known).score(known.history(), pairs).reshape(n, m)
    return {(u, i): float(found[u, i]) for u in range(n) for i in range(m)}


@pytest.mark.parametrize(
    ("source", "formula"),
    [
        (OwnPurchases(), lambda ages: len(ages) + 0.99 / (1 + ages[-1])),
        (OwnPurchases(ties="oldest"), lambda ages: len(ages) + 0.99 - 0.99 / (1 + ages[0])),
        (OwnPurchases("recency"), lambda ages: 1 / (1 + ages[-1])),
        (OwnPurchases("decay", half_life=20), lambda ages: sum(0.5 ** (a / 20) for a in ages)),
    ],
    ids=["count", "count, the oldest first", "recency", "decay"],
)
def test_orders_of_own_purchases(source: OwnPurchases, formula, known: RetailData) -> None:  # type: ignore[no-untyped-def]
    ages = ages_of_pairs(known)
    for pair, score in own_scores(source, known).items():
        expected = formula(ages[pair]) if pair in ages else 0
        assert score == pytest.approx(expected, rel=1e-4), pair


def test_due_by_its_formula(known: RetailData) -> None:
    """log(1 + n) x exp(-ln(days / gap)^2 / 2); the item's usual gap counts as one of the shopper's."""
    ages = ages_of_pairs(known)
    gaps: dict[int, list[float]] = {}
    for (_, item), days in ages.items():
        gaps.setdefault(item, []).extend(a - b for a, b in zip(days, days[1:], strict=False))
    every = [gap for own in gaps.values() for gap in own]
    overall = sum(every) / len(every)
    usual = {item: (sum(own) + 5 * overall) / (len(own) + 5) for item, own in gaps.items()}
    for pair, score in own_scores(OwnPurchases("due"), known).items():
        if pair not in ages:
            assert score == 0
            continue
        days = ages[pair]
        gap = (days[0] - days[-1] + usual[pair[1]]) / len(days)
        off = np.log(max(days[-1], 0.5) / max(gap, 0.5))
        assert score == pytest.approx(np.log1p(len(days)) * np.exp(-0.5 * off**2), rel=1e-3), pair


def test_an_item_without_a_category_is_in_nobodys(known: RetailData) -> None:
    bare = pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col("category_1")).alias("category_1")
    part = known.with_items(known.items.with_columns(bare))
    source = PopularInCategories("category_1").fit(part)
    assert (source.share_[::3] == 0).all()
    assert (source.share_ > 0).any()
    proposed = source.candidates(part.history(), 30).items
    assert (proposed[proposed >= 0] % 3 > 0).all()


def test_a_taste_in_texts_is_the_decayed_mean_of_unit_vectors(known: RetailData) -> None:
    source = Content(dimensions=4, half_life=20, threads=1).fit(known)
    np.testing.assert_allclose(np.linalg.norm(source.vectors_, axis=1), 1, rtol=1e-4)
    found = source.profiles(known.history())
    total = np.zeros((known.n_users, source.vectors_.shape[1]))
    for (user, item), days in ages_of_pairs(known).items():
        total[user] += sum(0.5 ** (a / 20) for a in days) * source.vectors_[item]
    length = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found, total / length, rtol=1e-3, atol=1e-4)  # they lie on a grid


def test_one_candidate_of_a_source_is_a_candidate_and_none_is_none(known: RetailData) -> None:
    sources = [OwnPurchases().fit(known), Popularity().fit(known)]
    history = known.history()
    own, popular = (s.candidates(history, 1).items[:, 0] for s in sources)
    for taken, expected in (([1, 0], own), ([0, 1], popular)):
        pool = merge_pool(sources, history, taken)
        sizes = np.diff(pool.indptr)
        np.testing.assert_array_equal(sizes, (expected >= 0).astype(int))
        np.testing.assert_array_equal(pool.items, expected[expected >= 0])
