"""How functions reach users on Spark: parts of the users in its workers, rows and facts back.

A function takes some whole users and gives a frame and facts; models and other large things travel as
files, once a session, and a worker loads them once.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import hold_to_cores
from retailrec.errors import SettingError
from retailrec.evaluation.judge import ItemFacts
from retailrec.recommender.artifact import load_artifact, save_artifact, versions
from retailrec.recommender.stage_one import StageOne
from retailrec.recommender.two_stage import saved_types
from retailrec.schema import USER_ID
from retailrec.spark.session import in_words

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


def own_versions() -> dict[str, str]:
    """Those that a list hangs on; of Python the first two numbers, which Spark itself compares."""
    return {name: version for name, version in versions().items() if name != "python"}


# --- users ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A function of parts, and how its rows and facts come back.

    Attributes
    ----------
    names : of the batches' columns; to Spark they have numbers, since it takes a point for a struct's
    parts : of a task's batches
    function : of a part: rows, and facts as JSON can hold them
    kinds : columns of the rows
    reports : Spark's accumulator of texts, one a part
    versions : of the driver
    """

    names: list[str]
    parts: Callable[[Iterator[pa.RecordBatch]], Iterator[Any]]
    function: Callable[[Any], tuple[pl.DataFrame, Any]]
    kinds: dict[str, str]
    reports: Any
    versions: dict[str, str] = field(default_factory=own_versions)


