"""The door from Python refuses settings that make no sense, before it loads or fits anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from door_support import SHOP, quick
from retailrec.candidates import ALS, ItemItem, OwnPurchases, Popularity, ReciprocalRankFusion, TifuKNN
from retailrec.data.prefilters import MinBuyers, SoldWithin
from retailrec.data.splits import HorizonSplits, NextBasketSplits, rolling_folds
from retailrec.errors import SettingError
from retailrec.jobs.settings import read_settings
from retailrec.rankers import CatBoostRanker, LightGBMRanker
from retailrec.recommender.rules import Rules

NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ItemItem(within="basket"), "one of 'shopper', 'receipt', 'next_receipt'"),
        (lambda: ItemItem("tf-idf"), "weighting must be one of"),
        (lambda: ItemItem(profile="all"), "profile must be one of"),
        (lambda: ItemItem("tfidf", within="next_receipt"), "always takes the cosine"),
        (lambda: ItemItem(half_life=0.0), "half_life must be above 0"),
        (lambda: ItemItem(neighbours=2.5), "neighbours must be a whole number"),
        (lambda: ItemItem(shrinkage=NAN), "shrinkage must be at least 0"),
        (lambda: Popularity(kind="last year"), "kind must be one of"),
        (lambda: Popularity(days=float("inf")), "days must be above 0"),
        (lambda: OwnPurchases("frequency"), "weighting must be one of"),
        (lambda: OwnPurchases("decay", ties="oldest"), "belongs to weighting='count'"),
        (lambda: OwnPurchases("decay", half_life=NAN), "half_life must be"),
        (lambda: ALS(device="tpu"), "device must be one of"),
        (lambda: ALS(factors=0), "factors must be at least 1"),
        (lambda: ALS(seed=-1), "seed must be at least 0"),
        (lambda: ALS(threads=100_000), "threads must be .*at most 1024"),
        (lambda: TifuKNN(alpha=1.5), "alpha must be at least 0 and at most 1"),
        (lambda: ReciprocalRankFusion([]), "at least one source"),
        (lambda: LightGBMRanker("rank"), "objective must be one of"),
        (lambda: LightGBMRanker(iterations=True), "iterations must be a whole number"),
        (lambda: CatBoostRanker(depth=17), "depth must be"),
        (lambda: MinBuyers(0), "n must be at least 1"),
        (lambda: SoldWithin(NAN), "days must be"),
        (lambda: HorizonSplits(-1), "horizon_days must be"),
        (lambda: HorizonSplits(stride_days=0.0), "stride_days must be"),
        (lambda: NextBasketSplits(0), "n must be at least 1"),
        (lambda: quick(ranker=7), "ranker must be a Ranker, not 7"),
        (lambda: quick(ranker="forest"), "no ranker 'forest'; expected one of catboost, lightgbm"),
        (lambda: quick(preranker=0.5), "preranker must be a Ranker or None"),
        (lambda: quick(sources=[Popularity]), "sources must be a list, each a CandidateGenerator"),
        (lambda: quick(prefilters=["default"]), "prefilters must be a list, each a Prefilter"),
        (lambda: quick(sources=[]), "sources with different names"),
        (lambda: quick(pool_size=0), "pool_size must be at least 1"),
        (lambda: quick(n_candidates=0), "not all 0"),
        (lambda: quick(n_candidates=[5]), "one for each of the 3 sources"),
        (lambda: quick(negatives=0), "negatives must be above 0"),
        (lambda: quick(idle_users=NAN), "idle_users must be"),
        (lambda: quick(refit="twice"), "refit must be one of 'each', 'once'"),
        (lambda: quick(seed=1.5), "seed must be a whole number"),
        (lambda: quick(threads=-1), "threads must be"),
        (lambda: quick(calibrate="yes"), "calibrate must be true or false"),
        (lambda: Rules(variety=2.0), "variety must be at least 0 and at most 1"),
        (lambda: Rules(price_floor=NAN), "price_floor must be"),
        (lambda: Rules(skip_bought_days=-3), "skip_bought_days must be"),
        (lambda: Rules(price_floor=3, price_ceiling=2), "lies above"),
        (lambda: Rules(more=["mine"]), "more must be a list, each a Rule"),
        (lambda: rolling_folds(SHOP.end, horizon=SHOP.end - SHOP.end, n=1), "above zero"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_construction(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SettingError, match=words):
        make()


@pytest.mark.parametrize(
    "toml",
    [
        '[[sources]]\ntype = "item_item"\nwithin = "basket"\n',
        '[[sources]]\ntype = "popularity"\nkind = "last year"\n',
        '[[sources]]\ntype = "nobody"\n',
        '[ranker]\ntype = "lightgbm"\nobjective = "rank"\n',
        '[[prefilters]]\ntype = "min_buyers"\nn = 0\n',
        "n_candidates = 0\n",
        "n_candidates = [1, 2]\n",
        "negatives = nan\n",
        "horizon_days = inf\n",
        "threads = 100000\n",
        "seed = -1\n",
        'metrics = ["precision@x"]\n',
        "candidates_per_source = 3\n",
    ],
)
def test_a_config_is_refused_before_data_is_loaded(toml: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(toml)
    with pytest.raises(SettingError):
        read_settings(tmp_path / "c.toml")


def test_parts_may_be_named_as_a_config_names_them() -> None:
    named = quick(ranker="catboost", preranker={"type": "lightgbm", "leaves": 7}, prefilters="default")
    assert isinstance(named.ranker, CatBoostRanker)
    assert named.preranker == LightGBMRanker(leaves=7)
    assert quick(sources=["popularity"]).sources == [Popularity()]
    with pytest.raises(SettingError, match="there is no source 'fame'; expected one of"):
        quick(sources=["fame"])
