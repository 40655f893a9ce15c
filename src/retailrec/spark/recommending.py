"""Recommendations for all users on a cluster: the local engine's lists, wave by wave, to Parquet."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.data.cleaning import LINE, LineRule, LoadReport
from retailrec.data.encoding import CodedLines
from retailrec.data.files import read_table
from retailrec.data.history import Unplaced
from retailrec.data.ids import attributes, first_of_each, id_series
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, ids_meet, typed_ids
from retailrec.datasets import as_fitted
from retailrec.datasets.base import PLAIN, Reading
from retailrec.datasets.table import of_lines, rules_of, tables_beside, with_our_names
from retailrec.errors import DataError, SettingError
from retailrec.recommender.among import Among, Eligible
from retailrec.recommender.answers import Amounts, AnswerReport
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import (
    NO_COLUMNS,
    Answers,
    Batch,
    Exposures,
    ListFormat,
    artifact_key,
    joined,
    named_users,
    require_items,
)
from retailrec.recommender.forbid import missing_attribute
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, POOL, STORE, USER_ID
from retailrec.spark.mapping import SparkParts, as_spark, kinds_of, loaded, polars_of, ship, sql_schema
from retailrec.spark.session import connect, cores, in_words
from retailrec.spark.sources import Source, columns_in, source
from retailrec.spark.staging import Cleaned, stage
from retailrec.spark.storage import HadoopStorage, absolute, local_path
from retailrec.spark.tasks import (
    ASKED,
    ATTRIBUTE,
    ELIGIBLE,
    POOL_COLUMN,
    POOL_KINDS,
    AnswerPlan,
    UserPlan,
    add_load_reports,
    answer,
    no_history,
    whole_histories,
)
from retailrec.work import Work

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
    output : columns beside those of a list
    """

    model: TwoStageRecommender
    key: str
    request: Request
    users: pl.DataFrame | None
    exposures: Exposures | None = None
    output: ListFormat = NO_COLUMNS

    def plan(self, given: Source, *more: Any) -> list[Any]:
        """The plan of the work: what an earlier call left is taken over if its plan was the same."""
        if given.fingerprint is None:
            return [token_hex(16)]
        facts: list[Any] = [
            self.key,
            given.fingerprint,
            self.request.fingerprint(),
            None if self.users is None else int(self.users.hash_rows(seed=0).sum() or 0),
            repr(more),
            versions(),
            self.output.beside_names,
        ]
        if self.exposures is not None:
            facts.append([str(setting) for setting in self.exposures])
        return facts

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
        """Columns of the lists, as an answer without users has them."""
        known = self.model.catalogue
        none = no_history(known.items.height, cleaned.end)
        lists = self.model.answerer(self.request).answer(none, self.request).lists
        rows = joined(lists, self.output.beside(known.items, known.prices, cleaned.end))
        return kinds_of(rows.schema) | {USER_ID: cleaned.kinds[USER_ID]}

    def like(self, cleaned: Cleaned) -> SparkRequest:
        """The same, with users' ids of the type that the receipts have, each once."""
        if self.users is None:
            return self
        like = pl.Series(USER_ID, [], pl.Int64 if cleaned.kinds[USER_ID] == "long" else pl.String)
        ids = ids_like(self.users[USER_ID], like, who="the shoppers asked for")
        users = first_of_each(self.users.with_columns(ids), USER_ID, cleaned.report)
        return replace(self, users=users)

    def eligible(self, n_users: int) -> Eligible | None:
        """The only items to rank, in the model's codes; `n_users` are asked for.

        Raises
        ------
        DataError
            If none of the items is known, or none of the users listed is asked for.
        """
        if self.request.among is None:
            return None
        users = pl.DataFrame({USER_ID: pl.repeat(None, n_users, eager=True)})
        return self.request.among.bind(self.model.items_, users if self.users is None else self.users)

    @property
    def shared(self) -> NDArray[np.int32] | None:
        """Codes of the only items to rank, where they are the same for all."""
        among = self.request.among
        found = self.eligible(0) if among is not None and among.pairs is None else None
        return None if found is None else found.shared

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the users asked for, and their types."""
        return (
            {} if self.users is None else {c: k for c, k in self.users.schema.items() if c != USER_ID}
        )

    def rows(self, session: SparkSession) -> DataFrame | None:
        """A row a user asked for, which sorts before the user's lines; None: none is named."""
        if self.users is None:
            return None
        users = self.users.select(
            USER_ID,
            pl.lit(ASKED, pl.Int64).alias(LINE),
            *(_travelling(c, kind).alias(ATTRIBUTE + c) for c, kind in self.attributes.items()),
        )
        eligible = self.eligible(users.height)
        if eligible is not None and eligible.own is not None:
            indptr, items = eligible.own.indptr, eligible.own.items
            codes = [items[a:b].tobytes() for a, b in pairwise(indptr)]
            users = users.with_columns(pl.Series(ELIGIBLE, codes, pl.Binary))
        return as_spark(session, users)


