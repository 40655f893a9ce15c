"""Ids that changed, as loyalty cards are merged and items renumbered: old ones become new ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.data.files import read_table, whole_numbers
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import bare_id, check_columns, typed_ids
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID

KINDS = {"user": USER_ID, "item": ITEM_ID}  # what `kind` may say -> the column of ids


@dataclass(frozen=True)
class ChangedIds:
    """Old ids and what they became, as text; a chain (a to b, b to c) leads to its last id.

    Attributes
    ----------
    users, items : old id -> the id that it became

    Examples
    --------
    >>> table = {"kind": ["user", "user", "item"], "old": ["a", "b", "7"], "new": ["b", "c", "8"]}
    >>> changed = ChangedIds.of(pl.DataFrame(table))
    >>> changed.last("user", "a"), changed.last("user", "z"), changed.last("item", "7")
    ('c', 'z', '8')
    """

    users: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, frame: Any, *, who: str = "the table of changed ids") -> ChangedIds:
        """From a frame with the columns `kind` (user or item), `old` and `new`.

        Raises
        ------
        DataError
            If columns or cells are missing, one old id has two new ones, or a chain leads back to where
            it began.
        """
        frame = to_polars(frame, who=who)
        check_columns(frame, ["kind", "old", "new"], who=who)
        ids = [typed_ids(frame[name]).cast(pl.String) for name in ("old", "new")]
        frame = frame.select(pl.col("kind").cast(pl.String).str.strip_chars().str.to_lowercase(), *ids)
        odd = frame.filter(~pl.col("kind").is_in(list(KINDS)).fill_null(False))
        if odd.height:
            raise DataError(f"{who}: kind must be user or item, not {odd['kind'][0]!r}. Correct it.")
        if frame["old"].null_count() + frame["new"].null_count():
            row = frame.with_row_index("row", 1).filter(pl.any_horizontal(pl.all().is_null()))["row"][0]
            raise DataError(f"{who}: row {row:,} lacks an id; each row names an old and a new one.")
        frame = frame.filter(pl.col("old") != pl.col("new")).unique(maintain_order=True)
        twice = frame.filter(pl.struct("kind", "old").is_duplicated()).sort("kind", "old")
        if twice.height:
            kind, old, *_ = twice.row(0)
            both = " and ".join(map(repr, twice["new"].head(2)))
            raise DataError(
                f"{who}: {kind} {old!r} became both {both}; an old id has one new id. Leave one out."
            )
        tables = {
            kind: dict(frame.filter(kind=kind).select("old", "new").iter_rows()) for kind in KINDS
        }
        for kind, table in tables.items():
            _refuse_cycles(table, kind, who)
        return cls(tables["user"], tables["item"])

    @classmethod
    def read(cls, path: Path) -> ChangedIds:
        """From a file of any kind that `read_table` reads.

        Raises
        ------
        DataError
            As `of`, or if the file can't be read.
        """
        return cls.of(read_table(path), who=f"{path}")

    def frame(self) -> pl.DataFrame:
        """`kind`, `old`, `new`, one row a change: what `of` takes and a model keeps."""
        rows = [(kind, *pair) for kind in KINDS for pair in sorted(self.table(kind).items())]
        return pl.DataFrame(rows, dict.fromkeys(("kind", "old", "new"), pl.String), orient="row")

    def table(self, kind: str) -> Mapping[str, str]:
        """Old id -> what it became, of ``user`` or ``item``."""
        return {"user": self.users, "item": self.items}.get(kind, {})

    def __bool__(self) -> bool:
        return bool(self.users or self.items)

    def chain(self, kind: str, text: str) -> list[str]:
        """An id, without blanks around it, and what it became, in order."""
        table, found = self.table(kind), [bare_id(text)]
        while found[-1] in table:
            found.append(table[found[-1]])
        return found

    def last(self, kind: str, text: str) -> str:
        """What an id is called today; itself as it is written where it did not change."""
        _, *later = self.chain(kind, text)
        return later[-1] if later else text

    def names(self, kind: str, text: str) -> set[str]:
        """All ids that mean the same today, old ones and itself.

        Examples
        --------
        >>> sorted(ChangedIds(items={"1": "2", "2": "3"}).names("item", "3"))
        ['1', '2', '3']
        """
        today = self.last(kind, text)
        same = {old for old in self.table(kind) if self.last(kind, old) == today}
        return {text, today, *same}

    def stopped_at(self, users: Collection[str]) -> ChangedIds:
        """The same, without what these users became: whoever is forgotten stays so under the old id."""
        kept = {old: new for old, new in self.users.items() if old not in users}
        return ChangedIds(kept, self.items)

    def updated(self, newer: ChangedIds) -> ChangedIds:
        """These with newer ones on top, which count where both say something of an id.

        Raises
        ------
        DataError
            If they lead back to where they began.
        """
        table = {kind: {**self.table(kind), **newer.table(kind)} for kind in KINDS}
        both = ChangedIds(table["user"], table["item"]).frame()
        return ChangedIds.of(both, who="the table of changed ids on top of the model's")

    def applied(self, ids: pl.Series) -> pl.Series:
        """Typed ids of a column called `user_id` or `item_id`, the old ones replaced.

        Integers stay integers if all new ids are; else all become text, whatever ids are met.
        """
        kind = _kind_of(ids)
        if not self.table(kind):
            return ids
        old = pl.Series(list(self.table(kind)), dtype=pl.String)
        new = pl.Series([self.last(kind, text) for text in old], dtype=pl.String)
        if ids.dtype == pl.Int64:
            whole = whole_numbers(new)
            if whole.dtype == pl.Int64:
                number = old.cast(pl.Int64, strict=False)
                same = (number.cast(pl.String) == old).fill_null(False)
                return ids.replace(number.filter(same), whole.filter(same))
            ids = ids.cast(pl.String)
        return ids.replace(old, new)

    def renamed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame whose columns `user_id` and `item_id` have the new ids."""
        there = [
            column for kind, column in KINDS.items() if self.table(kind) and column in frame.columns
        ]
        return frame.with_columns(self.applied(typed_ids(frame[column])) for column in there)

    def of_lists(self, lists: pl.DataFrame) -> pl.DataFrame:
        """Lists or pairs of `user_id` and `item_id` by the new ids: one list a user, each item once.

        Of users who became one, the list of the id that stays counts, else that of the first old id; of
        items, the one of the best `rank`, or without ranks the first.
        """
        if not self or not {USER_ID, ITEM_ID} <= set(lists.columns):
            return self.renamed(lists)
        new, old = self.renamed(lists), lists[USER_ID].cast(pl.String)
        new = new.with_columns(_was=old, _moved=new[USER_ID].cast(pl.String) != old)
        whose = new.sort("_moved", "_was").unique(USER_ID, keep="first", maintain_order=True)
        mine = new.join(
            whose, on=[USER_ID, "_was"], how="semi", maintain_order="left", nulls_equal=True
        )
        mine, pair = mine.drop("_was", "_moved"), [USER_ID, ITEM_ID]
        if "rank" not in mine.columns:
            return mine.unique(pair, keep="first", maintain_order=True)
        return mine.filter(pl.col("rank") == pl.col("rank").min().over(pair))

    def count(self, columns: Iterable[pl.Series]) -> dict[str, int]:
        """How many cells of typed id columns `applied` would replace, by kind."""
        found = {_kind_of(ids): ids.cast(pl.String) for ids in columns}
        return {
            kind: int(found[kind].is_in(list(self.table(kind))).sum())
            for kind in KINDS
            if kind in found and self.table(kind)
        }

    def notes(self, lines: Mapping[str, int]) -> list[str]:
        """What a load says of them; `lines` counts the lines that had an old id, by kind."""
        said = []
        for kind in KINDS:
            if n := len(self.table(kind)):
                what = f"of the table of changed ids, which has {n:,}"
                if lines.get(kind):
                    said.append(
                        f"{lines[kind]:,} lines have an old {kind} id {what}, and count under the new"
                    )
                else:
                    said.append(f"no line has an old {kind} id {what}; are ids written alike?")
        return said

    def folded(self, table: pl.DataFrame, id_column: str) -> pl.DataFrame:
        """A table of attributes with the rows of old ids folded into those of the new ones.

        What the new id's row says counts; what it does not say is taken from the old ids' rows.
        """
        ids = self.applied(table[id_column])
        old = (ids.cast(pl.String) != table[id_column].cast(pl.String)).fill_null(False)
        if not old.any():
            return table.with_columns(ids)
        table = table.with_columns(ids)
        touched = ids.is_in(ids.filter(old).implode()) & ids.is_not_null()
        others = [pl.col(c).drop_nulls().first() for c in table.columns if c != id_column]
        # the first row that is not an old id's counts; of several, the others stay, to be counted
        own = table.filter(touched & ~old)
        first = own.unique(id_column, keep="first", maintain_order=True)
        whole = pl.concat([first, table.filter(old)]).group_by(id_column, maintain_order=True)
        again = own.filter(~own.select(pl.col(id_column).is_first_distinct()).to_series())
        folded = whole.agg(others).select(table.columns)
        return pl.concat([table.filter(~touched), folded, again])


def _kind_of(ids: pl.Series) -> str:
    return next((kind for kind, column in KINDS.items() if column == ids.name), "")


def _refuse_cycles(table: Mapping[str, str], kind: str, who: str) -> None:
    done: set[str] = set()
    for start in table:
        seen: dict[str, int] = {}
        at = start
        while at in table and at not in done:
            if at in seen:
                circle = " to ".join(map(repr, [*list(seen)[seen[at] :], at]))
                raise DataError(f"{who}: {kind} ids change in a circle, {circle}. Leave one row out.")
            seen[at] = len(seen)
            at = table[at]
        done.update(seen)
