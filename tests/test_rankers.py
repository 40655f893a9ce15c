"""Rankers: weights are rows, early stopping stops, contributions are shares of the score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from retailrec.errors import ArtifactError, SettingError
from retailrec.rankers import (
    RANKERS,
    BlendRanker,
    CatBoostRanker,
    LightGBMRanker,
    Ranker,
    TrainingFrame,
    lightgbm,
)
from retailrec.rankers.lightgbm import _telling

# all rows and columns for every tree, so that the same rows make the same trees
EXACT: dict[str, Any] = {"iterations": 30, "threads": 1, "column_share": 1.0}


def rows(seed: int = 0, shoppers: int = 60, each: int = 20) -> TrainingFrame:
    """Rows with two telling columns and an idle one; values on a grid, so few split points."""
    rng = np.random.default_rng(seed)
    n = shoppers * each
    x = rng.integers(0, 12, (n, 3)).astype(np.float32)
    y = (rng.random(n) < 1 / (1 + np.exp(4 - 0.4 * x[:, 0] - 0.1 * x[:, 1]))).astype(np.float32)
    groups = np.repeat(np.arange(shoppers), each)
    fold = (groups >= shoppers * 3 // 4).astype(np.int16)
    return TrainingFrame(x, y, groups, np.ones(n, np.float32), fold, ["tells", "helps", "idle"])


def repeated(frame: TrainingFrame, times: NDArray[np.int64]) -> TrainingFrame:
    """Each row so many times, of weight 1."""
    at = np.repeat(np.arange(len(frame.y)), times)
    return TrainingFrame(
        frame.x[at],
        frame.y[at],
        frame.groups[at],
        np.ones(len(at), np.float32),
        frame.fold[at],
        frame.names,
    )


@pytest.mark.parametrize(
    "ranker", [CatBoostRanker(**EXACT), LightGBMRanker(**EXACT)], ids=lambda r: r.name
)
def test_rows_of_a_caller_stay_as_they_are(ranker: Ranker) -> None:
    frame = rows()
    before, x = frame.x.copy(), np.asfortranarray(frame.x)
    ranker.fit(frame._replace(x=x)).predict(x)
    ranker.contributions(x)
    assert x.flags.writeable
    assert np.array_equal(x, before)


@pytest.mark.parametrize(
    "ranker",
    [
        CatBoostRanker(**EXACT | {"iterations": 60}, depth=3, learning_rate=0.2),
        LightGBMRanker("binary", min_rows=1, **EXACT),
    ],
    ids=lambda r: r.name,
)
def test_a_row_of_weight_five_is_the_row_five_times(ranker: Any) -> None:
    """Negatives were sampled, and weigh what they stand for: probabilities must not notice."""
    frame = rows()
    times = np.where(frame.y > 0, 1, 5)
    weighed = frame._replace(weights=times.astype(np.float32))
    plain = replace(ranker).fit(frame).predict(frame.x)
    by_weight = replace(ranker).fit(weighed).predict(frame.x)
    by_rows = replace(ranker).fit(repeated(frame, times)).predict(frame.x)
    assert np.abs(by_weight - by_rows).mean() < 0.02
    assert np.abs(plain - by_rows).mean() > 0.1  # so it matters
    share = np.average(frame.y, weights=times)
    assert np.average(by_weight, weights=times) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    "ranker",
    [CatBoostRanker("YetiRank", **EXACT), LightGBMRanker("lambdarank", min_rows=1, **EXACT)],
    ids=lambda r: r.name,
)
def test_rankers_of_order_take_no_weights(ranker: Any) -> None:
    """Within a shopper, a sampled negative is one of the items to be ordered and no more."""
    frame = rows()
    weighed = frame._replace(weights=np.where(frame.y > 0, 1, 5).astype(np.float32))
    one, other = (replace(ranker).fit(f).predict(frame.x) for f in (frame, weighed))
    np.testing.assert_array_equal(one, other)
    assert not ranker.gives_probability


@pytest.mark.parametrize(
    "ranker",
    [
        CatBoostRanker(**EXACT),
        CatBoostRanker("YetiRank", **EXACT),
        LightGBMRanker("binary", min_rows=1, **EXACT),
        LightGBMRanker("lambdarank", min_rows=1, **EXACT),
        # scores of one part are some ten times as wide as those of the other
        BlendRanker([CatBoostRanker(**EXACT | {"iterations": 3}), LightGBMRanker(min_rows=1, **EXACT)]),
    ],
    ids=lambda r: r.name,
)
def test_contributions_add_up_to_the_score(ranker: Any) -> None:
    """SHAP values and a constant are the raw score: log-odds where the score is a probability."""
    frame = rows()
    fitted = ranker.fit(frame)
    score = fitted.predict(frame.x).astype(np.float64)
    if fitted.gives_probability:
        score = np.log(score / (1 - score))
    shares = fitted.contributions(frame.x)
    assert shares.shape == frame.x.shape
    np.testing.assert_allclose(
        shares.sum(axis=1) - shares.sum(axis=1).mean(), score - score.mean(), rtol=1e-2, atol=1e-3
    )
    assert score.std() > 0.3
    used = np.abs(shares).mean(axis=0)
    assert used[0] > 2 * used[2]


def test_a_prior_adds_a_sources_order_to_the_scores(tmp_path: Path) -> None:
    """Ranks 1 and 7 of a source that says the opposite of what was learnt; NaN comes after the last."""
    frame = rows()
    frame.x[:, 2] = 12 - frame.x[:, 0]  # 1 to 12
    frame.x[::7, 2] = np.nan
    plain = LightGBMRanker(min_rows=1, prior_weight=0, **EXACT).fit(frame).predict(frame.x)
    hedged = LightGBMRanker(min_rows=1, prior="idle", prior_weight=0.3, **EXACT).fit(frame)
    ranks = np.nan_to_num(frame.x[:, 2].astype(np.float64), nan=13)
    expected = plain - 0.3 * plain.astype(np.float64).std() * np.log2(ranks + 1)
    np.testing.assert_allclose(hedged.predict(frame.x), expected, rtol=1e-5, atol=1e-5)
    shares = hedged.contributions(frame.x).sum(axis=1)
    np.testing.assert_allclose(shares - shares.mean(), expected - expected.mean(), rtol=1e-3, atol=1e-3)
    hedged.save(tmp_path)
    loaded = LightGBMRanker().load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(frame.x), hedged.predict(frame.x))
    (tmp_path / "prior.json").unlink()  # a model of before
    np.testing.assert_array_equal(LightGBMRanker().load(tmp_path).predict(frame.x), plain)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"column": 3}',
        '{"column": 9, "weight": 1, "unranked": 2, "mean": 0}',
        '{"column": 0, "weight": NaN, "unranked": 2, "mean": 0}',
    ],
)
def test_a_damaged_prior_is_refused(tmp_path: Path, text: str) -> None:
    LightGBMRanker(min_rows=1, **EXACT).fit(rows()).save(tmp_path)
    (tmp_path / "prior.json").write_text(text)
    with pytest.raises(ArtifactError, match="damaged"):
        LightGBMRanker().load(tmp_path)


def test_a_prior_needs_its_column_and_leaves_probabilities_alone() -> None:
    frame = rows()
    assert LightGBMRanker(min_rows=1, **EXACT).fit(frame).prior_ is None
    binary = LightGBMRanker("binary", min_rows=1, prior="tells", **EXACT).fit(frame)
    assert binary.prior_ is None


def test_split_points_hang_on_rows_and_not_on_their_number() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400_000, 5)).astype(np.float32)
    taken = _telling(x, len(x))
    assert 90_000 < taken.sum() < 110_000
    np.testing.assert_array_equal(_telling(x[1:], len(x) - 1), taken[1:])
    assert _telling(x[:1000], 1000).all()
    assert abs(x[taken].mean()) < 0.01


def test_rows_handed_over_in_batches_are_learnt_from_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = rows(shoppers=200)
    frame.y[frame.groups % 3 == 0] = 0  # nothing bought, so there is no order to learn
    bought = frame.rows(np.isin(frame.groups, frame.groups[frame.y > 0]))
    monkeypatch.setattr(lightgbm, "_BIN_ROWS", len(bought.y) // 3)  # split points from some rows only
    monkeypatch.setattr(lightgbm, "_BATCH_ROWS", 64)
    whole, fewer = (LightGBMRanker(min_rows=1, **EXACT).fit(f) for f in (frame, bought))
    np.testing.assert_array_equal(whole.predict(frame.x), fewer.predict(frame.x))
    assert np.unique(whole.predict(frame.x)).size > 10


def test_a_blend_is_the_mean_of_its_parts_in_standard_units() -> None:
    frame = rows()
    parts: list[Ranker] = [CatBoostRanker(**EXACT), LightGBMRanker(min_rows=1, **EXACT)]
    blend = BlendRanker(parts).fit(frame)
    probability = blend.parts_[0].predict(frame.x).astype(np.float64)
    units = []
    for raw in (np.log(probability / (1 - probability)), blend.parts_[1].predict(frame.x)):
        units.append((raw - raw.mean()) / raw.std())
    np.testing.assert_allclose(blend.predict(frame.x), np.mean(units, axis=0), rtol=1e-3, atol=1e-4)
    importances = np.mean([p.importances() for p in blend.parts_], axis=0)
    np.testing.assert_allclose(blend.importances(), importances)
    later = rows(seed=1)  # centre and spread stay those of the training rows
    assert abs(blend.predict(later.x + 4).mean()) > 0.2


@pytest.mark.parametrize(
    "ranker",
    [CatBoostRanker(), LightGBMRanker("binary", min_rows=5), LightGBMRanker(min_rows=5)],
    ids=lambda r: r.name,
)
def test_with_a_later_window_training_stops_where_that_is_best(ranker: Any) -> None:
    ranker = replace(
        ranker, iterations=400, early_stopping=10, learning_rate=0.5, threads=1, column_share=1.0
    )
    frame = rows()
    early, late = frame.rows(frame.fold == 0), frame.rows(frame.fold == 1)
    whole = replace(ranker).fit(early)
    stopped = replace(ranker).fit(early, late)
    curve = np.array(stopped.learning_curve()["validation"])
    best = curve.argmax() if ranker.name.endswith("lambdarank") else curve.argmin()
    assert whole.n_trees == 400
    few, before = whole.first_trees(7), whole.predict(late.x)
    if isinstance(ranker, CatBoostRanker):  # its draws hang on how many trees there will be
        expected = whole.model_.predict(late.x, prediction_type="Probability", ntree_end=7)[:, 1]
    else:
        expected = replace(ranker, iterations=7).fit(early).predict(late.x)
    np.testing.assert_allclose(few.predict(late.x), expected, rtol=1e-6)
    assert few.n_trees == 7
    np.testing.assert_array_equal(whole.predict(late.x), before)  # it still has all its trees
    assert stopped.n_trees == best + 1
    assert len(curve) <= best + 1 + 10 + 1  # ten rounds without improvement, and no more
    if ranker.gives_probability:
        assert log_loss(late.y, stopped.predict(late.x)) < log_loss(late.y, whole.predict(late.x)) - 0.1
        assert log_loss(late.y, stopped.predict(late.x)) == pytest.approx(curve.min(), rel=1e-3)


def test_a_rising_column_never_lowers_the_score() -> None:
    frame = rows()
    for kind in (CatBoostRanker, LightGBMRanker):
        ranker = kind(**EXACT, monotone={"tells": -1, "no such column": 1}).fit(frame)
        x = np.tile(np.array([[0, 5, 5]], np.float32), (12, 1))
        x[:, 0] = np.arange(12)
        assert (np.diff(ranker.predict(x)) <= 1e-7).all()
        free = kind(**EXACT).fit(frame).predict(x)
        assert free[-1] > free[0]


@pytest.mark.parametrize("name", RANKERS)
def test_rows_that_are_all_alike_are_refused(name: str) -> None:
    frame = rows()
    with pytest.raises(SettingError, match="needs bought and not bought candidates"):
        RANKERS[name]().fit(frame._replace(y=np.zeros_like(frame.y)))
    fitted: Any = RANKERS[name]().fit(frame)
    assert fitted.predict(frame.x[:0]).shape == (0,)
    assert fitted.importances().sum() == pytest.approx(1)


def test_more_rows_a_shopper_than_lightgbm_takes_are_learnt_in_parts() -> None:
    frame = rows(shoppers=2, each=12_000)
    fitted = LightGBMRanker(iterations=3, threads=1).fit(frame, frame)
    scores = fitted.predict(frame.x)
    assert scores[frame.y > 0].mean() > scores[frame.y == 0].mean()


def test_few_lists_teach_half_as_many_trees() -> None:
    x = np.random.default_rng(0).normal(size=(6_000, 2)).astype(np.float32)
    y, weights = np.tile([1, 0], 3_000).astype(np.float32), np.ones(6_000, np.float32)
    groups, fold = np.arange(6_000) // 2, np.zeros(6_000, np.int16)
    frame = TrainingFrame(x, y, groups, weights, fold, ["a", "b"])
    few = frame.rows(groups < 1_499)
    trees = [
        LightGBMRanker(kind).usual_trees(rows)
        for kind in ("lambdarank", "binary")
        for rows in (few, frame)
    ]
    assert trees == [60, 120, 120, 120]
    assert LightGBMRanker(threads=1).fit(few).n_trees == 60
    assert LightGBMRanker(threads=1, iterations=7).fit(few).n_trees == 7
