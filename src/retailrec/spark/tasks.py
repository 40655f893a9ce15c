"""What runs in Spark's Python workers: the local engine, called on parts of the receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import (
    LINE,
    LineRule,
    LoadReport,
    currencies_in,
    kept_lines,
    no_purchases_in,
    of_purchases,
    parse_lines,
)
from retailrec.data.columns import join_time
from retailrec.data.encoding import build_log, code_cleaned, places, slim_lines
from retailrec.data.history import History, Pairs
from retailrec.data.ids import users_of, vocabulary
from retailrec.data.parsing import clock_there
from retailrec.recommender.among import Eligible
from retailrec.recommender.answers import EXAMPLES
from retailrec.recommender.batch import Exposures, ListFormat, joined
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, POOL, USER_ID
from retailrec.spark.mapping import kinds_of, polars_of, whole_users, with_kinds

if TYPE_CHECKING:
    import pyarrow as pa


# of a load's report, what adds up over parts of the users
_COUNTS = ("kept", "merged", "pieces", "differing", "doubled", "split", "twins", "n_users", "n_baskets")


def add_load_reports(
    reports: Sequence[dict[str, Any]], into: LoadReport, numbers: Callable[[int], int]
) -> None:
    """Add what shards' cleaning did, as JSON holds it, to the report of the whole.

    `numbers` makes a line's number of its place.
    """
    rejected: dict[str, int] = {}
    examples: dict[str, list[int]] = {}
    differences: list[tuple[int, str]] = []
    for part in reports:
        for count in _COUNTS:
            setattr(into, count, getattr(into, count) + part[count])
        into.crowds += [(user, n) for user, n in part["crowds"]]
        for n, users in part["visits"].items():
            into.visits[int(n)] = into.visits.get(int(n), 0) + users
        differences = sorted([*differences, *map(tuple, part["differences"])])[:3]
        for name in ("first", "last"):
            if part[name] is not None:
                time, known = datetime.fromisoformat(part[name]), getattr(into, name)
                pick = min if name == "first" else max
                setattr(into, name, time if known is None else pick(time, known))
        for reason, n in part["rejected"].items():
            rejected[reason] = rejected.get(reason, 0) + n
            examples[reason] = sorted([*examples.get(reason, []), *part["examples"][reason]])[:3]
    for reason, n in rejected.items():
        into.rejected[reason] = into.rejected.get(reason, 0) + n
        known = into.examples.get(reason, [])
        into.examples[reason] = sorted([*known, *(numbers(place) for place in examples[reason])])[:3]
    into.rejected = dict(sorted(into.rejected.items(), key=lambda pair: -pair[1]))
    into.differences = [(numbers(place), words) for place, words in differences]
    into.note_receipts()


def as_part(report: LoadReport) -> dict[str, Any]:
    """What `add_load_reports` adds up."""
    return report.as_dict() | {"visits": report.visits}


ATTRIBUTE = "attribute_"  # how columns of users' attributes begin, so that they meet no line's
ELIGIBLE = "eligible"  # of a row that asks for a user: codes of the only items to rank, int32
POOL_COLUMN = "pool_"  # how columns of explored pools begin, in rows that are of no list
POOL_KINDS = kinds_of({POOL_COLUMN + name: kind for name, kind in POOL.items()})  # beside the lists
ASKED = -1  # `line` of the row that says that a user is asked for


@dataclass(frozen=True)
class CleanPlan:
    """How receipt lines are parsed and cleaned.

    Attributes
    ----------
    columns : standard name -> the caller's name
    rules : reasons to reject a line
    place : column of a line's place, which becomes its number
    kinds : output column -> ``long``, ``string``, ``double``, ``float`` or ``timestamp``
    zone : that of the times, where they have one
    changed_ids : ids of users and items that changed
    notation : how a column of clocks writes whole numbers
    describing : columns that describe items, by our names
    """

    columns: dict[str, str]
    rules: tuple[LineRule, ...]
    place: str
    kinds: dict[str, str]
    zone: str | None = None
    changed_ids: ChangedIds | None = None
    notation: dict[str, str] = field(default_factory=dict)
    describing: tuple[str, ...] = ()


def clean(plan: CleanPlan, table: pa.Table) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Kept lines, slim, with `reason` null, and rejected ones with their reason; what they count."""
    frame = polars_of(table)
    place, raw = frame[plan.place].alias(LINE), frame.drop(plan.place)
    if plan.zone is not None:
        zoned = raw.select(pl.col(pl.Datetime("us", "*")).to_physical())
        raw = raw.with_columns(clock_there(c, "us", plan.zone, "receipts") for c in zoned)
    report = LoadReport("part")
    good = kept_lines(_parsed(raw, plan, report).with_columns(place), plan.rules, report)
    parts = [with_kinds(part, plan.kinds) for part in (_slim(good, plan), report.rejects)]
    facts = {
        "empty": report.empty,
        "changed": report.changed,
        "currencies": currencies_in(good),
        "no_purchases": no_purchases_in(good),
    }
    return pl.concat(p for p in parts if p.height), facts


def sample_of_cleaned(frame: pl.DataFrame, plan: CleanPlan) -> pl.DataFrame:
    """What `clean` makes of a line of nulls: which columns come out."""
    return _slim(_parsed(frame.drop(plan.place), plan), plan)


def _slim(good: pl.DataFrame, plan: CleanPlan) -> pl.DataFrame:
    """The columns that a log is made of, and those that describe items."""
    return slim_lines(good).hstack(good.select(plan.describing))


