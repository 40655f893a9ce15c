"""Receipt lines to one coded log, part by part: the one place where ids become codes.

A part is a frame of raw lines. Each is parsed, cleaned and shrunk to some 40 bytes a line before the
next one is read, so a log that is larger than memory as text can be loaded. What can only be known
at the end waits for it: the vocabularies, the format of times written as text, receipts that lie in
several parts, and lines that stand twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from retailrec.data.cleaning import (
    LINE,
    LineRule,
    LoadReport,
    kept_lines,
    parse_lines,
    refuse_if_none,
)
from retailrec.data.files import stack
from retailrec.data.interchange import to_polars
from retailrec.data.lines import CARRIED, in_order, merged, named, without_doubles
from retailrec.data.strays import far_rule
from retailrec.data.timeformats import EARLIEST, parse_time
from retailrec.data.visits import came_again, split_receipts
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID

PART_ROWS = 500_000  # lines worked on at a time
_CODED = (USER_ID, ITEM_ID, "basket_id")
_FIRST_SECOND = int((EARLIEST - datetime(1970, 1, 1)).total_seconds())


@dataclass
class CodedLines:
    """What `code_lines` gives: lines that keep the rules, ids as codes of sorted vocabularies.

    Attributes
    ----------
    lines : parts with `user_id`, `item_id`, `basket_id` (int32 codes), `time`, `quantity`, `value`,
        `line`, `digest` (a hash of all that the raw line says) and carried columns
    ids : id column -> the ids seen, ascending; the code is the place
    described : id column -> distinct (id, described-by columns, time, line) of the lines
    """

    lines: list[pl.DataFrame]
    ids: dict[str, pl.Series]
    described: dict[str, pl.DataFrame]


@dataclass
class _Vocabulary:
    """Ids of the parts so far; each part's lines hold places in the part's own sorted ids."""

    parts: list[pl.Series] = field(default_factory=list)

    def add(self, ids: pl.Series) -> pl.Series:
        """Codes of one part's ids within the part, int32; null stays null."""
        own = ids.drop_nulls().unique().sort()
        self.parts.append(own)
        return places(ids, own)

    def finish(self) -> tuple[pl.Series, list[pl.Series]]:
        """All ids, ascending, and for each part the final code of each of its own."""
        if len({p.dtype for p in self.parts}) > 1:  # text in one part is text in all
            self.parts = [p.cast(pl.String) for p in self.parts]
        everything = pl.concat(self.parts).unique().sort()
        return everything, [places(p, everything) for p in self.parts]


def places(ids: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """Place of each id in the sorted, complete vocabulary, int32; null stays null."""
    return vocabulary.search_sorted(ids).cast(pl.Int32).set(ids.is_null(), None)


def parts_of(transactions: Any) -> Iterator[pl.DataFrame]:
    """Frames of at most `PART_ROWS` lines: slices of one frame, or the frames of an iterator."""
    frames = transactions if isinstance(transactions, Iterator) else iter([transactions])
    for given in frames:
        frame = to_polars(given, who="transactions")
        for at in range(0, max(frame.height, 1), PART_ROWS):
            yield frame.slice(at, PART_ROWS)


def code_lines(
    parts: Iterable[pl.DataFrame],
    columns: Mapping[str, str] | None,
    rules: Sequence[LineRule],
    report: LoadReport,
    described_by: Mapping[str, Sequence[str]],
    time_format: str | None = None,
) -> CodedLines:
    """Parse, clean, shrink and code the parts of a log; `report` gains what was read and rejected.

    Raises
    ------
    DataError
        If columns are missing or unreadable, or no line is left.
    """
    coder = _Coder(columns or {}, rules, report, described_by, time_format)
    for part in parts:
        coder.add(part)
    return coder.finish()


class _Coder:
    """State of `code_lines`."""

    def __init__(
        self,
        columns: Mapping[str, str],
        rules: Sequence[LineRule],
        report: LoadReport,
        described_by: Mapping[str, Sequence[str]],
        time_format: str | None,
    ) -> None:
        self.columns, self.rules, self.report = columns, list(rules), report
        self.time_format = time_format
        self.notation: dict[str, str] = {}  # of numbers, as the parts so far agree
        # times written as text or numbers get their meaning at the end, when all have been seen
        self.late = [r for r in rules if set(r.when.meta.root_names()) == {"time"}]
        self.described_by = {key: names for key, names in described_by.items() if names}
        self.described: dict[str, list[pl.DataFrame]] = {key: [] for key in self.described_by}
        self.vocabularies: dict[str, _Vocabulary] = {}
        self.lines: list[pl.DataFrame] = []
        self.empty: pl.DataFrame | None = None
        self.seen: tuple[list[str], bool, str | None] | None = None  # columns, are times late, zone

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
        )
        late_times = not lines["time"].dtype.is_temporal()
        self._require_alike(part, late_times)
        self.report.read += lines.height
        rules = [r for r in self.rules if not (late_times and r in self.late)]
        good = kept_lines(lines, rules, self.report)
        if good.is_empty():
            return
        small = slim_lines(good)
        small = small.with_columns(
            self._coded(small[c]) for c in (*_CODED, "time") if c in small.columns
        )
        for key, names in self.described_by.items():
            self.described[key].append(
                good.select(key, *names, "time", LINE).unique([key, *names, "time"], keep="first")
                if late_times
                else good.group_by(key, *names).agg(pl.col("time", LINE).sort_by("time", LINE).first())
            )
        self.lines.append(small)

    def _require_alike(self, part: pl.DataFrame, late_times: bool) -> None:
        kind = part.schema[self.columns.get("time", "time")]
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

    def _coded(self, column: pl.Series) -> pl.Series:
        if column.name == "time" and column.dtype.is_temporal():
            return column
        return self.vocabularies.setdefault(column.name, _Vocabulary()).add(column)

    def finish(self) -> CodedLines:
        """Final codes for all parts, and what could not be judged part by part."""
        if self.seen is None and self.empty is not None:
            parse_lines(self.empty, self.columns)  # says what is wrong with it
        refuse_if_none(sum(part.height for part in self.lines), self.report)
        ids, times = {}, None
        for name, vocabulary in self.vocabularies.items():
            ids[name], finals = vocabulary.finish()
            for number, final in enumerate(finals):
                part = self.lines[number]
                self.lines[number] = part.with_columns(final.gather(part[name]).alias(name))
        if "time" in ids:
            texts = ids.pop("time")
            parsed = parse_time(texts, who="transactions", time_format=self.time_format)
            times = pl.DataFrame({"text": texts, "time": parsed})
            self.lines = [self._dated(part, times["time"], ids) for part in self.lines]
            refuse_if_none(sum(part.height for part in self.lines), self.report)
        far = self._far_from_the_rest()
        if far is not None:
            show = partial(named, ids=ids)
            self.lines = [kept_lines(part, [far], self.report, show) for part in self.lines]
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
        return CodedLines(self.lines, ids, described)

    def _dated(
        self, part: pl.DataFrame, times: pl.Series, ids: Mapping[str, pl.Series]
    ) -> pl.DataFrame:
        part = part.with_columns(times.gather(part["time"]).alias("time"))
        return kept_lines(part, self.late, self.report, lambda bad: named(bad, ids))

    def _far_from_the_rest(self) -> LineRule | None:
        """A rule against strays in time, if there are any: see `far_rule`."""
        days = pl.concat([part["time"].dt.date().value_counts(name="n") for part in self.lines])
        return far_rule(days.group_by("time").agg(pl.col("n").sum()))


