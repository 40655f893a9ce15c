"""Do the parts of a loaded model fit each other? Kernels take item codes and widths on trust."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn

import numpy as np
import polars as pl
from scipy import sparse

from retailrec.candidates import CandidateGenerator
from retailrec.components import parts_within
from retailrec.data import catalogue_key
from retailrec.errors import ArtifactError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import Ranker
from retailrec.recommender.stage_one import StageOne
from retailrec.schema import ITEM_ID, RECOMMENDABLE

_ITEMS, _ANY, _NONE_OR_ITEMS = "items", "any", "none or items"
# what the package's sources learn: length of each axis, and NumPy's kind
_LEARNT = {
    "allowed_": ((_ITEMS,), "b"),
    "owners_only_": ((_ITEMS,), "b"),
    "gap_": ((_NONE_OR_ITEMS,), "f"),
    "popular_": ((_NONE_OR_ITEMS,), "f"),
    "share_": ((_ITEMS,), "f"),
    "shares_": ((_ANY, _ITEMS), "f"),
    "category_": ((_ITEMS,), "i"),
    "factors_": ((_ITEMS, _ANY), "f"),
    "vectors_": ((_ITEMS, _ANY), "f"),
    "similarity_": ((_ITEMS, _ITEMS), "f"),
    "reference_": ((_ANY, _ITEMS), "f"),
    "sets_": ((_ANY, _ITEMS), "f"),
}


def check_fitted(model: Any) -> None:
    """Hold the parts of a loaded recommender against its catalogue and against each other.

    Raises
    ------
    ArtifactError
        If an array has not one row or column an item, holds another kind of number or a code without
        an item, or the ranker learnt from other columns than the features make.
    """
    _check_catalogue(model)
    n = model.items_.height
    if len(model.sources_) != len(model.sources):
        _refuse(f"it has {len(model.sources_)} fitted sources of {len(model.sources)}")
    for source in (*model.sources_, *model.discover_sources_):
        if not isinstance(source, CandidateGenerator):
            _refuse(f"a {type(source).__name__} stands among its sources")
        for part in parts_within(source):
            if type(part).__module__.startswith("retailrec."):
                _check_source(part, n)
    _check_features(model.features_, n)
    for name, columns in _rankers(model).items():
        ranker = getattr(model, name)
        if not isinstance(ranker, Ranker):
            _refuse(f"{name} is a {type(ranker).__name__}")
        if ranker.n_columns not in (None, columns):
            _refuse(f"{name} learnt from {ranker.n_columns} columns and would get {columns}")
    if model.calibrator_ is not None:
        steps = model.calibrator_.steps_
        if steps.ndim != 2 or len(steps) != 2 or not steps.size or not np.isfinite(steps).all():
            _refuse("its probabilities have no steps")


def check_codings(model: Any) -> None:
    """Are sources and features coded by the catalogue that the model holds?

    Raises
    ------
    ArtifactError
        If one is not.
    """
    key = catalogue_key(model.items_[ITEM_ID])
    for part in (model.features_, *model.sources_, *model.discover_sources_):
        if part.catalogue_key_ != key:
            _refuse(f"its {type(part).__name__} is coded by another catalogue")


def _check_catalogue(model: Any) -> None:
    items, prices = model.items_, model.prices_
    if not isinstance(items, pl.DataFrame) or not {ITEM_ID, RECOMMENDABLE} <= set(items.columns):
        _refuse("it has no catalogue")
    ids = items[ITEM_ID]
    if ids.dtype not in (pl.Int64, pl.String) or ids.null_count() or not ids.is_unique().all():
        _refuse("its catalogue does not hold every id once")
    if items[RECOMMENDABLE].dtype != pl.Boolean or items[RECOMMENDABLE].null_count():
        _refuse("its catalogue does not say what may be recommended")
    if not _has_shape(prices, (items.height,)) or prices.dtype.kind != "f":
        _refuse("it has not one price an item")
    if not isinstance(getattr(model, "has_quantity_", False), bool):
        _refuse("it does not say whether its receipts had quantities")
    if not isinstance(model.end_, datetime):
        _refuse("it does not say when it was fitted")


def _check_source(source: Any, n_items: int) -> None:
    for name, (axes, kind) in _LEARNT.items():
        value = getattr(source, name, None)
        if value is None:
            continue
        who = f"{type(source).__name__}.{name}"
        numbers: Any = value.data if isinstance(value, sparse.csr_matrix) else value
        known = isinstance(numbers, np.ndarray) and numbers.dtype.kind == kind
        if not known or (kind != "b" and numbers.dtype.itemsize not in (4, 8)):
            _refuse(f"{who} holds other things than numbers of kind {kind!r}")
        allowed = {_ITEMS: (n_items,), _NONE_OR_ITEMS: (0, n_items)}
        fits = len(value.shape) == len(axes) and all(
            axis == _ANY or length in allowed[axis]
            for length, axis in zip(value.shape, axes, strict=True)
        )
        if not fits:
            _refuse(f"{who} has shape {value.shape} beside {n_items:,} items")
        if kind == "i" and len(value) and not -1 <= value.min() <= value.max() < n_items:
            _refuse(f"{who} holds codes from {value.min()} to {value.max()}")
    if hasattr(source, "factors_") and source.factors_.shape[1] != source.factors:
        _refuse(f"{type(source).__name__} has {source.factors_.shape[1]} factors of {source.factors}")
    segments = getattr(source, "segments_", None)
    if segments is not None:
        rows = segments["row"].to_list()
        if rows != list(range(1, len(source.shares_))):
            _refuse(f"{type(source).__name__}.segments_ names rows that are not there")


def _check_features(features: Any, n_items: int) -> None:
    if not isinstance(features, FeatureSet):
        _refuse(f"features_ is a {type(features).__name__}")
    categories, table = features.categories_, features.items_
    width = (n_items, len(features.item_names))
    if not _has_shape(table, width) or table.dtype != np.float32:
        _refuse(f"its item features have shape {np.shape(table)} and not {width}")
    if not _has_shape(categories, (n_items, len(features.levels_))) or categories.dtype.kind != "i":
        _refuse(f"its categories have shape {np.shape(categories)} beside {n_items:,} items")
    if categories.size and not -1 <= categories.min() <= categories.max() <= n_items:
        _refuse(f"its categories are from {categories.min()} to {categories.max()}")


def _rankers(model: Any) -> dict[str, int]:
    """The rankers that the model has, and how many columns each gets."""
    stage = StageOne(model.sources_, model.features_, model.taken, model.preranker_, model.pool_size)
    found = {"ranker_": len(stage.column_names)}
    if model.discover_ranker_ is not None:
        found["discover_ranker_"] = len(model.stage_for("discover").column_names)
    return found if model.preranker_ is None else found | {"preranker_": len(stage.preranker_names)}


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, np.ndarray) and value.shape == shape


def _refuse(problem: str) -> NoReturn:
    raise ArtifactError(f"the model's parts do not fit each other: {problem}. Save the model again.")