def _parsed(raw: pl.DataFrame, plan: CleanPlan, report: LoadReport | None = None) -> pl.DataFrame:
    """The standard columns of some lines; a day and a clock are joined, also where all are empty."""
    raw, columns = join_time(raw, plan.columns, dict(plan.notation))
    time = columns.get("time", "time")
    if time in raw.columns and raw[time].null_count() == raw.height:
        raw = raw.with_columns(pl.lit(None, pl.Datetime("us")).alias(time))
    return parse_lines(raw, columns, changed_ids=plan.changed_ids, report=report)


@dataclass(frozen=True)
class UserPlan:
    """How cleaned lines of whole users become data of the local engine.

    Attributes
    ----------
    far : the rule against dates far from all others
    end : first instant that is not known
    shard_lines : lines that a task holds at a time, a user's last ones aside
    all_users : are all users meant, or those only who are asked for?
    attributes : columns that describe users, with their Polars types
    """

    far: LineRule | None
    end: datetime
    shard_lines: int
    all_users: bool
    attributes: dict[str, Any]


class UserLines(NamedTuple):
    """Whole users: their data, who of them is asked for (None: all), and what cleaning did.

    `own` holds the only items to rank of each user asked for, where users have own lists.
    """

    data: RetailData
    asked: pl.Series | None
    report: LoadReport
    own: Pairs | None = None


def whole_histories(plan: UserPlan, batches: Iterator[pa.RecordBatch]) -> Iterator[UserLines]:
    """The data of a task, some whole users at a time."""
    for table in whole_users(batches, plan.shard_lines):
        frame = polars_of(table)
        is_asked = frame[LINE] == ASKED
        users, asked, own = None, None, None
        if is_asked.any() or not plan.all_users:
            named = frame.filter(is_asked).sort(USER_ID)
            users = named.select(
                USER_ID,
                *(pl.col(ATTRIBUTE + c).cast(kind).alias(c) for c, kind in plan.attributes.items()),
            )
            asked = None if plan.all_users else users[USER_ID]
            own = own_items(named[ELIGIBLE]) if ELIGIBLE in frame.columns else None
            frame = frame.filter(~is_asked)
        lines = frame.drop([*(ATTRIBUTE + c for c in plan.attributes), ELIGIBLE], strict=False)
        report = LoadReport("part", read=lines.height)
        yield UserLines(data_of_lines(lines, plan, users, report), asked, report, own)


def own_items(codes: pl.Series) -> Pairs:
    """Each user's items, from their bytes.

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
    lines: pl.DataFrame, plan: UserPlan, users: pl.DataFrame | None, report: LoadReport
) -> RetailData:
    """Cleaned lines of whole users, in order of place, as the data that the whole log would hold."""
    kept = lines if plan.far is None else kept_lines(lines, [of_purchases(plan.far)], report)
    if "store" in kept.columns:
        kept = kept.with_columns(pl.col("store").cast(pl.Categorical))
    coded = code_cleaned(kept, report)
    items = vocabulary(None, coded.ids[ITEM_ID], ITEM_ID)
    log = build_log(coded, items[ITEM_ID], report).lines
    table, log = users_of(users, coded.ids[USER_ID], log)
    report.kept, report.first, report.last = log.height, log["time"].min(), log["time"].max()  # type: ignore[assignment]
    report.n_users, report.n_baskets = log["user"].n_unique(), log["basket"].n_unique()
    return RetailData(log, items, table, plan.end, report)


@dataclass(frozen=True)
class AnswerPlan:
    """What is asked of a model.

    Attributes
    ----------
    model : gives the model
    request : what is asked for each user, without its eligible items
    shared : codes of the only items to rank, where they are the same for all users
    output : columns beside those of a list
    exposures : what rows of the explored pools say; None: pools are not written
    """

    model: Callable[[], TwoStageRecommender]
    request: Request
    shared: NDArray[np.int32] | None
    output: ListFormat
    exposures: Exposures | None = None


def answer(plan: AnswerPlan, part: UserLines) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Lists of whole users, below them their pools; the report, that of cleaning, and amounts."""
    answerer = plan.model().answerer(plan.request)
    placed = answerer.catalogue.placed(part.data, part.asked, plan.request)
    among = None
    if part.own is not None or plan.shared is not None:
        among = Eligible(len(placed.histories), plan.shared, part.own)
    found = answerer.answer(placed.histories, plan.request, among)
    known, end = answerer.catalogue, placed.histories.end
    rows = joined(found.lists, plan.output.beside(known.items, known.prices, end))
    report = found.report
    if (receipts := placed.receipts) is not None:
        n, unknown, items = receipts.unplaced
        some = tuple(items[:EXAMPLES].to_list())
        report = replace(report, n_events=n, n_unknown_events=unknown, unknown_items=some)
    if plan.exposures is not None:
        pools = plan.exposures.of(found, end)
        renamed = pools.rename(lambda name: POOL_COLUMN + name)
        rows = pl.concat([rows, renamed], how="diagonal")
    amounts = {} if receipts is None else receipts.amounts
    return rows, {"answer": asdict(report), "load": as_part(part.report), "amounts": amounts}


def log_lines(items: pl.Series, part: UserLines) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The log of whole users: item codes of the whole catalogue, receipts numbered in the part."""
    data = part.data
    code = places(data.items[ITEM_ID], items)
    log = data.log.with_columns(
        data.users[USER_ID].gather(data.log["user"]).alias(USER_ID),
        code.gather(data.log["item"]).alias("item"),
    )
    return log, as_part(part.report)


def no_history(n_items: int, end: datetime) -> History:
    """The histories of no user."""
    log = pl.DataFrame(
        schema={
            "item": pl.Int32,
            "basket": pl.Int32,
            "time": pl.Datetime("us"),
            "quantity": pl.Float64,
            "value": pl.Float64,
        }
    )
    none = np.zeros(0, np.int64)
    return History.from_log(log, none, pl.DataFrame(schema={USER_ID: pl.Int64}), end, n_items, "")
