"""What a profile sets, and what it leaves to whoever says otherwise."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from retailrec.data.splits import HorizonSplits
from retailrec.errors import SettingError
from retailrec.jobs.run import run, verdict
from retailrec.jobs.settings import PROFILES, Facts, Settings, choose_recipe, read_settings
from retailrec.simulator.shop import small_data


@pytest.mark.parametrize(
    ("n", "name"), [(1, "small"), (50_000, "small"), (50_001, "laptop"), (150_001, "large")]
)
def test_auto_goes_by_the_number_of_shoppers(n: int, name: str) -> None:
    assert Settings().for_size(n).profile == name
    assert Settings(profile="laptop").for_size(n).profile == "laptop"


def test_what_is_said_wins() -> None:
    sized = Settings(refit="each", ranker={"type": "lightgbm"}).for_size(10**6)
    assert sized.refit == "each"
    assert sized.ranker.type == "lightgbm"
    assert sized.negatives == PROFILES["large"]["negatives"]
    own = Settings(sources=[{"type": "popularity"}]).for_size(10**6)
    assert own.n_candidates is None  # not the four of `large`
    with pytest.raises(SettingError, match="profile"):
        read_settings(None, profile="huge")


# profile -> sources, candidates of each, ranker, label windows, refit; chosen by measurement, so what
# changes here has been measured again (make bench-profiles)
EXPECTED = {
    "small": (
        [
            "own_purchases",
            "own_decay",
            "tifu_knn",
            "popular",
            "item_tfidf",
            "als",
            "next_last_receipt",
        ],
        None,
        "lightgbm_lambdarank",
        3,
        "each",
    ),
    "laptop": (
        ["own_purchases", "own_decay", "tifu_knn", "popular", "item_tfidf", "als"],
        [80, 30, 20, 30, 20],
        "lightgbm_lambdarank",
        2,
        "each",
    ),
    "large": (
        ["own_purchases", "own_decay", "tifu_knn", "popular", "item_tfidf"],
        [60, 20, 20, 20],
        "lightgbm_lambdarank",
        1,
        "once",
    ),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_sets_what_it_says(name: str) -> None:
    """And everything else is as without a profile."""
    model = Settings(profile=name, seed=3, threads=1).for_size(1).model()
    splits = model.label_splits
    assert isinstance(splits, HorizonSplits)
    found = [source.name for source in model.sources], model.n_candidates, model.ranker.name
    assert (*found, splits.n, model.refit) == EXPECTED[name]
    assert (model.seed, model.threads, model.pool_size) == (3, 1, 200)
    assert model.negatives == (0.1 if name == "large" else 0.2)
    assert model.preranker is None


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_does_the_whole_job(name: str, tmp_path: Path) -> None:
    """Fitted twice, and the second fit takes windows over from the first."""
    windows = {} if name == "large" else {"label_windows": 2}
    settings = Settings(profile=name, horizon_days=14, k=3, threads=1, **windows)
    result = run(small_data(users=60), settings, tmp_path / "out", page=False)
    assert result["settings"]["profile"] == name
    assert pl.read_parquet(tmp_path / "out" / "recommendations.parquet").height == 60 * 3


def test_probabilities_get_the_second_window_that_they_need() -> None:
    assert Settings().for_size(10**6).label_windows == 1
    assert Settings(calibrate=True).for_size(10**6).label_windows == 2
    assert Settings(calibrate=True).for_size(1).label_windows == Settings().label_windows
    assert Settings(calibrate=True, label_windows=4).for_size(10**6).label_windows == 4


def test_the_recipe_says_why() -> None:
    year = Facts(2_500, datetime(2017, 1, 1), datetime(2017, 12, 4), 28)
    assert choose_recipe(year, Settings()).reason == (
        "small, since 2,500 shoppers leave time for every source; it learns from 2 windows of 28 days "
        "and one of 14, each after at least 60% of today's 337 days of receipts."
    )
    tomorrow = choose_recipe(year._replace(horizon_days=1), Settings()).reason
    assert "it learns from 3 windows of 1 day, each" in tomorrow
    months = Facts(200_000, datetime(2000, 11, 1), datetime(2001, 2, 1), 28)
    chosen = choose_recipe(months, Settings(label_windows=3))
    assert chosen.name == "large"
    assert chosen.reason.endswith(
        "it learns from 1 window of 28 days and one of 14, since older ones would come after less than "
        "60% of today's 92 days of receipts."
    )
    assert "as the settings say" in choose_recipe(months, Settings(profile="laptop")).reason


@pytest.mark.parametrize(
    ("ours", "low", "high", "p", "says"),
    [
        (0.33, 0.01, 0.05, 0.0004, "two_stage improves on own, the best simple method: "),
        (0.33, -0.01, 0.07, 0.2, "not shown to improve on own"),
        (0.33, 0.01, 0.05, 0.625, "not shown to improve on own"),  # nine users: p decides
        (0.33, None, None, 0.04, "not shown to improve on own"),  # too few for an interval
        (0.27, -0.05, -0.01, 0.0004, "two_stage is worse than own"),
        (0.3 - 1e-16, -1e-9, 0.01, 1.0, "(+0.0%); by 0.0000 [0.0000, 0.0100] over"),  # the same mean
    ],
)
def test_the_verdict_goes_by_the_best_simple_method_and_the_corrected_p(
    ours: float, low: float | None, high: float | None, p: float, says: str
) -> None:
    models = {"popular": {"m@5": 0.1}, "own": {"m@5": 0.3}, "tifu": {"m@5": 0.2}}
    models["two_stage"] = {"m@5": ours}
    rows = [
        {"model": "two_stage", "versus": n, "metric": "m@5", "low": 9.0, "high": 9.0, "p": 0.0}
        | {"p_corrected": 0.0}
        for n in models
    ]
    rows[1] |= {"low": low, "high": high, "p_corrected": p, "p": p / 10}
    found = verdict(models, rows, 9)
    assert says in found
    assert f"{ours:.4f} against 0.3000 ({ours / 0.3 - 1:+z.1%})" in found
    assert " over 9 users, p " in found
    assert ("could be chance" in found) == ("not shown" in found) == (p >= 0.05 or low is None)
    if low is not None:
        assert f"[{low:z.4f}, {high:.4f}]" in found
    undefined = {"own": {"m@5": None}, "two_stage": {"m@5": None}}
    assert "not defined" in verdict(undefined, [], 9)


def test_a_run_says_what_its_filters_hide(tmp_path: Path) -> None:
    """Of nothing but the best-selling item nothing else can be discovered; what was owned stays."""
    data = small_data(users=60)
    best = [{"type": "most_sold", "n": 1}]
    quick = {"ranker": {"type": "lightgbm", "iterations": 5}, "horizon_days": 14}
    result = run(data, Settings(prefilters=best, **quick), tmp_path / "a", page=False)
    window = result["label_windows"][0]
    assert window["repeats"] > 0 == window["repeats_hidden"]
    assert 0 < window["firsts_hidden"] <= window["firsts"]
    assert result["hidden"].startswith("prefilters hide 0.0% of the repeat")
    assert "no list can hold these" in result["hidden"]
    assert run(data, Settings(**quick), tmp_path / "b", page=False)["hidden"] is None
