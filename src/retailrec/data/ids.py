"""Ids: callers' looked up in a table, tables of items and users with a row an id, keys of a coding."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LoadReport
from retailrec.data.encoding import CodedLines, describe, places
from retailrec.data.files import whole_numbers
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, ids_meet, nested, typed_ids, without_missing
from retailrec.errors import DataError
from retailrec.schema import DISCOVERABLE, ITEM_ID, KNOWN_FROM, RECOMMENDABLE, USER_ID


def attributes(
    frame: Any,
    id_column: str,
    coded: CodedLines,
    described_by: Sequence[str],
    report: LoadReport,
    changed_ids: ChangedIds | None = None,
) -> pl.DataFrame | None:
    """A catalogue or shopper table with one row an id, from a frame or from columns of the lines.

    Rows of ids that changed are folded into those of the new ids. Text has no blanks around it, and
    words such as ``NULL`` are missing, so that a category is not two, and none is no category.

    Raises
    ------
    DataError
        If the frame lacks the id column, or its ids are of another kind than those of the lines.
    """
    who, known_from = ("items", KNOWN_FROM) if id_column == ITEM_ID else ("users", "")
    if described_by:
        facts = _words_trimmed(coded.described[id_column], described_by)
        frame = describe(facts, id_column, described_by)
        frame = frame.rename({"time": KNOWN_FROM}) if id_column == ITEM_ID else frame.drop("time")
        known_from = ""
    if frame is None:
        return None
    frame = to_polars(frame, who=who)
    require_id(frame, id_column, who=who)
    frame = frame.with_columns(typed_ids(frame[id_column]))
    if deep := [c for c, kind in frame.schema.items() if nested(kind) or kind == pl.Duration]:
        report.notes.append(
            f"{who}: columns {deep} hold lists or spans of time and are left out; give one word or "
            f"number a row and column"
        )
    taken = [
        c
        for c in frame.columns
        if c in (RECOMMENDABLE, DISCOVERABLE, known_from) and id_column == ITEM_ID
    ]
    frame = frame.drop(deep).rename({c: f"{c}_" for c in taken})
    frame = _words_trimmed(frame, [c for c in frame.columns if c != id_column])
    if changed_ids is not None and not described_by:
        frame = changed_ids.folded(frame, id_column)
    if not described_by:
        sides = [(frame[id_column], f"the {who} table"), (coded.ids[id_column], "the receipts")]
        sides.sort(key=lambda side: side[0].n_unique())  # the table may describe some, or more, of them
        (few, one), (many, other) = sides
        if note := ids_meet(few, many, who=one, whose=other, refuse=False):
            report.notes.append(f"{id_column}: {note}")
    if coded.ids[id_column].dtype == pl.Int64 and frame[id_column].dtype == pl.String:
        frame = frame.with_columns(whole_numbers(frame[id_column]))  # else 7 and 7.0 would be two rows
    if n := frame[id_column].null_count():
        report.notes.append(f"{who}: {n:,} rows have no id and are left out")
        frame = frame.drop_nulls(id_column)
    return first_of_each(frame, id_column, report)


def first_of_each(frame: pl.DataFrame, id_column: str, report: LoadReport) -> pl.DataFrame:
    """The first row of each id; the report says how many others there were."""
    first = frame.unique(id_column, keep="first", maintain_order=True)
    if again := frame.height - first.height:
        twice = frame.unique().filter(pl.col(id_column).is_duplicated())[id_column].unique()
        differ = (
            f", of which {len(twice):,} ids are described in other ways there" if len(twice) else ""
        )
        again_ids = frame[id_column].filter(frame[id_column].is_duplicated())
        some = twice.sort()[0] if len(twice) else again_ids[0]
        who = "items" if id_column == ITEM_ID else "users"
        report.notes.append(
            f"{who}: {again:,} rows repeat the id of an earlier one{differ}, such as "
            f"{some!r}; the first row of an id counts"
        )
    return first


def _words_trimmed(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    texts = [c for c in columns if frame[c].dtype in (pl.String, pl.Categorical, pl.Enum)]
    return frame.with_columns(without_missing(frame[c].cast(pl.String)) for c in texts)


def require_id(frame: pl.DataFrame, column: str, *, who: str) -> None:
    """Raise a DataError if a table lacks its column of ids."""
    if column not in frame.columns:
        raise DataError(
            f"{who} lack column '{column}'; they have {frame.columns}. Rename the id column."
        )


def vocabulary(table: pl.DataFrame | None, seen: pl.Series, id_column: str) -> pl.DataFrame:
    """All ids, of the table and of the lines, in ascending order, with the table's attributes.

    Items are `recommendable`, all of them.
    """
    found = pl.DataFrame({id_column: seen})
    if table is not None:
        who = "the items" if id_column == ITEM_ID else "the users"
        table = table.with_columns(ids_like(table[id_column], seen, who=who))
        ids = pl.concat([table[id_column], seen]).unique().sort()
        found = ids.to_frame().join(table, on=id_column, how="left", maintain_order="left")
    recommendable = [pl.lit(True).alias(RECOMMENDABLE)] if id_column == ITEM_ID else []
    return found.with_columns(recommendable)


def users_of(
    table: pl.DataFrame | None, ids: pl.Series, log: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The users of a table and those who have lines in a log, and the log in codes of these.

    `ids` are those of the log's codes; a user of whose lines none was left is no user.
    """
    users = vocabulary(table, _with_lines(ids, log), USER_ID)
    if not users[USER_ID].equals(ids):
        log = log.with_columns(places(ids, users[USER_ID]).gather(log["user"]).alias("user"))
    return users, log


