"""The held-out horizon, and what models are compared with on it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from retailrec.candidates import OwnPurchases, Popularity, TifuKNN
from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.splits import Fold, Split
from retailrec.errors import DataError
from retailrec.evaluation.backtest import backtest
from retailrec.evaluation.evidence import Gather, gather_here
from retailrec.evaluation.matching import matching_report
from retailrec.evaluation.results import MatchingReport
from retailrec.evaluation.window import LocalWindow, MakeWindow, Model
from retailrec.jobs.settings import Settings, sources_toml
from retailrec.recommender.artifact import versions
from retailrec.report.drawings import draw_recall
from retailrec.work import staged, write_json

MATCHING = ("matching.json", "matching.svg", "sources.toml")
BACKTEST = ("backtest.parquet", "backtest.json")


def match(
    data: RetailData,
    settings: Settings,
    out: Path,
    *,
    dataset: str = "memory",
    gather: Gather = gather_here,
    progress: Progress = silent,
) -> MatchingReport:
    """Write ``matching.json``, ``matching.svg`` (recall@k) and ``sources.toml`` (advice) to `out`.

    `gather` is that of `judge_matching`.
    """
    settings = settings.for_size(data.n_users)
    with staged(out, MATCHING) as staging:
        judged = matching_report(
            settings.model(), hold_out(data, settings), gather=gather, progress=progress
        )
        report: MatchingReport = {"dataset": dataset, **judged}
        write_json(staging / "matching.json", report)
        svg = str(draw_recall(report)).replace("<svg", '<svg style="background:#fff"', 1)
        (staging / "matching.svg").write_text(svg, encoding="utf-8")
        kept = [s for s in settings.make_sources() if report["advice"][s.name]]
        (staging / "sources.toml").write_text(sources_toml(kept))
    return report


def backtest_job(
    data: RetailData,
    settings: Settings,
    out: Path,
    *,
    folds: int,
    store: Path | None = None,
    window: MakeWindow = LocalWindow.of,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Write ``backtest.parquet`` (a row a fold, model and shopper) and ``backtest.json`` to `out`.

    `window` is that of `backtest`.

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
            store=store,
            window=window,
            progress=progress,
        )
        rows = result.summary().to_dicts()
        result.values.write_parquet(staging / "backtest.parquet")
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
            f"the receipts span {(data.end - data.start).days + 1} days, no more than the horizon "
            f"of {settings.horizon_days:g} days; nothing would be left to learn from. "
            f"Ask for a shorter --horizon-days."
        )
    return Fold(cutoff, data.end).split(data)
