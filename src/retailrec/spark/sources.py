"""Receipts that Spark holds: a DataFrame, a table by its name, Parquet by its path."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import polars as pl

from retailrec.data.cleaning import LoadReport
from retailrec.data.columns import CLOCK, clock_notation, day_and_clock
from retailrec.data.files import FILE, exports_of, partition_of, require_alike, whole_numbers
from retailrec.data.paths import CSV, EXCEL, PARQUET, data_files, refuse_versions
from retailrec.datasets.table import check_mapping, receipts_in, say_others, tables_beside
from retailrec.errors import DataError
from retailrec.schema import TRANSACTIONS
from retailrec.spark.session import in_words
from retailrec.spark.storage import HadoopStorage, absolute, escaped, local_path

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

PLACE = "retailrec_place"  # a line's place in the whole: number of its file or partition, and in it
PLACE_BITS = 33  # as `monotonically_increasing_id` has it
_TABLE = re.compile(r"(`[^`]+`|\w+)(\.(`[^`]+`|\w+)){0,2}")
_MOST_FOOTERS = 64  # files of another machine, evenly taken, whose footers are read
_NANOSECONDS = re.compile(r"^ +\w+ int64 (.+) \(TIMESTAMP\(NANOS,(true|false)\)\);", re.MULTILINE)
_LONG = re.compile(r"^ +\w+ int64 (.+?)(?: \(INTEGER\(64,true\)\))?;", re.MULTILINE)
_DEEP = ("map", "struct", "array", "variant")


@dataclass(frozen=True)
class Source:
    """Receipt lines, each with its place.

    Attributes
    ----------
    frame : the caller's columns, `PLACE`, and `FILE` where files are several exports
    name : what the report calls it
    n_bytes : size of the files behind it; 0 where none are known
    fingerprint : of its content; None where a rerun can't know it
    zone : that of the times, where they have one: as the files say, else the session's
    text : columns of ids that are numbers with fractions, or too large, and so become text
    files : those that the lines' places count; none where places are of partitions
    notation : how a column of clocks writes whole numbers; see `join_time`
    notes : what stands beside the receipts in a folder of tables and is not read
    """

    frame: DataFrame
    name: str
    n_bytes: int
    fingerprint: str | None
    zone: str | None
    text: tuple[str, ...]
    files: tuple[str, ...] = ()
    notation: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def source(session: SparkSession, receipts: Any, columns: Mapping[str, str]) -> Source:
    """Receipts as a `Source`.

    Lines of files are in order of file and row, as the local engine reads them; those of another
    DataFrame in order of its partitions.

    Parameters
    ----------
    receipts : a DataFrame, the name of a table, or the path of Parquet (a file or folder)
    columns : standard name -> the caller's name

    Raises
    ------
    DataError
        If there is no such table or path, or columns are missing or of types that hold no ids, times
        or numbers.
    SettingError
        If `columns` has a standard name that means nothing.
    """
    from pyspark.sql import functions as F

    check_mapping(columns)
    with in_words():
        frame, name, path = _opened(session, receipts)
        by_name = isinstance(receipts, str | Path)
        footers = _footers(session, sorted(frame.inputFiles())) if by_name else []
        ids = {columns.get(c.name, c.name) for c in TRANSACTIONS if c.kind == "id"}
        if path is not None and footers:  # of a table its catalog says which columns there are
            for footer in footers:
                require_alike(name, footer.name, footer.columns, footers[0].columns)
            frame = _with_types(session, path, frame, ids - {*footers[0].columns}, footers)
        frame = _in_microseconds(frame, footers)
        day, clock = day_and_clock(columns.get("time", "time"), frame.columns)
        _require_columns(frame, {**columns, "time": day} if clock else columns, name)
        of_type = {c.name: c.dataType.typeName() for c in frame.schema.fields}
        files = sorted((unquote(file), file) for file in frame.inputFiles())
        kept: list[Column] = [_plain(F.col(f"`{c}`"), of_type[c], c) for c in frame.columns]
        placed, by_file = _placed(session, frame, kept, [file for _, file in files])
        n_bytes, fingerprint = _stamp(session, frame, [file for _, file in files], receipts, path)
        zone = None
        if of_type.get(day) == "timestamp":
            zone = _zone_in(footers, day) or str(session.conf.get("spark.sql.session.timeZone"))
        text = _not_whole(
            frame, sorted(c for c in ids if of_type.get(c) in ("float", "double", "decimal"))
        )
        notation = {} if clock is None else _notation_of(frame, clock)
    placed_in = tuple(file for file, _ in files) if by_file else ()
    notes = () if path is None else _beside(absolute(str(receipts)), frame.columns)
    return Source(placed, name, n_bytes, fingerprint, zone, text, placed_in, notation, notes)


def _beside(path: str, columns: Sequence[str]) -> tuple[str, ...]:
    """What to say of a folder of tables on this machine."""
    here, report = local_path(path), LoadReport("folder")
    if here is not None and (receipts := receipts_in(here)) != here:
        read = [receipts, *(file for file in tables_beside(here) if file is not None)]
        say_others(here, read, columns, report, None)
    return tuple(report.notes)


def _notation_of(frame: DataFrame, clock: str) -> dict[str, str]:
    """How a column of clocks writes whole numbers, by its longest cell."""
    from pyspark.sql import functions as F

    text = F.regexp_replace(F.trim(F.col(f"`{clock}`").cast("string")), r"\.0$", "")
    found = frame.agg(F.max(F.when(text.rlike(CLOCK), F.length(text)))).first()
    return clock_notation(clock, found[0]) if found is not None and found[0] else {}


def columns_in(session: SparkSession, receipts: Any) -> list[str]:
    """The columns of receipts that Spark holds.

    Raises
    ------
    DataError
        If there is no such table or path.
    """
    with in_words():
        return list(_opened(session, receipts)[0].columns)


def _opened(session: SparkSession, receipts: Any) -> tuple[DataFrame, str, str | None]:
    """The frame, its name, and the path that was read, if it was one."""
    if not isinstance(receipts, str | Path):
        if not hasattr(receipts, "mapInArrow"):
            raise DataError(
                f"receipts must be a Spark DataFrame, the name of a table or the path of Parquet, not "
                f"{type(receipts).__name__}. Bring it into Spark: spark.createDataFrame(...)."
            )
        return receipts, "transactions", None
    text = str(receipts)
    is_path = isinstance(receipts, Path) or "/" in text or Path(text).exists()
    if not is_path and not text.lower().endswith(PARQUET):
        if _TABLE.fullmatch(text) is None or not session.catalog.tableExists(text):
            raise DataError(
                f"there is no table or path {text!r}; expected a table of Spark's catalog or a "
                f"folder of Parquet. Check the name."
            )
        return session.read.table(text), text, None
    require_parquet(text)
    path = absolute(text)
    here = local_path(path)
    if here is None:
        storage = HadoopStorage(session, path)
        refuse_versions(path, lambda mark: storage.exists(f"{path}/{mark}"))
    elif here.exists():
        path = absolute(receipts_in(here))
    elif str(session.sparkContext.master).startswith("local"):
        raise DataError(f"there is no file or folder at {here}; check the path.")
    session.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")  # else it refuses them
    session.conf.set("spark.sql.timeType.enabled", "true")  # and columns of clocks
    return session.read.parquet(escaped(path)), Path(text).name, path


def require_parquet(path: str | Path) -> None:
    """Raise if a path is of other files, which is seen before Spark has started.

    Raises
    ------
    DataError
        If it ends as a text file or workbook, or a folder on this machine holds such files, or what the
        local engine refuses: several tables, one of Delta Lake.
    """
    if "/" not in str(path) and not Path(path).exists():
        return  # a table, by its name
    names, here = [str(path)], local_path(absolute(str(path)))
    if here is not None and here.is_dir():
        names += [file.name for file in data_files(receipts_in(here))]
    for name in names:
        if name.lower().endswith((*CSV, *EXCEL)):
            raise DataError(
                f"{path} is no Parquet{'' if name == str(path) else f' ({name})'}; on Spark receipts "
                f"are a DataFrame, a table or Parquet. Write it as Parquet first, or read it into a "
                f"DataFrame of typed columns."
            )


def _require_columns(frame: DataFrame, columns: Mapping[str, str], name: str) -> None:
    of_type = {c.name: c.dataType.typeName() for c in frame.schema.fields}
    for ours, theirs in columns.items():
        if theirs not in of_type:
            raise DataError(
                f"{name} lacks column '{theirs}', which is to be '{ours}'; it has {list(of_type)}. "
                f"Correct the mapping."
            )
    for column in TRANSACTIONS:
        theirs = columns.get(column.name, column.name)
        if theirs not in of_type:
            if column.required:
                raise DataError(
                    f"{name} lacks column '{column.name}' ({column.meaning}); it has {list(of_type)}. "
                    f"Map it with columns={{'{column.name}': ...}}, or on the command line --columns."
                )
            continue
        kind = of_type[theirs]
        fits = {
            "number": kind
            in ("byte", "short", "integer", "long", "float", "double", "decimal", "void"),
            "time": kind in ("timestamp", "timestamp_ntz", "date"),
            "id": kind not in ("binary", *_DEEP),
        }.get(column.kind, True)
        if not fits:
            cure = {
                "number": "Cast it, such as F.col('value').cast('double')",
                "time": "Read it with F.to_timestamp(column, format)",
            }.get(column.kind, "Cast it to a string")
            raise DataError(
                f"column '{theirs}' of {name} must hold {column.kind}s, not {kind}: on Spark all "
                f"cells are not looked at to guess a notation. {cure}."
            )


def _plain(column: Column, kind: str, name: str) -> Column:
    """Deep columns as text, and those of kinds that Arrow does not have."""
    from pyspark.sql import functions as F

    if kind in _DEEP:
        return F.to_json(column).alias(name)
    return column.cast("string").alias(name) if "interval" in kind else column


def _placed(
    session: SparkSession, frame: DataFrame, kept: list[Column], files: list[str]
) -> tuple[DataFrame, bool]:
    """The columns, `PLACE`, and `FILE` where files are several exports; do places count files?"""
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as F

    path, row = f"{PLACE}_file", f"{PLACE}_row"
    # of formats other than Parquet rows have no number, and of other frames than files there is no path
    for columns in ({path: "file_path", row: "row_index"}, {path: "file_path"}) if files else ():
        try:
            where = [F.col(f"_metadata.{theirs}").alias(ours) for ours, theirs in columns.items()]
            known = frame.select(*kept, *where)
        except AnalysisException:
            continue
        exports = exports_of([(Path(unquote(file)), "") for file in files])
        rows = [
            (name, number, export)
            for number, (file, export) in enumerate(zip(files, exports, strict=True))
            for name in _spellings(file)
        ]
        numbers = session.createDataFrame(rows, f"{path} string, {PLACE}_number long, {FILE} int")
        number, unlisted = F.col(f"{PLACE}_number"), F.raise_error("a file that is not listed")
        # a line whose file is not found would be lost by an inner join
        place = F.shiftleft(F.coalesce(number, unlisted), PLACE_BITS) + F.col(row)
        if row not in columns:
            known = known.withColumn(row, F.monotonically_increasing_id())
            place = F.col(row)
        known = known.join(F.broadcast(numbers), path, "left").withColumn(PLACE, place)
        placed = known.drop(path, row, f"{PLACE}_number", *([] if max(exports) else [FILE]))
        return placed, row in columns
    return frame.select(*kept).withColumn(PLACE, F.monotonically_increasing_id()), False


def _spellings(file: str) -> list[str]:
    """How Spark may write the path: it is not of one mind about the slashes behind the scheme.

    All are looked up, so that no path has to be rewritten line by line.

    Examples
    --------
    >>> _spellings("file:///a/b.parquet")
    ['file:/a/b.parquet', 'file://a/b.parquet', 'file:///a/b.parquet']
    """
    found = re.fullmatch(r"([a-zA-Z0-9+.-]+):/+(.*)", file, re.DOTALL)
    return [file] if found is None else [f"{found[1]}:{'/' * n}{found[2]}" for n in (1, 2, 3)]


def _stamp(
    session: SparkSession, frame: DataFrame, files: list[str], receipts: Any, path: str | None
) -> tuple[int, str | None]:
    """Bytes of the files, and their fingerprint; None of a DataFrame or view, whose steps count."""
    if not files:
        return 0, None
    storage = HadoopStorage(session, files[0])
    described = [storage.described(unquote(file)) for file in files]
    n_bytes = sum(size for size, _ in described)
    steps = not isinstance(receipts, str | Path) or (
        path is None and session.catalog.getTable(str(receipts)).tableType in ("VIEW", "TEMPORARY")
    )
    if steps:
        return n_bytes, None
    content = json.dumps([files, described, frame.schema.json()])
    return n_bytes, hashlib.sha256(content.encode()).hexdigest()


class _Footer(NamedTuple):
    """What a Parquet file says of itself: its columns, and their types as Arrow wrote them.

    Those of `nanoseconds` hold instants (True) or what a clock showed (False), `long` are whole numbers
    of 64 bits.
    """

    name: str
    columns: tuple[str, ...]
    arrow: str | None
    nanoseconds: dict[str, bool]
    long: frozenset[str]


def _footers(session: SparkSession, files: list[str]) -> list[_Footer]:
    """Of all files on this machine's disk; of others at most some, evenly taken."""
    jvm: Any = session.sparkContext._jvm
    conf: Any = session.sparkContext._jsc.hadoopConfiguration()
    parquet = jvm.org.apache.parquet.hadoop
    far = [file for file in files if local_path(file) is None]
    found, columns = [], dict[str, tuple[tuple[str, ...], dict[str, bool], frozenset[str]]]()
    for file in files[:: -(-len(far) // _MOST_FOOTERS) or 1]:
        if not unquote(file).lower().endswith(PARQUET):
            continue
        path = jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI(file))
        reader = parquet.ParquetFileReader.open(parquet.util.HadoopInputFile.fromPath(path, conf))
        try:
            facts = reader.getFileMetaData()
            schema = facts.getSchema()
            text = schema.toString()  # few differ, and each name is a call
            if text not in columns:
                names = tuple(field.getName() for field in schema.getFields())
                nanoseconds = {c: utc == "true" for c, utc in _NANOSECONDS.findall(text)}
                columns[text] = names, nanoseconds, frozenset(_LONG.findall(text))
            arrow = facts.getKeyValueMetaData().get("ARROW:schema")
        finally:
            reader.close()
        names, nanoseconds, long = columns[text]
        found.append(_Footer(Path(unquote(file)).name, names, arrow, nanoseconds, long))
    return found


def _in_microseconds(frame: DataFrame, footers: Sequence[_Footer]) -> DataFrame:
    """The frame with times of nanoseconds, which Spark hands over as whole numbers, as its own times.

    Other files may hold milliseconds or microseconds of that column, and Spark hands these over alike;
    of the years that a receipt may be of the numbers themselves tell which.

    Raises
    ------
    DataError
        If a column holds instants in one file and what a clock showed in another.
    """
    from pyspark.sql import functions as F

    kinds = {pair: footer.name for footer in footers for pair in footer.nanoseconds.items()}
    found = dict(iter(kinds))
    for name, utc in found.items():
        if other := kinds.get((name, not utc)):
            raise DataError(
                f"the files differ in what column '{name}' holds: {other} has times without a zone, "
                f"{kinds[name, utc]} with one. Write them alike."
            )
    columns = {}
    for name, utc in found.items():
        if dict(frame.dtypes).get(name) != "bigint":
            continue
        micros = (
            f"case when abs(`{name}`) >= 1e17 then `{name}` div 1000 "
            f"when abs(`{name}`) < 1e14 then `{name}` * 1000 else `{name}` end"
        )
        clock = f"timestamp_ntz '1970-01-01' + make_dt_interval(0, 0, 0, ({micros}) / 1e6bd)"
        columns[name] = F.expr(f"timestamp_micros({micros})" if utc else clock)
    return frame.withColumns(columns)


def _with_types(
    session: SparkSession, path: str, frame: DataFrame, ids: Set[str], footers: Sequence[_Footer]
) -> DataFrame:
    """The frame, read again where Spark, which looks at the first file, takes columns for too narrow.

    Ids of partitions (`store=007`) are text unless all are whole numbers: Spark would make 7 of it.
    Whole numbers have 64 bits where any file has.
    """
    from pyspark.sql.types import LongType, StringType, StructField, StructType

    cells: dict[str, set[str | None]] = {}
    for folder in {unquote(file).rpartition("/")[0] for file in frame.inputFiles()}:
        for name, cell in (partition_of(part) for part in folder.split("/") if "=" in part):
            cells.setdefault(name, set()).add(cell)
    odd = {
        name: StringType()
        for name in ids & cells.keys()
        if whole_numbers(pl.Series([*cells[name]], dtype=pl.String)).dtype == pl.String
    }
    long = frozenset[str]().union(*(footer.long for footer in footers))
    narrow = {name: LongType() for name, kind in frame.dtypes if kind == "int" and name in long}
    kinds: dict[str, Any] = narrow | odd
    if not kinds.keys() & {*frame.columns}:
        return frame
    fields = (StructField(f.name, kinds.get(f.name, f.dataType)) for f in frame.schema.fields)
    return session.read.schema(StructType([*fields])).parquet(escaped(path))


def _zone_in(footers: list[_Footer], column: str) -> str | None:
    """The zone of a column of Parquet files, which Arrow writes beside the instants; else None.

    Spark does not look at it, but it is the shop's clock, by which the local engine reads the files.

    Raises
    ------
    DataError
        If files tell different zones.
    """
    import pyarrow as pa

    zones: dict[str, str] = {}
    for footer in footers:
        if footer.arrow is None:
            continue
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(footer.arrow)))
        kind = schema.field(column).type if column in schema.names else None
        if zone := getattr(kind, "tz", None):
            zones.setdefault(zone, footer.name)
    if len(zones) > 1:
        (one, first), (other, second) = list(zones.items())[:2]
        raise DataError(
            f"the files differ: times are in zone {one} in {first}, {other} in {second}. Convert them "
            f"to one zone."
        )
    return next(iter(zones), None)


def _not_whole(frame: DataFrame, names: list[str]) -> tuple[str, ...]:
    """Which of some columns of numbers hold other than whole ones of 64 bits: see `typed_ids`."""
    from pyspark.sql import functions as F

    if not names:
        return ()
    kind, odd = dict(frame.dtypes), []
    for c in names:
        cell = F.col(f"`{c}`")
        same = cell.try_cast("long").try_cast(kind[c]) == cell
        unknown = cell.isNull() if kind[c].startswith("decimal") else cell.isNull() | F.isnan(cell)
        odd.append(F.max(~(unknown | F.coalesce(same, F.lit(False)))))
    found = frame.agg(*(o.alias(str(i)) for i, o in enumerate(odd))).first()
    return tuple(c for i, c in enumerate(names) if found is not None and found[i])
