"""What runs in Spark's Python workers: the local engine, called on parts of the receipts.

Functions here take Arrow batches and give Arrow batches; `mapInArrow` calls them once a task. Beside
them what they share: folders that travel as one archive, and reports of shards that add up.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.shards import hold_to_cores
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LINE, LineRule, LoadReport, kept_lines, parse_lines
from retailrec.data.encoding import build_log, code_cleaned, places, slim_lines
from retailrec.data.history import Pairs
from retailrec.data.ids import vocabulary
from retailrec.data.parsing import clock_there
from retailrec.errors import SettingError
from retailrec.recommender.among import Eligible
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import Exposures
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, POOL, RECOMMENDABLE, USER_ID

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

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

    What a task tells counts once, when it is done, in the last stage of a job that writes.
    """

    def zero(self, value: list[str]) -> list[str]:
        """Nothing."""
        return []

    def addInPlace(self, one: list[str], other: list[str]) -> list[str]:
        """Both."""
        one.extend(other)
        return one


def add_load_reports(
    reports: Sequence[dict[str, Any]], into: LoadReport, numbers: Callable[[int], int]
) -> None:
    """Add what shards' cleaning did, as JSON holds it, to the report of the whole.

    `numbers` makes a line's number of its place.
    """
    rejected: dict[str, int] = {}
    examples: dict[str, list[int]] = {}
    differences: list[tuple[int, str]] = []
    for told in reports:
        into.kept += told["kept"]
        for count in ("merged", "pieces", "differing", "doubled"):
            setattr(into, count, getattr(into, count) + told[count])
        differences = sorted([*differences, *map(tuple, told["differences"])])[:3]
        into.split += told["split"]
        into.n_users += told["n_users"]
        into.n_baskets += told["n_baskets"]
        for name in ("first", "last"):
            if told[name] is not None:
                time, known = datetime.fromisoformat(told[name]), getattr(into, name)
                pick = min if name == "first" else max
                setattr(into, name, time if known is None else pick(time, known))
        for reason, n in told["rejected"].items():
            rejected[reason] = rejected.get(reason, 0) + n
            examples[reason] = sorted([*examples.get(reason, []), *told["examples"][reason]])[:3]
    for reason, n in rejected.items():
        into.rejected[reason] = into.rejected.get(reason, 0) + n
        known = into.examples.get(reason, [])
        into.examples[reason] = sorted([*known, *(numbers(place) for place in examples[reason])])[:3]
    into.rejected = dict(sorted(into.rejected.items(), key=lambda pair: -pair[1]))
    into.differences = [(numbers(place), words) for place, words in differences]
    into.note_receipts()


