"""Judge files of anybody's recommendations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import polars as pl

from retailrec.data.columns import check_names, join_time
from retailrec.data.files import read_table
from retailrec.data.timeformats import parse_time
from retailrec.datasets import still_there
from retailrec.datasets.table import receipts_in, where_rules
from retailrec.errors import SettingError
from retailrec.evaluation import judge_frames, means
from retailrec.evaluation.bootstrap import compare_models
from retailrec.evaluation.results import Difference, Interval, Uncertainty
from retailrec.metrics import parse_metric
from retailrec.recommender.batch import end_of
from retailrec.schema import CATEGORIES, TRANSACTIONS

_NAMES = (*(c.name for c in TRANSACTIONS), "rank", "score", *CATEGORIES)


def evaluate_files(
    recommendations: Mapping[str, Path],
    truth: Path,
    metrics: Sequence[str],
    *,
    history: Path | None = None,
    items: Path | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    time_format: str | None = None,
    where: Sequence[str] = (),
    kept: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge files of anybody's recommendations by a file of what was bought.

    `columns` maps standard names to those of the files that have them; `where` says which lines of
    truth and history are purchases. What is not said is as in `kept`, the `reading` of a model.

    Returns
    -------
    dict with ``n_users``, ``n_cold_users``, ``models`` (name -> metric -> mean), ``not_judged``
    (name -> shoppers with recommendations who are not judged), ``left_out`` (lines that say nothing),
    ``notes``, ``intervals`` and ``differences``

    Raises
    ------
    DataError, SettingError
        If files can't be read, or a column that is named stands in none of them.
    """
    k = max(parse_metric(m)[1] for m in metrics)
    reader = _Reader(dict(columns or {}), encoding, where, kept or {})
    frames = {name: reader.lists(path) for name, path in recommendations.items()}
    bought = reader.receipts(truth)
    earlier = None if history is None else reader.receipts(history)
    catalogue = None if items is None else reader.lists(items)
    reader.refuse_unused()
    ends = {name: end_of(path, frames[name]) for name, path in recommendations.items()}
    early = _begins_before(bought, ends, time_format or (kept or {}).get("time_format"))
    judge, lists, left, left_out, notes = judge_frames(
        frames, bought, k, history=earlier, items=catalogue
    )
    values = {name: judge.per_user(matrix, metrics) for name, matrix in lists.items()}
    return {
        "n_users": len(judge.users),
        "n_cold_users": judge.n_cold,
        "models": {name: means(found) for name, found in values.items()},
        "not_judged": left,
        "left_out": reader.left_out | left_out,
        "notes": [*early, *notes],
        **uncertainty(values),
    }


@dataclass
class _Reader:
    """Reads the files of an evaluation alike; remembers which mapped columns it met."""

    columns: Mapping[str, str]
    encoding: str | None
    where: Sequence[str]
    kept: Mapping[str, Any]
    met: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names(self.columns, _NAMES)

    def lists(self, path: Path) -> pl.DataFrame:
        """A table of lists or items, its columns by their standard names."""
        return self._renamed(read_table(path, encoding=self.encoding), self.columns)

    def receipts(self, path: Path) -> pl.DataFrame:
        """A table of receipts, purchases alone, its columns by their standard names."""
        table = read_table(receipts_in(path), encoding=self.encoding or self.kept.get("encoding"))
        there = table.columns
        for condition in self.where or self.kept.get("where", ()):
            if condition.partition("=")[0] in there:
                self.met.add(condition)
                (rule,) = where_rules([condition], {}, there)
                whole, table = table.height, table.filter(~rule.when)
                if whole > table.height:
                    self.left_out[f"{path.name}: {rule.reason}"] = whole - table.height
        kept, _ = still_there(self.kept.get("columns", {}), there)
        return self._renamed(table, {**kept, **self.columns})

    def _renamed(self, table: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
        table, columns = join_time(table, columns)
        mine = {ours: theirs for ours, theirs in columns.items() if theirs in table.columns}
        self.met.update(mine)
        rest = [c for c in table.columns if c not in mine and c not in mine.values()]
        return table.select(*(pl.col(theirs).alias(ours) for ours, theirs in mine.items()), *rest)

    def refuse_unused(self) -> None:
        """Raise a SettingError if a column or condition was named that no file has."""
        for ours, theirs in self.columns.items():
            if ours not in self.met:
                raise SettingError(f"--columns {ours}={theirs}: no file has a column '{theirs}'.")
        for condition in self.where:
            if condition not in self.met:
                raise SettingError(f"--where {condition}: neither truth nor history has that column.")


def _begins_before(
    truth: pl.DataFrame, ends: Mapping[str, datetime | None], time_format: str | None
) -> list[str]:
    """Notes on lists that knew part of what they are judged by."""
    if "time" not in truth.columns or not any(ends.values()):
        return []
    first = parse_time(truth["time"], who="truth", time_format=time_format).min()
    return [
        f"the truth begins {first:%Y-%m-%d %H:%M}, before {end:%Y-%m-%d %H:%M}, the end of what {name} "
        f"was learnt from: it has seen answers, and scores too well. Judge by later receipts, or "
        f"recommend with --until and a model of that time"
        for name, end in ends.items()
        if end is not None and isinstance(first, datetime) and first < end
    ]


def uncertainty(values: Mapping[str, Mapping[str, Any]], seed: int = 0) -> Uncertainty:
    """``intervals`` of each mean and ``differences`` between every two models, as rows."""
    n = max(len(v) for found in values.values() for v in found.values())
    found = compare_models(values, resamples=10_000 if n <= 100_000 else 2_000, seed=seed)
    return {
        "intervals": cast(list[Interval], found.means.to_dicts()),
        "differences": cast(list[Difference], found.differences.to_dicts()),
    }
