"""Two-stage hybrid recommender for retail purchases.

The main names, each loaded when it is first used:

>>> import retailrec
>>> dir(retailrec)[:4]
['RetailData', 'Rules', 'Settings', 'TwoStageRecommender']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "RetailData": "retailrec.data",
    "Rules": "retailrec.recommender.rules",
    "Settings": "retailrec.jobs.settings",
    "TwoStageRecommender": "retailrec.recommender.two_stage",
    "backtest": "retailrec.evaluation.backtest",
    "check_leaks": "retailrec.evaluation.inspection",
    "compare_models": "retailrec.evaluation.bootstrap",
    "evaluate": "retailrec.evaluation.judge",
    "feature": "retailrec.features",
    "load_dataset": "retailrec.datasets",
    "metric": "retailrec.metrics",
    "small_data": "retailrec.simulator.shop",
}
__all__ = [
    "RetailData",
    "Rules",
    "Settings",
    "TwoStageRecommender",
    "__version__",
    "backtest",
    "check_leaks",
    "compare_models",
    "errors",
    "evaluate",
    "feature",
    "load_dataset",
    "metric",
    "small_data",
]

if TYPE_CHECKING:
    from retailrec import errors
    from retailrec.data import RetailData
    from retailrec.datasets import load_dataset
    from retailrec.evaluation.backtest import backtest
    from retailrec.evaluation.bootstrap import compare_models
    from retailrec.evaluation.inspection import check_leaks
    from retailrec.evaluation.judge import evaluate
    from retailrec.features import feature
    from retailrec.jobs.settings import Settings
    from retailrec.metrics import metric
    from retailrec.recommender.rules import Rules
    from retailrec.recommender.two_stage import TwoStageRecommender
    from retailrec.simulator.shop import small_data

    __version__: str


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "errors":
        return import_module("retailrec.errors")
    if name == "__version__":  # stands in pyproject.toml alone
        from importlib.metadata import version

        return version("retailrec")
    raise AttributeError(f"module 'retailrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