def described_users(table: pl.DataFrame, ids: pl.Series, log: pl.DataFrame) -> pl.DataFrame:
    """Of a table of users that was made of lines the rows of those who have lines in the log."""
    return table.filter(table[USER_ID].is_in(_with_lines(ids, log).implode()))


def _with_lines(ids: pl.Series, log: pl.DataFrame) -> pl.Series:
    there = np.zeros(len(ids), np.bool_)
    there[log["user"].to_numpy()] = True
    return ids.filter(pl.Series(there))


def id_series(ids: Any, *, who: str) -> pl.Series:
    """A caller's ids (a list, an array, a Series) as a series of whole numbers or text.

    Raises
    ------
    DataError
        If they are neither.
    """
    if isinstance(ids, Mapping) or hasattr(type(ids), "columns"):  # iterated, it gives their names
        raise DataError(f"{who} must be a list of ids, not a table. Give its column of ids.")
    if isinstance(ids, str | bytes) or not hasattr(ids, "__iter__"):
        raise DataError(f"{who} must be a list of ids, not {ids!r}. Put it into a list.")
    try:
        return typed_ids(ids if isinstance(ids, pl.Series) else pl.Series(list(ids)))
    except (TypeError, pl.exceptions.PolarsError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{who} must be a list of ids, all numbers or all text: {why}.") from error


def runs_of_ids(ids: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
    """Distinct ids of a column in which equal ones follow each other, and where their rows begin (CSR).

    Examples
    --------
    >>> runs_of_ids(pl.Series(["a", "a", "b"]))[1].tolist()
    [0, 2, 3]
    """
    runs = ids.rle().struct
    starts = np.concatenate([[0], np.cumsum(runs.field("len").to_numpy().astype(np.int64))])
    return runs.field("value").alias(ids.name), starts


def row_of_ids(ids: pl.Series, table: pl.Series) -> NDArray[np.int64]:
    """Place of each id in `table`, which holds every id once; -1 where it is not there.

    Examples
    --------
    >>> row_of_ids(pl.Series(["7", "007", "x"]), pl.Series([7, 8])).tolist()
    [0, -1, -1]
    """
    rows = pl.DataFrame({"id": table}).with_row_index("row")
    placed = _as_in(ids, table).to_frame().join(rows, on="id", how="left", maintain_order="left")["row"]
    return placed.cast(pl.Int64).fill_null(-1).to_numpy()


def rows_of_ids(ids: pl.Series, table: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place in `ids` and place in `table` wherever both hold the same id, as often as either does.

    Examples
    --------
    >>> [found.tolist() for found in rows_of_ids(pl.Series([7, 9, 8]), pl.Series(["8", "7", "7"]))]
    [[0, 0, 2], [1, 2, 0]]
    """
    rows = pl.DataFrame({"id": table}).with_row_index("row")
    asked = _as_in(ids, table).to_frame().with_row_index("place")
    both = asked.join(rows, on="id", how="inner").sort("place", "row")
    place, row = both.select(pl.col("place", "row").cast(pl.Int64))
    return place.to_numpy(), row.to_numpy()


def _as_in(ids: pl.Series, table: pl.Series) -> pl.Series:
    """The ids in the type of `table`, as `id`; null where they are no such ids."""
    if ids.dtype != table.dtype:
        alike = ids.cast(table.dtype, strict=False)
        ids = alike.set((alike.cast(ids.dtype, strict=False) != ids).fill_null(False), None)  # 007 no 7
    return ids.alias("id")


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
    """Digest (hex) of item ids in the order of their codes, and of their type.

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