def mapped(task: Task, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of all parts; runs in a worker."""
    require_versions(task.versions)
    hold_to_task()
    for part in task.parts(batch.rename_columns(task.names) for batch in batches):
        rows, facts = task.function(part)
        if facts is not None:
            task.reports.add([json.dumps(facts)])
        yield from plain_arrow(with_kinds(rows, task.kinds)).to_batches(max_chunksize=65_536)


@dataclass(frozen=True)
class SparkParts:
    """Lines on Spark, which functions get in parts; where these are whole users, `Users`.

    Attributes
    ----------
    lines : where users are to be whole, parted by user and in order of user
    parts : of a task's batches
    id_kind : kind of `user_id`
    """

    session: SparkSession
    lines: DataFrame
    parts: Callable[[Iterator[pa.RecordBatch]], Iterator[Any]]
    id_kind: str = "long"

    def map(
        self,
        function: Callable[[Any], tuple[pl.DataFrame, Any]],
        schema: Mapping[str, pl.DataType],
        asked: pl.DataFrame | None = None,
        progress: Progress = silent,
    ) -> tuple[pl.DataFrame, list[Any]]:
        """The rows of all parts in order of user, and the facts of each part that has any."""
        from pyspark.sql import functions as F

        with in_words():
            lines = self.lines
            if asked is not None:
                lines = lines.join(F.broadcast(as_spark(self.session, asked)), USER_ID)
                lines = lines.sortWithinPartitions(USER_ID, "basket", "item")
            kinds = {USER_ID: self.id_kind, **kinds_of(schema)}
            found, facts = self.rows(function, kinds, lines)
            rows = polars_of(found).sort(USER_ID, maintain_order=True)
        return rows, facts()

    def write(
        self, function: Callable[[Any], tuple[pl.DataFrame, Any]], kinds: dict[str, str], folder: str
    ) -> list[Any]:
        """Write the rows of all parts to a folder of Parquet; the facts of each part."""
        found, facts = self.rows(function, kinds)
        found.write.mode("overwrite").parquet(folder)
        return facts()

    def rows(
        self, function: Callable[..., Any], kinds: dict[str, str], lines: DataFrame | None = None
    ) -> tuple[DataFrame, Callable[[], list[Any]]]:
        """The rows of all parts as Spark's, and what gives their facts when these are computed."""
        texts: Any = self.session.sparkContext.accumulator([], Texts())  # type: ignore[arg-type]
        lines = self.lines if lines is None else lines
        task = Task(lines.columns, self.parts, function, kinds, texts)
        numbered = lines.toDF(*(f"column_{number}" for number in range(len(lines.columns))))
        found = numbered.mapInArrow(partial(mapped, task), sql_schema(kinds))
        return found, lambda: [json.loads(text) for text in texts.value]


def whole_users(batches: Iterator[pa.RecordBatch], lines: int) -> Iterator[pa.Table]:
    """Tables of at least so many lines (but for the last) that no user is parted by.

    Batches come in order of user, and one may end in the middle of a user: what it has of its
    last user waits for the next batch.

    Examples
    --------
    >>> import pyarrow as pa
    >>> batches = [pa.record_batch({"user_id": u}) for u in ([1, 2], [2, 2], [2, 3], [4])]
    >>> [table["user_id"].to_pylist() for table in whole_users(iter(batches), 2)]
    [[1, 2, 2, 2, 2], [3, 4]]
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    waiting: list[pa.RecordBatch] = []
    n, last = 0, None
    for batch in batches:
        if not batch.num_rows:
            continue
        ids = batch.column(batch.schema.get_field_index(USER_ID))
        newest = ids[-1]
        cut = pc.index(ids, newest).as_py()  # where its last user begins
        if cut == 0 and last is not None and newest != last and n >= lines:
            yield pa.Table.from_batches(waiting)
            waiting, n = [], 0
        elif cut and n + cut >= lines:
            yield pa.Table.from_batches([*waiting, batch.slice(0, cut)])
            waiting, n, batch = [], 0, batch.slice(cut)
        waiting.append(batch)
        n, last = n + batch.num_rows, newest
    if waiting:
        yield pa.Table.from_batches(waiting)


def gathered(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches put together until they hold so many rows."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        if batch.num_rows:
            waiting.append(batch)
            n += batch.num_rows
        if n >= rows:
            yield pa.Table.from_batches(waiting)
            waiting, n = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


# --- rows -------------------------------------------------------------------------------------------

_SQL = {"long": "bigint", "timestamp": "timestamp_ntz", "integer": "int"}
_POLARS: dict[str, Any] = {
    "long": pl.Int64(),
    "string": pl.String(),
    "double": pl.Float64(),
    "float": pl.Float32(),
    "timestamp": pl.Datetime("us"),
    "integer": pl.Int32(),
    "boolean": pl.Boolean(),
    "array<int>": pl.List(pl.Int32()),
}


def kinds_of(schema: Mapping[str, pl.DataType]) -> dict[str, str]:
    """The kinds of columns in Polars' types; what has none becomes text."""
    return {
        name: next((kind for kind, its in _POLARS.items() if its == dtype), "string")
        for name, dtype in schema.items()
    }


def sql_schema(kinds: Mapping[str, str]) -> str:
    """Columns as Spark writes a schema."""
    return ", ".join(f"`{name}` {_SQL.get(kind, kind)}" for name, kind in kinds.items())


def with_kinds(frame: pl.DataFrame, kinds: dict[str, str]) -> pl.DataFrame:
    """The columns of `kinds` in their types; null where the frame has none."""
    if not frame.height:  # literals alone would make a row
        return pl.DataFrame(schema={name: _POLARS[kind] for name, kind in kinds.items()})
    return frame.select(
        (
            pl.col(name).cast(_POLARS[kind]) if name in frame.columns else pl.lit(None, _POLARS[kind])
        ).alias(name)
        for name, kind in kinds.items()
    )


def polars_of(rows: Any) -> pl.DataFrame:
    """Rows as Polars has them: a DataFrame of Spark's, which is computed, an Arrow table or batch."""
    return pl.DataFrame(pl.from_arrow(rows.toArrow() if hasattr(rows, "toArrow") else rows))


def plain_arrow(frame: pl.DataFrame) -> pa.Table:
    """A frame in the types that Spark knows; Polars writes the large ones of text, bytes and lists."""
    import pyarrow as pa

    table = frame.to_arrow()
    plain = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    kinds = (
        pa.list_(kind.value_type) if pa.types.is_large_list(kind) else plain.get(kind, kind)
        for kind in table.schema.types
    )
    return table.cast(pa.schema(zip(table.schema.names, kinds, strict=True)))


def as_spark(session: SparkSession, frame: pl.DataFrame) -> DataFrame:
    """A frame of this machine as Spark's."""
    return session.createDataFrame(plain_arrow(frame))


# --- what travels -----------------------------------------------------------------------------------

MODULES = "RETAILREC_MODULES"  # in a worker's environment: modules to import, commas between


def ship(session: SparkSession, folder: Path, name: str) -> None:
    """Put a folder's files on every machine under this name, once a session."""
    context: Any = session.sparkContext
    if any(name in str(place) for place in context.listArchives):
        return
    # machines that join later fetch it too, so it stays for as long as the program
    packed = lasting_folder() / f"{name}.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    context.addArchive(f"{packed}#{name}")


def shipped(name: str) -> Path:
    """Where a worker finds them."""
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))