if os.environ.get("SPARK_PYTHON_RUNTIME") == "PYTHON_WORKER" and "polars" not in sys.modules:
    # Polars reads it once, at import; Spark sets the other to the cores of a task
    os.environ.setdefault("POLARS_MAX_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


if os.environ.get("SPARK_PYTHON_RUNTIME") == "PYTHON_WORKER":
    import_shared()  # before models are loaded, which may hold what they define
_CLEAN_ROWS = 250_000  # lines parsed at a time: Arrow batches are smaller, and each costs a start
ATTRIBUTE = "attribute_"  # how columns of shoppers' attributes begin, so that they meet no line's
ELIGIBLE = "eligible"  # of a row that asks for a shopper: codes of the only items to rank, int32
POOL_COLUMN = "pool_"  # how columns of explored pools begin, in rows that are of no list
POOL_KINDS = {  # of `POOL`, which lies beside the lists
    POOL_COLUMN + name: {pl.String: "string", pl.Float64: "double", pl.Boolean: "boolean"}.get(
        kind, "integer" if kind == pl.Int32 else "timestamp"
    )
    for name, kind in POOL.items()
}
ASKED = -1  # `line` of the row that says that a shopper is asked for


@dataclass(frozen=True)
class CleanPlan:
    """How receipt lines are parsed and cleaned.

    Attributes
    ----------
    columns : standard name -> the caller's name
    rules : reasons to reject a line
    place : column of a line's place, which becomes its number
    text : float columns of ids that become text
    kinds : output column -> ``long``, ``string``, ``double``, ``float`` or ``timestamp``
    versions : of the driver
    zone : that of the times, where they have one
    changed_ids : ids of users and items that changed
    """

    columns: dict[str, str]
    rules: tuple[LineRule, ...]
    place: str
    text: tuple[str, ...]
    kinds: dict[str, str]
    versions: dict[str, str]
    zone: str | None = None
    changed_ids: ChangedIds | None = None


_POLARS: dict[str, Any] = {
    "long": pl.Int64(),
    "string": pl.String(),
    "double": pl.Float64(),
    "float": pl.Float32(),
    "timestamp": pl.Datetime("us"),
    "integer": pl.Int32(),
    "boolean": pl.Boolean(),
}


def clean(plan: CleanPlan, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Kept lines, slim, with `reason` null, and rejected ones with their reason."""
    require_versions(plan.versions)
    hold_to_task()
    for table in gathered(batches, _CLEAN_ROWS):
        frame = pl.DataFrame(pl.from_arrow(table))
        place = frame[plan.place].alias(LINE)
        raw = frame.drop(plan.place).with_columns(
            pl.col(c).fill_nan(None).cast(pl.String) for c in plan.text
        )
        if plan.zone is not None:
            zoned = raw.select(pl.col(pl.Datetime("us", "*")).to_physical())
            raw = raw.with_columns(clock_there(c, "us", plan.zone, "receipts") for c in zoned)
        report = LoadReport("part")
        lines = parse_lines(raw, plan.columns, changed_ids=plan.changed_ids).with_columns(place)
        good = kept_lines(lines, plan.rules, report)
        parts = [with_kinds(part, plan.kinds) for part in (slim_lines(good), report.rejects)]
        yield from to_arrow(pl.concat(p for p in parts if p.height), plan.kinds)


def sample_of_cleaned(frame: pl.DataFrame, plan: CleanPlan) -> pl.DataFrame:
    """What `clean` makes of a line of nulls: which columns come out."""
    raw = frame.drop(plan.place)
    return slim_lines(parse_lines(raw, plan.columns, changed_ids=plan.changed_ids))


@dataclass(frozen=True)
class ShopperPlan:
    """How cleaned lines of whole shoppers become data of the local engine.

    Attributes
    ----------
    far : the rule against dates far from all others
    end : first instant that is not known
    shard_lines : lines that a task holds at a time, a shopper's last ones aside
    all_users : are all shoppers meant, or those only who are asked for?
    attributes : columns that describe shoppers, with their Polars types
    """

    far: LineRule | None
    end: datetime
    shard_lines: int
    all_users: bool
    attributes: dict[str, Any]
    versions: dict[str, str]


class Shoppers(NamedTuple):
    """Whole shoppers: their data, who of them is asked for (None: all), what cleaning did.

    `own` holds the only items to rank of each shopper asked for, where shoppers have own lists.
    """

    data: RetailData
    asked: pl.Series | None
    report: LoadReport
    own: Pairs | None = None


def shoppers(plan: ShopperPlan, batches: Iterator[pa.RecordBatch]) -> Iterator[Shoppers]:
    """The data of a task, some whole shoppers at a time."""
    for table in whole_shoppers(batches, plan.shard_lines):
        frame = pl.DataFrame(pl.from_arrow(table))
        is_asked = frame[LINE] == ASKED
        users, asked, own = None, None, None
        if is_asked.any() or not plan.all_users:
            wanted = frame.filter(is_asked).sort(USER_ID)
            users = wanted.select(
                USER_ID,
                *(pl.col(ATTRIBUTE + c).cast(kind).alias(c) for c, kind in plan.attributes.items()),
            )
            asked = None if plan.all_users else users[USER_ID]
            own = own_items(wanted[ELIGIBLE]) if ELIGIBLE in frame.columns else None
            frame = frame.filter(~is_asked)
        lines = frame.drop([*(ATTRIBUTE + c for c in plan.attributes), ELIGIBLE], strict=False)
        report = LoadReport("part", read=lines.height)
        yield Shoppers(data_of_lines(lines, plan, users, report), asked, report, own)


def own_items(codes: pl.Series) -> Pairs:
    """Each shopper's items, from their bytes.

    Examples
    --------
    >>> pairs = own_items(pl.Series([np.array([3, 5], np.int32).tobytes(), b""]))
    >>> pairs.indptr.tolist(), pairs.items.tolist()
    ([0, 2, 2], [3, 5])
    """
    sizes = codes.bin.size().to_numpy() // 4
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Pairs(indptr, np.frombuffer(b"".join(codes), np.int32))


def data_of_lines(
    lines: pl.DataFrame, plan: ShopperPlan, users: pl.DataFrame | None, report: LoadReport
) -> RetailData:
    """Cleaned lines of whole shoppers, in order of place, as the data that the whole log would hold."""
    kept = lines if plan.far is None else kept_lines(lines, [plan.far], report)
    if "store" in kept.columns:
        kept = kept.with_columns(pl.col("store").cast(pl.Categorical))
    coded = code_cleaned(kept, report)
    table = vocabulary(users, coded.ids[USER_ID], USER_ID)
    items = vocabulary(None, coded.ids[ITEM_ID], ITEM_ID).with_columns(
        pl.lit(True).alias(RECOMMENDABLE)
    )
    log = build_log(coded, table, items, report).lines
    report.kept, report.first, report.last = log.height, log["time"].min(), log["time"].max()  # type: ignore[assignment]
    report.n_users, report.n_baskets = log["user"].n_unique(), log["basket"].n_unique()
    return RetailData(log, items, table, plan.end, report)


@dataclass(frozen=True)
class AnswerPlan:
    """What is asked of a model.

    Attributes
    ----------
    shoppers : how the data is made
    archive : name under which Spark has put the model's files
    request : what is asked for each user, without its eligible items
    shared : codes of the only items to rank, where they are the same for everybody
    kinds : columns of the lists, and of `POOL_KINDS` where pools are written
    reports : Spark's accumulator of texts, one a shard
    exposures : what rows of the explored pools say; None: pools are not written
    """

    shoppers: ShopperPlan
    archive: str
    request: Request
    shared: NDArray[np.int32] | None
    kinds: dict[str, str]
    reports: Any
    exposures: Exposures | None = None


def answer(plan: AnswerPlan, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Lists of whole shoppers."""
    require_versions(plan.shoppers.versions)
    hold_to_task()
    model = loaded(plan.archive)
    answerer = model.answerer(plan.request)
    for data, asked, load_report, own in shoppers(plan.shoppers, batches):
        placed = answerer.catalogue.placed(data, asked, plan.request)
        among = None
        if own is not None or plan.shared is not None:
            among = Eligible(len(placed.histories), plan.shared, own)
        found = answerer.answer(placed.histories, plan.request, among)
        unplaced = placed.receipts.unplaced if placed.receipts else None
        report = found.report
        if unplaced is not None:
            report = replace(report, n_events=unplaced.n_events, n_unknown_events=unplaced.n_unknown)
        told = {"answer": asdict(report), "load": load_report.as_dict()}
        told["amounts"] = placed.receipts.amounts if placed.receipts else {}
        plan.reports.add([json.dumps(told)])
        yield from to_arrow(with_kinds(found.lists, plan.kinds), plan.kinds)
        if (of := plan.exposures) is not None:
            time = of.time or placed.histories.end
            pools = found.exposures(of.policy, time, shown_only=of.shown_only)
            renamed = pools.rename(lambda name: POOL_COLUMN + name)
            yield from to_arrow(with_kinds(renamed, plan.kinds), plan.kinds)


@dataclass(frozen=True)
class LogPlan:
    """How the log of all shoppers is written.

    Attributes
    ----------
    shoppers : how the data is made
    items : ids of all items, in the order of their codes
    kinds : columns of the log
    reports : Spark's accumulator of texts, one a shard
    """

    shoppers: ShopperPlan
    items: pl.Series
    kinds: dict[str, str]
    reports: Any


def log_lines(plan: LogPlan, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The log of whole shoppers: item codes of the whole catalogue, receipts numbered in the shard."""
    require_versions(plan.shoppers.versions)
    hold_to_task()
    for data, _, report, _ in shoppers(plan.shoppers, batches):
        plan.reports.add([json.dumps(report.as_dict())])
        code = places(data.items[ITEM_ID], plan.items)
        log = data.log.with_columns(
            data.users[USER_ID].gather(data.log["user"]).alias(USER_ID),
            code.gather(data.log["item"]).alias("item"),
        )
        yield from to_arrow(with_kinds(log, plan.kinds), plan.kinds)


@cache
def loaded(archive: str) -> TwoStageRecommender:
    """The model, loaded once in a worker process; its arrays stay in files that all workers share."""
    return TwoStageRecommender.load(shipped(archive), memory_map=True)


def whole_shoppers(batches: Iterator[pa.RecordBatch], lines: int) -> Iterator[pa.Table]:
    """Tables of at least so many lines (but for the last) that no shopper is parted by.

    Batches come in order of shopper, and one may end in the middle of a shopper: what it has of its
    last shopper waits for the next batch.

    Examples
    --------
    >>> import pyarrow as pa
    >>> batches = [pa.record_batch({"user_id": u}) for u in ([1, 2], [2, 2], [2, 3], [4])]
    >>> [table["user_id"].to_pylist() for table in whole_shoppers(iter(batches), 2)]
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
        cut = pc.index(ids, newest).as_py()  # where its last shopper begins
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


def with_kinds(frame: pl.DataFrame, kinds: dict[str, str]) -> pl.DataFrame:
    """The columns of `kinds` in their types; null where the frame has none."""
    if not frame.height:  # literals alone would make a row
        return pl.DataFrame(schema={name: _POLARS[kind] for name, kind in kinds.items()})
    return frame.select(
        (
            pl.col(name).cast(_POLARS[kind], strict=False)
            if name in frame.columns
            else pl.lit(None, _POLARS[kind])
        ).alias(name)
        for name, kind in kinds.items()
    )


def to_arrow(frame: pl.DataFrame, kinds: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """Batches in the types that Spark knows."""
    import pyarrow as pa

    of_kind = {
        "long": pa.int64(),
        "string": pa.string(),
        "double": pa.float64(),
        "float": pa.float32(),
        "timestamp": pa.timestamp("us"),
        "integer": pa.int32(),
        "boolean": pa.bool_(),
    }
    schema = pa.schema([(name, of_kind[kind]) for name, kind in kinds.items()])
    yield from frame.to_arrow().cast(schema).to_batches(max_chunksize=65_536)


def hold_to_task() -> None:
    """No more threads in this process than the task has cores."""
    from pyspark import TaskContext

    context = TaskContext.get()
    hold_to_cores(1 if context is None else max(1, context.cpus()))


def require_versions(wanted: dict[str, str]) -> None:
    """Raise a SettingError unless the worker has the libraries that the driver has."""
    own = versions()
    for name, version in wanted.items():
        if own.get(name) != version:
            raise SettingError(
                f"a worker of Spark has {name} {own.get(name)}, the driver {version}; with other "
                f"versions lists could differ. Install the same ones on every machine."
            )
