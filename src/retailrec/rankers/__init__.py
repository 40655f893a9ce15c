"""The rankers, by the name that a config gives them."""

from __future__ import annotations

from typing import Any

from retailrec.rankers.base import Ranker, TrainingFrame
from retailrec.rankers.blend import BlendRanker
from retailrec.rankers.catboost import CatBoostRanker
from retailrec.rankers.lightgbm import LightGBMRanker

RANKERS: dict[str, type[Any]] = {
    "catboost": CatBoostRanker,
    "lightgbm": LightGBMRanker,
    "blend": BlendRanker,
}

__all__ = ["RANKERS", "BlendRanker", "CatBoostRanker", "LightGBMRanker", "Ranker", "TrainingFrame"]
