"""The rankers, by the name that a config gives them."""

from __future__ import annotations

from retailrec.components import registered
from retailrec.rankers.base import Ranker, TrainingFrame
from retailrec.rankers.blend import BlendRanker
from retailrec.rankers.catboost import CatBoostRanker
from retailrec.rankers.lightgbm import LightGBMRanker

# those of the package; `registered(Ranker)` knows those of one's own as well
RANKERS: dict[str, type[Ranker]] = registered(Ranker)

__all__ = ["RANKERS", "BlendRanker", "CatBoostRanker", "LightGBMRanker", "Ranker", "TrainingFrame"]