def _travelling(name: str, kind: Any) -> pl.Expr:
    """A column of users as Spark takes it, from which a worker casts it back to its type."""
    if kind.is_temporal():
        return pl.col(name).to_physical()
    return pl.col(name) if kind == pl.Boolean else pl.col(name).cast(pl.String)


def asked_users(
    users: Any, among: Among | None, reading: Reading
) -> tuple[pl.DataFrame | None, list[str]]:
    """`user_id` and attributes of the users to answer for, each once, and notes; None: all.

    Without `users` those whom `among` lists. Their columns may be called as `reading` says.

    Raises
    ------
    DataError
        If the frame has no column of ids, or no user.
    """
    if users is None and among is not None:
        users = among.users
    if users is None:
        return None, []
    if isinstance(users, list | tuple | pl.Series):
        frame = pl.DataFrame({USER_ID: id_series(users, who="the shoppers asked for")})
        frame = frame.unique(maintain_order=True)
    elif isinstance(users, str | Path):
        frame = read_table(users, encoding=reading.encoding)
    else:
        frame = polars_of(users) if hasattr(users, "toArrow") else to_polars(users, who="users")
    none, report = pl.Series(USER_ID, [], pl.String), LoadReport("users")
    table = attributes(
        with_our_names(frame, reading.columns),
        USER_ID,
        CodedLines([], {USER_ID: none}, {}),
        (),
        report,
        reading.changed_ids,
    )
    assert table is not None
    if table.is_empty():
        raise DataError("there is no shopper to recommend for; give receipts or a file of users.")
    return table.with_columns(pl.col(pl.Null).cast(pl.String)), report.notes


