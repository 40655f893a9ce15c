"""Older artifact formats: their descriptions brought to today's.

Format 1 (0.1): fitted parts stood in the place of the settings, and `k` was the number of candidates.
Format 2 (0.2): settings stay as they were given; what was fitted is state and its name ends in ``_``.
"""

from __future__ import annotations

from typing import Any

from retailrec.components import parts_within
from retailrec.data import catalogue_key
from retailrec.schema import ITEM_ID

_FITTED = ("sources", "ranker", "features")  # settings of format 1 that held what was fitted


def upgraded(described: Any, version: int) -> Any:
    """The description of a model as the newest format would have it."""
    return _from_1(described) if version == 1 and isinstance(described, dict) else described


def _from_1(described: dict[str, Any]) -> dict[str, Any]:
    settings, state = dict(described["settings"]), dict(described.get("state", {}))
    if described["type"] == "TwoStageRecommender":
        for name in _FITTED:
            state[f"{name}_"] = _each(settings[name], _part_from_1)
            settings[name] = _each(settings[name], _without_state)
        settings["n_candidates"] = settings.pop("k")
        return {"type": described["type"], "settings": settings, "state": state}
    return _part_from_1(described)


def _part_from_1(described: Any) -> Any:
    """A source or ranker whose own parts were fitted in place."""
    if not isinstance(described, dict) or described.get("type") != "ReciprocalRankFusion":
        return described
    settings, state = dict(described["settings"]), dict(described["state"])
    state["sources_"] = settings["sources"]
    settings["sources"] = _each(settings["sources"], _without_state)
    return described | {"settings": settings, "state": state}


def _without_state(described: Any) -> Any:
    if not isinstance(described, dict) or "type" not in described:
        return described
    settings = {name: _each(value, _without_state) for name, value in described["settings"].items()}
    return {"type": described["type"], "settings": settings}


def _each(value: Any, change: Any) -> Any:
    return [change(v) for v in value] if isinstance(value, list) else change(value)


def fill_in_format_1(model: Any) -> None:
    """What format 1 did not write down: the item coding, and when receipts began."""
    if not hasattr(model.features_, "catalogue_key_"):
        key = catalogue_key(model.items_[ITEM_ID])
        for part in (model.features_, *model.sources_):
            for within in parts_within(part):
                within.catalogue_key_ = key
    if not hasattr(model, "start_"):
        model.start_ = model.end_
