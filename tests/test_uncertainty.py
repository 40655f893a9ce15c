"""The bootstrap against theory, and Holm against his own procedure."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from retailrec.compute.statistics import holm
from retailrec.errors import DataError, SettingError
from retailrec.evaluation.bootstrap import compare_models, sign_flip_p


def test_intervals_agree_with_the_central_limit() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(2000)
    found = compare_models({"a": {"m": values}}).means.row(0, named=True)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.05 * half)
    narrow = compare_models({"a": {"m": values}}, level=0.5).means.row(0, named=True)
    assert narrow["high"] - narrow["low"] == pytest.approx(2 * 0.6745 / 1.96 * half, rel=0.06)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for trial in range(200):
        values = (rng.random(150) < 0.3).astype(float)
        row = compare_models({"a": {"m": values}}, resamples=400, seed=trial).means.row(0, named=True)
        inside += row["low"] <= 0.3 <= row["high"]
    assert 180 <= inside <= 199


def test_pairing_makes_small_differences_visible() -> None:
    rng = np.random.default_rng(3)
    easy = rng.random(800)
    a, b = easy + 0.01 + 0.01 * rng.random(800), easy + 0.01 * rng.random(800)
    paired = compare_models({"b": {"m": b}, "a": {"m": a}}).differences.row(0, named=True)
    assert (paired["model"], paired["versus"]) == ("a", "b")
    assert 0.009 < paired["low"] < paired["difference"] < paired["high"] < 0.011
    assert paired["p"] < 0.001
    torn = compare_models({"b": {"m": b}, "a": {"m": rng.permutation(a)}}).differences
    assert torn["p"][0] > 0.2


def by_signs(difference: np.ndarray, flips: int = 20_000) -> float:
    """Two-sided p of a mean of zero: how often random signs make it as far from zero (Fisher, 1935)."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (flips, len(difference)))
    far = np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9
    return float((far.sum() + 1) / (flips + 1))


@pytest.mark.parametrize("shift", [0.03, -0.05, 0.07, -0.1, 0.12])
def test_p_agrees_with_a_permutation_test(shift: float) -> None:
    """Two-sided, as there: one tail alone would be half of it."""
    difference = np.random.default_rng(9).normal(size=300) * 0.9
    difference += shift - difference.mean()
    base = np.random.default_rng(8).random(300)
    found = compare_models({"a": {"m": base}, "b": {"m": base + difference}}, resamples=20_000)
    assert found.differences["p"][0] == pytest.approx(by_signs(difference), rel=0.15)
    assert found.differences["difference"][0] == pytest.approx(shift)


def test_no_difference_is_not_significant() -> None:
    """Without one, p is spread evenly: each twentieth of it comes up about as often."""
    rng = np.random.default_rng(4)
    p = np.array(
        [
            compare_models(
                {"a": {"m": rng.random(100)}, "b": {"m": rng.random(100)}}, resamples=400, seed=trial
            ).differences["p"][0]
            for trial in range(300)
        ]
    )
    for level in (0.05, 0.2, 0.5, 0.8):
        spread = np.sqrt(level * (1 - level) / len(p))
        assert abs(np.mean(p <= level) - level) < 3 * spread, level


def test_few_shoppers_with_heavy_tails_raise_no_more_alarms_than_told() -> None:
    """By the bootstrap's own p 7 to 9% of such comparisons without a difference were below .05."""
    for n in (14, 20, 50):
        rng = np.random.default_rng(n)
        money = np.exp(rng.normal(0, 1.5, (2, n, 1000))) * (rng.random((2, n, 1000)) < 0.5)
        alarms = np.mean(sign_flip_p(money[0] - money[1], 2000) <= 0.05)
        print(f"{n} shoppers: {alarms:.1%} of comparisons without a difference have p below .05")
        assert 0.02 < alarms < 0.065


def test_shoppers_without_a_value_weigh_nothing() -> None:
    rng = np.random.default_rng(5)
    values = rng.random(500)
    holes = np.append(values, np.full(500, np.nan))
    known = compare_models({"a": {"m": values}}).means.row(0, named=True)
    found = compare_models({"a": {"m": holes, "other": np.ones(1000)}}).means.row(0, named=True)
    assert found["n"] == 500
    assert found["mean"] == pytest.approx(known["mean"])
    assert found["low"] == pytest.approx(known["low"], abs=0.003)
    nothing = compare_models({"a": {"m": np.full(5, np.nan)}}).means.row(0, named=True)
    assert nothing["mean"] is None


def test_lists_together_are_left_out_and_seeds_hold() -> None:
    values = {"a": {"m": np.arange(9.0), "coverage@5": np.array([0.5])}}
    assert compare_models(values).means["metric"].to_list() == ["m"]
    assert compare_models(values, seed=7).means.equals(compare_models(values, seed=7).means)
    with pytest.raises(DataError, match="m of b is infinite for 1 shoppers; give NaN"):
        compare_models({"a": {"m": np.zeros(9)}, "b": {"m": np.array([np.inf, *np.zeros(8)])}})
    with pytest.raises(DataError, match="different shoppers: m of b has 8 of them, another one 9"):
        compare_models({"a": {"m": np.arange(9.0)}, "b": {"m": np.arange(8.0)}})
    for odd in (np.array(["x", "y"]), np.ones((2, 2))):
        with pytest.raises(DataError, match="m of a must be one number a shopper"):
            compare_models({"a": {"m": odd}})
    with pytest.raises(SettingError, match="level"):
        compare_models(values, level=95)


def test_holm_by_his_procedure() -> None:
    """Reject the i-th smallest while p <= alpha / (m - i); a corrected p says for which alpha."""
    p = np.random.default_rng(6).random(20) ** 3
    corrected = np.array(holm(p.tolist()))
    for alpha in np.linspace(0.005, 0.995, 199):
        rejected = np.zeros(20, bool)
        for i, at in enumerate(np.argsort(p)):
            if p[at] > alpha / (20 - i):
                break
            rejected[at] = True
        np.testing.assert_array_equal(corrected <= alpha, rejected)


def test_every_pair_of_models_is_compared() -> None:
    rng = np.random.default_rng(7)
    values = {name: {"m": rng.random(50), "n": rng.random(50)} for name in "abc"}
    found = compare_models(values, resamples=200).differences
    assert found.select("model", "versus").unique().height == 3
    assert found.group_by("metric").len()["len"].to_list() == [3, 3]
    assert (found["p_corrected"] >= found["p"]).all()
    assert isinstance(found, pl.DataFrame)


def test_a_single_shopper_is_somebody() -> None:
    """One judged shopper has values of shape (1,), as metrics of lists together have among many."""
    found = compare_models({"a": {"precision@1": np.ones(1)}, "b": {"precision@1": np.zeros(1)}})
    assert found.means["mean"].to_list() == [1.0, 0.0]
    assert found.differences["difference"].to_list() == [-1.0]
