"""Read a table from a file or a folder of files: delimited text, Parquet, sheets of a workbook.

Parquet files are looked at before they are decoded. Polars' decoder raises an error for nearly every
damaged page, but where a page's header is damaged it may ask for more memory than there is, and that
ends the process: a notebook with hours of work in it, or a service. So the foot and the headers of all
pages are read first, which is quick, and only a file whose numbers don't add up is decoded in a
process of its own before it is read.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.shards import require_threads
from retailrec.data.delimited import line_of_rows, open_delimited
from retailrec.data.paths import CSV, EXCEL, PARQUET, data_files
from retailrec.errors import DataError, RetailRecError

_CHUNK = 1 << 20  # bytes of a sheet looked at together
_WIDE = re.compile(rb"""\br=["']([A-Za-z]{2,3})(\d{1,7})["']""")  # a cell beyond column Z
_ROW = re.compile(rb"""<(?:\w+:)?row\b[^>]*?\br=["'](\d{1,7})["']""")
_CELL = re.compile(rb"<(?:\w+:)?c[\s/>]")
_MOST_CELLS, _MOST_EMPTY = 50_000_000, 20  # between first and last; so many empty ones a filled one
_MOST_BYTES, _MOST_PACKED = 1 << 30, 200  # unpacked; so many times the packed ones


def read_sheets(file: Path) -> dict[str, pl.DataFrame]:
    """The sheets of a workbook by name, as text: every cell decides, not the first rows.

    Sheets without a line are passed over; the others have the same columns in one order.

    Raises
    ------
    DataError
        If no sheet holds a line, a hidden one does, two columns share a name, or it would need far more
        memory than what is in it.
    """
    import fastexcel

    _refuse_bombs(file)

    book = fastexcel.read_excel(file.read_bytes())
    tables: dict[str, pl.DataFrame] = {}
    for name in book.sheet_names:
        _refuse_doubles(file, book, name)
        loaded = book.load_sheet(name, dtypes="string")
        sheet = loaded.to_polars()
        if sheet.height or (len(book.sheet_names) == 1 and sheet.width):
            if loaded.visible != "visible":
                raise DataError(
                    f"{file}: sheet {name!r} is hidden, and its {sheet.height:,} lines would count "
                    f"unseen. Unhide it if they are to, else remove it."
                )
            tables[name] = sheet.rename({c: c.strip() for c in sheet.columns})
    if not tables:
        raise DataError(f"{file} holds no line; expected a header and lines below it in a sheet.")
    first = next(iter(tables.values())).columns
    for name, table in tables.items():
        if set(table.columns) != set(first):
            raise DataError(
                f"the sheets of {file} differ: {name!r} has columns {table.columns}, the first has "
                f"{first}. Keep alike sheets in one workbook."
            )
    return {name: table.select(first) for name, table in tables.items()}


def _refuse_doubles(file: Path, book: Any, name: str) -> None:
    """Raise if the header names a column twice; the library would call the second by another name."""
    head = book.load_sheet(name, header_row=None, n_rows=1, dtypes="string").to_polars()
    cells = [str(c).strip() for c in head.row(0) if c is not None] if head.height else []
    if doubled := sorted({c for c in cells if cells.count(c) > 1}):
        raise DataError(
            f"{file}: sheet {name!r} has two columns called {doubled[0]!r}, so it can't be told which "
            f"one is meant; rename one of them."
        )


def _refuse_bombs(file: Path) -> None:
    """Raise if reading would take much more memory than the cells that are filled.

    The library makes room for all cells from the first to the last: with one in XFD1048576, for 17
    thousand million. Without a column beyond Z there can't be too many.
    """
    try:
        with zipfile.ZipFile(file) as book:
            for entry in book.infolist():
                packed = max(entry.compress_size, 1)
                if entry.file_size > max(_MOST_BYTES, _MOST_PACKED * packed):
                    raise DataError(
                        f"{file} unpacks to {entry.file_size / 2**30:.1f} GB from {packed / 2**20:.1f} "
                        f"MB; that is no table. Export it as CSV."
                    )
                if entry.filename.lower().endswith(".xml") and "string" not in entry.filename.lower():
                    _refuse_far_cells(file, book, entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        return  # damaged, locked or no workbook at all: the library that reads it says so


def _refuse_far_cells(file: Path, book: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    wide = [column for chunk in _chunks(book, entry) for column, _ in _WIDE.findall(chunk)]
    if not wide:
        return
    rows = [int(row) for chunk in _chunks(book, entry) for row in _ROW.findall(chunk)]
    rows += [int(row) for chunk in _chunks(book, entry) for _, row in _WIDE.findall(chunk)]
    filled = sum(len(_CELL.findall(chunk)) for chunk in _chunks(book, entry))
    last = max(set(wide), key=_number)
    if _number(last) * max(rows) > max(_MOST_CELLS, _MOST_EMPTY * filled):
        raise DataError(
            f"{file}: a sheet has {filled:,} cells, but reaches to column {last.decode()} and row "
            f"{max(rows):,}; the room for all cells between would be too much. Remove the cells far "
            f"away, or export the table as CSV."
        )


def _chunks(book: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of an entry, cut before a tag, so that no cell's head is parted."""
    rest = b""
    with book.open(entry) as stream:
        while part := stream.read(_CHUNK):
            rest += part
            cut = rest.rfind(b"<")
            if cut > 0:
                yield rest[:cut]
                rest = rest[cut:]
            elif len(rest) > 2 * _CHUNK:  # text without a tag
                rest = rest[-1:]
    yield rest


def _number(column: bytes) -> int:
    """Number of a column by its letters: 27 for AA."""
    return reduce(lambda number, letter: number * 26 + letter - 64, column.upper(), 0)


# Names come over standard input, so nothing of them is code. A line before each file says how far it
# got. An error that is raised is none here: the reading that follows raises it again, and words it.
_PROGRAM = """
import json, sys
import polars as pl
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, OSError, ValueError):
    pass
files, columns = json.load(sys.stdin)
for number, file in enumerate(files):
    print(number, flush=True)
    try:
        lazy = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        if columns is not None:
            names = lazy.collect_schema().names()
            lazy = lazy.select([c for c in names if c.lower() in columns] or names[:1])
        for part in lazy.collect_batches(chunk_size=250_000, maintain_order=False):
            del part
    except BaseException:
        pass
print("done", flush=True)
"""


def try_parquet(files: Sequence[Path], columns: Sequence[str] | None) -> None:
    """Refuse Parquet files that make the decoder die on one of these columns (None: all).

    What `adds_up` is taken for whole; the others are decoded in a process of its own, and forgotten.
    Where no other process can be started, none is.

    Raises
    ------
    DataError
        If that process died; with the file it was at.
    """
    files = [file for file in files if not adds_up(file)]
    if not files or not sys.executable:
        return
    names = None if columns is None else [c.lower() for c in columns]
    order = json.dumps([[str(file) for file in files], names])
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM],
            input=order,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:  # no right to start one, or too many of them
        return
    said = ended.stdout.split()
    if (
        ended.returncode == 0 or not said or not said[-1].isdecimal()
    ):  # whole, or it never was at a file
        return
    raise DataError(
        f"{files[int(said[-1])]} is damaged, or larger than memory: a process that decoded it on trial "
        f"was ended by {_cause(ended.returncode)}. Fetch or export it again."
    )


def adds_up(file: Path) -> bool:
    """Do the numbers in a Parquet file's foot and in the headers of its pages fit each other?

    Pages must fill each column chunk from its first byte to its last and hold as many values as the
    foot says, and chunks of a group of rows as many as the group where no value is a list. False, too,
    for what is no Parquet file, is encrypted, or keeps its columns in other files.
    """
    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - 8, 0))
            end = stream.read(8)
            start = size - 8 - int.from_bytes(end[:4], "little")
            if end[4:] != b"PAR1" or start < 4:
                return False
            stream.seek(start)
            foot = _struct(stream.read(size - 8 - start), 0)[0]
            groups = foot.get(_GROUPS, [])
            nested = any(field.get(_REPETITION) == _REPEATED for field in foot[_SCHEMA])
            return foot[_ROWS] == sum(group[_GROUP_ROWS] for group in groups) and all(
                _pages_add_up(stream, chunk[_META], start)
                and _ELSEWHERE not in chunk
                and (nested or chunk[_META][_VALUES] == group[_GROUP_ROWS])
                for group in groups
                for chunk in group[_CHUNKS]
            )
    except (OSError, IndexError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False  # whatever makes of it what it is not


# numbers of fields in parquet.thrift
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4  # of FileMetaData
_REPETITION, _REPEATED = 3, 2  # of SchemaElement
_CHUNKS, _GROUP_ROWS = 1, 3  # of RowGroup
_ELSEWHERE, _META = 1, 3  # of ColumnChunk
_VALUES, _UNPACKED, _PACKED, _DATA_AT, _DICTIONARY_AT = 5, 6, 7, 9, 11  # of ColumnMetaData
_KIND, _PAGE_UNPACKED, _PAGE_PACKED = 1, 2, 3  # of PageHeader
_OF_KIND = {0: 5, 2: 7, 3: 8}  # kind of page -> its own header: data, dictionary, data of version 2
_HEAD = 4096  # bytes in which a page's header usually has room


def _pages_add_up(stream: BinaryIO, chunk: dict[int, Any], limit: int) -> bool:
    at = min(place for place in (chunk[_DATA_AT], chunk.get(_DICTIONARY_AT)) if place)
    end, values, unpacked = at + chunk[_PACKED], 0, 0
    if not 4 <= at <= end <= limit:
        return False
    while at < end:
        head, length = _page_header(stream, at, end)
        own = head[_OF_KIND[head[_KIND]]]
        if min(own[1], head[_PAGE_PACKED], head[_PAGE_UNPACKED]) < 0:
            return False
        if head[_KIND] == 2:
            if own[1] > head[_PAGE_UNPACKED]:
                return False
        else:
            values += own[1]
        if head[_KIND] == 3 and (
            min(own[2], own[3], own[5], own[6]) < 0
            or own[5] + own[6] > head[_PAGE_PACKED]
            or max(own[2], own[3]) > own[1]
        ):
            return False
        at += length + head[_PAGE_PACKED]
        unpacked += length + head[_PAGE_UNPACKED]
    return bool(at == end and values == chunk[_VALUES] and unpacked <= chunk[_UNPACKED])


def _page_header(stream: BinaryIO, at: int, end: int) -> tuple[dict[int, Any], int]:
    """A page's header, and how many bytes it takes."""
    room = _HEAD
    while True:
        stream.seek(at)
        data = stream.read(min(room, end - at))
        try:
            return _struct(data, 0)
        except IndexError:
            if room >= end - at:
                raise
            room *= 8


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol: number of field -> value; and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        at += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _signed(data, at)
        fields[number], at = (kind & 15 == 1, at) if kind & 15 <= 2 else _value(data, at, kind & 15)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (4, 5, 6):  # integers of 16, 32 and 64 bits
        return _signed(data, at)
    if kind == 8:  # bytes
        length, at = _unsigned(data, at)
        return data[at : at + length], at + length
    if kind in (9, 10):  # a list or set
        size, of = data[at] >> 4, data[at] & 15
        at += 1
        if size == 15:
            size, at = _unsigned(data, at)
        values = []
        for _ in range(size):
            value, at = _value(data, at, of)
            values.append(value)
        return values, at
    if kind == 12:
        return _struct(data, at)
    if kind == 7:  # a float of 8 bytes
        return None, at + 8
    if kind in (1, 2, 3):  # a byte, or a truth value in a list
        return data[at], at + 1
    raise ValueError(f"there is no kind {kind} in a Parquet file")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return value >> 1 ^ -(value & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


FILE = "retailrec_file"  # column: number of the export that a line is of, where there are several
_GUARD, _GUARDS_IN = r'^\s*="(.*)"\s*$', 1_000  # lines that are looked at for such cells
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
    spans: list[Span] | None = None,
) -> Iterator[pl.DataFrame]:
    """As `read_table`, at most some `rows` at a time; every part has the same types.

    CSV files are read twice: once to count lines and learn which columns hold whole numbers throughout.
    With `exports`, where there are several of them, a column `FILE` says which of them a line is of:
    each file and each sheet is one, but for the parts that one program wrote of one table (`part-0`).
    `spans` gains which file each of the rows is of.

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
        require_alike(path, table.file.name, table.columns, first)
    tables = [t for t in tables if t.rows] or tables[:1]  # those of a header alone have no types
    if spans is not None:
        spans += [Span(t.file, t.sheet, t.rows, t.first, encoding) for t in tables]
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


def require_alike(path: object, file: str, columns: Sequence[str], first: Sequence[str]) -> None:
    """Raise a DataError if a file of a folder has other columns than the first one."""
    if set(columns) != set(first):
        raise DataError(
            f"the files of {path} differ: {file} has columns {[*columns]}, the first file has "
            f"{[*first]}. Name one file, or a folder of alike files."
        )


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
    table = column.to_frame()
    whole = table.select(_whole_expr(column.name)).item()
    return table.select(_whole(column.name)).to_series() if whole else column


def _whole_expr(name: str) -> pl.Expr:
    """Are the filled cells of a text column whole numbers without leading zeros, and is there one?"""
    cell = pl.col(name).str.strip_suffix(".0")
    filled = cell.is_not_null() & (cell != "")
    same = ((_whole(name).cast(pl.String) == cell) | ~filled).fill_null(False)
    return (filled.any() & same.all()).alias(name)


def _whole(name: str) -> pl.Expr:
    return pl.col(name).str.strip_suffix(".0").cast(pl.Int64, strict=False)


class Span(NamedTuple):
    """Rows that came from one file or sheet.

    Attributes
    ----------
    file, sheet, encoding : where they stand
    rows : how many they are
    first : line of a text file or row of a sheet that the first one is (2, below a header), row of a
        Parquet file (1); 0 where that must be looked up, as rows go over lines
    """

    file: Path
    sheet: str
    rows: int
    first: int
    encoding: str | None

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Lines of the file that rows, counted from 0, are."""
        return (
            rows + self.first if self.first else np.array(line_of_rows(self.file, self.encoding))[rows]
        )


def located(lines: pl.DataFrame, spans: Sequence[Span]) -> pl.DataFrame:
    """Lines whose `line` counts all rows, with the `file` of each and the `line` in it."""
    if not spans or "line" not in lines.columns:
        return lines
    row = lines["line"].cast(pl.Int64).to_numpy()
    stops = np.cumsum([span.rows for span in spans])
    of_span = np.searchsorted(stops, row, "right")
    names = pl.Series([f"{s.file}" + (f" ({s.sheet})" if s.sheet else "") for s in spans])
    number = row.copy()
    for place in np.unique(of_span):
        own = of_span == place
        number[own] = spans[place].numbers(row[own] - (stops[place] - spans[place].rows))
    return lines.with_columns(names.gather(of_span).alias("file"), pl.Series("line", number))


class _Table(NamedTuple):
    """A file or sheet, opened but not read: what reads it, types of its columns, how many lines."""

    file: Path
    lazy: pl.LazyFrame
    kinds: dict[str, Any]
    rows: int
    sheet: str = ""
    first: int = 2

    @property
    def columns(self) -> list[str]:
        return list(self.kinds)


def _open(file: Path, columns: list[str] | None, encoding: str | None) -> list[_Table]:
    """The tables of a file: one, or the sheets of a workbook; a CSV file has a first reading for it."""
    name = file.name.lower()
    with _readable(file):
        first = 2
        if name.endswith(PARQUET):
            first = 1
            lazy = pl.scan_parquet(file, glob=False, hive_partitioning=False)
            rows = int(lazy.select(pl.len()).collect().item())
            lazy = _pick(lazy, columns)
        elif name.endswith(EXCEL):
            sheets = read_sheets(file)
            whole = with_whole_numbers(_pick(pl.concat(sheets.values()).lazy(), columns))
            kinds, at, tables = dict(whole.collect_schema()), 0, []
            for sheet, frame in sheets.items():
                lazy = whole.slice(at, frame.height)
                tables.append(_Table(file, lazy, kinds, frame.height, sheet))
                at += frame.height
            return tables
        elif name.endswith(CSV):
            text = open_delimited(file, encoding)
            rows, first = text.rows, 2 if text.regular else 0
            lazy = pl.scan_csv(
                text.source,
                infer_schema=False,
                separator=text.separator,
                new_columns=text.names,
                quote_char='"' if text.quoted else None,
                glob=False,
            )
            lazy = with_whole_numbers(_unguarded(_pick(lazy.head(rows), columns)))
        else:
            raise DataError(
                f"{file} has an ending that is not known; expected one of "
                f"{', '.join(CSV + PARQUET + EXCEL)}. Rename or convert it."
            )
        return [_Table(file, lazy, dict(lazy.collect_schema()), rows, "", first)]


def _with_partitions(path: Path, tables: list[_Table], columns: list[str] | None) -> list[_Table]:
    """The tables with what the folders' names say about them: ``day=2024-01-31`` is a column `day`."""
    asked = None if columns is None else {c.lower() for c in columns}
    said = [
        dict(partition_of(part) for part in table.file.parent.relative_to(path).parts if "=" in part)
        if path.is_dir()
        else {}
        for table in tables
    ]
    for name in {name: None for values in said for name in values}:
        if any(name in t.kinds for t in tables) or (asked is not None and name.lower() not in asked):
            continue
        cells = whole_numbers(pl.Series(name, [values.get(name) for values in said], pl.String))
        for place, cell in enumerate(cells):
            table, column = tables[place], pl.lit(cell, cells.dtype).alias(name)
            lazy = table.lazy.with_columns(column)
            tables[place] = table._replace(lazy=lazy, kinds=table.kinds | {name: cells.dtype})
    return tables


def partition_of(folder: str) -> tuple[str, str | None]:
    """Column and value that a partition's folder is named by; None where nothing is known.

    Examples
    --------
    >>> partition_of("store=north%2Fwest"), partition_of("store=__HIVE_DEFAULT_PARTITION__")
    (('store', 'north/west'), ('store', None))
    """
    name, _, value = folder.partition("=")
    return name, None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)


def _unguarded(lazy: pl.LazyFrame) -> pl.LazyFrame:
    """Text columns without the ``="0012"`` by which exports keep zeros from a spreadsheet's numbers."""
    some = lazy.head(_GUARDS_IN).collect()
    guarded = [c.name for c in some if c.str.contains(_GUARD).any()]
    return lazy.with_columns(pl.col(guarded).str.replace(_GUARD, "${1}"))


def with_whole_numbers(lazy: pl.LazyFrame, columns: Sequence[str] | None = None) -> pl.LazyFrame:
    """Text columns of whole numbers as integers; `columns` are looked at, which are all unless said."""
    names = lazy.collect_schema().names() if columns is None else columns
    whole = lazy.select(_whole_expr(c) for c in names).collect(engine="streaming")
    return lazy.with_columns(_whole(c) for c in names if whole[c].item())


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
    asked = {c.lower() for c in columns}
    names = lazy.collect_schema().names()
    return lazy.select([c for c in names if c.lower() in asked] or names[:1])
