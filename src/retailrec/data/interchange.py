"""A Polars frame from a frame of any library."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.shards import require_threads
from retailrec.errors import DataError

_UNREADABLE = (
    TypeError,
    ValueError,
    OverflowError,
    NotImplementedError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # of types that Polars has not: intervals, wide decimals, unions
)
_DEEP = (list, tuple, set, dict)


def to_polars(frame: Any, *, who: str) -> pl.DataFrame:
    """A Polars frame from a Polars, pandas, PyArrow or any other frame that Narwhals knows.

    Columns of mixed Python objects become text, as a CSV file would hold them, so that invoices such
    as 536365 and C536379 stand side by side; periods become the instant at which they begin. Levels of
    a pandas index that have names are columns.

    Raises
    ------
    DataError
        If `frame` is not a data frame, two of its columns share a name, or one can't be converted.

    Examples
    --------
    >>> to_polars(pl.DataFrame({"item_id": [1]}), who="items").columns
    ['item_id']
    """
    require_threads()
    if isinstance(frame, pl.LazyFrame):
        try:
            frame = frame.collect()
        except _UNREADABLE as error:
            raise DataError(
                f"{who}: the plan of the lazy frame can't be run: {_first_line(error)}."
            ) from error
    if isinstance(frame, pl.DataFrame):
        return _without_objects(frame)
    names = getattr(frame, "columns", None)
    if type(frame).__module__.startswith("pyarrow"):
        names = getattr(frame, "column_names", None)
    _refuse_doubles(names, who)
    if type(frame).__module__.split(".")[0] == "pandas":
        named = [name for name in getattr(frame.index, "names", ()) if isinstance(name, str)]
        if kept := [name for name in named if name not in frame.columns]:
            frame = frame.reset_index(level=kept)
        frame = _from_pandas(frame, who)
        if isinstance(frame, pl.DataFrame):
            return frame
    import narwhals as nw

    try:
        native = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise DataError(
            f"{who} must be a data frame (Polars, pandas, PyArrow, ...), "
            f"not {type(frame).__name__}. Read files with retailrec.data.files.read_table(path)."
        ) from error
    try:
        return _without_objects(native.to_polars())
    except _UNREADABLE as error:
        raise DataError(
            f"{who}: a column of the {type(frame).__name__} can't be read ({_first_line(error)}). "
            "Give numbers, text and timestamps."
        ) from error


def number_array(values: Any, *, who: str) -> NDArray[np.float64]:
    """(n,) numbers of a list, an array or a series; None is NaN.

    Raises
    ------
    DataError
        If it is no list of numbers.

    Examples
    --------
    >>> number_array([1, None], who="rewards").tolist()
    [1.0, nan]
    """
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{who} must be a list of numbers: {_first_line(error)}.") from error
    if numbers.ndim != 1:
        raise DataError(f"{who} must be a list of numbers, not of {numbers.ndim} dimensions.")
    return numbers


def _first_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__


def _refuse_doubles(names: Any, who: str) -> None:
    if isinstance(names, Iterable):
        listed = [str(n) for n in names]
        if doubled := sorted({n for n in listed if listed.count(n) > 1}):
            raise DataError(
                f"{who} have two columns called {doubled[0]!r}, so it can't be told which one is "
                "meant; rename one of them."
            )


def _from_pandas(frame: Any, who: str) -> Any:
    """Columns one by one: what is plain goes through Arrow, objects by what they hold."""
    if not hasattr(frame, "columns") or not hasattr(frame, "dtypes"):
        return frame
    columns = []
    for name in frame.columns:
        column = frame[name]
        kind = str(column.dtype)
        if kind.startswith("period"):
            column = column.dt.to_timestamp()
        objects = kind == "category" and str(column.cat.categories.dtype) == "object"
        if objects or kind.startswith(("interval", "Sparse")):
            column = column.astype(object)
        try:
            if str(column.dtype) == "object":
                columns.append(_of_objects(str(name), column.tolist()))
            else:
                columns.append(pl.Series(str(name), pl.from_pandas(column, nan_to_null=True)))
        except (ImportError, *_UNREADABLE) as error:
            raise DataError(
                f"{who}: column {str(name)!r} of type {kind} can't be read ({error}). Convert it to "
                f"numbers, text or timestamps."
            ) from error
    return pl.DataFrame(columns) if columns else pl.DataFrame()


def _without_objects(frame: pl.DataFrame) -> pl.DataFrame:
    if other := [c for c, kind in frame.schema.items() if isinstance(kind, pl.BaseExtension)]:
        frame = frame.with_columns(frame[c].ext.storage() for c in other)
    objects = [c for c, kind in frame.schema.items() if kind == pl.Object]
    return frame.with_columns(_of_objects(c, frame[c].to_list()) for c in objects) if objects else frame


def _of_objects(name: str, cells: list[Any]) -> pl.Series:
    """A column of Python objects: of one kind as that kind, else as text; NaN and NaT are missing."""
    known = [None if _is_missing(c) else c for c in cells]
    filled = [c for c in known if c is not None]
    kinds = {type(c) for c in filled}
    if any(isinstance(c, _DEEP) or (hasattr(c, "__array__") and getattr(c, "ndim", 0)) for c in filled):
        lists = [None if c is None else [str(c)] for c in known]
        return pl.Series(name, lists, pl.List(pl.String))
    if all(_is_whole(c) for c in filled) and filled:
        if all(-(2**63) <= int(c) < 2**63 for c in filled):
            return pl.Series(name, [None if c is None else int(c) for c in known], pl.Int64)
    elif (
        kinds
        and all(issubclass(k, Real) for k in kinds)
        and not any(isinstance(c, Integral) for c in filled)
    ):
        return pl.Series(name, [None if c is None else float(c) for c in known], pl.Float64)
    elif kinds and all(issubclass(k, (datetime, date)) for k in kinds):
        if len({getattr(c, "tzinfo", None) for c in filled}) == 1:
            moments = [_moment(c) for c in known]
            return pl.Series(name, moments, pl.Datetime("us"))
    elif kinds == {bool}:
        return pl.Series(name, known, pl.Boolean)
    return pl.Series(name, [None if c is None else _text(c) for c in known], pl.String)


def _is_whole(cell: Any) -> bool:
    """Is it a whole number, also as 7.00 of a database's decimals?"""
    if isinstance(cell, Decimal):  # 1E+999999 is one, and would be a million digits
        return cell.is_finite() and cell.adjusted() < 40 and cell == cell.to_integral_value()
    return isinstance(cell, Integral) and not isinstance(cell, bool)


def _moment(cell: Any) -> datetime | None:
    if cell is None:
        return None
    if isinstance(cell, datetime):
        return datetime(*cell.timetuple()[:6], cell.microsecond)
    return datetime(cell.year, cell.month, cell.day)


def _is_missing(cell: Any) -> bool:
    if cell is None or type(cell).__name__ in ("NaTType", "NAType"):
        return True
    if isinstance(cell, Decimal):
        return cell.is_nan()
    return isinstance(cell, Real) and not isinstance(cell, Integral) and math.isnan(float(cell))


def _text(cell: Any) -> str:
    """As a CSV file would hold it: 20.0, which a missing cell made of 20, is 20 again."""
    if isinstance(cell, bytes):
        return cell.decode("utf-8", errors="backslashreplace")
    if _is_whole(cell):
        return str(int(cell))
    if isinstance(cell, Real) and not isinstance(cell, bool) and float(cell).is_integer():
        return str(int(float(cell)))
    return str(cell)
