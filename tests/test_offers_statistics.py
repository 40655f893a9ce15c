"""Statistics of experiments: arms are stable, intervals hold what is true, and tea-tasting agrees."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from retailrec.compute.draws import uniform_draws
from retailrec.compute.statistics import difference_of_means, mean_interval, shares_p
from retailrec.errors import DataError, SettingError
from retailrec.offers.arms import arm_of, assign_arms
from retailrec.offers.experiments import (
    Design,
    cuped,
    effects_between,
    effects_of,
    power_of,
    required_shoppers,
)
from retailrec.simulator.responses import Responses
from retailrec.simulator.shop import Shop

DAYS, START_DAY = 28, 112
SHARES = {"treated": 0.8, "holdout": 0.2}


def test_an_arm_depends_on_the_id_and_the_salt_alone() -> None:
    ids = pl.Series([f"u{i}" for i in range(500)])
    arms = assign_arms(ids, SHARES, salt="may")
    assert assign_arms(ids.reverse(), SHARES, salt="may").reverse().equals(arms)
    assert assign_arms(ids.head(7), SHARES, salt="may").equals(arms.head(7))
    assert not assign_arms(ids, SHARES, salt="june").equals(arms)
    assert 60 < (arms == "holdout").sum() < 140


def test_draws_are_uniform_and_independent_between_salts() -> None:
    ids = pl.Series(range(20_000))
    one, other = uniform_draws(ids, "a"), uniform_draws(ids, "b")
    counts = np.histogram(one, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-square with 19 degrees, p 0.001
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.025


def test_strata_are_split_as_evenly_as_whole_shoppers_allow() -> None:
    ids = pl.Series(range(1003))
    strata = pl.Series([None if i % 7 == 0 else "abc"[i % 3] for i in range(1003)])
    arms = assign_arms(ids, SHARES, salt="may", strata=strata)
    sizes = (
        pl.DataFrame({"s": strata, "held": arms == "holdout"})
        .group_by("s")
        .agg(pl.len(), pl.col("held").sum())
    )
    assert sizes.height == 4
    for _, n, held in sizes.iter_rows():
        assert abs(held - 0.2 * n) <= 1
    with pytest.raises(DataError, match="strata are of 1,003 users, and ids of 7"):
        assign_arms(ids.head(7), SHARES, salt="may", strata=strata)


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(SettingError, match="add up to 1"):
        assign_arms(pl.Series([1]), {"a": 0.5, "b": 0.4}, salt="x")
    with pytest.raises(SettingError, match=r"user must be text or a whole number, not 1\.0"):
        arm_of(1.0, {"a": 1.0}, salt="x")


@pytest.mark.parametrize(("spread", "equal"), [(1, True), (4, False)])
def test_the_difference_is_welchs_or_students_whichever_is_wider(spread: float, equal: bool) -> None:
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 80), rng.normal(0.5, spread, 30)
    found = ttest_ind(a, b, equal_var=equal)
    low, high = found.confidence_interval(0.9)
    ours = difference_of_means(a, b, 0.9)
    assert ours == pytest.approx((a.mean() - b.mean(), low, high, found.pvalue))


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_small_holdout_of_whom_few_buy_raises_no_false_alarms(adjusted: bool) -> None:
    """By Welch's t alone four of ten such experiments without an effect had p below .05."""
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(7)
    found, by_welch = [], []
    for _ in range(400):
        held = np.arange(1050) < 50
        spend = (rng.random(1050) < 0.02) * rng.lognormal(2, 1, 1050)
        before = np.where(rng.random(1050) < 0.1, rng.lognormal(2, 1, 1050), 0.5 * spend)
        table = pl.DataFrame({"holdout": held, "spend": spend, "spend_before": before})
        found.append(effects_of(table, metrics=["spend"])[adjusted])
        by_welch.append(ttest_ind(spend[held], spend[~held], equal_var=False).pvalue)
    assert np.mean(np.array(by_welch) < 0.05) > 0.35
    assert np.mean([e.p < 0.05 for e in found]) <= 0.05
    assert np.mean([e.low is not None and e.low <= 0 <= e.high for e in found]) >= 0.95