SHARD_LINES = 500_000  # lines of whole users that a task holds at a time
_TASK_LINES = 2_000_000
_DONE = "state-answered"  # a part without content: all waves are there
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
    output: ListFormat | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Answers:
    """Write the lists of many users to a folder of Parquet: the same lists as on one machine.

    Raw lines are cleaned where they lie, by the local engine's own rules; kept ones are brought
    together by user, wave by wave, and answered by `TwoStageRecommender.answer`. A rerun after an
    interruption goes on with the first unfinished wave. The folder is put in place in one step.

    Parameters
    ----------
    model : folder of a saved model
    receipts : all receipts so far: a Spark DataFrame, the name of a table, or the path of Parquet
    out : new folder, or one that an earlier call wrote; workers and driver must both see it
    users : those to answer for, with attributes if there are any: a frame with `user_id`, a list
        of ids, or the path of a table; by default those whom `among` lists, or all in the receipts
    request : what is asked for each user, or items a user; keywords are `Request`'s fields, as for
        `TwoStageRecommender.recommend`; files that it names are read by this machine
    reading : columns, lines and ids; what it does not say is as when the model was fitted
    line_rules : reasons to reject a line, beside the standard ones
    shard_lines : lines that a task holds at a time, which bounds its memory
    waves : parts of the work, each finished on its own; one for each 256 MB of receipts by default
    session : the active one, or a new one, by default
    exposures : where the pools of explored lists go: a folder of Parquet, as `out` is
    output : columns beside those of a list

    Raises
    ------
    DataError
        If the receipts can't be read, there is no user to answer for, or `out` is not ours.
    SettingError
        If a setting makes no sense, or Spark can't be used as it is.
    ArtifactError
        If the model can't be loaded.
    """
    request = Request.of(request, **settings)
    if shard_lines < 1 or (waves is not None and waves < 1):
        raise SettingError(f"shard_lines and waves must be at least 1, not {shard_lines}, {waves}.")
    if str(out).lower().endswith((".csv", ".xlsx")):
        raise DataError(
            f"{out} is a text file or workbook, and on Spark lists are a folder of Parquet; name a "
            f"folder, and read that with pl.read_parquet('{Path(out).stem}/*.parquet')."
        )
    if exposures is not None:
        exposures.check(request, Path(out))
    progress("load the model")
    recommender = TwoStageRecommender.load(model)
    require_items(request, recommender)
    key = artifact_key(Path(model))
    exposures = None if exposures is None else exposures.of_model(Path(model), key)
    session = connect() if session is None else session
    there = columns_in(session, receipts)
    said = reading.columns or recommender.reading.get("columns", {})
    reading, notes = as_fitted(recommender.reading, there, reading)
    reading = replace(reading, columns=of_lines(reading, there, None)[0])
    line_rules = (*line_rules, *rules_of(reading, there))
    request = request.renamed(reading.changed_ids)
    asked, of_users = asked_users(users, request.among, replace(reading, columns=said))
    here = local_path(absolute(str(receipts))) if isinstance(receipts, str | Path) else None
    _, beside = (None, None) if here is None else tables_beside(here)
    if beside is not None and users is None:
        of_users.append(f"{beside.name} beside the receipts is not read here; name it as the users")
    order = SparkRequest(recommender, key, request, asked, exposures, output or NO_COLUMNS)
    with in_words():
        progress("load receipts")
        place = _Place.of(session, out, exposures)
        given = source(session, receipts, reading.columns)
        plan = order.plan(given, shard_lines, waves, reading, line_rules)
        with Work.held(place.parts, plan, storage=place.storage) as work:
            progress("clean receipts")
            cleaned = stage(session, given, reading, work.path("lines"), line_rules, waves)
            cleaned.report.reading = reading.kept("table")
            cleaned.report.notes[:] = [*notes, *cleaned.report.notes, *of_users]
            return _answered(session, order, Path(model), cleaned, work, place, shard_lines, progress)


def recommend_cleaned(
    session: SparkSession,
    model: Path,
    cleaned: Cleaned,
    out: Path,
    request: Request,
    output: ListFormat,
    progress: Progress = silent,
) -> Answers:
    """As `recommend`, for all users of receipts that have been cleaned already.

    Raises
    ------
    DataError, SettingError, ArtifactError
        As `recommend`.
    """
    order = SparkRequest(
        TwoStageRecommender.load(model), artifact_key(model), request, None, output=output
    )
    own = replace(cleaned, report=copy.deepcopy(cleaned.report))  # that of another job goes on
    with in_words():
        place = _Place.of(session, out)
        with Work.held(place.parts, [token_hex(16)], storage=place.storage) as work:
            return _answered(session, order, model, own, work, place, SHARD_LINES, progress)


