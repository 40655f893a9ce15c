"""The sources of candidates, by the name that a config gives them."""

from __future__ import annotations

from retailrec.candidates.als import ALS
from retailrec.candidates.base import CandidateGenerator, Candidates, Pairs
from retailrec.candidates.item_item import ItemItem
from retailrec.candidates.own_purchases import OwnPurchases
from retailrec.candidates.popularity import Popularity

GENERATORS: dict[str, type[CandidateGenerator]] = {
    "own_purchases": OwnPurchases,
    "popularity": Popularity,
    "item_item": ItemItem,
    "als": ALS,
}

__all__ = [
    "ALS",
    "GENERATORS",
    "CandidateGenerator",
    "Candidates",
    "ItemItem",
    "OwnPurchases",
    "Pairs",
    "Popularity",
]
