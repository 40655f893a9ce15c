"""Read a table from a file or a folder of files."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import polars as pl

from retailrec.data.delimited import open_delimited
from retailrec.data.workbook import read_sheets
from retailrec.errors import DataError, RetailRecError

CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
PARQUET, EXCEL = (".parquet", ".pq"), (".xlsx",)
_DAMAGED = (pl.exceptions.PolarsError, OSError, EOFError, ValueError, OverflowError, zlib.error)
_NOT_DATA = (".", "_")  # how Spark and others begin the names of files that hold no lines


def find_file(folder: Path, *names: str) -> Path | None:
    """The first of `names` (compared without case, any known ending) that stands in `folder`.

    It may be a folder of parts, as Spark and others write one table.
    """
    if not folder.is_dir():
        return None
    present = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_file() or _parts(p)}
    for name in names:
        for ending in ("", *CSV, *PARQUET, *EXCEL):
            if found := present.get(name.lower() + ending):
                return found
    return None


def data_files(path: Path) -> list[Path]:
    """The file itself, or every data file in the folder, in order of name.

    Where none lies right in the folder, those in the folders of its partitions (``month=1``) are meant.
    Files of no bytes and what Spark writes beside its parts are no data.

    Raises
    ------
    DataError
        If nothing is there, it is no regular file or can't be looked at, or the folder holds no file
        that can be read.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"there is no file or folder at {path}; check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        shown = str(path) if len(str(path)) < 200 else f"{str(path)[:80]}..."
        raise DataError(
            f"{shown!r} can't be opened: {reason}. Name a file that can be read."
        ) from error
    if stat.S_ISREG(kind):
        return [path]
    if not stat.S_ISDIR(kind):
        raise DataError(f"{path} is no file but a device or pipe; name a file or a folder of files.")
    files = _parts(path)
    if not files:
        raise DataError(
            f"folder {path} holds no data file; expected names ending in "
            f"{', '.join(CSV + PARQUET + EXCEL)}. Name the folder that holds the receipts."
        )
    return files


def _parts(folder: Path) -> list[Path]:
    """Data files of a folder: right in it, or else in its partitions."""
    if not folder.is_dir():
        return []
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith(_NOT_DATA))
    except OSError as error:
        raise DataError(f"folder {folder} can't be opened: {error.strerror}.") from error
    files = [p for p in inside if p.name.lower().endswith(CSV + PARQUET + EXCEL) and p.is_file()]
    deeper = [p for p in inside if p.is_dir() and "=" in p.name]
    if files and deeper:
        raise DataError(
            f"folder {folder} holds files ({files[0].name}) beside partitions ({deeper[0].name}); it "
            f"can't be told which of them are the table. Name one of them."
        )
    found = files or [file for part in deeper for file in _parts(part)]
    return [p for p in found if p.stat().st_size] or found[:1]


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
) -> Iterator[pl.DataFrame]:
    """As `read_table`, at most some `rows` at a time; every part has the same types.

    CSV files are read twice: once to count lines and learn which columns hold whole numbers throughout.

    Raises
    ------
    DataError
        If files of a folder differ in their columns.
    """
    files = data_files(Path(path))
    tables = [_open(file, columns, encoding) for file in files]
    tables = _with_partitions(Path(path), tables, columns)
    first = tables[0].columns
    for file, table in zip(files, tables, strict=True):
        if set(table.columns) != set(first):
            raise DataError(
                f"the files of {path} differ: {file.name} has columns {table.columns}, "
                f"the first file has {first}. Name one file, or a folder of alike files."
            )
    text = {c for t in tables for c, kind in t.kinds.items() if kind == pl.String}
    waiting: list[pl.DataFrame] = []
    for table in tables:
        for part in _batches(table, rows):
            part = part.select(first)
            waiting.append(part.cast(dict.fromkeys(text & set(part.columns), pl.String)))
            if sum(p.height for p in waiting) >= rows:
                yield pl.concat(waiting, how="vertical_relaxed")
                waiting.clear()
    if waiting:
        yield pl.concat(waiting, how="vertical_relaxed")


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
    return pl.concat(
        [frame.cast(dict.fromkeys(text & set(frame.columns), pl.String)) for frame in frames],
        how="vertical_relaxed",
    )


def whole_numbers(column: pl.Series) -> pl.Series:
    """Text as Int64 if its filled cells are whole numbers without leading zeros, else as it is.

    Examples
    --------
    >>> [whole_numbers(pl.Series(cells)).to_list() for cells in (["10", "9"], ["010", "9"])]
    [[10, 9], ['010', '9']]
    """
    if not _is_whole(column):
        return column
    return column.str.strip_chars().cast(pl.Int64, strict=False)


def _is_whole(column: pl.Series) -> bool:
    return bool(column.to_frame().select(_whole_expr(column.name)).item())


def _whole_expr(name: str) -> pl.Expr:
    """Are the filled cells of a text column whole numbers without leading zeros, and is there one?"""
    cell = pl.col(name)
    filled = cell.is_not_null() & (cell != "")
    whole = cell.cast(pl.Int64, strict=False)
    same = ((whole.cast(pl.String) == cell) | ~filled).fill_null(False)
    return (filled.any() & same.all()).alias(name)


class _Table(NamedTuple):
    """A file, opened but not read: types of its columns, what reads them, how many lines it has."""

    file: Path
    lazy: pl.LazyFrame
    kinds: dict[str, Any]
    rows: int

    @property
    def columns(self) -> list[str]:
        return list(self.kinds)


def _open(file: Path, columns: list[str] | None, encoding: str | None) -> _Table:
    """The file's columns, their types and its lines, which of a CSV file takes a first reading."""
    name = file.name.lower()
    with _readable(file):
        if name.endswith(PARQUET):
            lazy = pl.scan_parquet(file, glob=False, hive_partitioning=False)
            rows = int(lazy.select(pl.len()).collect().item())
            lazy = _pick(lazy, columns)
        elif name.endswith(EXCEL):
            sheets = read_sheets(file)
            rows = sheets.height
            lazy = _typed(_pick(sheets.lazy(), columns))
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
        return _Table(file, lazy, dict(lazy.collect_schema()), rows)


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
    return lazy.with_columns(pl.col(c).str.strip_chars().cast(pl.Int64, strict=False) for c in number)


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
            f"{table.file} has {table.rows:,} lines, of which {n:,} could be read; it is damaged, or "
            f"was "
            f"changed meanwhile. Export it again."
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
