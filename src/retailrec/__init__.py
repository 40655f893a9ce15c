"""Two-stage hybrid recommender for retail purchases.

The main names, each loaded when it is first used:

>>> import retailrec
>>> sorted(retailrec.__all__)[:3]
['RetailData', 'TwoStageRecommender', 'evaluate']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "RetailData": "retailrec.data",
    "TwoStageRecommender": "retailrec.recommender.two_stage",
    "evaluate": "retailrec.evaluation",
    "load_dataset": "retailrec.datasets",
}
__all__ = ["RetailData", "TwoStageRecommender", "evaluate", "load_dataset"]

if TYPE_CHECKING:
    from retailrec.data import RetailData
    from retailrec.datasets import load_dataset
    from retailrec.evaluation import evaluate
    from retailrec.recommender.two_stage import TwoStageRecommender


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'retailrec' has no attribute {name!r}")
