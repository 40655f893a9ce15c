"""Receipt lines to one coded log, part by part: the one place where ids become codes.

A part is a frame of raw lines. Each is parsed, cleaned and shrunk to some 40 bytes a line before the
next one is read, so a log that is larger than memory as text can be loaded. What can only be known
at the end waits for it: the vocabularies, the format of times written as text, and receipts, which may
lie in several parts and several exports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import (
    LINE,
    RETURN,
    TAKES_BACK,
    LineRule,
    LoadReport,
    came_again,
    currencies_in,
    currency_notes,
    far_notes,
    far_rule,
    kept_lines,
    n_twins,
    no_purchase_notes,
    no_purchases_in,
    of_purchases,
    parse_lines,
    refuse_if_none,
    set_aside,
    split_receipts,
    unmet_notes,
)
from retailrec.data.files import located, stack
from retailrec.data.interchange import to_polars
from retailrec.data.lines import CARRIED, in_order, merged, named, settled
from retailrec.data.parsing import EARLIEST, parse_time, seem_swapped, zero_twins
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID

PART_ROWS = 500_000  # lines worked on at a time
_CODED = (USER_ID, ITEM_ID, "basket_id")
_FIRST_SECOND = int((EARLIEST - datetime(1970, 1, 1)).total_seconds())


@dataclass
class CodedLines:
    """What a `Coder` gives: lines that keep the rules, ids as codes of sorted vocabularies.

    Attributes
    ----------
    lines : parts with `user_id`, `item_id`, `basket_id` (int32 codes), `time`, `quantity`, `value`,
        `line`, carried columns, and `file` where there are several exports
    ids : id column -> ids of the lines that take nothing back, ascending; the code is the place
    described : id column -> distinct (id, described-by columns, time, line) of the lines
    times : `text`, as times are written, and `time`; None where they came as times
    """

    lines: list[pl.DataFrame]
    ids: dict[str, pl.Series]
    described: dict[str, pl.DataFrame]
    times: pl.DataFrame | None = None


@dataclass
class _Vocabulary:
    """Ids of the parts so far; each part's lines hold places in the part's own sorted ids."""

    parts: list[pl.Series] = field(default_factory=list)
    bought: list[pl.Series] = field(default_factory=list)  # those of lines that take nothing back

    def add(self, ids: pl.Series, back: pl.Series | None = None) -> pl.Series:
        """Codes of one part's ids within the part, int32; null stays null."""
        own = ids.drop_nulls().unique().sort()
        codes = places(ids, own)
        seen = own
        if back is not None:
            there = np.zeros(len(own), np.bool_)
            there[codes.filter(~back).drop_nulls().to_numpy()] = True
            seen = own.filter(pl.Series(there))
        self.parts.append(own)
        self.bought.append(seen)
        return codes

    def finish(self) -> tuple[pl.Series, list[pl.Series]]:
        """All ids, ascending, and for each part the final code of each of its own.

        An id that only lines have that take back has none: its code is null.
        """
        if len({p.dtype for p in self.parts}) > 1:  # text in one part is text in all
            self.parts = [p.cast(pl.String) for p in self.parts]
            self.bought = [p.cast(pl.String) for p in self.bought]
        everything = pl.concat(self.bought).unique().sort()
        finals = []
        for part, seen in zip(self.parts, self.bought, strict=True):
            codes = places(part, everything)
            if len(seen) < len(part):  # no `is_in`, which would hash all ids for each part
                codes = codes.set(~everything.gather(codes, null_on_oob=True).eq_missing(part), None)
            finals.append(codes)
        return everything, finals