def test_power_is_what_repeated_experiments_find() -> None:
    design = Design(control_share=0.25, power=0.8)
    n = required_shoppers(2.0, 0.4, design)
    rng = np.random.default_rng(1)
    held = n // 4
    arms = ((rng.normal(0.4, 2, n - held), rng.normal(0, 2, held)) for _ in range(600))
    found = [difference_of_means(*both)[3] < 0.05 for both in arms]
    assert 0.75 < np.mean(found) < 0.85
    assert power_of(n, 2.0, 0.4, design) == pytest.approx(0.8, abs=0.001)
    halved = required_shoppers(2.0, 0.4, Design(control_share=0.25, correlation=0.5**0.5))
    assert halved == pytest.approx(n / 2, abs=1)


def test_an_effect_that_no_number_of_shoppers_shows_is_a_sentence() -> None:
    for effect in (1e-300, -1e-12, 0.0):
        with pytest.raises(SettingError, match=r"Name (a larger|the smallest) effect"):
            required_shoppers(1.0, effect)


def test_sample_ratio_mismatch_is_seen() -> None:
    assert shares_p([8000, 2000], [0.8, 0.2]) == 1
    assert shares_p([8000, 1700], [0.8, 0.2]) < 1e-6
    assert shares_p([8020, 1980], [0.8, 0.2]) > 0.5


def test_groups_in_which_all_are_alike_differ_as_far_as_their_number_tells() -> None:
    ones, twos = np.ones(5), np.full(4, 2.0)
    assert difference_of_means(twos, ones)[0] == 1
    assert difference_of_means(twos, ones)[1] < 1 < difference_of_means(twos, ones)[2]
    assert 0 < difference_of_means(twos, ones)[3] < 1
    assert np.isnan(difference_of_means(ones, ones)[1:3]).all()
    assert difference_of_means(ones, ones)[::3] == (0, 1)
    assert difference_of_means(ones, np.array([0.0, 1.0, 2.0]))[0] == 0
    assert mean_interval(twos)[1] < 2 < mean_interval(twos)[2]
    assert mean_interval(twos)[3] == pytest.approx(0.18169, abs=1e-5)  # t of sqrt(3), 3 degrees
    assert mean_interval(np.zeros(4)) == (0, 0, 0, 1)


def test_tea_tasting_agrees() -> None:
    tea = pytest.importorskip("tea_tasting", reason="pip install tea-tasting")
    rng = np.random.default_rng(2)
    before = rng.gamma(2, 10, 600)
    is_treated = rng.random(600) < 0.7
    spend = 0.8 * before + rng.normal(0, 5, 600) + 3 * is_treated
    table = pl.DataFrame({"spend": spend, "before": before, "variant": is_treated.astype(int)})
    theirs = tea.Experiment(
        plain=tea.Mean("spend"), adjusted=tea.Mean("spend", covariate="before")
    ).analyze(table)
    plain = difference_of_means(spend[is_treated], spend[~is_treated])
    assert plain[0] == pytest.approx(theirs["plain"].effect_size)
    assert plain[1:3] == pytest.approx(  # where both groups spread alike
        (theirs["plain"].effect_size_ci_lower, theirs["plain"].effect_size_ci_upper)
    )
    values = cuped(spend, before, is_treated)
    ours = difference_of_means(values[is_treated], values[~is_treated])
    assert ours[0] == pytest.approx(theirs["adjusted"].effect_size, rel=1e-2)
    assert ours[1:3] == pytest.approx(
        (theirs["adjusted"].effect_size_ci_lower, theirs["adjusted"].effect_size_ci_upper), rel=1e-2
    )


def coverage(repetitions: int, users: int) -> dict[str, float]:
    """Share of repeated experiments whose interval for spend holds the true effect."""
    shop = Shop(users=users, items=400, weeks=22, dirt=False)
    lines = pl.concat(shop.shards())
    ids = pl.Series(range(1, users + 1))
    rng = np.random.default_rng(5)
    offers = pl.DataFrame(
        {"user_id": np.repeat(ids.to_numpy(), 3), "item_id": rng.integers(1, 401, 3 * users)}
    ).unique(maintain_order=True)
    window = (pl.col("DAY") > START_DAY) & (pl.col("DAY") <= START_DAY + DAYS)

    def spend(part: pl.DataFrame) -> np.ndarray:
        sums = part.group_by(user_id="household_key").agg(pl.col("SALES_VALUE").sum())
        return (
            ids.rename("user_id")
            .to_frame()
            .join(sums, on="user_id", how="left", maintain_order="left")["SALES_VALUE"]
            .fill_null(0)
            .to_numpy()
        )

    before = spend(lines.filter(pl.col("DAY") <= START_DAY))
    base = spend(lines.filter(window))
    inside = {"plain": 0, "cuped": 0}
    for repetition in range(repetitions):
        answer = Responses(uplift=0.5, discount=0.1, seed=repetition).apply(
            shop, lines.filter(window), offers, START_DAY, DAYS
        )
        held = (
            assign_arms(ids, {"treated": 0.5, "holdout": 0.5}, salt=str(repetition)) == "holdout"
        ).to_numpy()
        observed = np.where(held, base, spend(answer.lines))
        true = answer.truth["spend"].sum() / users
        table = pl.DataFrame({"holdout": held, "spend": observed, "spend_before": before})
        plain, adjusted = effects_of(table, metrics=["spend"])
        inside["plain"] += plain.low <= true <= plain.high
        inside["cuped"] += adjusted.low <= true <= adjusted.high
    return {name: n / repetitions for name, n in inside.items()}