def _answered(
    session: SparkSession,
    order: SparkRequest,
    folder: Path,
    cleaned: Cleaned,
    work: Work,
    place: _Place,
    shard_lines: int,
    progress: Progress,
) -> Answers:
    """Answer wave by wave, put the lists in their place, and tell of the whole."""
    order.model.answerer(order.request)  # what it has not learnt is said before any work
    order.check_rules(cleaned)
    _require_known(session, order, cleaned)
    order, at = order.like(cleaned), order.request.at
    if at is not None and at > cleaned.end:
        raise DataError(
            f"at={at} lies after the receipts' end={cleaned.end}; what comes then is not known."
        )
    # once all are answered their files are moved, so it is no longer asked of each
    facts, n_taken_over = work.facts(_DONE), cleaned.n_waves
    if facts is None:
        facts, n_taken_over = _answer_waves(
            session, cleaned, order, folder, work, shard_lines, progress
        )
        work.finish(_DONE, facts)
    reports = facts["parts"]
    add_load_reports([part["load"] for part in reports], cleaned.report, cleaned.numbers)
    cleaned.report.n_items = len(cleaned.items)
    if not reports:
        raise DataError("there is no shopper to recommend for; give receipts or a file of users.")
    amounts = sum((Counter(part["amounts"]) for part in reports), Counter[str]())
    answered = AnswerReport.sum(AnswerReport(**part["answer"]) for part in reports)
    report = _completed(answered, amounts, cleaned, order)
    n_pools = 0
    if place.pools is not None:  # first, so that they are there when the lists are
        n_pools = _commit(session, work, "pool", cleaned.n_waves, place.pools, report)
    n_rows = _commit(session, work, "part", cleaned.n_waves, place.target, report)
    work.remove()
    return Answers(Batch(n_rows, report, n_taken_over, n_pools), cleaned.report)


_ASKED = "the shoppers asked for"


def _require_known(session: SparkSession, order: SparkRequest, cleaned: Cleaned) -> None:
    """Raise a DataError if none of the users asked for, or of a list beside the receipts, is known."""
    from pyspark.sql import functions as F

    asked = pl.Series(dtype=pl.String)
    named = [(who, ids, "the shoppers") for who, ids in named_users(order.request).items()]
    if order.users is not None:
        asked = order.users[USER_ID].drop_nulls().cast(pl.String)
        named.insert(0, (_ASKED, asked, "the shoppers in the receipts"))
    for who, ids, whose in named:
        own = pl.DataFrame({USER_ID: typed_ids(ids).cast(pl.String)}).unique()
        there = cleaned.all_lines(session).select(F.col(USER_ID).cast("string").alias(USER_ID))
        found = polars_of(there.join(F.broadcast(as_spark(session, own)), USER_ID, "semi").limit(1))
        found = found if found.height else polars_of(there.distinct().limit(2))
        known = found[USER_ID] if who == _ASKED else pl.concat([found[USER_ID], asked])
        ids_meet(ids, known, who=who, whose=whose, share=0)


