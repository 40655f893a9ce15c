"""The sources and the pre-ranker that a recommender has unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retailrec.candidates import ALS, CandidateGenerator, ItemItem, OwnPurchases, Popularity, TifuKNN
from retailrec.rankers import CatBoostRanker, LightGBMRanker, Ranker


def default_sources() -> list[CandidateGenerator]:
    """The sources chosen by measurement on earlier windows of many shops (docs/experiments.md)."""
    return [
        OwnPurchases(ties="popular", fill=True, proposes=False),
        OwnPurchases("decay", half_life="auto"),
        TifuKNN(neighbours=100, alpha=0.5),
        Popularity(),
        ItemItem("tfidf", half_life=180, neighbours=30),
        ALS(factors=32, iterations=5),
        ItemItem(within="next_receipt", profile="last_receipt", neighbours=100),
    ]


def candidate_numbers(
    sources: Sequence[CandidateGenerator], given: int | Sequence[int] | None = None
) -> list[int]:
    """Candidates taken of each source; what people buy they bought before, where nobody says.

    Parameters
    ----------
    given : one number, or one for each source that proposes; sources that do not may be left out

    Examples
    --------
    >>> sources = [OwnPurchases(proposes=False), OwnPurchases("decay"), Popularity()]
    >>> candidate_numbers(sources), candidate_numbers(sources, 20), candidate_numbers(sources, [30, 10])
    ([0, 150, 40], [0, 20, 20], [0, 30, 10])
    """
    proposes = [not isinstance(s, OwnPurchases) or s.proposes for s in sources]
    if given is None:
        given = [_n_candidates(s) for s, does in zip(sources, proposes, strict=True) if does]
    if isinstance(given, int | np.integer):
        return [int(given) * does for does in proposes]
    if len(given) != sum(proposes):
        return list(given)  # one for each source, if it fits
    left = iter(given)
    return [next(left) if does else 0 for does in proposes]


def _n_candidates(source: CandidateGenerator) -> int:
    if isinstance(source, OwnPurchases):
        return 150
    return 60 if isinstance(source, ItemItem) and source.within == "shopper" else 40


def default_preranker() -> Ranker:
    """The ranker that cuts the pool: quick, since it sees all of it."""
    return CatBoostRanker(iterations=70, depth=5, learning_rate=0.2)


def discovery_ranker(n_rows: int) -> Ranker:
    """The ranker of new items for so many training rows: few coarse trees with log loss.

    First purchases are rare and say little about one shopper, so what is learnt is learnt across
    shoppers, and a leaf holds half a percent of the rows, 20 to 1,000.

    Examples
    --------
    >>> discovery_ranker(40_000).min_rows
    200
    """
    least = min(max(n_rows // 200, 20), 1000)
    return LightGBMRanker("binary", iterations=80, leaves=15, learning_rate=0.12, min_rows=least)
