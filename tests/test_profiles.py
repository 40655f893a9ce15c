"""What a profile sets, and what it leaves to whoever says otherwise."""

from __future__ import annotations

import pytest

from retailrec.config import PROFILES, Settings, read_settings
from retailrec.datasets.simulate import small_data
from retailrec.errors import SettingError


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
    assert own.candidates_per_source == Settings().candidates_per_source  # not the four of `large`
    with pytest.raises(SettingError, match="profile"):
        read_settings(None, profile="huge")


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_fits_and_recommends(name: str) -> None:
    data = small_data(users=60)
    model = Settings(profile=name).for_size(data.n_users).model().fit(data)
    assert model.recommend(data.history(), 5).height == 60 * 5
