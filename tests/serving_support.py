"""What the tests of the service share: a small model, stores on both databases, and a row of the log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from retailrec.candidates import ItemItem, OwnPurchases, Popularity
from retailrec.data.splits import HorizonSplits
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.two_stage import TwoStageRecommender

if TYPE_CHECKING:
    from retailrec.serving.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from postgres_server import NotInstalled, Postgres, free_port

__all__ = ["Postgres", "exposure", "free_port", "opened", "postgres", "small_model"]


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


def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on the database that a fixture's parameter names; `server` is that of PostgreSQL."""
    from retailrec.serving.store import Store  # tests without the extra take other things from here

    if request.param == "sqlite":
        found = Store(str(tmp_path / "store.db")).init()
        yield found
        found.close()
        return
    with request.getfixturevalue("server").database() as url:
        found = Store(url).init()
        yield found
        found.close()


def exposure(user: str = "u1", item: str | None = "tea", **more: Any) -> dict[str, Any]:
    """A row of the log of what was shown."""
    return {
        "campaign": "home",
        "user_id": user,
        "item_id": item,
        "time": 1,
        "model": "m",
        "rank": 0 if item is None else 1,
        "score": 0.5,
        "price": None,
        "arm": "",
        "propensity": 1.0,
        "holdout": False,
        "shadow": False,
        "request": "r",
        **more,
    }
