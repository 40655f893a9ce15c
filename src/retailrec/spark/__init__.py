"""The same functions on Spark: shoppers' work mapped over shards by `mapInArrow`, results as Parquet.

Nothing is computed here by other means than on one machine: workers call the local engine on whole
shoppers. Needs ``pip install 'retailrec[spark]'`` and Java 17 or newer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retailrec.spark.fitting import fit as fit
    from retailrec.spark.recommending import recommend as recommend
    from retailrec.spark.session import connect as connect

_WHERE = {"connect": "session", "fit": "fitting", "recommend": "recommending"}
__all__ = ["connect", "fit", "recommend"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
