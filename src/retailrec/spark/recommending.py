"""Recommendations for everybody on a cluster: the local engine's lists, wave by wave, to Parquet."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.data.cleaning import LINE, LineRule
from retailrec.data.files import read_table
from retailrec.data.history import Unplaced
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, nested, typed_ids
from retailrec.datasets import as_fitted
from retailrec.datasets.base import PLAIN, Reading
from retailrec.datasets.table import rules_of
from retailrec.errors import DataError, SettingError
from retailrec.jobs.recommend import Answers
from retailrec.recommender.among import Among, Eligible
from retailrec.recommender.answers import Amounts, AnswerReport
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import Batch, Exposures, artifact_key
from retailrec.recommender.exploration import policy_name
from retailrec.recommender.forbid import missing_attribute
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, POOL, STORE, USER_ID
from retailrec.spark.session import connect, cores, in_words
from retailrec.spark.sources import Source, columns_in, source
from retailrec.spark.staging import Cleaned, sql_schema, stage
from retailrec.spark.storage import Storage, absolute, alone
from retailrec.spark.tasks import (
    ASKED,
    ATTRIBUTE,
    ELIGIBLE,
    POOL_COLUMN,
    POOL_KINDS,
    AnswerPlan,
    ShopperPlan,
    Texts,
    add_load_reports,
    answer,
    ship,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class SparkRequest:
    """A request to a model on a cluster, and whom it is for.

    Attributes
    ----------
    model, key : the recommender, and hex digits of all that was saved of it
    request : what is asked for each user
    users : `user_id` and attributes of the users to answer for; None: all in the receipts
    exposures : where the pools of explored lists go; None: nowhere
    """

    model: TwoStageRecommender
    key: str
    request: Request
    users: pl.DataFrame | None
    exposures: Exposures | None = None

    def plan(self, given: Source, *more: Any) -> str | None:
        """Hex digits of the work: what an earlier call left is taken over if its plan was the same."""
        if given.fingerprint is None:
            return None
        facts: list[Any] = [
            self.key,
            given.fingerprint,
            self.request.fingerprint(),
            None if self.users is None else int(self.users.hash_rows(seed=0).sum() or 0),
            repr(more),
            versions(),
        ]
        if self.exposures is not None:
            facts.append([str(setting) for setting in self.exposures])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def check_rules(self, cleaned: Cleaned) -> None:
        """Raise a SettingError if rules read what neither users nor receipts tell."""
        rules, there = self.request.rules, [*self.attributes]
        if rules is None:
            return
        for name in rules.attributes:
            if name not in there:
                raise SettingError(missing_attribute(name, there))
        stores = STORE in there or STORE in cleaned.kinds or self.request.in_store is not None
        if rules.by_store and not stores:
            raise SettingError(missing_attribute(STORE, there))

    def kinds(self, cleaned: Cleaned) -> dict[str, str]:
        """Columns of the lists, as `Answer.lists` has them."""
        whole = self.model.items_[ITEM_ID].dtype.is_integer()
        kinds = {
            USER_ID: cleaned.kinds[USER_ID],
            ITEM_ID: "long" if whole else "string",
            "score": "float",
            "rank": "integer",
        }
        if all(self.model.part(p).calibrator is not None for p in self.request.by_purpose):
            kinds["probability"] = "double"
        if self.request.slots is not None:
            kinds["purpose"] = "string"
        if self.request.reasons:
            kinds["reasons"] = "string"
        if self.request.explore:
            kinds["propensity"] = "double"
        return kinds

    def like(self, cleaned: Cleaned) -> SparkRequest:
        """The same, with shoppers' ids of the type that the receipts have."""
        if self.users is None:
            return self
        like = pl.Series(USER_ID, [], pl.Int64 if cleaned.kinds[USER_ID] == "long" else pl.String)
        ids = ids_like(self.users[USER_ID], like, who="the shoppers asked for")
        return replace(self, users=self.users.with_columns(ids))

    def eligible(self, n_users: int) -> Eligible | None:
        """The only items to rank, in the model's codes; `n_users` are asked for.

        Raises
        ------
        DataError
            If none of the items is known, or none of the shoppers listed is asked for.
        """
        if self.request.among is None:
            return None
        users = pl.DataFrame({USER_ID: pl.repeat(None, n_users, eager=True)})
        return self.request.among.bind(self.model.items_, users if self.users is None else self.users)

    @property
    def shared(self) -> NDArray[np.int32] | None:
        """Codes of the only items to rank, where they are the same for everybody."""
        among = self.request.among
        found = self.eligible(0) if among is not None and among.pairs is None else None
        return None if found is None else found.shared

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the shoppers asked for, and their types."""
        return (
            {} if self.users is None else {c: k for c, k in self.users.schema.items() if c != USER_ID}
        )

    def rows(self, session: SparkSession) -> DataFrame | None:
        """A row a shopper asked for, which sorts before the shopper's lines; None: nobody is named."""
        import pyarrow as pa

        if self.users is None:
            return None
        users = self.users.select(
            USER_ID,
            pl.lit(ASKED, pl.Int64).alias(LINE),
            *(pl.col(c).cast(pl.String).alias(ATTRIBUTE + c) for c in self.attributes),
        )
        eligible = self.eligible(users.height)
        if eligible is not None and eligible.own is not None:
            indptr, items = eligible.own.indptr, eligible.own.items
            codes = [items[a:b].tobytes() for a, b in pairwise(indptr)]
            users = users.with_columns(pl.Series(ELIGIBLE, codes, pl.Binary))
        table = users.to_arrow()
        plain = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
        schema = pa.schema([(f.name, plain.get(f.type, f.type)) for f in table.schema])
        return session.createDataFrame(table.cast(schema))


