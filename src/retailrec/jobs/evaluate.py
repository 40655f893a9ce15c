"""Held-out horizons: what models are compared with there, and any lists judged by what followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl

from retailrec.candidates import OwnPurchases, Popularity, TifuKNN
from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.cleaning import beside
from retailrec.data.columns import check_names, join_time
from retailrec.data.files import read_table
from retailrec.data.parsing import parse_time
from retailrec.data.splits import Fold, Split
from retailrec.datasets import as_fitted, still_there
from retailrec.datasets.base import PLAIN, Reading
from retailrec.datasets.table import column_of, receipts_in, rules_of
from retailrec.errors import DataError, SettingError
from retailrec.evaluation import judge_frames, means
from retailrec.evaluation.backtest import Model, backtest
from retailrec.evaluation.bootstrap import compare_models
from retailrec.evaluation.matching import matching_report
from retailrec.evaluation.results import Difference, Interval, MatchingReport, Uncertainty
from retailrec.jobs.settings import Settings, sources_toml
from retailrec.metrics.base import longest
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import NO_COLUMNS, end_of
from retailrec.recommender.explanations import in_days
from retailrec.report.drawings import draw_recall
from retailrec.schema import CATEGORIES, TRANSACTIONS
from retailrec.work import staged, write_json

MATCHING = ("matching.json", "matching.svg", "sources.toml")
BACKTEST = ("backtest.parquet", "backtest.json", "judged")


def match(
    data: RetailData,
    settings: Settings,
    out: Path,
    *,
    dataset: str = "memory",
    progress: Progress = silent,
) -> MatchingReport:
    """Write ``matching.json``, ``matching.svg`` (recall@k) and ``sources.toml`` (advice) to `out`."""
    settings = settings.for_size(data.n_users)
    with staged(out, MATCHING) as staging:
        judged = matching_report(settings.model(), hold_out(data, settings), progress=progress)
        report: MatchingReport = {"dataset": dataset, **judged}
        write_json(staging / "matching.json", report)
        svg = str(draw_recall(report)).replace("<svg", '<svg style="background:#fff"', 1)
        (staging / "matching.svg").write_text(svg, encoding="utf-8")
        kept = [s for s in settings.make_sources() if report["advice"][s.name]]
        (staging / "sources.toml").write_text(sources_toml(kept), encoding="utf-8")
    return report


def backtest_job(
    data: RetailData,
    settings: Settings,
    out: Path,
    *,
    folds: int,
    store: Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Write ``backtest.parquet`` (a row a fold, model and shopper) and ``backtest.json`` to `out`.

    And ``judged/DATE.parquet``, a file a fold: the two-stage model's lists, which know what lies before
    that date, and what of them was bought.

    Returns
    -------
    mean and spread over folds of every model and metric, as rows
    """
    settings = settings.for_size(data.n_users)
    models: dict[str, Model] = {**baselines(), "two_stage": settings.model()}
    with staged(out, BACKTEST) as staging:
        result = backtest(
            data,
            models,
            horizon_days=settings.horizon_days,
            n_folds=folds,
            metrics=settings.metrics,
            keep={"two_stage": settings.k},
            store=store,
            progress=progress,
        )
        rows = result.summary().to_dicts()
        result.values.write_parquet(staging / "backtest.parquet")
        (staging / "judged").mkdir()
        for (end,), lists in result.lists.partition_by(["cutoff"], as_dict=True).items():
            name = f"{end:%Y-%m-%d}" if end.time() == time() else f"{end:%Y-%m-%dT%H%M%S}"
            judged = lists.drop("cutoff", "model").lazy()
            NO_COLUMNS.write(judged, staging / "judged" / f"{name}.parquet", end)
        write_json(
            staging / "backtest.json",
            {"summary": rows, "table": result.table.to_dicts(), "versions": versions()},
        )
    return rows


def baselines() -> dict[str, Model]:
    """What every evaluation stands beside: what a person would count, with no item hidden."""
    return {
        "popular": Popularity(),
        "own_purchases": OwnPurchases(ties="popular", fill=True),
        "own_decay": OwnPurchases("decay", half_life=120, fill=True),
        "tifu_knn": TifuKNN(neighbours=100, alpha=0.5),
    }


