"""Settings taken over from dataclasses: their defaults and bounds are written once, there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, create_model

from retailrec.components import Range


def plain_settings(name: str, owners: Mapping[type, Mapping[str, str]]) -> type[BaseModel]:
    """A class of settings with the defaults and bounds of dataclass fields.

    Parameters
    ----------
    owners : dataclass -> name of a setting -> the field that it sets

    Examples
    --------
    >>> from retailrec.data.splits import HorizonSplits
    >>> plain_settings("Labels", {HorizonSplits: {"label_windows": "n"}})().label_windows
    3
    """
    taken: dict[str, Any] = {}
    for owner, names in owners.items():
        hints = get_type_hints(owner, include_extras=True)
        known = {f.name: f for f in fields(owner)}
        for ours, theirs in names.items():
            field = known[theirs]
            default = field.default if field.default is not MISSING else ...
            if isinstance(default, tuple):
                default = list(default)
            taken[ours] = (_checked(hints[theirs]), default)
    return create_model(name, **taken)


def _checked(hint: Any) -> Any:
    """The annotation with its `Range` in pydantic's terms, and lists for sequences."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return Union[tuple(_checked(part) for part in arguments)]  # noqa: UP007
    if origin is Sequence:
        return list[_checked(arguments[0])]  # type: ignore[misc]
    if origin is not Annotated:
        return hint
    kind, *notes = arguments
    bounds = next((note for note in notes if isinstance(note, Range)), None)
    return kind if bounds is None else Annotated[kind, _field(kind, bounds)]


def _field(kind: type, bounds: Range) -> Any:
    given: dict[str, Any] = {"allow_inf_nan": False} if kind is float else {}
    if bounds.least > -math.inf:
        given["gt" if bounds.above else "ge"] = bounds.least
    if bounds.most < math.inf:
        given["le"] = bounds.most
    return Field(**given)
