"""Recommendations for all users, block by block, to a file: bounded memory, resumable, never half.

Each block of users becomes a part beside the file; the parts become the file in one step when all
are there. A rerun with the same model, data and request takes over the parts it finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.data import Histories, RetailData
from retailrec.data.cleaning import LoadReport
from retailrec.data.files import read_table
from retailrec.data.history import Receipts
from retailrec.data.parsing import ids_like, ids_meet, parse_time, typed_ids
from retailrec.datasets import open_alike
from retailrec.datasets.base import PLAIN, Reading
from retailrec.datasets.table import with_our_names
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.recommender.answers import Answer, AnswerReport
from retailrec.recommender.artifact import model_folder, versions
from retailrec.recommender.exploration import policy_name
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import CATEGORIES, ITEM_ID, USER_ID
from retailrec.work import Work, require_apart, result_file

BLOCK_USERS, BLOCK_LINES = 16_384, 2_000_000  # a block ends where either is reached


class Exposures(NamedTuple):
    """Where the pools of explored lists are written, and what rows say of all of them.

    Attributes
    ----------
    file : ends in .parquet; on Spark a folder
    policy : what proposes the lists; empty: the model's name and key, where they are known
    time : when they are shown or sent; None: at the end of the receipts
    shown_only : rows of what is listed alone, k / pool of them: fit for caps, not for judging lists
    """

    file: Path
    policy: str = ""
    time: datetime | None = None
    shown_only: bool = False

    def check(self, request: Request, out: Path) -> None:
        """Raise a SettingError if such a request has no pools, or both results are one file."""
        if not request.explore:
            raise SettingError(
                f"exposures {self.file}: the request explores nothing, so there are no pools to write. "
                f"Say explore, such as explore=0.1, or leave exposures out."
            )
        require_apart(out, self.file)

    def of_model(self, folder: Path, key: str) -> Exposures:
        """With a saved model for the policy, where none is named."""
        return self if self.policy else self._replace(policy=policy_name(folder.absolute().name, key))

    def of(self, answer: Answer, end: datetime) -> pl.DataFrame:
        """The rows of an answer's pools; `end` is that of the receipts."""
        return answer.exposures(self.policy, self.time or end, shown_only=self.shown_only)


class Batch(NamedTuple):
    """What `recommend_to_file` did.

    Attributes
    ----------
    n_rows : recommendations written
    report : counts of what could not be used, and what rules did
    n_taken_over : blocks that an earlier, interrupted call had finished
    n_exposures : rows of pools written
    """

    n_rows: int
    report: AnswerReport
    n_taken_over: int
    n_exposures: int = 0


