"""Callers' ids: read, looked up in a table, and a key of a whole coding."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.parsing import typed_ids
from retailrec.errors import DataError


def id_series(ids: Any, *, who: str) -> pl.Series:
    """A caller's ids (a list, an array, a Series) as a series of whole numbers or text.

    Raises
    ------
    DataError
        If they are neither.
    """
    if isinstance(ids, str | bytes) or not hasattr(ids, "__iter__"):
        raise DataError(f"{who} must be a list of ids, not {ids!r}. Put it into a list.")
    try:
        return typed_ids(ids if isinstance(ids, pl.Series) else pl.Series(list(ids)))
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{who} must be a list of ids, all numbers or all text: {error}.") from error


def row_of_ids(ids: pl.Series, table: pl.Series) -> NDArray[np.int64]:
    """Place of each id in `table`, which holds every id once; -1 where it is not there."""
    if ids.dtype != table.dtype:
        ids = ids.cast(table.dtype, strict=False)
    rows = pl.DataFrame({"id": table}).with_row_index("row")
    placed = ids.alias("id").to_frame().join(rows, on="id", how="left", maintain_order="left")["row"]
    return placed.cast(pl.Int64).fill_null(-1).to_numpy()


def id_keys(ids: pl.Series) -> NDArray[np.uint64]:
    """(n,) a number of 64 bits for each id, made of the id alone: what draws hang on.

    A place in a table changes when others come in; the id stays.

    Examples
    --------
    >>> id_keys(pl.Series([7, 9]))[0] == id_keys(pl.Series([7]))[0]
    np.True_
    """
    if ids.dtype.is_integer():
        return ids.cast(pl.Int64).to_numpy().astype(np.uint64)
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids.cast(pl.String)]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def catalogue_key(item_ids: pl.Series) -> str:
    """Hex digits that stand for item ids in the order of their codes, and for their type.

    Examples
    --------
    >>> catalogue_key(pl.Series([1, 2])) == catalogue_key(pl.Series(["1", "2"]))
    False
    """
    if item_ids.dtype.is_integer():
        content = item_ids.cast(pl.Int64).to_numpy().tobytes()
    else:
        content = "\0".join(item_ids.cast(pl.String).to_list()).encode()
    return hashlib.sha256(f"{item_ids.dtype}:".encode() + content).hexdigest()[:32]
