"""What a profile sets, and what it leaves to whoever says otherwise."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from retailrec.data.splits import HorizonSplits
from retailrec.errors import SettingError
from retailrec.jobs.run import run
from retailrec.jobs.settings import PROFILES, Settings, read_settings
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
    assert own.n_candidates == Settings().n_candidates  # not the four of `large`
    with pytest.raises(SettingError, match="profile"):
        read_settings(None, profile="huge")


# profile -> sources with their candidates, ranker, label windows, refit, does a light model cut the pool?
EXPECTED = {
    "small": (
        [
            "own_due",
            "popular",
            "popular_last_year",
            "item_tfidf",
            "basket_tfidf",
            "basket_tfidf_last_receipt",
            "next_last_receipt",
            "als",
            "tifu_knn",
            "up_cf",
        ],
        150,
        "lightgbm_lambdarank",
        5,
        "each",
        True,
    ),
    "laptop": (
        ["own_due", "popular", "item_tfidf", "basket_tfidf_last_receipt", "als"],
        [80, 20, 60, 20, 40],
        "lightgbm_lambdarank",
        2,
        "once",
        False,
    ),
    "large": (
        ["own_due", "popular", "item_tfidf", "als"],
        [60, 20, 40, 0],
        "catboost",
        1,
        "once",
        False,
    ),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_what_the_docs_say(name: str) -> None:
    """As in the table of docs/how-it-works.md; everything else is as without a profile."""
    model = Settings(profile=name, seed=3, threads=1).for_size(1).model()
    splits = model.label_splits
    assert isinstance(splits, HorizonSplits)
    assert (
        [source.name for source in model.sources],
        model.n_candidates,
        model.ranker.name,
        splits.n,
        model.refit,
        model.preranker is not None,
    ) == EXPECTED[name]
    assert (model.seed, model.threads, model.pool_size) == (3, 1, 200)
    assert model.negatives == (0.1 if name == "large" else 0.2)


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
