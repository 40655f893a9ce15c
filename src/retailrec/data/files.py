"""Read a table from a file or a folder of files."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import polars as pl

from retailrec.compute.forks import require_threads
from retailrec.data.delimited import open_delimited
from retailrec.data.paths import CSV, EXCEL, PARQUET, data_files
from retailrec.data.trial import try_parquet
from retailrec.data.workbook import read_sheets
from retailrec.errors import DataError, RetailRecError

FILE = "retailrec_file"  # column: number of the export that a line is of, where there are several
_PART = re.compile(r"^part[-._]?\d+(?=[-._])", re.IGNORECASE)
_DAMAGED = (pl.exceptions.PolarsError, OSError, EOFError, ValueError, OverflowError, zlib.error)


def read_table(
    path: str | Path, *, columns: list[str] | None = None, encoding: str | None = None
) -> pl.DataFrame:
    """Rows of a CSV, Parquet or Excel file, or of a folder of such files, one below the other.

    Of a CSV file or workbook, columns of whole numbers become integers and everything else stays text
    until its meaning is known (`RetailData.from_frames`), so a code such as ``007`` stays what it is.
    `columns` limits what is read, compared without case; names that are not there are left out, so
    that the caller can complain about them with more knowledge. `encoding` is that of text files which
    are not UTF-8.

    Raises
    ------
    DataError
        If the path is missing, a folder is empty, files differ in columns, or a file can't be read
        whole: the lines that come must be the lines of the file.
    """
    return stack(list(read_parts(path, columns=columns, encoding=encoding)))


def read_parts(
    path: str | Path,
    *,
    columns: list[str] | None = None,
    rows: int = 500_000,
    encoding: str | None = None,
    exports: bool = False,
) -> Iterator[pl.DataFrame]:
    """As `read_table`, at most some `rows` at a time; every part has the same types.

    CSV files are read twice: once to count lines and learn which columns hold whole numbers throughout.
    With `exports`, where there are several of them, a column `FILE` says which of them a line is of:
    each file and each sheet is one, but for the parts that one program wrote of one table (`part-0`).

    Raises
    ------
    DataError
        If files of a folder differ in their columns, or a Parquet file makes its decoder die.
    """
    require_threads()
    files = data_files(Path(path))
    try_parquet([file for file in files if file.name.lower().endswith(PARQUET)], columns)
    tables = [table for file in files for table in _open(file, columns, encoding)]
    tables = _with_partitions(Path(path), tables, columns)
    first = tables[0].columns
    for table in tables:
        if set(table.columns) != set(first):
            raise DataError(
                f"the files of {path} differ: {table.file.name} has columns {table.columns}, "
                f"the first file has {first}. Name one file, or a folder of alike files."
            )
    tables = [t for t in tables if t.rows] or tables[:1]  # those of a header alone have no types
    if exports:
        tables, first = _numbered(tables, first)
    text = {c for t in tables for c, kind in t.kinds.items() if kind == pl.String}
    waiting: list[pl.DataFrame] = []
    for table in tables:
        for part in _batches(table, rows):
            waiting.append(_as_text(part.select(first), text))
            if sum(p.height for p in waiting) >= rows:
                yield _below(waiting, path)
                waiting.clear()
    if waiting:
        yield _below(waiting, path)


def columns_of(path: Path, encoding: str | None = None) -> list[str]:
    """The columns of a file or folder of files.

    Raises
    ------
    DataError
        If it can't be read.
    """
    return _open(data_files(path)[0], None, encoding)[0].columns


def exports_of(tables: Sequence[tuple[Path, str]]) -> list[int]:
    """Number of the export that each table is of, by its file and sheet.

    What Spark and others write as ``part-00000`` and so on in one folder, alike but for that number, is
    one table; other files of a folder may tell of the same receipts.

    Examples
    --------
    >>> names = ["a.csv", "b.csv", "part-0-x1.parquet", "part-1-x1.parquet", "part-0-y2.parquet"]
    >>> exports_of([(Path(name), "") for name in names])
    [0, 1, 2, 2, 3]
    """
    known: dict[tuple[Path, str, str], int] = {}
    return [
        known.setdefault((file.parent, _PART.sub("part", file.name), sheet), len(known))
        for file, sheet in tables
    ]


def _numbered(tables: list[_Table], first: list[str]) -> tuple[list[_Table], list[str]]:
    """The tables with the number of their export as a column, where there are several; all columns."""
    numbers = exports_of([(table.file, table.sheet) for table in tables])
    if not max(numbers):
        return tables, first
    return [
        table._replace(
            lazy=table.lazy.with_columns(pl.lit(number, pl.Int32).alias(FILE)),
            kinds=table.kinds | {FILE: pl.Int32()},
        )
        for table, number in zip(tables, numbers, strict=True)
    ], [*first, FILE]


def _below(parts: list[pl.DataFrame], path: str | Path) -> pl.DataFrame:
    try:
        return pl.concat(parts, how="vertical_relaxed")
    except pl.exceptions.SchemaError as error:
        raise DataError(
            f"the files of {path} differ in what a column holds ({error}); write them alike."
        ) from error


def stack(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Frames below each other; a column that is text in one of them is text in all.

    Examples
    --------
    >>> stack([pl.DataFrame({"sku": [7]}), pl.DataFrame({"sku": ["7a"]})])["sku"].to_list()
    ['7', '7a']
    """
    if len(frames) == 1:
        return frames[0]
    text = {c for frame in frames for c, kind in frame.schema.items() if kind == pl.String}
    return pl.concat([_as_text(frame, text) for frame in frames], how="vertical_relaxed")


