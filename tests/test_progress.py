"""Progress is data: a step, what is done, and of how much."""

from __future__ import annotations

from pathlib import Path

from retailrec.candidates import OwnPurchases, Popularity
from retailrec.cli.console import in_words
from retailrec.data.splits import HorizonSplits
from retailrec.rankers import CatBoostRanker
from retailrec.recommender.batch import recommend_to_file
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data


def test_fitting_and_recommending_announce_steps_and_counts(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(step: str, done: int = 0, total: int = 0, /) -> None:
        told.append((step, done, total))

    data = small_data(users=60)
    model = TwoStageRecommender(
        sources=[OwnPurchases(), Popularity()],
        ranker=CatBoostRanker(iterations=2),
        preranker=None,
        label_splits=HorizonSplits(14, n=2),
        threads=1,
    ).fit(data, tell)
    assert told == [
        ("label windows", 1, 0),
        ("label windows", 2, 0),
        ("ranker", 0, 0),
        ("sources", 1, 2),
        ("sources", 2, 2),
        ("features", 0, 0),
    ]
    told.clear()
    recommend_to_file(model, data, tmp_path / "out.parquet", 3, progress=tell)
    assert told[-1] == ("recommend", data.n_users, data.n_users)


def test_the_screen_says_how_far_it_is() -> None:
    assert in_words("recommend", 30, 1200) == "recommend 30 of 1,200"
    assert in_words("label windows", 2, 0) == "label windows 2"
    assert in_words("ranker", 0, 0) == "ranker"