@pytest.mark.slow
def test_intervals_hold_the_truth_in_93_to_97_percent_of_1000_repetitions() -> None:
    found = coverage(1000, users=600)
    assert 0.93 <= found["plain"] <= 0.97, found
    assert 0.93 <= found["cuped"] <= 0.97, found


def test_intervals_mostly_hold_the_truth() -> None:
    found = coverage(40, users=150)
    assert found["plain"] > 0.8
    assert found["cuped"] > 0.8


def test_segments_are_corrected_by_holm() -> None:
    rng = np.random.default_rng(3)
    n = 900
    table = pl.DataFrame(
        {
            "holdout": rng.random(n) < 0.5,
            "spend": rng.normal(0, 1, n),
            "spend_before": np.zeros(n),
            "segment": rng.choice(["a", "b", "c"], n),
        }
    )
    parts = [e for e in effects_of(table, metrics=["spend"], segment="segment") if e.segment != "all"]
    ordered = sorted(parts, key=lambda e: e.p)
    assert [e.segment for e in parts] == ["a", "b", "c"]
    assert ordered[0].p_corrected == pytest.approx(min(1, 3 * ordered[0].p))
    assert ordered[-1].p_corrected >= ordered[-2].p_corrected >= ordered[0].p_corrected


def test_two_shoppers_an_arm_who_are_alike_are_no_proof() -> None:
    """All of one arm bought and none of the other: by permutation that is chance in one case of three."""
    few = pl.DataFrame(
        {"holdout": [False, False, True, True], "bought": [1.0, 1.0, 0.0, 0.0], "spend_before": 0.0}
    )
    (plain, adjusted) = effects_of(few, metrics=["bought"])
    assert plain.difference == adjusted.difference == 1
    assert plain.low < 0 < plain.high
    assert plain.p > 0.2
    many = pl.concat([few] * 100)
    assert effects_of(many, metrics=["bought"])[0].p < 1e-50
    assert effects_of(many, metrics=["bought"])[0].low > 0.9
    same = few.with_columns(bought=pl.lit(1.0))
    (none, _) = effects_of(same, metrics=["bought"])
    assert (none.difference, none.low, none.high, none.p) == (0, None, None, 1)


def test_two_arms_are_compared_with_the_holdout_and_with_each_other() -> None:
    rng = np.random.default_rng(4)
    n = 3000
    before, arm = rng.gamma(2, 10, n), rng.choice(["holdout", "bolder", "today"], n)
    spend = before + rng.normal(0, 2, n) + 2.0 * (arm == "bolder")
    table = pl.DataFrame({"arm": arm, "spend": spend, "spend_before": before})
    found = {(e.arm, e.versus): e for e in effects_between(table, metrics=["spend"])}
    truth = {("bolder", "holdout"): 2, ("today", "holdout"): 0, ("today", "bolder"): -2}
    assert found.keys() == truth.keys()
    for pair, e in found.items():
        assert e.low is not None
        assert e.high is not None
        assert e.low < truth[pair] < e.high
        assert e.high - e.low < 0.5  # plain, a spread of 14 leaves 2.5
        two = table.filter(pl.col("arm").is_in(pair)).with_columns(holdout=pl.col("arm") == pair[1])
        assert effects_of(two, metrics=["spend"])[1].difference == pytest.approx(e.difference)
    least, middle, most = sorted(found.values(), key=lambda e: e.p)
    assert least.p_corrected == 3 * least.p
    assert most.p_corrected == max(most.p, middle.p_corrected)
    assert not effects_between(table.filter(pl.col("arm") != "bolder"), metrics=["spend"])