def places(ids: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """Place of each id in the sorted, complete vocabulary, int32; null stays null."""
    return vocabulary.search_sorted(ids).cast(pl.Int32).set(ids.is_null(), None)


def parts_of(transactions: Any) -> Iterator[pl.DataFrame]:
    """Frames of at most `PART_ROWS` lines: slices of one frame, or the frames of an iterator."""
    frames = transactions if isinstance(transactions, Iterator) else iter([transactions])
    for one in frames:
        frame = to_polars(one, who="transactions")
        for at in range(0, max(frame.height, 1), PART_ROWS):
            yield frame.slice(at, PART_ROWS)


def code_cleaned(lines: pl.DataFrame, report: LoadReport) -> CodedLines:
    """Slim lines that are cleaned, coded; `report` gains returns without a purchase."""
    coder = Coder({}, (), report)
    coder.take(lines, lines)
    ids, parts = coder.final()
    return CodedLines(parts, ids, {})


@dataclass
class Coder:
    """Parses, cleans, shrinks and codes the parts of a log.

    Attributes
    ----------
    columns, time_format, changed_ids : of the lines, as for `parse_lines`
    rules : reasons to reject a line
    report : gains what is read and rejected
    described_by : id column -> columns of the lines that describe it
    """

    columns: Mapping[str, str]
    rules: Sequence[LineRule]
    report: LoadReport
    described_by: Mapping[str, Sequence[str]] = field(default_factory=dict)
    time_format: str | None = None
    changed_ids: ChangedIds | None = None

    def __post_init__(self) -> None:
        self.notation: dict[str, str] = {}  # of numbers, as the parts so far agree
        # times written as text or numbers get their meaning at the end, when all have been seen
        self.late = [r for r in self.rules if set(r.when.meta.root_names()) == {"time"}]
        self.described: dict[str, list[pl.DataFrame]] = {
            k: [] for k, v in self.described_by.items() if v
        }
        self.vocabularies: dict[str, _Vocabulary] = {}
        self.lines: list[pl.DataFrame] = []
        self.empty: pl.DataFrame | None = None
        self.currencies: dict[str, Counter[str]] = {}  # column -> lines by what it says
        self.no_purchases: dict[str, Counter[str]] = {}
        self.seen: tuple[list[str], bool, str | None] | None = None  # columns, are times late, zone

    def code(self, parts: Iterable[pl.DataFrame]) -> CodedLines:
        """The lines of all parts in codes.

        Raises
        ------
        DataError
            If columns are missing or unreadable, or no line is left.
        """
        for part in parts:
            self.add(part)
        return self.finish()

    def add(self, part: pl.DataFrame) -> None:
        """Take one part of the log."""
        if part.is_empty():
            self.empty = part
            return
        lines = parse_lines(
            part,
            self.columns,
            first_line=self.report.read,
            late_times=True,
            notation=self.notation,
            time_format=self.time_format,
            changed_ids=self.changed_ids,
            report=self.report,
        )
        late_times = not lines["time"].dtype.is_temporal()
        self._require_alike(part, late_times)
        self.report.read += lines.height
        rules = [r for r in self.rules if not (late_times and r in self.late)]
        good = kept_lines(lines, rules, self.report)
        if good.is_empty():
            return
        for said, counted in (
            (self.currencies, currencies_in(good)),
            (self.no_purchases, no_purchases_in(good)),
        ):
            for name, counts in counted.items():
                said.setdefault(name, Counter()).update(counts)
        self.take(slim_lines(good), good, late_times)

    def take(self, small: pl.DataFrame, good: pl.DataFrame, late_times: bool = False) -> None:
        """Code a part that is cleaned; `good` has the columns that describe, too."""
        takes_back = good.select(back=TAKES_BACK)["back"]
        back = takes_back if takes_back.any() else None
        small = small.with_columns(
            self._coded(small[c], back) for c in (*_CODED, "time") if c in small.columns
        )
        if back is not None:
            good = good.filter(~back)
        for key, described in self.described.items():
            names = self.described_by[key]
            described.append(
                good.select(key, *names, "time", LINE).unique([key, *names, "time"], keep="first")
                if late_times
                else good.group_by(key, *names).agg(pl.col("time", LINE).sort_by("time", LINE).first())
            )
        self.lines.append(small)

    def _require_alike(self, part: pl.DataFrame, late_times: bool) -> None:
        kind = part.schema.get(self.columns.get("time", "time"))  # none where it is joined
        zone = kind.time_zone if isinstance(kind, pl.Datetime) else None
        found = (part.columns, late_times, zone)
        self.seen = self.seen or found
        self.report.zone = zone
        if found[2] != self.seen[2]:
            raise DataError(
                f"the parts of the transactions differ: times are in zone {self.seen[2]} in one, "
                f"{zone} in another. Convert them to one zone."
            )
        if found != self.seen:
            raise DataError(
                f"the parts of the transactions differ: one has columns {self.seen[0]}, another "
                f"{part.columns}, or time is text in one of them only. Give alike parts."
            )

    def _coded(self, column: pl.Series, back: pl.Series | None) -> pl.Series:
        if column.name == "time":
            if column.dtype.is_temporal():
                return column
            back = None  # of times written as text, all are read
        return self.vocabularies.setdefault(column.name, _Vocabulary()).add(column, back)

    def finish(self) -> CodedLines:
        """Final codes for all parts, and what could not be judged part by part."""
        for name, counts in self.currencies.items():
            self.report.notes += currency_notes(name, counts)
        for name, counts in self.no_purchases.items():
            self.report.notes += no_purchase_notes(name, counts, self.report.read)
        if self.changed_ids is not None:
            self.report.notes += self.changed_ids.notes(self.report.changed)
        self.report.notes += unmet_notes(self.rules, self.report)
        if self.seen is None and self.empty is not None:
            parse_lines(self.empty, self.columns)  # says what is wrong with it
        refuse_if_none(sum(part.height for part in self.lines), self.report)
        times = None
        ids, self.lines = self.final()
        numbers = ids.get("basket_id")
        if numbers is not None and numbers.dtype == pl.String:
            self.report.notes += zero_twins(numbers.alias("basket_id"))[0]
        refuse_if_none(sum(part.height for part in self.lines), self.report)
        if "time" in ids:
            texts = ids.pop("time")
            parsed = parse_time(texts, who="transactions", time_format=self.time_format)
            times = pl.DataFrame({"text": texts, "time": parsed})
            if self.time_format is None and texts.dtype == pl.String:
                self.report.notes += self._swapped(times)
            n_lines = sum(part.height for part in self.lines)
            self.lines = [self._dated(part, times["time"], ids) for part in self.lines]
            if sum(part.height for part in self.lines) < n_lines:
                self.lines, ids = _without_unused(self.lines, ids)
            refuse_if_none(sum(part.height for part in self.lines), self.report)
        bought = (part.filter(~TAKES_BACK)["time"] for part in self.lines)
        days = pl.concat([times.dt.date().value_counts(name="n") for times in bought])
        days = days.group_by("time").agg(pl.col("n").sum())
        far = far_rule(days)
        self.report.notes += far_notes(days if far is None else days.filter(~far.when))
        if far is not None:
            show = partial(named, ids=ids)
            rules = [of_purchases(far)]
            self.lines = [kept_lines(part, rules, self.report, show) for part in self.lines]
        described = {}
        for key, parts in self.described.items():
            facts = stack(parts)
            if times is not None:
                written = facts["time"].cast(times["text"].dtype)
                facts = (
                    facts.with_columns(text=written).drop("time").join(times, on="text").drop("text")
                )
                facts = facts.filter(~pl.any_horizontal(r.when.fill_null(False) for r in self.late))
            if far is not None:
                facts = facts.filter(~far.when)
            described[key] = facts.with_columns(facts[key].cast(ids[key].dtype))
        return CodedLines(self.lines, ids, described, times)

    def _swapped(self, times: pl.DataFrame) -> list[str]:
        """A sentence on each export whose dates seem to have day and month the other way round."""
        if "file" not in self.lines[0].columns:
            return []
        codes = [part.group_by("file", "time").agg(pl.col(LINE).min()) for part in self.lines]
        dated = pl.concat(codes).drop_nulls().sort(LINE)
        dated = pl.concat([dated, times[dated["time"]].rename({"time": "read"})], how="horizontal")
        odd = [of for of in dated.partition_by("file") if seem_swapped(of["text"], of["read"])]
        where = located(pl.DataFrame({LINE: [of[LINE][0] for of in odd]}), self.report.spans)
        return [
            f"{row.get('file', 'a part')}: its dates, such as {of['text'][0]!r}, may be read either "
            f"way, and are read as those of the other files, {of['read'][0]:%Y-%m-%d}; with day and "
            f"month the other way round they would lie far closer together. If that is right, write "
            f"them as the others"
            for of, row in zip(odd, where.iter_rows(named=True), strict=True)
        ]

    def final(self) -> tuple[dict[str, pl.Series], list[pl.DataFrame]]:
        """All ids, and the parts in final codes."""
        finished = {name: vocabulary.finish() for name, vocabulary in self.vocabularies.items()}
        finals = {name: of_parts for name, (_, of_parts) in finished.items()}
        parts = [self._final(number, part, finals) for number, part in enumerate(self.lines)]
        return {name: ids for name, (ids, _) in finished.items()}, parts

    def _final(
        self, number: int, part: pl.DataFrame, finals: Mapping[str, list[pl.Series]]
    ) -> pl.DataFrame:
        """The part in final codes, without returns of what was not bought."""
        codes = {name: of_part[number].gather(part[name]) for name, of_part in finals.items()}
        lost = pl.Series("lost", [False]).new_from_index(0, part.height)
        for name, code in codes.items():
            lost |= code.is_null() & part[name].is_not_null()
        final = part.with_columns(code.alias(name) for name, code in codes.items())
        if not lost.any():
            return final
        own = {name: vocabulary.parts[number] for name, vocabulary in self.vocabularies.items()}
        bad = part.filter(lost)
        bad = bad.with_columns(ids.gather(bad[name]).alias(name) for name, ids in own.items())
        set_aside(bad.with_columns(reason=pl.lit(RETURN)), self.report)
        return final.filter(~lost)

    def _dated(
        self, part: pl.DataFrame, times: pl.Series, ids: Mapping[str, pl.Series]
    ) -> pl.DataFrame:
        part = part.with_columns(times.gather(part["time"]).alias("time"))
        return kept_lines(part, self.late, self.report, lambda bad: named(bad, ids))


def _without_unused(
    lines: list[pl.DataFrame], ids: Mapping[str, pl.Series]
) -> tuple[list[pl.DataFrame], dict[str, pl.Series]]:
    """Lines and vocabularies, in new codes where a vocabulary had ids that no line has."""
    kept = dict(ids)
    for name, known in ids.items():
        used = np.zeros(len(known), np.bool_)
        for part in lines:
            used[part[name].drop_nulls().to_numpy()] = True
        if used.all():
            continue
        codes = pl.Series((np.cumsum(used) - 1).astype(np.int32))
        kept[name] = known.filter(pl.Series(used))
        lines = [part.with_columns(codes.gather(part[name]).alias(name)) for part in lines]
    return lines, kept


def slim_lines(good: pl.DataFrame) -> pl.DataFrame:
    """Of parsed lines the columns that a log is made of."""
    kept = [good[c] for c in (*_CODED, "time", "quantity", "value", LINE) if c in good.columns]
    kept += [good["file"].cast(pl.Int32)] if "file" in good.columns else []
    kept += [
        good[c].cast(pl.String).cast(kind) if kind == pl.Categorical else good[c].cast(kind)
        for c, kind in CARRIED.items()
        if c in good.columns
    ]
    return pl.DataFrame(kept)


class Log(NamedTuple):
    """What `build_log` gives.

    Attributes
    ----------
    lines : codes of users and items, receipt times, one row an item of a receipt, sorted
    receipts : (n_receipts,) int64, what names each: a code of `basket_id`s, or, from their number on,
        the second of its time
    again : (n_receipts,) did an earlier receipt of the shopper have its number?
    """

    lines: pl.DataFrame
    receipts: NDArray[np.int64]
    again: NDArray[np.bool_]


def build_log(coded: CodedLines, items: pl.Series, report: LoadReport) -> Log:
    """The log: codes of users and `items`, receipt times, one row an item of a receipt, sorted.

    `RECEIPT_RULES` reject what is void, a return, or stands in another export too; further lines of an
    item on one receipt are added up and counted as merged. `coded.lines` is used up.
    """
    parts, ids = coded.lines, coded.ids
    item = places(ids[ITEM_ID], items)
    receipts = _Vocabulary()
    spans = []
    for number, part in enumerate(parts):
        part = part.with_columns(user=part[USER_ID], item=item.gather(part[ITEM_ID]))
        part = part.with_columns(basket=receipts.add(_receipt(part, ids))).drop(USER_ID, ITEM_ID)
        spans.append(
            part.group_by("basket")
            .agg(first=pl.col("time").min(), last=pl.col("time").max())
            .sort("basket")
        )
        parts[number] = part
    keys, finals = receipts.finish()
    # a till writes one receipt over some minutes: its first purchase dates it, so no cut parts it
    times, last = np.full(len(keys), np.iinfo(np.int64).max), np.zeros(len(keys), np.int64)
    for final, span in zip(finals, spans, strict=True):
        at = final.to_numpy()
        times[at] = np.minimum(times[at], span["first"].to_physical().to_numpy())
        last[at] = np.maximum(last[at], span["last"].to_physical().to_numpy())
    codes = [f.to_numpy()[p["basket"].to_numpy()] for f, p in zip(finals, parts, strict=True)]
    key_of = keys.to_numpy()
    again = came_again(times, last)
    del last, spans, keys
    if again.any():
        key_of, times = split_receipts(codes, parts, key_of, times, again)
    times = _begun(codes, parts, times)
    order = np.lexsort((times, key_of >> 32))  # by shopper and time; ties by receipt
    basket = np.empty(len(order), np.int32)
    basket[order] = np.arange(len(order), dtype=np.int32)
    for number, code in enumerate(codes):
        time = pl.Series("time", times[code]).cast(pl.Datetime("us"))
        parts[number] = parts[number].with_columns(pl.Series("basket", basket[code]), time)
    del codes, basket
    held = [pl.concat(parts)]  # the steps below take it from here: no other reference
    parts.clear()
    held.append(in_order(held))
    held.append(settled(held, {**ids, ITEM_ID: items}, report))
    log = merged(held, report)
    log, left = _numbered(log)
    key_of = key_of[order[left]]
    who = key_of >> 32
    if "basket_id" in ids:
        report.twins = n_twins(who, times[order[left]])
    report.count_visits(ids[USER_ID], np.bincount(who, minlength=len(ids[USER_ID])))
    first = np.full(len(key_of), not again.any())
    if again.any():  # receipts are in order of shopper and time: of one key, the first is the first
        first[np.unique(key_of, return_index=True)[1]] = True
    report.split = int((~first).sum())
    return Log(log.rechunk(), key_of & 0xFFFFFFFF, ~first)  # in one piece, columns need no copy


def _begun(
    codes: list[NDArray[np.int32]], parts: list[pl.DataFrame], times: NDArray[np.int64]
) -> NDArray[np.int64]:
    """When receipts began, by lines that take nothing back, where there are some.

    A return of what no user bought is set aside before, of what others bought only later: with it a
    receipt would begin at another time beside other users.
    """
    back = [part.select(back=TAKES_BACK)["back"].to_numpy() for part in parts]
    mixed = np.zeros(len(times), np.bool_)
    for code, takes_back in zip(codes, back, strict=True):
        mixed[code[takes_back]] = True
    if not mixed.any():
        return times
    never = np.iinfo(np.int64).max
    begun = np.full(len(times), never)
    for code, part, takes_back in zip(codes, parts, back, strict=True):
        rows = np.flatnonzero(mixed[code] & ~takes_back)
        np.minimum.at(begun, code[rows], part["time"].to_physical().to_numpy()[rows])
    return np.where(begun < never, begun, times)


def _numbered(log: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """The log with receipts numbered without gaps, and the numbers that they had."""
    basket = log["basket"].to_numpy()
    starts = np.flatnonzero(np.diff(basket, prepend=-1))
    left = basket[starts]
    if len(left) and left[-1] != len(left) - 1:  # receipts of which nothing was left
        sizes = np.diff(starts, append=len(basket))
        dense = np.repeat(np.arange(len(left), dtype=np.int32), sizes)
        log = log.with_columns(pl.Series("basket", dense))
    return log, left


def _receipt(part: pl.DataFrame, ids: Mapping[str, pl.Series]) -> pl.Series:
    """Int64 of the line's user (high half) and receipt: its id, or else its second.

    A second from `EARLIEST` to `LATEST` fits beside the ids' codes in 32 bits.
    """
    seconds = pl.col("time").dt.epoch("s") - _FIRST_SECOND
    receipt = len(ids["basket_id"]) + seconds if "basket_id" in ids else seconds
    if "basket_id" in ids:
        receipt = pl.coalesce(pl.col("basket_id").cast(pl.Int64), receipt)
    return part.select(pl.col("user").cast(pl.Int64) * 2**32 + receipt).to_series()


def describe(facts: pl.DataFrame, key: str, names: Sequence[str]) -> pl.DataFrame:
    """One row an id: the earliest known value of each of `names`, and the id's earliest `time`."""
    return (
        facts.sort("time", LINE)
        .group_by(key, maintain_order=True)
        .agg(pl.col(names).drop_nulls().first(), pl.col("time").first())
    )