def _as_text(frame: pl.DataFrame, names: set[str]) -> pl.DataFrame:
    """Columns as text; 7.0, which a missing cell made of 7, is 7 again."""
    ending = {True: ".0", False: ""}
    return frame.with_columns(
        pl.col(c).cast(pl.String).str.strip_suffix(ending[kind.is_float()])
        for c, kind in frame.schema.items()
        if c in names
    )


def whole_numbers(column: pl.Series) -> pl.Series:
    """Text as Int64 if its filled cells are whole numbers without leading zeros, else as it is.

    ``13085.0`` counts as one: a missing id makes integers floats, which are then written so.

    Examples
    --------
    >>> [whole_numbers(pl.Series(cells)).to_list() for cells in (["10", "9"], ["010", "9"])]
    [[10, 9], ['010', '9']]
    """
    if not _is_whole(column):
        return column
    return column.to_frame().select(_whole(column.name)).to_series()


def _is_whole(column: pl.Series) -> bool:
    return bool(column.to_frame().select(_whole_expr(column.name)).item())


def _whole_expr(name: str) -> pl.Expr:
    """Are the filled cells of a text column whole numbers without leading zeros, and is there one?"""
    cell = pl.col(name).str.strip_suffix(".0")
    filled = cell.is_not_null() & (cell != "")
    same = ((_whole(name).cast(pl.String) == cell) | ~filled).fill_null(False)
    return (filled.any() & same.all()).alias(name)


def _whole(name: str) -> pl.Expr:
    return pl.col(name).str.strip_suffix(".0").cast(pl.Int64, strict=False)


class _Table(NamedTuple):
    """A file or sheet, opened but not read: what reads it, types of its columns, how many lines."""

    file: Path
    lazy: pl.LazyFrame
    kinds: dict[str, Any]
    rows: int
    sheet: str = ""

    @property
    def columns(self) -> list[str]:
        return list(self.kinds)


