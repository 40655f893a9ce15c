"""What the tests of the service share: a small model, and a PostgreSQL server of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from retailrec.candidates import ItemItem, OwnPurchases, Popularity
from retailrec.data.splits import HorizonSplits
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.two_stage import TwoStageRecommender

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from postgres_server import NotInstalled, Postgres, free_port

__all__ = ["Postgres", "free_port", "postgres", "small_model"]


def small_model(**more: object) -> TwoStageRecommender:
    """Three sources, a few trees: everything an answer goes through, fitted in a second."""
    return TwoStageRecommender(
        sources=[OwnPurchases("due"), Popularity(), ItemItem("tfidf", neighbours=10)],
        ranker=LightGBMRanker(iterations=8, min_rows=5),
        label_splits=HorizonSplits(28, 1),
        n_candidates=20,
        preranker=None,
        refit="once",
        threads=1,
        **more,  # type: ignore[arg-type]
    )


def postgres() -> Postgres:
    """A PostgreSQL server of one's own; the test is skipped where there is none."""
    try:
        return Postgres()
    except NotInstalled as error:
        pytest.skip(str(error))
