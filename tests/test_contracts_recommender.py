"""What features, labels and the whole recommender promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conftest import CUTOFF, changed_after
from retailrec.candidates import CandidateGenerator, ItemItem, OwnPurchases, Popularity
from retailrec.candidates.pool import merge_pool
from retailrec.compute.shards import map_shards
from retailrec.data import RetailData
from retailrec.data.splits import Fold, HorizonSplits
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import BlendRanker, CatBoostRanker, LightGBMRanker
from retailrec.recommender.stage_one import Labels, StageOne, candidate_frame
from retailrec.recommender.two_stage import TwoStageRecommender


def sources() -> list[CandidateGenerator]:
    return [OwnPurchases(), Popularity(), ItemItem("tfidf", within="receipt")]


def stage_one(data: RetailData) -> StageOne:
    return StageOne([s.fit(data) for s in sources()], FeatureSet().fit(data), 10)


def test_features_do_not_see_the_future(data: RetailData) -> None:
    blocks = []
    for known in (data.asof(CUTOFF), changed_after(7).asof(CUTOFF)):
        blocks.append(candidate_frame(known.history(), stage_one(known)))
    assert blocks[0].names == blocks[1].names
    np.testing.assert_array_equal(blocks[0].x, blocks[1].x)


def test_features_of_one_shopper_are_the_same_in_a_batch(data: RetailData) -> None:
    stage = stage_one(data)
    history = data.history()
    whole = candidate_frame(history, stage)
    for row in (0, 11, 39):
        alone = candidate_frame(history.take([row]), stage)
        part = slice(whole.pool.indptr[row], whole.pool.indptr[row + 1])
        np.testing.assert_array_equal(alone.pool.items, whole.pool.items[part])
        np.testing.assert_allclose(alone.x, whole.x[part], rtol=1e-5)


def test_shopper_and_item_ids_are_no_features(data: RetailData) -> None:
    frame = candidate_frame(data.history(), stage_one(data))
    ids = [
        n for n in frame.names if n in ("user", "item", "user_id", "item_id", "item_attribute_item_id")
    ]
    assert not ids
    for column, name in zip(frame.x.T, frame.names, strict=True):
        assert not np.array_equal(column, frame.pool.items), name
        assert not np.array_equal(column, frame.pool.user_of_pair), name


def shuffled_labels(data: RetailData) -> RetailData:
    """What was bought from the cutoff on is dealt anew among the same lines."""
    late = data.log["time"] >= CUTOFF
    items = data.log["item"].to_numpy().copy()
    chosen = np.flatnonzero(late.to_numpy())
    items[chosen] = np.random.default_rng(3).permutation(items[chosen])
    log = data.log.with_columns(item=pl.Series(items))
    return replace(data, log=log.unique(["basket", "item"], maintain_order=True))


def test_labels_change_only_the_label_column(data: RetailData) -> None:
    frames = []
    for d in (data, shuffled_labels(data)):
        model = TwoStageRecommender(
            sources=sources(),
            preranker=None,
            negatives=1,
            idle_users=1,
            prefilters=(),
            label_splits=HorizonSplits(31, n=1),
            n_candidates=10,
        )
        frames.append(model.training_frame(d))
    one, other = frames
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.groups, other.groups)
    assert not np.array_equal(one.y, other.y)
    assert 0 < one.y.mean() < 1


def test_labels_are_the_purchases_of_the_window(data: RetailData) -> None:
    past, target = Fold(CUTOFF, data.end).split(data)
    users = past.active_users()
    pool = merge_pool([s.fit(past) for s in sources()], past.history(codes=users), 10)
    bought = set(target.select("user", "item").iter_rows())
    expected = [
        (int(users[row]), int(item)) in bought
        for row, item in zip(pool.user_of_pair, pool.items, strict=True)
    ]
    np.testing.assert_array_equal(Labels(target, past.n_items).of(pool, users), expected)


def quick(**settings: object) -> TwoStageRecommender:
    given = {
        "ranker": CatBoostRanker(iterations=15, threads=1),
        "n_candidates": 20,
        "pool_size": 15,
        "sources": sources(),
        "label_splits": HorizonSplits(28, n=2),
    }
    return TwoStageRecommender(**(given | settings))  # type: ignore[arg-type]


def test_the_recommender_survives_saving(shop: RetailData, tmp_path) -> None:
    parts = [CatBoostRanker(iterations=5, threads=1), LightGBMRanker(iterations=5, threads=1)]
    ranker = BlendRanker(parts)
    for model in (quick(), quick(ranker=ranker)):
        model.fit(shop)
        model.save(tmp_path / "model")
        loaded = TwoStageRecommender.load(tmp_path / "model")
        history = shop.history()
        assert model.recommend(history, k=5).equals(loaded.recommend(history, k=5))


def test_same_seed_same_answer_whatever_the_threads(shop: RetailData) -> None:
    answers = [quick(threads=t).fit(shop).recommend(shop.history(), k=5) for t in (1, 2)]
    assert answers[0].equals(answers[1])


@pytest.fixture(scope="module")
def model(shop: RetailData) -> TwoStageRecommender:
    return quick().fit(shop)


def test_recommendations_are_for_everybody_and_complete(
    shop: RetailData, model: TwoStageRecommender
) -> None:
    history = shop.history(codes=[0, -1, 5])
    found = model.recommend(history, k=6)
    assert found.group_by("user_id").len()["len"].to_list() == [6, 6, 6]
    assert found["rank"].to_list() == [1, 2, 3, 4, 5, 6] * 3
    assert found["score"].is_between(0, 1).all()
    assert model.recommend(shop.history(codes=[]), k=6).is_empty()


def test_histories_in_parts_give_the_same_answers(
    shop: RetailData, model: TwoStageRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [3, -1, *range(10, 30)]
    expected = model.recommend(shop.history(codes=users), k=4)
    monkeypatch.setitem(map_shards.__kwdefaults__, "size", 5)
    assert model.recommend(shop.histories(codes=users), k=4).equals(expected)
    whole = shop.history(codes=users)
    assert model.explain(shop.histories(codes=users), k=2).equals(model.explain(whole, k=2))
    assert shop.histories(codes=users).users.equals(whole.users)


def test_more_items_asked_for_than_there_are(shop: RetailData, model: TwoStageRecommender) -> None:
    """All that the sources propose, however small the pool is that shorter lists are chosen from."""
    history = shop.history(codes=[0])
    found = model.recommend(history, k=10_000)
    proposed = merge_pool(model.sources_, history, 20).items
    assert found.height == len(proposed) > model.pool_size
    assert set(found["item_id"]) == set(shop.items["item_id"].gather(proposed))
    assert found["item_id"].n_unique() == found.height


def test_a_prefilter_hides_items_but_not_histories(shop: RetailData) -> None:
    from retailrec.data.prefilters import DenyItems

    popular = shop.log.group_by("item").len().sort("len", descending=True)["item"][:5]
    denied = shop.items["item_id"].gather(popular).to_list()
    model = quick(prefilters=(DenyItems(denied),)).fit(shop)
    assert not set(model.recommend(shop.history(), k=10)["item_id"]) & set(denied)
    assert shop.history().n_pairs == shop.log.select("user", "item").unique().height