def asked_users(users: Any, among: Among | None) -> pl.DataFrame | None:
    """`user_id` and attributes of the shoppers to answer for, each once; None: all in the receipts.

    Without `users` those whom `among` lists.

    Raises
    ------
    DataError
        If the frame has no ids.
    """
    if users is None and among is not None:
        users = among.users
    if users is None:
        return None
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


SHARD_LINES = 500_000  # lines of whole shoppers that a task holds at a time
_TASK_LINES = 2_000_000
_REPORT = "_retailrec.json"  # names that begin so hold no lines: Spark and others pass over them


def recommend(
    model: str | Path,
    receipts: Any,
    out: str | Path,
    request: Request | int | None = None,
    *,
    users: Any = None,
    reading: Reading = PLAIN,
    line_rules: Sequence[LineRule] = (),
    shard_lines: int = SHARD_LINES,
    waves: int | None = None,
    session: SparkSession | None = None,
    exposures: Exposures | None = None,
    progress: Progress = silent,
    **settings: Any,
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
        of ids, or the path of a table; by default those whom `among` lists, or all in the receipts
    request : what is asked for each user, or items a user; keywords are `Request`'s fields, as for
        `TwoStageRecommender.recommend`; files that it names are read by this machine
    reading : columns, lines and ids; what it does not say is as when the model was fitted
    line_rules : reasons to reject a line, beside the standard ones
    shard_lines : lines that a task holds at a time, which bounds its memory
    waves : parts of the work, each finished on its own; one for each 256 MB of receipts by default
    session : the active one, or a new one, by default
    exposures : where the pools of explored lists go: a folder of Parquet, as `out` is

    Raises
    ------
    DataError
        If the receipts can't be read, there is nobody to answer for, or `out` is not ours.
    SettingError
        If a setting makes no sense, or Spark can't be used as it is.
    ArtifactError
        If the model can't be loaded.
    """
    request = Request.of(request, **settings)
    if shard_lines < 1 or (waves is not None and waves < 1):
        raise SettingError(f"shard_lines and waves must be at least 1, not {shard_lines}, {waves}.")
    if exposures is not None:
        exposures.check(request, Path(out))
    progress("load the model")
    recommender = TwoStageRecommender.load(model)
    asked = asked_users(users, request.among)
    key = artifact_key(Path(model))
    if exposures is not None and not exposures.policy:
        exposures = exposures._replace(policy=policy_name(Path(model).absolute().name, key))
    order = SparkRequest(recommender, key, request, asked, exposures)
    session = connect() if session is None else session
    there = columns_in(session, receipts)
    reading, notes = as_fitted(recommender.reading, there, reading)
    line_rules = (*line_rules, *rules_of(reading, there))
    if reading.changed_ids is not None and order.users is not None:
        order = replace(order, users=reading.changed_ids.folded(order.users, USER_ID))
    with _place(session, out) as place, in_words():
        progress("load receipts")
        if exposures is not None:
            _check_target(place.storage, absolute(exposures.file).rstrip("/"))
        given = source(session, receipts, reading.columns)
        place.prepare(order.plan(given, shard_lines, waves, reading, line_rules))
        progress("clean receipts")
        cleaned = stage(session, given, reading, f"{place.parts}/lines", line_rules, waves)
        cleaned.report.reading = reading.kept("table")
        cleaned.report.notes += notes
        return _answered(session, order, Path(model), cleaned, place, shard_lines, progress)


def recommend_cleaned(
    session: SparkSession,
    model: Path,
    cleaned: Cleaned,
    out: Path,
    request: Request,
    progress: Progress = silent,
) -> Answers:
    """As `recommend`, for everybody of receipts that have been cleaned already.

    Raises
    ------
    DataError, SettingError, ArtifactError
        As `recommend`.
    """
    order = SparkRequest(TwoStageRecommender.load(model), artifact_key(model), request, None)
    with _place(session, out) as place, in_words():
        place.prepare(None)
        own = replace(cleaned, report=copy.deepcopy(cleaned.report))  # that of another job goes on
        return _answered(session, order, model, own, place, SHARD_LINES, progress)


def _answered(
    session: SparkSession,
    order: SparkRequest,
    folder: Path,
    cleaned: Cleaned,
    place: _Place,
    shard_lines: int,
    progress: Progress,
) -> Answers:
    """Answer wave by wave, put the lists in their place, and tell of the whole."""
    order.model.answerer(order.request)  # what it has not learnt is said before any work
    order.check_rules(cleaned)
    order, at = order.like(cleaned), order.request.at
    if at is not None and at > cleaned.midnight:
        raise DataError(
            f"at={at} lies after the receipts' end={cleaned.midnight}; what comes then is not known."
        )
    n_taken_over = _answer_waves(session, cleaned, order, folder, place, shard_lines, progress)
    reports = [
        json.loads(text)
        for wave in range(cleaned.n_waves)
        for text in json.loads(place.storage.read_text(f"{place.parts}/{_wave(wave)}.json"))
    ]
    add_load_reports([told["load"] for told in reports], cleaned.report, cleaned.numbers)
    cleaned.report.n_items = len(cleaned.items)
    if not reports:
        raise DataError("there is no shopper to recommend for; give receipts or a file of users.")
    amounts = sum((Counter(told["amounts"]) for told in reports), Counter[str]())
    answered = AnswerReport.sum(AnswerReport(**told["answer"]) for told in reports)
    report = _whole(answered, amounts, cleaned, order)
    if order.users is not None and report.n_unknown_shoppers == report.n_shoppers:
        raise DataError(
            f"none of the {report.n_shoppers:,} shoppers asked for has receipts that the model can "
            f"use, for example {order.users[USER_ID][0]!r}; write the ids as in the receipts."
        )
    waves, n_pools = [_wave(wave) for wave in range(cleaned.n_waves)], 0
    if order.exposures is not None:  # first, so that they are there when the lists are
        pools, target = [_pools(wave) for wave in waves], absolute(order.exposures.file).rstrip("/")
        n_pools = _commit(session, pools, place, target, "pool", report)
    n_rows = _commit(session, waves, place, place.target, "part", report)
    place.storage.remove(place.parts)
    return Answers(Batch(n_rows, report, n_taken_over, n_pools), cleaned.report)


def _answer_waves(
    session: SparkSession,
    cleaned: Cleaned,
    order: SparkRequest,
    folder: Path,
    place: _Place,
    shard_lines: int,
    progress: Progress,
) -> int:
    """Answer the waves that are not answered yet; how many were."""
    ids_like(cleaned.items, order.model.items_[ITEM_ID], who="the fresh receipts")
    shopper_plan = ShopperPlan(
        cleaned.far,
        max(cleaned.midnight, order.model.end_),
        shard_lines,
        order.users is None,
        order.attributes,
        {name: version for name, version in versions().items() if name != "python"},
    )
    archive = f"retailrec-model-{order.key[:16]}"
    ship(session, folder, archive)
    request = replace(order.request, among=None)  # it goes as codes
    asked, shared, kinds = order.rows(session), order.shared, order.kinds(cleaned)
    n_tasks = max(cores(session), -(-cleaned.n_lines // (cleaned.n_waves * _TASK_LINES)))
    n_taken_over = 0
    for wave in range(cleaned.n_waves):
        progress("recommend", wave, cleaned.n_waves)
        if place.storage.exists(f"{place.parts}/{_wave(wave)}.json"):
            n_taken_over += 1
            continue
        lines = cleaned.lines(session, wave)
        if asked is not None:
            of_wave = asked.filter(f"pmod(xxhash64({USER_ID}), {cleaned.n_waves}) = {wave}")
            lines = lines.unionByName(of_wave, allowMissingColumns=True)
        told: Any = session.sparkContext.accumulator([], Texts())  # type: ignore[arg-type]
        exposures = order.exposures
        columns = kinds if exposures is None else {**kinds, **POOL_KINDS}
        plan = AnswerPlan(shopper_plan, archive, request, shared, columns, told, exposures)
        found = (
            lines.repartition(n_tasks, USER_ID)
            .sortWithinPartitions(USER_ID, LINE)
            .mapInArrow(partial(answer, plan), sql_schema(plan.kinds))
        )
        lists = f"{place.parts}/{_wave(wave)}"
        if exposures is None:
            found.write.mode("overwrite").parquet(lists)
        else:
            found.write.mode("overwrite").parquet(f"{lists}-both")
            both = session.read.schema(sql_schema(columns)).parquet(f"{lists}-both")
            of_pools = both.filter(f"{POOL_COLUMN}request is not null")
            names = [f"{POOL_COLUMN}{name} as {name}" for name in POOL]
            of_pools.selectExpr(*names).write.mode("overwrite").parquet(_pools(lists))
            of_lists = both.filter(f"{POOL_COLUMN}request is null").select(*kinds)
            of_lists.write.mode("overwrite").parquet(lists)
            place.storage.remove(f"{lists}-both")
        # comes last: a wave is finished when it is there
        place.storage.write_text(json.dumps(told.value), f"{place.parts}/{_wave(wave)}.json")
    progress("recommend", cleaned.n_waves, cleaned.n_waves)
    return n_taken_over


@dataclass(frozen=True)
class _Place:
    """Where lists come to lie, and parts of them beside it until they are complete."""

    storage: Storage
    target: str
    parts: str

    def prepare(self, plan: str | None) -> None:
        """A folder for the parts; what another plan left there is removed."""
        file = f"{self.parts}/plan.txt"
        storage = self.storage
        if plan is not None and storage.exists(file) and storage.read_text(file) == plan:
            return
        storage.make_folder(self.parts)
        for name in storage.files(self.parts):
            storage.remove(f"{self.parts}/{name}")
        storage.write_text(plan or "", file)


@contextmanager
def _place(session: SparkSession, out: str | Path) -> Iterator[_Place]:
    """The place of `out`, held against a second process, which would write the same parts."""
    target = absolute(out).rstrip("/")
    above, _, name = target.rpartition("/")
    with in_words():
        place = _Place(Storage(session, above), target, f"{above}/.{name}.parts")
        _check_target(place.storage, target)
    with alone(place.parts):
        yield place


def _wave(number: int) -> str:
    return f"answers-{number:04d}"


def _pools(wave: str) -> str:
    return f"{wave}-pools"


def _check_target(storage: Storage, target: str) -> None:
    if storage.exists(target) and not storage.exists(f"{target}/{_REPORT}"):
        empty = storage.is_folder(target) and not storage.files(target)
        if not empty:
            raise DataError(
                f"{target} exists and was not written by retailrec on Spark; it will not be replaced. "
                f"Name another folder."
            )


def _whole(
    report: AnswerReport, amounts: Amounts, cleaned: Cleaned, order: SparkRequest
) -> AnswerReport:
    """The report with what can be said of the receipts and lists as a whole."""
    model, request = order.model, order.request
    known = ids_like(cleaned.items, model.items_[ITEM_ID], who="the fresh receipts")
    strange = cleaned.items.filter(~known.is_in(model.items_[ITEM_ID].implode()))
    end = request.at or cleaned.midnight
    facts = model.catalogue.facts(
        Unplaced(report.n_events, report.n_unknown_events, strange),
        cleaned.report.first or max(end, model.end_),
        end,
        cleaned.report.n_users,
        amounts,
    )
    if facts.none_known:
        raise DataError(f"recommend: {facts.notes[0]}")
    eligible = order.eligible(report.n_shoppers)
    return report.completed(request, facts, None if eligible is None else eligible.report(request.k))


def _commit(
    session: SparkSession,
    waves: Sequence[str],
    place: _Place,
    target: str,
    name: str,
    report: AnswerReport,
) -> int:
    """Put the rows of all waves below one folder and that in its place; number of rows.

    Done again after an interruption it goes on, and does not replace what is in place.
    """
    storage, parts = place.storage, place.parts
    result, ready = f"{parts}/result-{name}", f"{parts}/{name}.ready"
    if not storage.exists(ready):
        storage.make_folder(result)
        for wave, folder in enumerate(waves):
            files = (n for n in storage.files(f"{parts}/{folder}") if n.endswith(".parquet"))
            for number, file in enumerate(files):
                to = f"{result}/{name}-{wave:04d}-{number:05d}.parquet"
                storage.rename(f"{parts}/{folder}/{file}", to)
        storage.write_text(json.dumps(asdict(report), default=str) + "\n", f"{result}/{_REPORT}")
        storage.write_text("", f"{result}/_SUCCESS")
        storage.write_text("", ready)
    if storage.exists(result):  # else it is in place
        if storage.exists(target):
            storage.rename(target, f"{parts}/replaced-{name}")
        storage.rename(result, target)
    rows = [file for file in storage.files(target) if file.endswith(".parquet")]
    return session.read.parquet(target).count() if rows else 0
