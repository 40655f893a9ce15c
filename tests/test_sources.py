"""Each source against an independent answer, and an example that can be seen by eye."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from conftest import CUTOFF
from retailrec.candidates import (
    ALS,
    EASE,
    UPCF,
    Content,
    ItemItem,
    OwnPurchases,
    Pairs,
    PopularInCategories,
    PopularInSegment,
    Popularity,
    ReciprocalRankFusion,
    TifuKNN,
    item_item,
)
from retailrec.candidates.pool import merge_pool
from retailrec.compute.shards import one_blas_thread
from retailrec.data import RetailData
from retailrec.data.history import History
from retailrec.errors import SettingError
from retailrec.simulator.shop import small_data


def receipts(*baskets: tuple[str, int, str], **more: object) -> RetailData:
    """(shopper, day, items written as letters) -> data that ends on day 31."""
    rows = [(u, item, day) for u, day, items in baskets for item in items]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row")
    return RetailData.from_frames(table, end=datetime(2000, 2, 1), **more)  # type: ignore[arg-type]


def best(source: object, data: RetailData, user: str, k: int = 5) -> str:
    """The recommended letters."""
    row = data.users["user_id"].to_list().index(user)
    items = source.fit(data).candidates(data.history(codes=[row]), k).items[0]  # type: ignore[attr-defined]
    return "".join(data.items["item_id"][int(i)] for i in items if i >= 0)


def dense(source: object, data: RetailData) -> np.ndarray:
    n, m = data.n_users, data.n_items
    pairs = Pairs(np.arange(n + 1, dtype=np.int64) * m, np.tile(np.arange(m, dtype=np.int32), n))
    return source.fit(data).score(data.history(), pairs).reshape(n, m)  # type: ignore[attr-defined]


def test_own_purchases_by_eye() -> None:
    data = receipts(("ann", 1, "ab"), ("ann", 8, "ac"), ("ann", 30, "c"), ("bob", 2, "d"))
    assert best(OwnPurchases(), data, "ann") == "cab"  # two each of a and c, c is newer
    assert best(OwnPurchases("count", ties="oldest"), data, "ann") == "acb"
    assert best(OwnPurchases("recency"), data, "ann") == "cab"
    assert best(OwnPurchases(), data, "bob") == "d"


def test_due_puts_what_has_run_out_first() -> None:
    """a comes every 10 days and is due; b comes every 10 days and was bought yesterday."""
    data = receipts(*[("ann", d, "a") for d in (2, 12, 22)], *[("ann", d, "b") for d in (11, 21, 31)])
    assert best(OwnPurchases("due"), data, "ann") == "ab"
    assert best(OwnPurchases("recency"), data, "ann") == "ba"


def test_popularity_by_eye() -> None:
    data = receipts(
        ("ann", 1, "ab"), ("bob", 1, "a"), ("cat", 30, "cb"), ("ann", 30, "c"), ("ann", 31, "d")
    )
    assert best(Popularity(days=7), data, "bob") == "cbda"
    assert best(Popularity(days=31), data, "bob") == "abcd"
    assert best(Popularity(days=7, kind="trending"), data, "bob")[:1] == "c"


def test_popularity_counts_buyers_or_receipts() -> None:
    data = receipts(("ann", 1, "a"), ("ann", 2, "a"), ("ann", 3, "a"), ("bob", 1, "b"), ("cat", 1, "b"))
    assert best(Popularity(40), data, "cat") == "ba"
    assert best(Popularity(40, count="receipts"), data, "cat") == "ab"


def test_popular_in_segment_by_eye() -> None:
    users = pl.DataFrame({"user_id": ["ann", "bob", "cat"], "segment": ["x", "y", "y"]})
    data = receipts(("ann", 1, "a"), ("bob", 2, "b"), ("cat", 3, "bc"), users=users)
    assert (
        best(PopularInSegment(), data, "cat") == "bca"
    )  # b twice in y, c once; then everybody's order
    assert best(PopularInSegment(), data, "ann") == "abc"
    with pytest.raises(SettingError, match="users lack 'age'"):
        PopularInSegment("age").fit(data)


def test_popular_in_categories_by_eye() -> None:
    items = pl.DataFrame({"item_id": list("abcd"), "category_1": ["u", "u", "v", "v"]})
    data = receipts(("ann", 30, "a"), ("bob", 30, "bcd"), ("cat", 30, "bd"), items=items)
    assert best(PopularInCategories("category_1"), data, "ann") == "ba"
    with pytest.raises(SettingError, match="items lack 'category_2'"):
        PopularInCategories().fit(data)


def test_item_item_by_eye() -> None:
    """Who buys a buys b; who buys c buys d."""
    data = receipts(("ann", 1, "ab"), ("bob", 1, "ab"), ("cat", 1, "cd"), ("dan", 1, "a"))
    assert best(ItemItem(), data, "dan") == "b"
    assert best(ItemItem(include_self=True), data, "dan") == "ab"


def test_item_item_is_cosine(data: RetailData) -> None:
    known = data.asof(CUTOFF)
    history = known.history()
    weights = np.sqrt(history.matrix(history.counts()).toarray())
    expected = weights @ cosine_similarity(weights.T)
    got = dense(ItemItem("cosine", neighbours=known.n_items, include_self=True), known)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_last_receipt_by_eye() -> None:
    data = receipts(("ann", 1, "ab"), ("bob", 1, "cd"), ("cat", 1, "a"), ("cat", 9, "c"))
    assert best(ItemItem(within="receipt", profile="last_receipt"), data, "cat") == "d"


def test_shrinkage_lowers_what_rests_on_few() -> None:
    data = receipts(*[(f"u{i}", 1, "ab") for i in range(9)], ("x", 1, "cd"))
    plain, shrunk = (ItemItem(shrinkage=s).fit(data).similarity_.toarray() for s in (0.0, 3.0))
    np.testing.assert_allclose(shrunk[0, 1] / plain[0, 1], 9 / 12, rtol=1e-5)
    np.testing.assert_allclose(shrunk[2, 3] / plain[2, 3], 1 / 4, rtol=1e-5)


def test_als_fold_in_is_implicits_own(data: RetailData) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    source = ALS(factors=8, iterations=5, half_life=None).fit(data)
    history = data.history()
    weights = 1 + source.alpha * np.sqrt(history.counts())
    with one_blas_thread():  # it warns where there are more
        model = AlternatingLeastSquares(factors=8, regularization=source.regularization)
        model.item_factors = source.factors_
        expected = model.recalculate_user(
            np.arange(len(history)), history.matrix(weights.astype(np.float32))
        )
    np.testing.assert_allclose(source.user_factors(history), expected, rtol=1e-3, atol=2e-4)
    known = dense(source, data)
    np.testing.assert_allclose(known, expected @ source.factors_.T, rtol=1e-3, atol=1e-3)


def test_als_serves_a_shopper_who_was_not_in_fit(data: RetailData) -> None:
    """The same history gets the same answer, whoever was in `fit`."""
    source = ALS(factors=8, iterations=5).fit(data)
    alone = data.history(codes=[4])
    np.testing.assert_array_equal(
        source.candidates(alone, 5).items, source.candidates(data.history(), 5).items[[4]]
    )


def literal_tifu(baskets: list[set[int]], n_items: int, m: int, rb: float, rg: float) -> np.ndarray:
    """Hu et al. 2020, section 4.1: baskets, oldest first, in groups of m from the newest backwards."""
    groups: list[list[set[int]]] = []
    rest = list(baskets)
    while rest:
        groups.insert(0, rest[-m:])
        rest = rest[:-m]
    total = np.zeros(n_items)
    for i, group in enumerate(groups, start=1):
        vector = np.zeros(n_items)
        for j, basket in enumerate(group, start=1):
            for item in basket:
                vector[item] += rb ** (len(group) - j)
        total += rg ** (len(groups) - i) * vector / len(group)
    return total / len(groups)


def test_tifu_knn_is_the_papers_equations(data: RetailData) -> None:
    known = data.asof(CUTOFF)
    source = TifuKNN(neighbours=5, group_size=3, within_decay=0.8, group_decay=0.6, alpha=0.4)
    users = known.active_users()
    vectors = np.zeros((known.n_users, known.n_items))
    for user in users:
        mine = known.log.filter(pl.col("user") == user)
        baskets = [set(b["item"]) for _, b in mine.group_by("basket", maintain_order=True)]
        vectors[user] = literal_tifu(baskets, known.n_items, 3, 0.8, 0.6)
    np.testing.assert_allclose(source.fit(known).vectors(known.history()).toarray(), vectors, rtol=1e-4)
    got = dense(source, known)
    for user in users:
        distance = ((vectors[users] - vectors[user]) ** 2).sum(axis=1).round(6)
        near = users[np.lexsort((np.arange(len(users)), distance))[:5]]
        cut = np.sort(distance)[4:6]
        if cut[0] == cut[1]:
            continue  # a tie at the edge: either neighbour is right
        expected = 0.4 * vectors[user] + 0.6 * vectors[near].mean(axis=0)
        np.testing.assert_allclose(got[user], expected, rtol=1e-3, atol=1e-5)


def test_up_cf_by_its_formula(data: RetailData) -> None:
    known = data.asof(CUTOFF)
    users = known.active_users()
    popular = np.zeros((known.n_users, known.n_items))
    for user in users:
        mine = known.log.filter(pl.col("user") == user)
        last = mine["basket"].unique().sort()[-3:]
        recent = mine.filter(pl.col("basket").is_in(last.implode()))
        for item in recent["item"]:
            popular[user, item] += 1 / len(last)
    sets = known.history().matrix(np.ones(known.history().n_pairs, np.float32)).toarray()
    size = np.maximum(sets.sum(axis=1), 1)
    similarity = (sets @ sets.T) / size[:, None] ** 0.25 / size[None, :] ** 0.75
    similarity[similarity > 1 - 1e-6] = 0
    expected = popular + (similarity**4) @ popular
    got = dense(UPCF(recency=3, locality=4, neighbours=100), known)
    np.testing.assert_allclose(got[users], expected[users], rtol=1e-3, atol=1e-5)


def test_content_finds_what_nobody_bought_yet() -> None:
    names = {
        "a": "green tea bags",
        "b": "green tea loose",
        "c": "rye bread sliced",
        "d": "white bread sliced",
        "e": "black tea bags",
        "f": "wheat bread loaf",
    }
    items = pl.DataFrame({"item_id": list(names), "name": list(names.values())})
    data = receipts(("ann", 1, "a"), ("bob", 1, "c"), items=items)
    assert set(best(Content(dimensions=3), data, "ann", 3)) == {"a", "b", "e"}
    assert set(best(Content(dimensions=3), data, "bob", 3)) == {"c", "d", "f"}
    with pytest.raises(SettingError, match="items have no text"):
        Content().fit(receipts(("ann", 1, "a")))
    with pytest.raises(SettingError, match="no folder of embeddings"):
        Content(embeddings="/nowhere").fit(data)


def test_fusion_by_hand() -> None:
    data = receipts(("ann", 1, "ab"), ("ann", 2, "a"), ("bob", 3, "bc"), ("cat", 3, "b"))
    source = ReciprocalRankFusion([OwnPurchases(), Popularity()])
    scores = dense(source, data)[0]  # own: a b c(0); popular: b a c, a and c tie but for the code
    assert scores[0] == pytest.approx(1 / 61 + 1 / 62, rel=1e-4)
    assert scores[1] == pytest.approx(1 / 62 + 1 / 61, rel=1e-4)
    assert best(source, data, "ann") == "abc"


def test_the_pool_is_the_union_with_every_sources_view(data: RetailData) -> None:
    known = data.asof(CUTOFF)
    sources = [OwnPurchases().fit(known), Popularity().fit(known)]
    history = known.history()
    pool = merge_pool(sources, history, [4, 6])
    own, popular = (s.candidates(history, k).items for s, k in zip(sources, (4, 6), strict=True))
    for row in range(len(history)):
        part = slice(pool.indptr[row], pool.indptr[row + 1])
        assert set(pool.items[part]) == {*own[row], *popular[row]} - {-1}
        assert (np.diff(pool.items[part]) > 0).all()
    for column, source in enumerate(sources):
        np.testing.assert_array_equal(pool.scores[:, column], source.score(history, pool.pairs))
    assert not np.isnan(pool.scores).any()
    with pytest.raises(SettingError, match="different names"):
        merge_pool([sources[0], sources[0]], history, 5)
    with pytest.raises(SettingError, match=r"one for each of the 2 sources.*\[1, 2, 3\]"):
        merge_pool(sources, history, [1, 2, 3])


def test_a_bounded_reference_sample(data: RetailData) -> None:
    assert TifuKNN(reference=7).fit(data).reference_.shape[0] == 7
    assert UPCF(reference=7).fit(data).reference_.shape[0] == 7


def test_source_parameters_are_checked() -> None:
    for make in (
        lambda: ItemItem(neighbours=0),
        lambda: ALS(factors=0),
        lambda: TifuKNN(neighbours=0),
        lambda: Popularity(days=0),
        lambda: ReciprocalRankFusion([]),
    ):
        with pytest.raises(SettingError):
            make()
    assert replace(ItemItem(), neighbours=3).neighbours == 3


def test_what_follows_a_receipt_against_a_dense_formula(data: RetailData) -> None:
    """Cosine of receipts with an item and those right after them, by loops over receipts."""
    n = data.n_items
    counts = np.zeros((n, n))
    leading, trailing = np.zeros(n), np.zeros(n)
    for _, own in data.log.group_by("user", maintain_order=True):
        receipts = [part["item"].to_list() for part in own.partition_by("basket", maintain_order=True)]
        for one, other in pairwise(receipts):
            leading[one] += 1
            trailing[other] += 1
            counts[np.ix_(one, other)] += 1
    expected = counts / np.sqrt(np.outer(np.maximum(leading, 1), np.maximum(trailing, 1)))
    cosine = expected.copy()
    expected *= counts / (counts + 2)
    found = ItemItem(within="next_receipt", neighbours=n, shrinkage=2).fit(data).similarity_.toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    short = ItemItem(within="next_receipt", neighbours=3, shrinkage=2).fit(data).similarity_
    assert np.diff(short.indptr).max() == 3
    for item in range(n):
        near, kept = short[item].indices, short[item].data
        best = np.sort(cosine[item])[::-1][: len(near)]  # which are kept is not up to shrinkage
        np.testing.assert_allclose(np.sort(cosine[item][near])[::-1], best, rtol=1e-5)
        np.testing.assert_allclose(kept, expected[item][near], rtol=1e-5)


def test_tea_is_followed_by_milk() -> None:
    """Three shoppers buy tea, then milk; a fourth who has just bought tea is offered milk."""
    rows = [(u, d, i) for u in (1, 2, 3) for d, i in ((1, "tea"), (5, "milk"))] + [
        (4, 6, "tea"),
        (5, 6, "jam"),
    ]
    table = pl.DataFrame(rows, schema=["user_id", "time", "item_id"], orient="row")
    data = RetailData.from_frames(table)
    source = ItemItem(within="next_receipt", profile="last_receipt").fit(data)
    milk = data.items["item_id"].to_list().index("milk")
    assert source.candidates(data.history(codes=[3]), 1).items.tolist() == [[milk]]
    assert source.candidates(data.history(codes=[4]), 1).items.tolist() == [
        [-1]
    ]  # nobody came after jam


def test_largest_and_mean_stand_beside_the_sum(data: RetailData) -> None:
    history = data.history()
    source = ItemItem("cosine", neighbours=30).fit(data)
    pairs = Pairs(np.array([0, 30]), np.arange(30, dtype=np.int32))
    one = history.take([0])
    score, (largest, mean) = source.score_more(one, pairs)
    weights = np.sqrt(one.counts())
    terms = source.similarity_.toarray()[one.items] * weights[:, None]
    np.testing.assert_allclose(score, terms.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(largest, terms.max(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mean, terms.sum(axis=0) / weights.sum(), rtol=1e-5)


def test_similarities_are_learnt_from_the_heaviest_items_of_a_shopper() -> None:
    """Ann bought one item three times, one twice and one once; with two of them the third is nobody's."""
    rows = [("ann", item, day) for item in (0, 1, 2) for day in range(3 - item)]
    rows += [("bob", 1, 0), ("bob", 2, 0)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "day"], orient="row")
    when = pl.datetime(2024, 1, 1) + pl.duration(days=pl.col("day"))
    data = RetailData.from_frames(frame.select("user_id", "item_id", time=when))
    near = ItemItem().fit(data).similarity_.toarray()
    assert near[0, 1] > 0
    assert near[0, 2] > 0
    short = ItemItem(longest=2).fit(data).similarity_.toarray()
    assert short[0, 1] > 0
    assert short[0, 2] == 0
    assert short[1, 2] > 0  # bob's
    with pytest.raises(SettingError, match="longest"):
        ItemItem(longest=0)


