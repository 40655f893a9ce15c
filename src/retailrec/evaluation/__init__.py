"""Judge recommendations by what was bought afterwards; each name is loaded when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "DEFAULT_METRICS",
    "Judge",
    "Judged",
    "category_codes",
    "evaluate",
    "judge_frames",
    "means",
    "unit_prices",
]

if TYPE_CHECKING:
    from retailrec.data import category_codes, unit_prices
    from retailrec.evaluation.judge import DEFAULT_METRICS, Judge, Judged, evaluate, judge_frames, means


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("retailrec.evaluation.judge"), name)
    raise AttributeError(f"module 'retailrec.evaluation' has no attribute {name!r}")
