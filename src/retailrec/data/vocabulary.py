"""Tables of items and shoppers: one row an id, in the order of the codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from retailrec.data.cleaning import LoadReport
from retailrec.data.encoding import CodedLines, describe
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, ids_meet, look_alikes, nested, typed_ids
from retailrec.errors import DataError
from retailrec.schema import DISCOVERABLE, ITEM_ID, KNOWN_FROM, RECOMMENDABLE


def attributes(
    frame: Any, id_column: str, coded: CodedLines, described_by: Sequence[str], report: LoadReport
) -> pl.DataFrame | None:
    """A catalogue or shopper table with one row an id, from a frame or from columns of the lines.

    Raises
    ------
    DataError
        If the frame lacks the id column, or its ids are of another kind than those of the lines.
    """
    report.notes += look_alikes(coded.ids[id_column].alias(id_column))
    who, known_from = ("items", KNOWN_FROM) if id_column == ITEM_ID else ("users", "")
    if described_by:
        frame = describe(coded.described[id_column], id_column, described_by)
        frame = frame.rename({"time": KNOWN_FROM}) if id_column == ITEM_ID else frame.drop("time")
        known_from = ""
    if frame is None:
        return None
    frame = to_polars(frame, who=who)
    if id_column not in frame.columns:
        raise DataError(
            f"{who} lack column '{id_column}'; they have {frame.columns}. Rename the id column."
        )
    frame = frame.with_columns(typed_ids(frame[id_column]))
    if deep := [c for c, kind in frame.schema.items() if nested(kind)]:
        report.notes.append(
            f"{who}: columns {deep} hold lists and are left out; give one value a row and column"
        )
    taken = [
        c
        for c in frame.columns
        if c in (RECOMMENDABLE, DISCOVERABLE, known_from) and id_column == ITEM_ID
    ]
    frame = frame.drop(deep).rename({c: f"{c}_" for c in taken})
    if not described_by:
        sides = [(frame[id_column], f"the {who} table"), (coded.ids[id_column], "the receipts")]
        sides.sort(key=lambda side: side[0].n_unique())  # the table may describe some, or more, of them
        (few, one), (many, other) = sides
        if told := ids_meet(few, many, who=one, whose=other, refuse=False):
            report.notes.append(f"{id_column}: {told}")
    frame = frame.filter(pl.col(id_column).is_not_null())
    first = frame.unique(id_column, keep="first", maintain_order=True)
    if again := frame.height - first.height:
        twice = frame.unique().filter(pl.col(id_column).is_duplicated())[id_column].unique()
        differ = (
            f", of which {len(twice):,} ids are described in other ways there" if len(twice) else ""
        )
        some = twice.sort()[0] if len(twice) else frame.filter(frame[id_column].is_duplicated())[0, 0]
        report.notes.append(
            f"{who}: {again:,} rows repeat the id of an earlier one{differ}, such as "
            f"{some!r}; the first row of an id counts"
        )
    return first


def vocabulary(table: pl.DataFrame | None, seen: pl.Series, id_column: str) -> pl.DataFrame:
    """All ids, of the table and of the lines, in ascending order, with the table's attributes."""
    who = "items" if id_column == ITEM_ID else "users"
    if table is None:
        return pl.DataFrame({id_column: seen})
    table = table.with_columns(ids_like(table[id_column], seen, who=f"the {who}"))
    known = table[id_column]
    ids = pl.concat([known, seen]).unique().sort()
    return ids.to_frame().join(table, on=id_column, how="left", maintain_order="left")
