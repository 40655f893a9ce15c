"""The sources of candidates, by the name that a config gives them."""

from __future__ import annotations

from retailrec.candidates.als import ALS
from retailrec.candidates.base import CandidateGenerator
from retailrec.candidates.content import Content
from retailrec.candidates.item_item import EASE, ItemItem
from retailrec.candidates.neighbours import UPCF, TifuKNN
from retailrec.candidates.own_purchases import OwnPurchases
from retailrec.candidates.pool import ReciprocalRankFusion
from retailrec.candidates.popularity import PopularInCategories, PopularInSegment, Popularity
from retailrec.components import registered
from retailrec.data.history import Candidates, Pairs

# those of the package; `registered(CandidateGenerator)` knows those of one's own as well
GENERATORS: dict[str, type[CandidateGenerator]] = registered(CandidateGenerator)

__all__ = [
    "ALS",
    "EASE",
    "GENERATORS",
    "UPCF",
    "CandidateGenerator",
    "Candidates",
    "Content",
    "ItemItem",
    "OwnPurchases",
    "Pairs",
    "PopularInCategories",
    "PopularInSegment",
    "Popularity",
    "ReciprocalRankFusion",
    "TifuKNN",
]