@dataclass(frozen=True, eq=False)
class Items:
    """A catalogue, as it travels to workers."""

    table: pl.DataFrame


def shared_types() -> dict[str, type]:
    """Classes of what travels to workers as files."""
    return saved_types() | {kind.__name__: kind for kind in (StageOne, ItemFacts, Items)}


def share(session: SparkSession, value: Any) -> Callable[[], Any]:
    """What gives the value in workers, to which it travels as files.

    Raises
    ------
    SettingError
        If it is of a class that can't be saved, such as a function.
    """
    if not is_dataclass(value):
        raise SettingError(
            f"{value!r} can't be judged on Spark, which takes recommenders and sources; write it "
            f"as a CandidateGenerator, or stay with the local engine."
        )
    name = f"retailrec-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="retailrec-") as aside:
        save_artifact(value, Path(aside) / "model", shared_types())
        ship(session, Path(aside), name)
    return partial(loaded, f"{name}/model")


@lru_cache(maxsize=4)
def loaded(name: str) -> Any:
    """What travelled as files, loaded once in a worker process; its arrays stay in these."""
    return load_artifact(shipped(name), shared_types(), memory_map=True)


def share_modules(session: SparkSession, names: Sequence[str]) -> None:
    """Let workers import modules of one's own, which this process has imported, before any work.

    A module that lies on disk travels with its package; workers that have it keep their own.
    """
    if not names:
        return
    context: Any = session.sparkContext
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        module = importlib.import_module(name)
        folders = [Path(p) for p in getattr(module, "__path__", ())]
        file = getattr(module, "__file__", None)
        if folders:
            packed = lasting_folder() / f"{name}.zip"
            with zipfile.ZipFile(packed, "w") as archive:
                for source in (p for folder in folders for p in sorted(folder.rglob("*.py"))):
                    archive.write(source, source.relative_to(folders[0].parent).as_posix())
            context.addPyFile(str(packed))
        elif file is not None:
            context.addPyFile(file)
    context.environment[MODULES] = ",".join(names)


def import_shared() -> None:
    """Import, in a worker, the modules that `share_modules` named."""
    for name in filter(None, os.environ.get(MODULES, "").split(",")):
        importlib.import_module(name)


def lasting_folder() -> Path:
    """A new folder of this machine that goes when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="retailrec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Texts:
    """How Spark's accumulator adds up lists of texts.

    What a task reports counts once, when it is done, in the last stage of a job that writes.
    """

    def zero(self, value: list[str]) -> list[str]:
        """Nothing."""
        return []

    def addInPlace(self, one: list[str], other: list[str]) -> list[str]:
        """Both."""
        one.extend(other)
        return one


def hold_to_task() -> None:
    """No more threads in this process than the task has cores."""
    from pyspark import TaskContext

    context = TaskContext.get()
    hold_to_cores(1 if context is None else max(1, context.cpus()))


def require_versions(expected: dict[str, str]) -> None:
    """Raise a SettingError unless the worker has the libraries that the driver has."""
    own = versions()
    for name, version in expected.items():
        if own.get(name) != version:
            raise SettingError(
                f"a worker of Spark has {name} {own.get(name)}, the driver {version}; with other "
                f"versions lists could differ. Install the same ones on every machine."
            )


if os.environ.get("SPARK_PYTHON_RUNTIME") == "PYTHON_WORKER":
    import_shared()  # before models are loaded, which may hold what they define