def _open(file: Path, columns: list[str] | None, encoding: str | None) -> list[_Table]:
    """The tables of a file: one, or the sheets of a workbook; a CSV file has a first reading for it."""
    name = file.name.lower()
    with _readable(file):
        if name.endswith(PARQUET):
            lazy = pl.scan_parquet(file, glob=False, hive_partitioning=False)
            rows = int(lazy.select(pl.len()).collect().item())
            lazy = _pick(lazy, columns)
        elif name.endswith(EXCEL):
            sheets = read_sheets(file)
            whole = _typed(_pick(pl.concat(sheets.values()).lazy(), columns))
            kinds, at, tables = dict(whole.collect_schema()), 0, []
            for sheet, frame in sheets.items():
                lazy = whole.slice(at, frame.height)
                tables.append(_Table(file, lazy, kinds, frame.height, sheet))
                at += frame.height
            return tables
        elif name.endswith(CSV):
            text = open_delimited(file, encoding)
            rows = text.rows
            lazy = pl.scan_csv(
                text.source,
                infer_schema=False,
                separator=text.separator,
                new_columns=text.names,
                quote_char='"' if text.quoted else None,
                glob=False,
            )
            lazy = _typed(_pick(lazy.head(rows), columns))
        else:
            raise DataError(
                f"{file} has an ending that is not known; expected one of "
                f"{', '.join(CSV + PARQUET + EXCEL)}. Rename or convert it."
            )
        return [_Table(file, lazy, dict(lazy.collect_schema()), rows)]


def _with_partitions(path: Path, tables: list[_Table], columns: list[str] | None) -> list[_Table]:
    """The tables with what the folders' names say about them: ``day=2024-01-31`` is a column `day`."""
    wanted = None if columns is None else {c.lower() for c in columns}
    said = [
        dict(_partition(part) for part in table.file.parent.relative_to(path).parts if "=" in part)
        if path.is_dir()
        else {}
        for table in tables
    ]
    for name in {name: None for values in said for name in values}:
        if any(name in t.kinds for t in tables) or (wanted is not None and name.lower() not in wanted):
            continue
        cells = whole_numbers(pl.Series(name, [values.get(name) for values in said], pl.String))
        for place, cell in enumerate(cells):
            table, column = tables[place], pl.lit(cell, cells.dtype).alias(name)
            lazy = table.lazy.with_columns(column)
            tables[place] = table._replace(lazy=lazy, kinds=table.kinds | {name: cells.dtype})
    return tables


def _partition(folder: str) -> tuple[str, str | None]:
    name, _, value = folder.partition("=")
    return name, None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)


def _typed(lazy: pl.LazyFrame) -> pl.LazyFrame:
    """Text columns of whole numbers as integers."""
    names = lazy.collect_schema().names()
    whole = lazy.select(_whole_expr(c) for c in names).collect(engine="streaming")
    number = [c for c in names if whole[c].item()]
    return lazy.with_columns(_whole(c) for c in number)


def _batches(table: _Table, rows: int) -> Iterator[pl.DataFrame]:
    """The table's rows, some at a time; an empty table gives one empty part."""
    with _readable(table.file):
        n = 0
        for part in table.lazy.collect_batches(chunk_size=min(rows, 250_000), maintain_order=True):
            n += part.height
            yield part
        if not n:
            yield pl.DataFrame(schema=table.kinds)
    if n != table.rows:
        raise DataError(
            f"{table.file} has {table.rows:,} lines, of which {n:,} could be read; it is damaged, "
            "or was changed meanwhile. Export it again."
        )


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Errors of reading `file`, in words."""
    try:
        yield
    except RetailRecError:
        raise
    except ModuleNotFoundError as error:
        raise DataError(
            f"reading {file} needs the package {error.name}; pip install 'retailrec[excel]'."
        ) from error
    except PermissionError as error:
        raise DataError(
            f"{file} can't be opened: no permission. Ask for the right to read it."
        ) from error
    except (Exception, pl.exceptions.PanicException) as error:
        if not isinstance(error, (*_DAMAGED, pl.exceptions.PanicException)) and not type(
            error
        ).__module__.startswith(("fastexcel", "_fastexcel")):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{file} can't be read as a {file.suffix or 'data'} file ({reason}). "
            f"It may be empty, cut short or of another format; fetch or export it again."
        ) from error


def _pick(lazy: pl.LazyFrame, columns: list[str] | None) -> pl.LazyFrame:
    if columns is None:
        return lazy
    wanted = {c.lower() for c in columns}
    names = lazy.collect_schema().names()
    return lazy.select([c for c in names if c.lower() in wanted] or names[:1])