def hold_out(data: RetailData, settings: Settings) -> Split:
    """What lies before the last horizon, and the purchases of that horizon.

    Raises
    ------
    DataError
        If the horizon is longer than the data.
    """
    cutoff = data.end - timedelta(days=settings.horizon_days)
    if cutoff <= data.start:
        raise DataError(
            f"the receipts span {in_days(-(data.start - data.end).days)}, no more than the horizon "
            f"of {in_days(settings.horizon_days)}; nothing would be left to learn from. "
            f"Ask for a shorter --horizon-days."
        )
    return Fold(cutoff, data.end).split(data)


_NAMES = (*(c.name for c in TRANSACTIONS), "rank", "score", *CATEGORIES)


def evaluate_files(
    recommendations: Mapping[str, Path],
    truth: Path,
    metrics: Sequence[str],
    *,
    history: Path | None = None,
    items: Path | None = None,
    reading: Reading = PLAIN,
    kept: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge files of recommendations, whatever made them, by a file of what was bought.

    Of `reading`, columns and changed ids hold for all files, what says which lines are purchases for
    truth and history. What is not said is as in `kept`, the `reading` of a model.

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
    k = longest(metrics)
    for name, path in {**recommendations, "the history": history}.items():
        if path is not None and path.exists() and truth.exists() and path.samefile(truth):
            raise SettingError(
                f"evaluate: {path} is {name} and the truth, so it would be judged by itself; name what "
                f"was bought afterwards as --truth."
            )
    reader = _Reader(reading, kept or {})
    frames = {name: reader.lists(path) for name, path in recommendations.items()}
    bought = reader.receipts(truth)
    earlier = None if history is None else reader.receipts(history)
    catalogue = None if items is None else reader.lists(items)
    reader.refuse_unused()
    ends = {name: end_of(path, frames[name]) for name, path in recommendations.items()}
    early = _begins_before(bought, ends, reader.all.time_format)
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

    said: Reading
    kept: Mapping[str, Any]
    met: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names(self.said.columns, _NAMES)
        self.all, _ = as_fitted(self.kept, (), self.said)

    def lists(self, path: Path) -> pl.DataFrame:
        """A table of lists or items, its columns by their standard names."""
        if (path / "judged.parquet").is_file():
            raise SettingError(
                f"{path} is the folder of a run; name {path}/judged.parquet, whose lists know nothing "
                f"of the last horizon, or {path}/recommendations.parquet, which know all receipts."
            )
        if (path / "judged").is_dir():
            raise SettingError(
                f"{path} is the folder of a backtest; name one of {path}/judged/*.parquet."
            )
        return self._renamed(read_table(path, encoding=self.said.encoding), self.said.columns)

    def receipts(self, path: Path) -> pl.DataFrame:
        """A table of receipts, purchases alone, its columns by their standard names."""
        table = read_table(receipts_in(path), encoding=self.all.encoding)
        there = table.columns
        kept, _ = still_there(self.kept.get("columns", {}), there)
        columns = {**kept, **self.said.columns}
        reading, _ = as_fitted(self.kept, there, replace(self.said, columns=columns))
        items = () if reading.catalogue is None else reading.catalogue.columns
        held = [c for c in reading.where if column_of(c, columns) in there]
        others = [c for c in reading.not_products if column_of(c, columns) in (*there, *items)]
        self.met.update(held, others)
        table = self._renamed(table, columns)
        table = table.rename({name: beside(name) for name in table.columns})
        for rule in rules_of(replace(reading, where=held, not_products=others), there):
            whole, table = table.height, table.filter(~rule.when)
            if whole > table.height:
                self.left_out[f"{path.name}: {rule.reason}"] = whole - table.height
        return table

    def _renamed(self, table: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
        table, columns = join_time(table, columns)
        mine = {ours: theirs for ours, theirs in columns.items() if theirs in table.columns}
        self.met.update(mine)
        rest = [c for c in table.columns if c not in mine and c not in mine.values()]
        table = table.select(*(pl.col(theirs).alias(ours) for ours, theirs in mine.items()), *rest)
        changed = self.all.changed_ids
        if changed is None:
            return table
        return changed.of_lists(table) if "rank" in table.columns else changed.renamed(table)

    def refuse_unused(self) -> None:
        """Raise a SettingError if a column or condition was named that no file has."""
        for ours, theirs in self.said.columns.items():
            if ours not in self.met:
                raise SettingError(f"--columns {ours}={theirs}: no file has a column '{theirs}'.")
        for option, said in (("where", self.said.where), ("not-products", self.said.not_products)):
            for one in said:
                if one not in self.met:
                    raise SettingError(f"--{option} {one}: neither truth nor history has that column.")


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
