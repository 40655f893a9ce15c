"""Read a table from a frame of any library, a file or a folder of files; write one in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from retailrec.errors import DataError, RetailRecError

CSV, PARQUET, EXCEL = (".csv", ".csv.gz", ".tsv", ".txt"), (".parquet", ".pq"), (".xlsx",)


def to_polars(frame: Any, *, who: str) -> pl.DataFrame:
    """A Polars frame from a Polars, pandas, PyArrow or any other frame that Narwhals knows.

    Raises
    ------
    DataError
        If `frame` is not a data frame.

    Examples
    --------
    >>> to_polars(pl.DataFrame({"item_id": [1]}), who="items").columns
    ['item_id']
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    import narwhals as nw

    try:
        return nw.from_native(frame, eager_only=True).to_polars()
    except TypeError as error:
        raise DataError(
            f"{who} must be a data frame (Polars, pandas, PyArrow, ...), "
            f"not {type(frame).__name__}. Read files with retailrec.tables.read_table(path)."
        ) from error


def find_file(folder: Path, *names: str) -> Path | None:
    """The first of `names` (compared without case, any known ending) that stands in `folder`."""
    if not folder.is_dir():
        return None
    present = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_file()}
    for name in names:
        for ending in ("", *CSV, *PARQUET, *EXCEL):
            if found := present.get(name.lower() + ending):
                return found
    return None


def data_files(path: Path) -> list[Path]:
    """The file itself, or every data file right inside the folder, in order of name.

    Raises
    ------
    DataError
        If nothing is there, or the folder holds no file that can be read.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder at {path}; check the path.")
    if path.is_file():
        return [path]
    files = [p for p in sorted(path.iterdir()) if p.name.lower().endswith(CSV + PARQUET + EXCEL)]
    if not files:
        raise DataError(
            f"folder {path} holds no data file; expected names ending in "
            f"{', '.join(CSV + PARQUET + EXCEL)}. Name the folder that holds the receipts."
        )
    return files


def read_table(path: str | Path, *, columns: list[str] | None = None) -> pl.DataFrame:
    """Rows of a CSV, Parquet or Excel file, or of a folder of such files, one below the other.

    Of a CSV file, columns of whole numbers become integers and everything else stays text until its
    meaning is known (`RetailData.from_frames`), so a code such as ``007`` stays what it is.
    `columns` limits what is read, compared without case; names that are not there are left out, so
    that the caller can complain about them with more knowledge.

    Raises
    ------
    DataError
        If the path is missing, a folder is empty, files differ in columns, or a file can't be read.
    """
    return stack(list(read_parts(path, columns=columns)))


def read_parts(
    path: str | Path, *, columns: list[str] | None = None, rows: int = 500_000
) -> Iterator[pl.DataFrame]:
    """As `read_table`, at most some `rows` at a time; every part has the same types.

    CSV files are read twice: once to learn which columns hold whole numbers all through.
    """
    files = data_files(Path(path))
    tables = [_open(file, columns) for file in files]
    first = tables[0].columns
    for file, table in zip(files, tables, strict=True):
        if table.columns != first:
            raise DataError(
                f"the files of {path} differ: {file.name} has columns {table.columns}, "
                f"the first file has {first}. Name one file, or a folder of alike files."
            )
    text = {c for t in tables for c, kind in t.kinds.items() if kind == pl.String}
    waiting: list[pl.DataFrame] = []
    for table in tables:
        for part in _batches(table, rows):
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


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as Parquet or CSV, by the ending, in one step.

    Raises
    ------
    DataError
        If the ending is unknown or the file can't be written.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise DataError(f"{path} must end in .parquet or .csv.")
    with whole_file(path) as partial:
        if path.suffix == ".parquet":
            frame.write_parquet(partial)
        else:
            frame.write_csv(partial)


def write_text(text: str, path: Path) -> None:
    """Write a text file in one step.

    Raises
    ------
    DataError
        If it can't be written.
    """
    with whole_file(path) as partial:
        partial.write_text(text)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when all is written, and else goes.

    Raises
    ------
    DataError
        If it can't be written: no such folder, no right, no room.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_partials(path.parent)
        yield partial
        os.replace(partial, path)
    except (OSError, pl.exceptions.ComputeError) as error:
        raise DataError(f"{path} can't be written: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def clear_partials(folder: Path) -> None:
    """Remove what processes that are gone, killed in the middle of writing, left half-written."""
    for path in folder.glob(".partial-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


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
    """A file, opened but not read: its columns' types, and what to read them with."""

    file: Path
    lazy: pl.LazyFrame
    kinds: dict[str, Any]

    @property
    def columns(self) -> list[str]:
        return list(self.kinds)


def _open(file: Path, columns: list[str] | None) -> _Table:
    """The file's columns and their types, which of a CSV file takes a first reading."""
    name = file.name.lower()
    with _readable(file):
        if name.endswith(PARQUET):
            lazy = _pick(pl.scan_parquet(file), columns)
        elif name.endswith(EXCEL):
            sheets = pl.read_excel(file, sheet_id=0)  # 0: every sheet
            lazy = _pick(pl.concat(list(sheets.values()), how="vertical_relaxed").lazy(), columns)
        elif name.endswith(CSV):
            text = pl.scan_csv(
                file, infer_schema=False, separator=_separator(file), encoding="utf8-lossy"
            )
            lazy = _pick(text, columns)
            names = lazy.collect_schema().names()
            whole = lazy.select(_whole_expr(c) for c in names).collect(engine="streaming")
            number = [c for c in names if whole[c].item()]
            lazy = lazy.with_columns(
                pl.col(c).str.strip_chars().cast(pl.Int64, strict=False) for c in number
            )
        else:
            raise DataError(
                f"{file} has an ending that is not known; expected one of "
                f"{', '.join(CSV + PARQUET + EXCEL)}. Rename or convert it."
            )
        return _Table(file, lazy, dict(lazy.collect_schema()))


def _batches(table: _Table, rows: int) -> Iterator[pl.DataFrame]:
    """The table's rows, some at a time; an empty table gives one empty part."""
    with _readable(table.file):
        n = 0
        for part in table.lazy.collect_batches(chunk_size=min(rows, 250_000), maintain_order=True):
            n += part.height
            yield part
        if not n:
            yield pl.DataFrame(schema=table.kinds)


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
    except (pl.exceptions.PolarsError, OSError, ValueError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{file} can't be read as a {file.suffix or 'data'} file ({reason}). "
            f"It may be empty, cut short or of another format; fetch or export it again."
        ) from error


def _pick(lazy: pl.LazyFrame, columns: list[str] | None) -> pl.LazyFrame:
    if columns is None:
        return lazy
    wanted = {c.lower() for c in columns}
    return lazy.select([c for c in lazy.collect_schema().names() if c.lower() in wanted])


def _separator(file: Path) -> str:
    """The separator that the header line holds most of; a comma when in doubt."""
    if file.name.lower().endswith(".gz"):
        return ","
    with open(file, "rb") as stream:
        header = stream.readline(1 << 16)
    return max(",;\t|", key=lambda s: (header.count(s.encode()), s == ","))