def test_followers_are_the_same_however_many_items_are_counted_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = ItemItem(within="next_receipt", shrinkage=2)
    data = small_data(users=60)
    whole = source.fit(data).similarity_.copy()
    monkeypatch.setattr(item_item, "_ITEMS", 7)
    parts = source.fit(data).similarity_
    assert whole.nnz > 1000
    assert (whole != parts).nnz == 0


def test_rounding_does_not_move_the_factors() -> None:
    """Histories a ten-millionth heavier, as another processor rounds them, give the same factors."""
    data = small_data(users=100)
    source = ALS(factors=16, iterations=5)
    plain = replace(source).fit(data).factors_

    class Rounded(ALS):
        def _confidence(self, history: History) -> Any:
            found = super()._confidence(history)
            found.data *= np.float32(1 + 2e-7)
            return found

    rounded = Rounded(factors=16, iterations=5).fit(data)
    np.testing.assert_allclose(rounded.factors_, plain, atol=1e-4)
    folded = replace(source).fit(data)
    folded.factors_ = rounded.factors_
    np.testing.assert_allclose(
        folded.user_factors(data.history()), rounded.user_factors(data.history()), atol=1e-3
    )


def test_ease_is_the_ridge_regression_of_each_item_on_the_others(data: RetailData) -> None:
    """By least squares, item by item; an oracle that knows no inverse. Weights lie on a grid."""
    source = EASE(n_items=20, regularization=3.0, half_life=None, neighbours=20).fit(data)
    history = data.history()
    x = np.log1p(history.matrix(history.counts()).toarray().astype(np.float64))
    bought = np.bincount(history.items, minlength=data.n_items)
    kept = np.sort(np.lexsort((np.arange(data.n_items), -bought))[:20])
    found = source.similarity_.toarray()
    for item in kept:
        others = kept[kept != item]
        a = np.vstack([x[:, others], np.sqrt(3.0) * np.eye(len(others))])
        weights = np.linalg.lstsq(a, np.append(x[:, item], np.zeros(len(others))), rcond=None)[0]
        np.testing.assert_allclose(found[others, item], weights, atol=1e-3)
        assert found[item, item] == 0
    rest = np.setdiff1d(np.arange(data.n_items), kept)
    assert not found[rest].any()
    assert not found[:, rest].any()
    few = EASE(n_items=20, regularization=3.0, half_life=None, neighbours=2).fit(data).similarity_
    for item in kept:
        row = np.abs(found[item])
        assert set(few[item].indices) == set(np.lexsort((np.arange(len(row)), -row))[:2])


@pytest.mark.parametrize("settings", [{"alpha": 1e39}, {"regularization": 1e300}])
def test_factors_that_no_double_can_solve_for_are_a_sentence(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=r"als: alpha .* can't be solved for"):
        ALS(**settings).fit(small_data(users=30, weeks=10))  # type: ignore[arg-type]