def recommend_to_file(
    model: TwoStageRecommender,
    data: RetailData,
    out: Path,
    request: Request | int | None = None,
    *,
    users: Any = None,
    key: str | None = None,
    progress: Progress = silent,
    block_lines: int = BLOCK_LINES,
    output: ListFormat | None = None,
    exposures: Exposures | None = None,
    **settings: Any,
) -> Batch:
    """Write `model.recommend` of many users to `out`.

    Where `data` is a sample, the lists of all users of its population are written, where these lie: on
    Spark to a folder of Parquet. Of the further parameters `output` counts there.

    Parameters
    ----------
    data : all receipts so far; items are recognised by id
    out : ends in .parquet, .csv or .xlsx; Parquet carries the end of what lists know: `end_of`
    request : what is asked for each user, or items a user; keywords are `Request`'s fields
    users : ids of the users to answer for, unknown ones included; by default those whom the request's
        eligible items name, or all of `data`
    key : identifies the model, such as `artifact_key`; without it nothing is taken over
    output : columns beside those of a list, and how text files are written
    exposures : where the pools of explored lists go; both files appear when both are whole
    block_lines : receipt lines after which a block ends, which bounds memory

    Raises
    ------
    DataError
        If the file can't be written, there is no user to answer for, or the model knows no item of the
        receipts.
    SettingError
        If the request makes no sense, or the model learnt no ranker of new items.
    """
    request = model.request(request, **settings).renamed(data.changed_ids)
    answerer = model.answerer(request)  # what it has not learnt is said before any work
    output = output or NO_COLUMNS
    if data.population is not None:
        batch: Batch = data.population.write_lists(model, out, request, output, progress)
        return batch
    output.check(out)
    if exposures is not None:
        exposures.check(request, out)
        if exposures.file.suffix != ".parquet":
            raise DataError(f"exposures {exposures.file} must end in .parquet.")
    placed = answerer.catalogue.placed(data, users, request)
    asked, receipts = placed.histories, placed.receipts
    if not isinstance(asked, Histories) or receipts is None or not len(asked):
        raise DataError("there is no shopper to recommend for; give receipts or a file of users.")
    if receipts.none_known:
        raise DataError(f"recommend: {receipts.notes[0]}")
    if out.suffix == ".xlsx" and len(asked) * request.k > _SHEET_ROWS:
        raise DataError(
            f"{out} would have up to {len(asked) * request.k:,} rows, and a sheet has {_SHEET_ROWS:,}; "
            f"write .csv or .parquet, or ask for fewer users."
        )
    end = max(receipts.end, answerer.catalogue.end)
    beside = output.beside(answerer.catalogue.items, answerer.catalogue.prices, end)
    ids = asked.users[USER_ID]
    parts = out.with_name(f".{out.name}.parts")
    plan: list[Any] = [
        ids.to_list(),
        block_lines,
        versions(),
        request.fingerprint(),
        output.beside_names,
    ]
    if exposures is not None:
        exposures = exposures._replace(time=exposures.time or asked.end)
        plan.append([str(setting) for setting in exposures[1:]])
    # what nothing is known of is another plan each time
    plan = [token_hex(16)] if key is None else [key, data.fingerprint(), *plan]
    try:
        with Work.held(parts, plan) as work:
            taken_over, report, files, pools = 0, AnswerReport(0), [], []
            for number, block in enumerate(blocks(asked.data, asked.codes, block_lines)):
                part, pool = (f"{what}-{number:06d}.parquet" for what in ("part", "pool"))
                files.append(work.path(part))
                pools.append(work.path(pool))
                facts = work.facts(part)
                if exposures is not None and work.facts(pool) is None:
                    facts = None
                taken_over += facts is not None
                if facts is None:
                    lists = None if placed.eligible is None else placed.eligible.rows(block)
                    answer = answerer.answer(asked.rows(block), request, lists)
                    if exposures is not None:
                        work.keep(exposures.of(answer, asked.end), pool)
                    facts = asdict(answer.report)
                    work.keep(joined(answer.lists, beside), part, facts)
                report += AnswerReport(**facts)
                progress("recommend", block.stop, len(asked))
            results = {out: files} if exposures is None else {out: files, exposures.file: pools}
            n_rows = _combine(results, output, end)
            work.remove()
    except OSError as error:
        raise DataError(f"{out} can't be written: {error}. Finished parts stay in {parts}.") from error
    report = report.completed(request, receipts, placed.among)
    return Batch(n_rows[out], report, taken_over, 0 if exposures is None else n_rows[exposures.file])


class Answers(NamedTuple):
    """What `recommend_from_files` did.

    Attributes
    ----------
    batch : shoppers, recommendations, effects of rules
    load_report : of the receipts
    """

    batch: Batch
    load_report: LoadReport


def recommend_from_files(
    model: Path,
    history: Path,
    out: Path,
    request: Request,
    *,
    users: Path | None = None,
    reading: Reading = PLAIN,
    output: ListFormat | None = None,
    exposures: Exposures | None = None,
    progress: Progress = silent,
) -> Answers:
    """Recommendations from a saved model and a file of receipts, to a file.

    Answers for the users of the file `users` (known or not), or else for those whom the request's
    eligible items name, or for all in the receipts. Called again after an interruption, it goes on with
    the first unfinished block of users. What `reading` does not say of the
    file is as when the model was fitted. With `exposures` the pools of
    explored lists are written, too.

    Raises
    ------
    DataError, SettingError
        As `recommend_to_file`, or if ids of users meet none in the receipts.
    """
    if exposures is not None:
        exposures.check(request, out)  # before any work
    (output or NO_COLUMNS).check(out)
    progress("load the model")
    recommender = TwoStageRecommender.load(model)
    require_items(request, recommender)
    progress(f"load {history}")
    tables = open_alike(recommender.reading, history, reading)
    encoding = reading.encoding or recommender.reading.get("encoding")
    table = None if users is None else read_table(users, encoding=encoding)
    tables = replace(tables, items=None, item_columns=())
    request = request.renamed(tables.changed_ids)
    if table is not None:
        table = with_our_names(table, reading.columns or recommender.reading.get("columns", {}))
        if tables.changed_ids is not None and "user_id" in table.columns:
            table = table.with_columns(typed_ids(table["user_id"]))
            table = tables.changed_ids.folded(table, "user_id")
        tables = replace(tables, users=table, user_columns=())
    data = tables.data()
    seen = data.users["user_id"].gather(data.log["user"].unique())
    asked, notes = None, []
    if table is not None:
        asked = ids_like(table["user_id"], data.users["user_id"], who=f"{users}")
        asked = asked.drop_nulls().unique().sort()
        notes.append(
            ids_meet(asked, seen, who=f"{users}", whose="the shoppers in the receipts", share=0)
        )
    for name, ids in named_users(request).items():
        notes.append(ids_meet(ids, data.users["user_id"], who=name, whose="the shoppers", share=0))
    data.report.notes += [note for note in notes if note]
    key = artifact_key(model)
    batch = recommend_to_file(
        recommender,
        data,
        out,
        request,
        users=asked,
        key=key,
        output=output,
        exposures=None if exposures is None else exposures.of_model(model, key),
        progress=progress,
    )
    return Answers(batch, data.report)


