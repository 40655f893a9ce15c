"""What label windows choose: half-lives and priors, by hand and on shops that are made to tell."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import OwnPurchases, Popularity, TifuKNN
from retailrec.data import RetailData
from retailrec.data.splits import Fold, HorizonSplits
from retailrec.errors import SettingError
from retailrec.jobs.settings import Settings, read_settings
from retailrec.rankers import LightGBMRanker, TrainingFrame
from retailrec.recommender.choices import (
    Chosen,
    Prior,
    RankedRows,
    choose,
    choose_half_life,
    choose_prior,
    ndcg,
    simple_orders,
)
from retailrec.recommender.two_stage import TwoStageRecommender

END = datetime(2024, 12, 1)
QUICK = {
    "ranker": LightGBMRanker(iterations=8, min_rows=5),
    "label_splits": HorizonSplits(14),
    "threads": 1,
}


def shop_of(lines: list[tuple[int, int, float]]) -> RetailData:
    """Users, items, days before the end."""
    frame = pl.DataFrame(lines, schema=["user_id", "item_id", "days"], orient="row")
    time = pl.lit(END) - pl.duration(minutes=(pl.col("days") * 1440).cast(pl.Int64))
    return RetailData.from_frames(frame.with_columns(time=time).drop("days"), end=END)


def test_a_value_must_be_ahead_by_more_than_chance() -> None:
    """Nine of ten users gain 1; the tenth loses 8, or 1: a mean of .1 or of .8, beside errors of .9 and .2."""
    base = np.zeros(10)
    noisy, sure = np.append(np.full(9, 1.0), -8.0), np.append(np.full(9, 1.0), -1.0)
    assert choose({1: base, 2: noisy}, 1).value == 1
    assert choose({1: base, 2: sure}, 1).value == 2
    assert choose({1: base, 2: sure, 3: sure + 1}, 1) == Chosen(3, 1, 1.8, 0.0, 10)
    assert (
        choose({1: base, 2: sure, 3: sure + np.append(np.zeros(8), [-0.1, 0.15])}, 1).value == 2
    )  # level


@pytest.mark.parametrize(("steady", "days"), [(True, None), (False, 30.0)])
def test_the_half_life_fits_the_shop(steady: bool, days: float | None) -> None:
    """Old favourites that come back in the window, or what was bought once a month ago instead."""
    lines = []
    for user in range(60):
        old, new = 100 + user, 300 + user
        lines += [(user, old, 300 + 20.0 * n) for n in range(3)]  # thrice, long ago
        others = [1000 + 12 * user + n for n in range(12)]
        lines += [(user, item, days) for item in others for days in (50.0, 60.0)]  # twice
        lines += [(user, new, 16.0)]  # once, lately
        lines += [(user, old if steady else new, 3.0)]
    split = Fold(END - timedelta(days=14), END).split(shop_of(lines))
    chosen = choose_half_life([split], seed=0)
    assert chosen.usual == 120
    assert chosen.n_users == 60
    assert chosen.value == days
    assert chosen.ndcg is not None
    assert chosen.usual_ndcg is not None
    assert chosen.ndcg > chosen.usual_ndcg


def test_ndcg_by_hand() -> None:
    hits = np.array([[True, False, True], [False, True, False]])
    expected = [(1 + 1 / 2) / (1 + 1 / np.log2(3)), 1 / np.log2(3)]
    np.testing.assert_allclose(ndcg(hits, np.array([2, 1])), expected)


def frame_of(y: list[int], groups: list[int], weights: list[float]) -> TrainingFrame:
    n = len(y)
    return TrainingFrame(
        np.zeros((n, 1), np.float32),
        np.array(y, np.float32),
        np.array(groups),
        np.array(weights, np.float32),
        np.zeros(n, np.int16),
        ["a"],
    )


def test_a_drawn_candidate_stands_for_its_weight_in_a_list() -> None:
    """Above the purchase stand one drawn candidate of weight 5: it is the sixth. The idle list is none."""
    rows = frame_of([0, 1, 0, 0, 1], [0, 0, 1, 2, 2], [5, 1, 5, 5, 1])
    found = RankedRows(rows).ndcg(np.array([2.0, 1.0, 9.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, [1 / np.log2(7), 1.0])


def test_orders_are_those_that_a_person_could_go_by() -> None:
    sources = [OwnPurchases(), Popularity(), TifuKNN()]
    assert simple_orders(sources) == {
        "mean": ["source_own_purchases_rank", "source_tifu_knn_rank"],
        "own_purchases": ["source_own_purchases_rank"],
        "tifu_knn": ["source_tifu_knn_rank"],
        "popular": ["source_popular_rank"],
    }
    assert list(simple_orders([OwnPurchases("decay")])) == ["own_decay"]
    assert simple_orders([Popularity()]) == {}


def test_a_shop_without_tastes_goes_by_what_is_popular() -> None:
    """Everybody draws from the same 60 items, the first 15 times as often as the last: nothing to learn."""
    rng, lines = np.random.default_rng(0), []
    often = 1 / np.arange(4, 64)
    for user in range(500):
        days = rng.uniform(0, 120, rng.integers(4, 12))
        lines += [(user, int(i), day) for day in days for i in rng.choice(60, 2, p=often / often.sum())]
    model = TwoStageRecommender(label_splits=HorizonSplits(14), threads=1).fit(shop_of(lines))
    assert model.report_["prior"]["value"]["order"] == "popular"
    assert "the order of popular at a weight of" in model.report_["prior"]["words"]


def windows_of(*facts: tuple[str, str, bool]) -> list[dict[str, object]]:
    return [dict(zip(("cutoff", "until", "shorter"), fact, strict=True)) for fact in facts]


def noise_and_order(n: int = 400) -> TrainingFrame:
    """Two windows in which the second source's order is the truth and the trees' column says nothing."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n), 10)
    noise = rng.normal(size=len(groups))
    rank = np.concatenate([rng.permutation(10) + 1 for _ in range(n)])
    wrong = np.concatenate([rng.permutation(10) + 1 for _ in range(n)])
    x = np.column_stack([noise, wrong, rank]).astype(np.float32)
    names = ["noise", "wrong", "right"]
    fold = np.where(groups < n // 2, 0, 1).astype(np.int16)
    y = (rank <= 2).astype(np.float32)
    x[fold == 0, 2] = 5  # the first window can't teach it
    return TrainingFrame(x, y, groups, np.ones(len(y), np.float32), fold, names)


def test_the_prior_that_helps_on_the_judged_window_is_taken() -> None:
    frame = noise_and_order()
    columns = {"mean": ["wrong", "right"], "wrong": ["wrong"], "right": ["right"]}
    apart = windows_of(("2024-01-01", "2024-01-20", False), ("2024-02-01", "2024-02-20", False))

    def fresh() -> LightGBMRanker:
        return LightGBMRanker(iterations=10, min_rows=5, threads=1)

    chosen = choose_prior(frame, apart, fresh, columns)
    assert chosen.usual == Prior("mean", 0.2)  # 400 lists
    assert chosen.value.order == "right"
    assert chosen.n_users == 400  # each of two windows is judged by a ranker of the other one
    only = choose_prior(frame, apart, fresh, columns, order="wrong", weight=0.3)
    assert (only.value, only.given) == (Prior("wrong", 0.3), True)
    overlap = windows_of(("2024-01-01", "2024-01-28", False), ("2024-01-14", "2024-01-28", True))
    assert choose_prior(frame, overlap, fresh, columns).ndcg is None  # its labels were learnt


@pytest.mark.parametrize(("share", "order"), [(0.7, "mean"), (2.0, "popular")])
def test_what_is_popular_is_taken_only_where_it_tells_more_alone(share: float, order: str) -> None:
    """Trees know a user's own order, so the other one adds more to them even where it tells less."""
    rng, n = np.random.default_rng(0), 400
    groups = np.repeat(np.arange(n), 10)
    own, popular = (np.concatenate([rng.permutation(10) + 1 for _ in range(n)]) for _ in range(2))
    worth = (own + share * popular).reshape(n, 10)
    y = (worth.argsort(axis=1).argsort(axis=1) < 2).astype(np.float32).ravel()
    fold = np.where(groups < n // 2, 0, 1).astype(np.int16)
    x = np.column_stack([own, np.where(fold == 0, 5, popular)]).astype(np.float32)
    frame = TrainingFrame(x, y, groups, np.ones(len(y), np.float32), fold, ["own", "popular"])
    apart = windows_of(("2024-01-01", "2024-01-20", False), ("2024-02-01", "2024-02-20", False))
    columns = {"mean": ["own"], "popular": ["popular"]}
    chosen = choose_prior(
        frame, apart[:2], lambda: LightGBMRanker(iterations=20, min_rows=5, threads=1), columns
    )
    assert chosen.value.order == order


def test_a_recommender_says_what_was_chosen_and_settings_fix_it(shop: RetailData) -> None:
    model = TwoStageRecommender(**QUICK).fit(shop, keep_rows=True)
    half_life, prior = model.report_["half_life"], model.report_["prior"]
    assert "a half-life of" in half_life["words"] or "no half-life" in half_life["words"]
    assert " at a weight of " in prior["words"]
    assert model.ranker_.prior_weight == prior["value"]["weight"]
    assert model.sources_[1].half_life == half_life["value"]
    assert model.sources[1].half_life == "auto"  # settings stay as they were given
    later = TwoStageRecommender(**QUICK).fit(shop, earlier=model.hand_over())
    assert later.report_["prior"] == prior
    fixed = TwoStageRecommender(**QUICK, half_life="never", prior="tifu_knn", prior_weight=0.3)
    fixed.fit(shop)
    assert fixed.sources_[1].half_life is None
    assert fixed.ranker_.prior == ["source_tifu_knn_rank"]
    assert (
        fixed.report_["prior"]["words"]
        == "the order of tifu_knn at a weight of 0.3, as the settings say"
    )
    assert fixed.report_["half_life"]["words"] == "no half-life, as the settings say"
    none = TwoStageRecommender(**QUICK, prior="none").fit(shop)
    assert none.ranker_.prior_ is None
    with pytest.raises(SettingError, match="prior must be auto, none or an order of the sources"):
        TwoStageRecommender(prior="count")


@pytest.mark.parametrize(("given", "days"), [(30, 30), ("never", None), ("auto", 120)])
def test_stage_one_alone_keeps_to_the_half_life_of_the_settings(
    shop: RetailData, given: int | str, days: int | None
) -> None:
    """As a matching report and `tune` fit it, with no label window to choose by."""
    model = TwoStageRecommender(**QUICK, half_life=given).fit_stage_one(shop)
    assert model.sources_[1].half_life == days


def test_settings_files_fix_choices_and_those_of_0_2_read(tmp_path) -> None:
    (tmp_path / "new.toml").write_text('half_life = 240\nprior = "own_purchases"\nprior_weight = 0.1\n')
    model = read_settings(tmp_path / "new.toml").model()
    assert (model.half_life, model.prior, model.prior_weight) == (240, "own_purchases", 0.1)
    (tmp_path / "old.toml").write_text(
        '[ranker]\ntype = "lightgbm"\nprior = "source_tifu_knn_rank"\nprior_weight = 0.05\n'
        '[[sources]]\ntype = "own_purchases"\nweighting = "decay"\nhalf_life = 120\n'
        '[[sources]]\ntype = "tifu_knn"\n'
    )
    old = read_settings(tmp_path / "old.toml").model()
    assert not old.ranker.takes_prior  # it says all
    assert old.sources[0].half_life == 120
    assert Settings().model().ranker.takes_prior
