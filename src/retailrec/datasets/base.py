"""What a data set is: a name, where it comes from, and what its files hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LineRule, LoadReport
from retailrec.data.files import FILE, exports_of, read_parts
from retailrec.data.parsing import typed_ids
from retailrec.data.paths import find_file
from retailrec.errors import DataError


@dataclass(frozen=True)
class Reading:
    """How receipts are read; a model keeps it, so that later receipts are read alike.

    Attributes
    ----------
    columns : of one's own table: standard name -> the file's
    encoding : of text files that are not UTF-8
    time_format : how times are written, as for `datetime.strptime`
    where : of one's own table, the lines that are purchases: ``event=transaction``
    not_products : of one's own table, items that are none: ``category_1=FUEL``, ``name=*deposit*``
    changed_ids : ids of users and items that changed
    catalogue : a model's or another table, in standard names, that describes items where the files have
        none: in it `not_products` looks; not kept
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    time_format: str | None = None
    where: Sequence[str] = ()
    not_products: Sequence[str] = ()
    changed_ids: ChangedIds | None = None
    catalogue: pl.DataFrame | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Reading:
        """What `kept` gave, as a model's report has it."""
        said = {f.name: kept[f.name] for f in fields(cls) if f.name in kept}
        if "changed_ids" in said:
            said["changed_ids"] = ChangedIds.of(said["changed_ids"])
        return cls(**said)

    def kept(self, dataset: str) -> dict[str, Any]:
        """What was said, and the data set's name, as plain values and frames."""
        said = {name: value for name, value in vars(self).items() if name != "catalogue" and value}
        for name in {"where", "not_products"} & set(said):
            said[name] = list(said[name])
        if self.changed_ids:
            said["changed_ids"] = self.changed_ids.frame()
        return {"dataset": dataset, **said}


PLAIN = Reading()
_MOST_SHEETS = 100_000  # or files of a folder


@dataclass(frozen=True)
class Tables:
    """What the files of a data set hold, and how it is cleaned: what `RetailData.from_frames` takes.

    Attributes
    ----------
    transactions : receipt lines, in parts, each line with its export where there are several
    report : gains what is read, kept and rejected
    items, users : one row an `item_id` / `user_id`
    columns : standard name -> that of the transactions
    rules : reasons to reject a line, beside the standard ones
    item_columns, user_columns : columns of the transactions that describe the item / the shopper
    time_format : how times are written
    changed_ids : ids of users and items that changed
    """

    transactions: Iterable[pl.DataFrame]
    report: LoadReport
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    rules: Sequence[LineRule] = ()
    item_columns: Sequence[str] = ()
    user_columns: Sequence[str] = ()
    time_format: str | None = None
    changed_ids: ChangedIds | None = None

    def data(self) -> RetailData:
        """The data in memory; the parts are used up."""
        return RetailData.from_frames(**vars(self))


@dataclass(frozen=True)
class Dataset:
    """A published format and its loader.

    Attributes
    ----------
    name : as on the command line
    source : where the files come from
    licence : in a word
    files : what to look for
    columns : the raw columns that are read
    open : path, `Reading` -> `Tables`
    packaged : are the files also an installable package, which `open` reads when path is None?
    """

    name: str
    source: str
    licence: str
    files: str
    columns: str
    open: Callable[[Any, Reading], Tables]
    packaged: bool = False


def find_one_of(folder: Path, *names: str, what: str) -> Path:
    """The file in `folder` under any of these names, or `folder` itself if it is a file.

    Raises
    ------
    DataError
        If there is none.
    """
    if folder.is_file():
        return folder
    if not folder.exists():
        raise DataError(f"there is no file or folder at {folder}; check the path.")
    file = find_file(folder, *names)
    if file is None:
        present = sorted(p.name for p in folder.iterdir())[:8]
        raise DataError(
            f"{folder} holds no {what}; expected a file named {' or '.join(names)} "
            f"(.csv, .parquet), found {present or 'nothing'}. Put the published files there."
        )
    return file


def parts_of_files(
    files: Sequence[Path], reading: Reading, report: LoadReport, columns: list[str] | None = None
) -> Iterator[pl.DataFrame]:
    """The lines of files or folders in parts; of several, whose columns may differ, with the export.

    `report` gains which file each line is of.
    """
    numbers = exports_of([(file, "") for file in files])
    for file, number in zip(files, numbers, strict=True):
        parts = read_parts(
            file, columns=columns, encoding=reading.encoding, exports=True, spans=report.spans
        )
        for part in parts:
            if len(files) > 1:
                own = pl.col(FILE) if FILE in part.columns else pl.lit(0)
                part = part.with_columns((own + number * _MOST_SHEETS).alias(FILE).cast(pl.Int32))
            yield part


def standard(
    frame: pl.DataFrame, names: Mapping[str, str], needed: Sequence[str], who: str
) -> pl.DataFrame:
    """The frame with columns in lower case and underscores, some renamed; `needed` must be there.

    Raises
    ------
    DataError
        If one is missing.
    """
    lower = {c: c.strip().lower().replace(" ", "_") for c in frame.columns}
    frame = frame.rename({c: names.get(name, name) for c, name in lower.items()})
    require(frame, needed, who)
    return frame


def of_one_type(
    one: pl.DataFrame, other: pl.DataFrame, ids: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two tables that are to be joined, with ids of one type: text where one of them has text."""
    common = [c for c in ids if c in one.columns and c in other.columns]
    one, other = (frame.with_columns(typed_ids(frame[c]) for c in common) for frame in (one, other))
    text = {c: pl.String for c in common if one.schema[c] != other.schema[c]}
    return one.cast(text), other.cast(text)  # type: ignore[arg-type]


def require(frame: pl.DataFrame, names: Sequence[str], who: str) -> None:
    """Raise a DataError if columns are missing."""
    absent = [n for n in names if n not in frame.columns]
    if absent:
        raise DataError(
            f"{who} lacks columns {absent}; it has {frame.columns}. "
            f"Check that this is the published file."
        )
