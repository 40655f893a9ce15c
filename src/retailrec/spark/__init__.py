"""The same functions on Spark: users' work mapped over parts by `mapInArrow`, results as Parquet.

Nothing is computed here by other means than on one machine: workers call the local engine on whole
users. Needs ``pip install 'retailrec[spark]'`` and Java 17 or newer.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if os.environ.get("SPARK_PYTHON_RUNTIME") == "PYTHON_WORKER" and "polars" not in sys.modules:
    # Polars reads it once, at import; Spark sets the other to the cores of a task
    os.environ.setdefault("POLARS_MAX_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))

if TYPE_CHECKING:
    from retailrec.spark.engine import fit as fit
    from retailrec.spark.recommending import recommend as recommend
    from retailrec.spark.session import connect as connect

_WHERE = {"connect": "session", "fit": "engine", "recommend": "recommending"}
__all__ = ["connect", "fit", "recommend"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