def require_items(request: Request, model: TwoStageRecommender) -> None:
    """Raise a SettingError if lists are to be longer than all that the model knows."""
    known = model.items_.height
    if request.k > known:
        raise SettingError(f"k={request.k} is more than the {known:,} items that the model knows.")


def named_users(request: Request) -> dict[str, pl.Series]:
    """Ids of the users that lists beside the receipts name, by what the list is called."""
    lists = {"dismissals": request.dismissals, "the previous lists": request.previous}
    if request.rules is not None:
        lists["the rule deny"] = request.rules.deny
    return {
        name: frame[USER_ID]
        for name, frame in lists.items()
        if frame is not None and USER_ID in frame.columns
    }


def blocks(data: Receipts, codes: NDArray[np.int64], block_lines: int = BLOCK_LINES) -> Iterator[slice]:
    """Rows of consecutive users: a block ends at `BLOCK_USERS` of them or `block_lines` lines."""
    of_shopper = np.bincount(data.log["user"].to_numpy(), minlength=data.n_users)
    lines = np.where(codes >= 0, of_shopper[np.maximum(codes, 0)], 0)
    start, size = 0, 0
    for at in range(len(codes)):
        if at > start and (at - start == BLOCK_USERS or size + lines[at] > block_lines):
            yield slice(start, at)
            start, size = at, 0
        size += int(lines[at])
    yield slice(start, len(codes))


def artifact_key(folder: Path) -> str:
    """Fingerprint of a saved model, in hex digits."""
    return hashlib.sha256((model_folder(folder) / "manifest.json").read_bytes()).hexdigest()


def _combine(results: Mapping[Path, list[str]], output: ListFormat, end: datetime) -> dict[Path, int]:
    """The parts of each result below each other, all results in their place or none; rows of each."""
    with ExitStack() as stack:
        for out, files in results.items():
            partial = stack.enter_context(result_file(out))
            output.write(pl.scan_parquet(files, glob=False), partial, end)
    return {
        out: int(pl.scan_parquet(files, glob=False).select(pl.len()).collect().item())
        for out, files in results.items()
    }


# -- how lists are written -------------------------------------------------------------------------

_BESIDE = ("name", "brand", "category", "price", "end")
# text that a spreadsheet runs, blanks before it and wide forms (of an East Asian keyboard) included
_FORMULA = r"^(\s*[=+\-@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]|[\t\r\n])"
_END = "retailrec.end"  # key in the metadata of a Parquet file of lists
_SHEET_ROWS = 1_048_575  # of a workbook's sheet, below its header


