"""Recommendations for everybody on a cluster: the local engine's lists, wave by wave, to Parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from retailrec.compute.progress import Progress, silent
from retailrec.data.cleaning import LINE, LineRule
from retailrec.data.files import read_table
from retailrec.data.histories import Unplaced
from retailrec.data.interchange import to_polars
from retailrec.data.locks import locked
from retailrec.data.parsing import ids_like, nested, typed_ids
from retailrec.errors import DataError, SettingError
from retailrec.jobs.recommend import Answers
from retailrec.recommender.answers import AnswerReport, receipt_notes, short_list_note
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import Batch, artifact_key, described_rules
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.spark.failures import in_words
from retailrec.spark.reports import Texts, add_load_reports, merged_answers
from retailrec.spark.session import connect, cores
from retailrec.spark.shipping import ship
from retailrec.spark.sources import Source, source
from retailrec.spark.staging import Cleaned, sql_schema, stage
from retailrec.spark.storage import Storage, absolute, local_path
from retailrec.spark.tasks import ASKED, ATTRIBUTE, AnswerPlan, ShopperPlan, answer

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SHARD_LINES = 500_000  # lines of whole shoppers that a task holds at a time
_TASK_LINES = 2_000_000
_REPORT = "_retailrec.json"  # names that begin so hold no lines: Spark and others pass over them


def recommend(
    model: str | Path,
    receipts: Any,
    out: str | Path,
    k: int = 10,
    *,
    users: Any = None,
    rules: Rules | None = None,
    reasons: bool = False,
    columns: Mapping[str, str] | None = None,
    line_rules: Sequence[LineRule] = (),
    shard_lines: int = SHARD_LINES,
    waves: int | None = None,
    session: SparkSession | None = None,
    progress: Progress = silent,
) -> Answers:
    """Write the lists of many shoppers to a folder of Parquet: the same lists as on one machine.

    Raw lines are cleaned where they lie, by the local engine's own rules; kept ones are brought
    together by shopper, wave by wave, and answered by `TwoStageRecommender.answer`. A rerun after an
    interruption goes on with the first unfinished wave. The folder is put in place in one step.

    Parameters
    ----------
    model : folder of a saved model
    receipts : all receipts so far: a Spark DataFrame, the name of a table, or the path of Parquet
    out : new folder, or one that an earlier call wrote; workers and driver must both see it
    users : shoppers to answer for, with attributes if there are any: a frame with `user_id`, a list
        of ids, or the path of a table; by default all in the receipts
    rules, reasons : as for `TwoStageRecommender.recommend` and `explain`
    columns : standard name -> the caller's name
    line_rules : reasons to reject a line, beside the standard ones
    shard_lines : lines that a task holds at a time, which bounds its memory
    waves : parts of the work, each finished on its own; one for each 256 MB of receipts by default
    session : the active one, or a new one, by default

    Raises
    ------
    DataError
        If the receipts can't be read, there is nobody to answer for, or `out` is not ours.
    SettingError
        If a setting makes no sense, or Spark can't be used as it is.
    ArtifactError
        If the model can't be loaded.
    """
    if k < 1:
        raise SettingError(f"recommend: k must be at least 1, not {k}.")
    if shard_lines < 1 or (waves is not None and waves < 1):
        raise SettingError(f"shard_lines and waves must be at least 1, not {shard_lines}, {waves}.")
    folder = Path(model)
    progress("load the model")
    recommender = TwoStageRecommender.load(folder)
    session = connect() if session is None else session
    columns = dict(columns or {})
    target = absolute(out).rstrip("/")
    above, _, name = target.rpartition("/")
    parts = f"{above}/.{name}.parts"
    storage = Storage(session, above)
    with in_words(), ExitStack() as held:
        _check_target(storage, target)
        if (here := local_path(parts)) is not None:
            held.enter_context(locked(here))  # a second process would write the same parts
        progress("load receipts")
        given = source(session, receipts, columns)
        asked = None if users is None else _asked(users)
        wish = _Wish(recommender, artifact_key(folder), k, rules, reasons, asked)
        _prepare(storage, parts, wish.plan(given, shard_lines, waves, columns, line_rules))
        progress("clean receipts")
        cleaned = stage(session, given, columns, f"{parts}/lines", line_rules, waves)
        n_taken_over = _answer_waves(
            session, storage, cleaned, wish, folder, parts, shard_lines, progress
        )
        reports = [
            json.loads(text)
            for wave in range(cleaned.n_waves)
            for text in json.loads(storage.read_text(f"{parts}/{_wave(wave)}.json"))
        ]
        add_load_reports([told["load"] for told in reports], cleaned.report, cleaned.numbers)
        cleaned.report.n_items = len(cleaned.items)
        if not reports:
            raise DataError("there is no shopper to recommend for; give receipts or a file of users.")
        report = _whole(merged_answers([told["answer"] for told in reports]), cleaned, recommender, k)
        if asked is not None and report.n_unknown_shoppers == report.n_shoppers:
            raise DataError(
                f"none of the {report.n_shoppers:,} shoppers asked for has receipts that the model can "
                f"use, for example {asked[USER_ID][0]!r}; write the ids as in the receipts."
            )
        n_rows = _commit(session, storage, range(cleaned.n_waves), parts, target, report)
        return Answers(Batch(n_rows, report, n_taken_over), cleaned.report)


@dataclass(frozen=True)
class _Wish:
    """What is asked, of which model."""

    model: TwoStageRecommender
    key: str
    k: int
    rules: Rules | None
    reasons: bool
    users: pl.DataFrame | None

    def plan(self, given: Source, *more: Any) -> str | None:
        """Stands for the work: what an earlier call left is taken over if it had the same plan."""
        if given.fingerprint is None:
            return None
        users = None if self.users is None else int(self.users.hash_rows(seed=0).sum() or 0)
        told = [
            self.key,
            given.fingerprint,
            self.k,
            described_rules(self.rules),
            self.reasons,
            users,
            repr(more),
            versions(),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def kinds(self, cleaned: Cleaned) -> dict[str, str]:
        """Columns of the lists, and those that part them from reports."""
        whole = self.model.items_[ITEM_ID].dtype.is_integer()
        kinds = {
            USER_ID: cleaned.kinds[USER_ID],
            ITEM_ID: "long" if whole else "string",
            "score": "float",
            "rank": "integer",
        }
        if self.model.calibrator_ is not None:
            kinds["probability"] = "double"
        if self.reasons:
            kinds["reasons"] = "string"
        return kinds


def _answer_waves(
    session: SparkSession,
    storage: Storage,
    cleaned: Cleaned,
    wish: _Wish,
    folder: Path,
    parts: str,
    shard_lines: int,
    progress: Progress,
) -> int:
    """Answer the waves that are not answered yet; how many were."""
    ids_like(cleaned.items, wish.model.items_[ITEM_ID], who="the fresh receipts")
    users = wish.users
    if users is not None:
        like = pl.Series(USER_ID, [], pl.Int64 if cleaned.kinds[USER_ID] == "long" else pl.String)
        users = users.with_columns(ids_like(users[USER_ID], like, who="the shoppers asked for"))
    attributes = {} if users is None else {c: k for c, k in users.schema.items() if c != USER_ID}
    shopper_plan = ShopperPlan(
        cleaned.far,
        max(cleaned.midnight, wish.model.end_),
        shard_lines,
        users is None,
        attributes,
        {name: version for name, version in versions().items() if name != "python"},
    )
    archive = f"retailrec-model-{wish.key[:16]}"
    ship(session, folder, archive)
    asked = None if users is None else _asked_rows(session, users, cleaned)
    n_taken_over = 0
    for wave in range(cleaned.n_waves):
        progress("recommend", wave, cleaned.n_waves)
        if storage.exists(f"{parts}/{_wave(wave)}.json"):
            n_taken_over += 1
            continue
        lines = cleaned.lines(session, wave)
        if asked is not None:
            of_wave = asked.filter(f"pmod(xxhash64({USER_ID}), {cleaned.n_waves}) = {wave}")
            lines = lines.unionByName(of_wave, allowMissingColumns=True)
        n_tasks = max(cores(session), -(-cleaned.n_lines // (cleaned.n_waves * _TASK_LINES)))
        told: Any = session.sparkContext.accumulator([], Texts())  # type: ignore[arg-type]
        plan = AnswerPlan(
            shopper_plan, archive, wish.k, wish.rules, wish.reasons, wish.kinds(cleaned), told
        )
        found = (
            lines.repartition(n_tasks, USER_ID)
            .sortWithinPartitions(USER_ID, LINE)
            .mapInArrow(partial(answer, plan), sql_schema(plan.kinds))
        )
        found.write.mode("overwrite").parquet(f"{parts}/{_wave(wave)}")
        # comes last: a wave is finished when it is there
        storage.write_text(json.dumps(told.value), f"{parts}/{_wave(wave)}.json")
    progress("recommend", cleaned.n_waves, cleaned.n_waves)
    return n_taken_over


def _wave(number: int) -> str:
    return f"answers-{number:04d}"


def _asked(users: Any) -> pl.DataFrame:
    """`user_id` and attributes of the shoppers to answer for, each once."""
    if isinstance(users, str | Path):
        frame = read_table(users)
    elif isinstance(users, list | tuple | pl.Series):
        frame = pl.DataFrame({USER_ID: users})
    elif hasattr(users, "toArrow"):
        frame = pl.DataFrame(pl.from_arrow(users.toArrow()))
    else:
        frame = to_polars(users, who="users")
    if USER_ID not in frame.columns:
        raise DataError(
            f"users lack column '{USER_ID}'; they have {frame.columns}. Rename the id column."
        )
    frame = frame.with_columns(typed_ids(frame[USER_ID])).drop_nulls(USER_ID)
    frame = frame.drop(c for c, kind in frame.schema.items() if nested(kind))
    return frame.unique(USER_ID, keep="first", maintain_order=True)


def _asked_rows(session: SparkSession, users: pl.DataFrame, cleaned: Cleaned) -> DataFrame:
    """A row a shopper asked for, which sorts before the shopper's lines."""
    import pyarrow as pa

    table = users.select(
        USER_ID,
        pl.lit(ASKED, pl.Int64).alias(LINE),
        *(pl.col(c).cast(pl.String).alias(ATTRIBUTE + c) for c in users.columns if c != USER_ID),
    ).to_arrow()
    plain = pa.schema(
        [(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in table.schema]
    )
    return session.createDataFrame(table.cast(plain))


def _check_target(storage: Storage, target: str) -> None:
    if storage.exists(target) and not storage.exists(f"{target}/{_REPORT}"):
        empty = storage.is_folder(target) and not storage.files(target)
        if not empty:
            raise DataError(
                f"{target} exists and was not written by retailrec on Spark; it will not be replaced. "
                f"Name another folder."
            )


def _prepare(storage: Storage, parts: str, plan: str | None) -> None:
    """A folder for the parts; what another plan left there is removed."""
    file = f"{parts}/plan.txt"
    if plan is not None and storage.exists(file) and storage.read_text(file) == plan:
        return
    storage.make_folder(parts)
    for name in storage.files(parts):
        storage.remove(f"{parts}/{name}")
    storage.write_text(plan or "", file)


def _whole(report: AnswerReport, cleaned: Cleaned, model: TwoStageRecommender, k: int) -> AnswerReport:
    """The report with what can be said of the receipts as a whole."""
    known = ids_like(cleaned.items, model.items_[ITEM_ID], who="the fresh receipts")
    strange = cleaned.items.filter(~known.is_in(model.items_[ITEM_ID].implode()))
    unplaced = Unplaced(report.n_events, report.n_unknown_events, strange)
    if unplaced.n_unknown and unplaced.n_unknown == unplaced.n_events:
        raise DataError(f"recommend: {receipt_notes(unplaced, *_spans(cleaned, model))[0]}")
    notes = receipt_notes(unplaced, *_spans(cleaned, model))
    return replace(
        report,
        unknown_items=tuple(strange[:5].to_list()),
        notes=notes + short_list_note(report.n_short, report.n_shoppers, k),
    )


def _spans(cleaned: Cleaned, model: TwoStageRecommender) -> Any:
    end = max(cleaned.midnight, model.end_)
    return end - (cleaned.report.first or end), model.end_ - model.start_


def _commit(
    session: SparkSession,
    storage: Storage,
    waves: Sequence[int],
    parts: str,
    target: str,
    report: AnswerReport,
) -> int:
    """Put all lists below one folder and that in its place; number of recommendations."""
    result = f"{parts}/result"
    storage.make_folder(result)
    for wave in waves:
        lists = f"{parts}/{_wave(wave)}"
        for number, name in enumerate(n for n in storage.files(lists) if n.endswith(".parquet")):
            storage.rename(f"{lists}/{name}", f"{result}/part-{wave:04d}-{number:05d}.parquet")
    n_rows = 0
    if storage.files(result):
        n_rows = session.read.parquet(result).count()
    storage.write_text(json.dumps(asdict(report), default=str) + "\n", f"{result}/{_REPORT}")
    storage.write_text("", f"{result}/_SUCCESS")
    old = f"{parts}/replaced"
    if storage.exists(target):
        storage.rename(target, old)
    storage.rename(result, target)
    storage.remove(parts)
    return n_rows