def _answer_waves(
    session: SparkSession,
    cleaned: Cleaned,
    order: SparkRequest,
    folder: Path,
    work: Work,
    shard_lines: int,
    progress: Progress,
) -> tuple[dict[str, Any], int]:
    """Answer the waves that are not answered yet; facts of the parts of all, and how many were."""
    ids_like(cleaned.items, order.model.items_[ITEM_ID], who="the fresh receipts")
    end = max(cleaned.end, order.model.end_)
    in_parts = UserPlan(cleaned.far, end, shard_lines, order.users is None, order.attributes)
    archive = f"retailrec-model-{order.key[:16]}"
    ship(session, folder, archive)
    request = replace(order.request, among=None)  # it goes as codes
    plan = AnswerPlan(partial(loaded, archive), request, order.shared, order.output, order.exposures)
    asked, kinds = order.rows(session), order.kinds(cleaned)
    n_tasks = max(cores(session), -(-cleaned.n_lines // (cleaned.n_waves * _TASK_LINES)))
    parts, n_taken_over = [], 0
    for wave in range(cleaned.n_waves):
        progress("recommend", wave, cleaned.n_waves)
        facts = work.facts(f"part-{wave:06d}")
        if facts is not None:
            n_taken_over += 1
            parts += facts["parts"]
            continue
        lines = cleaned.lines(session, wave)
        if asked is not None:
            of_wave = asked.filter(f"pmod(xxhash64({USER_ID}), {cleaned.n_waves}) = {wave}")
            lines = lines.unionByName(of_wave, allowMissingColumns=True)
        lines = lines.repartition(n_tasks, USER_ID).sortWithinPartitions(USER_ID, LINE)
        users = SparkParts(session, lines, partial(whole_histories, in_parts), cleaned.kinds[USER_ID])
        lists = work.path(f"part-{wave:06d}")
        if order.exposures is None:
            found = users.write(partial(answer, plan), kinds, lists)
        else:
            both = work.path(f"answers-{wave:06d}")
            columns = {**kinds, **POOL_KINDS}
            found = users.write(partial(answer, plan), columns, both)
            rows = session.read.schema(sql_schema(columns)).parquet(both)
            is_pool = f"{POOL_COLUMN}request is not null"
            pools = rows.filter(is_pool).selectExpr(
                *(f"{POOL_COLUMN}{name} as {name}" for name in POOL)
            )
            pools.write.mode("overwrite").parquet(work.path(f"pool-{wave:06d}"))
            rows.filter(f"not ({is_pool})").select(*kinds).write.mode("overwrite").parquet(lists)
            work.storage.remove(both)
        work.finish(f"part-{wave:06d}", {"parts": found})
        parts += found
    progress("recommend", cleaned.n_waves, cleaned.n_waves)
    return {"parts": parts}, n_taken_over


class _Place(NamedTuple):
    """Where lists and pools come to lie, and parts of them beside it until they are complete."""

    storage: HadoopStorage
    target: str
    parts: str
    pools: str | None

    @classmethod
    def of(cls, session: SparkSession, out: str | Path, exposures: Exposures | None = None) -> Self:
        """The place, unless something else stands there.

        Raises
        ------
        DataError
            If it does.
        """
        target = absolute(out).rstrip("/")
        above, _, name = target.rpartition("/")
        pools = None if exposures is None else absolute(exposures.file).rstrip("/")
        storage = HadoopStorage(session, above)
        for folder in (target, pools):
            if folder is None or not storage.exists(folder) or storage.exists(f"{folder}/{_REPORT}"):
                continue
            if not storage.is_folder(folder) or storage.files(folder):
                raise DataError(
                    f"{folder} exists and was not written by retailrec on Spark; it will not be "
                    f"replaced. Name another folder."
                )
        return cls(storage, target, f"{above}/.{name}.parts", pools)


def _completed(
    report: AnswerReport, amounts: Amounts, cleaned: Cleaned, order: SparkRequest
) -> AnswerReport:
    """The report with what can be said of the receipts and lists as a whole."""
    model, request = order.model, order.request
    strange = pl.Series(report.unknown_items, dtype=cleaned.items.dtype).unique().sort()
    end = request.at or cleaned.end
    facts = model.catalogue.facts(
        Unplaced(report.n_events, report.n_unknown_events, strange),
        cleaned.report.first or max(end, model.end_),
        end,
        cleaned.report.n_users,
        amounts,
        cleaned.report.zone,
    )
    if facts.none_known:
        raise DataError(f"recommend: {facts.notes[0]}")
    eligible = order.eligible(report.n_shoppers)
    return report.completed(request, facts, None if eligible is None else eligible.report(request.k))


def _commit(
    session: SparkSession, work: Work, name: str, n_waves: int, target: str, report: AnswerReport
) -> int:
    """Put the rows of all waves below one folder and that in its place; number of rows.

    Done again after an interruption it goes on, and does not replace what is in place.
    """
    storage, result, ready = work.storage, work.path(f"result-{name}"), f"state-{name}"
    if work.facts(ready) is None:
        storage.make_folder(result)
        for wave in (f"{name}-{wave:06d}" for wave in range(n_waves)):
            files = [f for f in storage.files(work.path(wave)) if f.endswith(".parquet")]
            moved = sum(f.startswith(f"{wave}-") for f in storage.files(result))  # by a call before
            for number, file in enumerate(files, moved):
                storage.rename(work.path(f"{wave}/{file}"), f"{result}/{wave}-{number:05d}.parquet")
        storage.write_text(json.dumps(asdict(report), default=str) + "\n", f"{result}/{_REPORT}")
        storage.write_text("", f"{result}/_SUCCESS")
        work.finish(ready)
    if storage.exists(result):  # else it is in place
        if storage.exists(target):
            storage.rename(target, work.path(f"replaced-{name}"))
        storage.rename(result, target)
    rows = [file for file in storage.files(target) if file.endswith(".parquet")]
    return session.read.parquet(target).count() if rows else 0