@dataclass(frozen=True)
class ListFormat:
    """What a file of lists has beside the lists, and how it is written.

    Attributes
    ----------
    beside_names : of `name`, `brand`, `category` (all levels), `price` (last known, of one unit) and
        `end` (the first instant that the list did not know)
    separator, decimal : of CSV files; with a decimal comma fields are parted by ``;`` by default
    safe_csv : put ' before text that a spreadsheet would run as a formula

    Raises
    ------
    SettingError
        If a name is not known, or fields could not be kept apart.

    Examples
    --------
    >>> ListFormat(("name", "price"), decimal=",").parted_by
    ';'
    """

    beside_names: tuple[str, ...] = ()
    separator: str | None = None
    decimal: str = "."
    safe_csv: bool = False

    def __post_init__(self) -> None:
        for name in self.beside_names:
            if name not in _BESIDE:
                raise SettingError(
                    f"--with names '{name}'; expected some of {', '.join(_BESIDE)}, commas between."
                )
        if self.decimal not in (".", ","):
            raise SettingError(f"--decimal is {self.decimal!r}; expected . or ,")
        separator = self.parted_by
        if len(separator) != 1 or not separator.isascii() or separator in '"\n\r' + self.decimal:
            raise SettingError(
                f"--separator is {separator!r}; expected one sign such as ';' or a tab that is not the "
                f"decimal mark."
            )

    @property
    def parted_by(self) -> str:
        """The sign between fields."""
        if self.separator is None:
            return ";" if self.decimal == "," else ","
        return {"tab": "\t", "\\t": "\t"}.get(self.separator, self.separator)

    def check(self, out: Path) -> None:
        """Raise where the file could not be written so: what can be known before anything is loaded.

        Raises
        ------
        DataError
            If its ending is not known, or a package is missing.
        SettingError
            If a way to write text is asked of another file.
        """
        if out.suffix not in (".parquet", ".csv", ".xlsx"):
            raise DataError(f"{out} must end in .parquet, .csv or .xlsx.")
        if out.suffix != ".csv" and (self.separator is not None or self.decimal != "."):
            raise SettingError(f"--separator and --decimal are of .csv files, and {out} is none.")
        if out.suffix == ".xlsx" and find_spec("xlsxwriter") is None:
            raise DataError(f"{out} needs the package xlsxwriter; pip install 'retailrec[excel]'.")

    def beside(
        self, items: pl.DataFrame, prices: NDArray[np.float64], end: datetime
    ) -> pl.DataFrame | None:
        """A row of each item with the columns that are asked for; None where none is.

        Raises
        ------
        DataError
            If the catalogue has no such column.
        """
        columns = [pl.lit(end).alias("end")] if "end" in self.beside_names else []
        if "price" in self.beside_names:
            items = items.with_columns(pl.Series("price", prices, nan_to_null=True).round(2))
        wanted: list[str] = []
        for name in self.beside_names:
            there = CATEGORIES if name == "category" else () if name == "end" else (name,)
            found = [c for c in there if c in items.columns]
            if there and not found:
                raise DataError(
                    f"--with {name}: the model's catalogue has no such column; it has {items.columns}. "
                    f"Fit with a catalogue, or map it: --columns {there[0]}=..."
                )
            wanted += found
        return items.select(ITEM_ID, *wanted, *columns) if wanted or columns else None

    def write(self, lists: pl.LazyFrame, file: Path, end: datetime) -> None:
        """Write lists by the file's ending."""
        if file.suffix == ".parquet":
            lists.sink_parquet(file, metadata={_END: end.isoformat()})
        elif file.suffix == ".xlsx":
            _write_sheet(lists.collect(), file)
        else:
            if self.safe_csv:
                lists = lists.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'$1"))
            lists.sink_csv(file, separator=self.parted_by, decimal_comma=self.decimal == ",")


NO_COLUMNS = ListFormat()  # lists alone


def joined(lists: pl.DataFrame, beside: pl.DataFrame | None) -> pl.DataFrame:
    """Lists with what stands beside each item, in their order."""
    if beside is None:
        return lists
    return lists.join(beside, on=ITEM_ID, how="left", maintain_order="left")


def _write_sheet(lists: pl.DataFrame, file: Path) -> None:
    """A workbook of one sheet; text is text, never a formula or a link."""
    import xlsxwriter

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "default_date_format": "yyyy-mm-dd hh:mm",
    }
    with xlsxwriter.Workbook(str(file), options) as book:
        sheet = book.add_worksheet("recommendations")
        sheet.freeze_panes(1, 0)
        sheet.write_row(0, 0, lists.columns)
        for number, row in enumerate(lists.iter_rows(), 1):
            if sheet.write_row(number, 0, row):  # it would be left out or cut short without a word
                raise DataError(
                    f"{file} can't hold row {number:,}: a sheet has 1,048,576 rows, a cell 32,767 "
                    f"characters. Name a .csv or .parquet file."
                )


def end_of(file: Path, lists: pl.DataFrame | None = None) -> datetime | None:
    """The first instant that lists in a file did not know: as Parquet carries it, or a column `end`.

    None where the file does not say.
    """
    if lists is not None and "end" in lists.columns and lists.height:
        try:
            last = parse_time(lists["end"], who=str(file)).max()
        except RetailRecError:
            return None  # a column of another meaning
        return last if isinstance(last, datetime) else None
    if file.suffix != ".parquet" or not file.is_file():
        return None
    try:
        return datetime.fromisoformat(pl.read_parquet_metadata(file).get(_END, ""))
    except (ValueError, OSError, pl.exceptions.PolarsError):
        return None