def slim_lines(good: pl.DataFrame) -> pl.DataFrame:
    """Of parsed lines the columns that a log is made of, and `digest`, a hash of all they say."""
    kept = [good[c] for c in (*_CODED, "time") if c in good.columns]
    kept += [good["quantity"], good["value"], good[LINE]]
    kept += [good.drop(LINE).hash_rows(seed=0).alias("digest")]
    kept += [
        good[c].cast(pl.String).cast(kind) if kind == pl.Categorical else good[c].cast(kind)
        for c, kind in CARRIED.items()
        if c in good.columns
    ]
    return pl.DataFrame(kept)


def build_log(
    coded: CodedLines, users: pl.DataFrame, items: pl.DataFrame, report: LoadReport
) -> pl.DataFrame:
    """The log: codes of `users` and `items`, receipt times, one row an item of a receipt, sorted.

    Lines that say the same in every column are rejected but for the first; further lines of an item on
    one receipt are added up and counted as merged. `coded.lines` is used up.
    """
    parts, ids = coded.lines, coded.ids
    user = places(ids[USER_ID], users[USER_ID])
    item = places(ids[ITEM_ID], items[ITEM_ID])
    receipts = _Vocabulary()
    spans = []
    for number, part in enumerate(parts):
        part = part.with_columns(user=user.gather(part[USER_ID]), item=item.gather(part[ITEM_ID]))
        part = part.with_columns(basket=receipts.add(_receipt(part, ids))).drop(USER_ID, ITEM_ID)
        spans.append(
            part.group_by("basket")
            .agg(first=pl.col("time").min(), last=pl.col("time").max())
            .sort("basket")
        )
        parts[number] = part
    keys, finals = receipts.finish()
    # a till writes one receipt over some minutes: its first line dates it, so no cut parts it
    times, last = np.full(len(keys), np.iinfo(np.int64).max), np.zeros(len(keys), np.int64)
    for final, span in zip(finals, spans, strict=True):
        at = final.to_numpy()
        times[at] = np.minimum(times[at], span["first"].to_physical().to_numpy())
        last[at] = np.maximum(last[at], span["last"].to_physical().to_numpy())
    codes = [f.to_numpy()[p["basket"].to_numpy()] for f, p in zip(finals, parts, strict=True)]
    users_of = keys.to_numpy() >> 32
    again = came_again(times, last)
    del last, spans
    if again.any():
        users_of, times, report.split = split_receipts(codes, parts, users_of, times, again)
    order = np.lexsort((times, users_of))  # by shopper and time; ties by receipt
    basket = np.empty(len(order), np.int32)
    basket[order] = np.arange(len(order), dtype=np.int32)
    for number, code in enumerate(codes):
        time = pl.Series("time", times[code]).cast(pl.Datetime("us"))
        parts[number] = parts[number].with_columns(pl.Series("basket", basket[code]), time)
    del codes
    held = [pl.concat(parts)]  # the steps below take it from here, so that nobody else holds it
    parts.clear()
    known = {**ids, USER_ID: users[USER_ID], ITEM_ID: items[ITEM_ID]}
    held.append(in_order(held))
    held.append(without_doubles(held, known, report))
    n_lines = held[0].height
    log = merged(held)
    report.merged = n_lines - log.height
    return log.rechunk()  # in one piece its columns are arrays without a copy


def _receipt(part: pl.DataFrame, ids: Mapping[str, pl.Series]) -> pl.Series:
    """Int64 that stands for the line's shopper (high half) and receipt: its id, or else its second.

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
