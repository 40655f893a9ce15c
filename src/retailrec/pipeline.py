"""The main job: load, hold out, fit, evaluate, refit, write."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.artifact import versions
from retailrec.backtest import Model, backtest, fitted
from retailrec.batch import Batch, artifact_key, recommend_to_file
from retailrec.candidates import OwnPurchases, Popularity
from retailrec.cleaning import LoadReport
from retailrec.config import Settings, sources_toml
from retailrec.data import RetailData
from retailrec.datasets.truth import Truth
from retailrec.engine.local import peak_memory_mb
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.evaluation import Judge, judge_frames, means
from retailrec.matching import matching_report
from retailrec.metrics import parse_metric
from retailrec.parsing import ids_like
from retailrec.prefilters import apply
from retailrec.report import summary
from retailrec.report.figures import draw_recall
from retailrec.report.page import render
from retailrec.rules import read_rules
from retailrec.splits import Fold, Split
from retailrec.tables import clear_partials, read_parts, read_table
from retailrec.two_stage import TwoStageRecommender
from retailrec.uncertainty import compare_models
from retailrec.understanding import held_out_reliability

Progress = Callable[[str], None]
REPORT_K = 10  # the report judges ten recommendations


@dataclass
class Timer:
    """Seconds of each step of a job."""

    progress: Progress = lambda step: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        self.progress(name)
        started = perf_counter()
        yield
        self.seconds[name] = round(perf_counter() - started, 3)


def run(
    data: RetailData, settings: Settings, out: Path, *, dataset: str = "memory",
    progress: Progress = lambda step: None, load_seconds: float = 0.0, truth: Truth | None = None,
    rules: Path | None = None, folds: int = 1, page: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate on the last horizon, refit on everything, and write the results to `out`.

    Of generated data, `truth` tells how much of what is attainable was reached. `rules` shape the
    recommendations that are written, not the evaluation. `folds` - 1 horizons before the last one are
    judged too. `page` adds the report.

    Files: ``metrics.json``, ``recommendations.parquet`` (every known shopper), ``model/``,
    ``load_report.json``, ``report.html`` and its numbers, ``report.json``. They are written aside and
    put in place when all are complete.

    Raises
    ------
    DataError
        If the data is too short for the horizon, or nobody can be judged.
    SettingError
        If the settings ask for more than the data has.
    """
    settings = settings.for_size(data.n_users)
    held_out = hold_out(data, settings)
    if settings.k > data.n_items:
        raise SettingError(
            f"k={settings.k} is more than the {data.n_items:,} items of the catalogue; ask for fewer."
        )
    for name in settings.metrics:
        parse_metric(name)
    wanted_rules = None if rules is None else read_rules(rules)
    if truth is not None:
        truth.require_window(held_out.past.end, data.end)
    timer, several = Timer(progress, {"load": round(load_seconds, 3)}), None
    with staged(out) as staging:
        with timer.step("fit on what lies before the last horizon"):
            model = settings.model().fit(held_out.past, progress, keep_rows=True)
        with timer.step("evaluate"):
            judge = Judge.of(*held_out)
            k = max(REPORT_K, settings.k, *(parse_metric(m)[1] for m in settings.metrics))
            lists = compare(model, held_out, judge, k)
            values = {n: judge.per_user(items, settings.metrics) for n, items in lists.items()}
            models = {name: means(found) for name, found in values.items()}
            sure = uncertainty(values, settings.seed)
            judged = data.users["user_id"].gather(judge.users)
            best = None if truth is None else attainable(truth, judged, models)
            reliable = held_out_reliability(model, held_out).to_dicts() if settings.calibrate else None
        if folds > 1:
            with timer.step("earlier horizons"):
                several = over_folds(data, settings, models, folds, progress)
        described: dict[str, Any] = {}
        if page:
            with timer.step("describe for the report"):
                described = describe(data, model, held_out, judge, lists, settings, progress)
        with timer.step("fit on everything"):
            final = settings.model().fit(data, progress, earlier=model)
        with timer.step("recommend"):
            file = staging / "recommendations.parquet"
            batch = recommend_to_file(
                final, data, file, settings.k, rules=wanted_rules, progress=progress
            )  # fmt: skip
        with timer.step("write"):
            final.save(staging / "model")
            _write_json(staging / "load_report.json", data.report.as_dict())
        timer.seconds["total"] = round(sum(timer.seconds.values()), 3)
        result = {
            "dataset": dataset,
            "evaluation": {
                "cutoff": held_out.past.end.isoformat(),
                "horizon_days": settings.horizon_days,
                "n_users": len(judge.users),
                "n_cold_users": judge.n_cold,
            },
            "models": models,
            **sure,
            "folds": several,
            "rules": None if rules is None else batch.report.rules,
            "attainable": best,
            "reliability": reliable,
            "prefilters": final.report_["prefilters"],
            "label_windows": model.report_["windows"],
            "settings": settings.model_dump(),
            "seconds": timer.seconds,
            "peak_memory_mb": peak_memory_mb(),
            "versions": versions(),
        }
        _write_json(staging / "metrics.json", result)
        if page:
            progress("draw the report")
            _write_json(staging / "report.json", described | result)
            (staging / "report.html").write_text(render(described | result), encoding="utf-8")
    return result


def describe(
    data: RetailData, model: TwoStageRecommender, held_out: Split, judge: Judge,
    lists: Mapping[str, NDArray[np.int32]], settings: Settings, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """The numbers of the report that are not in ``metrics.json``."""
    past = apply(model.prefilters, held_out.past)[0]
    rows = model.training_rows
    return {
        "data": summary.describe_data(data, settings.horizon_days),
        "matching": summary.describe_matching(model, held_out, settings.seed, progress),
        "ranking": summary.describe_ranking(model, held_out, rows, settings.seed),
        "results": summary.describe_results(judge, lists, settings.metrics, past),
        "examples": summary.describe_examples(
            model, held_out, judge, lists, settings.k, settings.seed
        ),
    }  # fmt: skip


def over_folds(
    data: RetailData, settings: Settings, last: Mapping[str, Mapping[str, float | None]], folds: int,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Mean and spread over the last horizon, whose means are `last`, and `folds` - 1 before it."""
    models: dict[str, Model] = {**baselines(), "two_stage": settings.model()}
    earlier = backtest(
        data.asof(data.end - timedelta(days=settings.horizon_days)), models,
        horizon_days=settings.horizon_days, n_folds=folds - 1, metrics=settings.metrics,
        prefilters=settings.make_prefilters(), progress=progress,
    ).table.filter(segment="all")  # fmt: skip
    rows = []
    for name, metrics in last.items():
        for metric, value in metrics.items():
            means_ = [*earlier.filter(model=name, metric=metric)["mean"], value]
            known = pl.Series([v for v in means_ if v is not None], dtype=pl.Float64)
            rows.append({"model": name, "metric": metric, "mean": known.mean(), "spread": known.std()})
    return {"n": folds, "summary": rows}


def match(
    data: RetailData, settings: Settings, out: Path, *, dataset: str = "memory",
    progress: Progress = lambda step: None,
) -> dict[str, Any]:  # fmt: skip
    """Write ``matching.json``, ``matching.svg`` (recall@k) and ``sources.toml`` (advice) to `out`."""
    settings = settings.for_size(data.n_users)
    with staged(out) as staging:
        report = {"dataset": dataset} | matching_report(
            settings.model(), hold_out(data, settings), progress=progress
        )
        _write_json(staging / "matching.json", report)
        svg = draw_recall(report).replace("<svg", '<svg style="background:#fff"', 1)
        (staging / "matching.svg").write_text(svg, encoding="utf-8")
        kept = [s for s in settings.make_sources() if report["advice"][s.name]]
        (staging / "sources.toml").write_text(sources_toml(kept))
    return report


def backtest_job(
    data: RetailData, settings: Settings, out: Path, *, folds: int, store: Path | None = None,
    progress: Progress = lambda step: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write ``backtest.parquet`` (a row a fold, model and shopper) and ``backtest.json`` to `out`.

    Returns
    -------
    mean and spread over folds of every model and metric, as rows
    """
    settings = settings.for_size(data.n_users)
    models: dict[str, Model] = {**baselines(), "two_stage": settings.model()}
    with staged(out) as staging:
        found = backtest(
            data, models, horizon_days=settings.horizon_days, n_folds=folds,
            metrics=settings.metrics, prefilters=settings.make_prefilters(), store=store,
            progress=progress,
        )  # fmt: skip
        rows = found.summary().to_dicts()
        found.values.write_parquet(staging / "backtest.parquet")
        _write_json(
            staging / "backtest.json",
            {"summary": rows, "table": found.table.to_dicts(), "versions": versions()},
        )
    return rows


def baselines() -> dict[str, Model]:
    """What every evaluation stands beside: bestsellers, and the shopper's own purchases."""
    return {"popular": Popularity(), "own_purchases": OwnPurchases()}


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


def compare(
    model: TwoStageRecommender, held_out: Split, judge: Judge, k: int
) -> dict[str, NDArray[np.int32]]:
    """(n_users, k) item codes of popular, own_purchases and two_stage for the judged shoppers."""
    past = apply(model.prefilters, held_out.past)[0]
    lists = {name: fitted(simple, past)(judge.users, k) for name, simple in baselines().items()}
    lists["two_stage"] = model.recommend_codes(past.history(codes=judge.users), k).items
    return lists


def attainable(
    truth: Truth, user_ids: pl.Series, models: dict[str, dict[str, float | None]]
) -> dict[str, Any]:
    """Best precision to expect over these shoppers of generated data, and each model's share of it."""
    found: dict[str, Any] = {}
    for text in next(iter(models.values())):
        metric, k = parse_metric(text)
        if metric.name == "precision":
            low, high = truth.best_precision(k, user_ids)
            reached = {name: (values[text] or 0.0) / high for name, values in models.items()}
            found[text] = {"low": low, "high": high, "reached": reached}
    return found


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside the results; its files move into `out` only if nothing fails.

    Raises
    ------
    DataError
        If `out` can't be written to.
    """
    out = Path(out)
    made = not out.exists()
    staging: Path | None = None
    try:
        if out.is_file():
            raise DataError(f"--out {out} is a file; name a folder.")
        out.mkdir(parents=True, exist_ok=True)
        clear_partials(out)
        staging = Path(mkdtemp(prefix=f".partial-{os.getpid()}-", dir=out))
        yield staging
        for file in sorted(staging.iterdir()):
            target = out / file.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(file, target)
    except BaseException as error:
        if made:
            shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, RetailRecError):
            raise DataError(f"results can't be written to {out}: {error}.") from error
        raise
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")


def evaluate_files(
    recommendations: Mapping[str, Path], truth: Path, metrics: Sequence[str], *,
    history: Path | None = None, items: Path | None = None, encoding: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Judge files of anybody's recommendations by a file of what was bought.

    Returns
    -------
    dict with ``n_users``, ``n_cold_users``, ``models`` (name -> metric -> mean), ``not_judged``
    (name -> shoppers with recommendations who are not judged), ``left_out`` (lines that say nothing),
    ``notes``, ``intervals`` and ``differences``
    """
    k = max(parse_metric(m)[1] for m in metrics)
    read = partial(read_table, encoding=encoding)
    frames = {name: read(path) for name, path in recommendations.items()}
    judge, lists, left, left_out, notes = judge_frames(
        frames, read(truth), k, history=None if history is None else read(history),
        items=None if items is None else read(items),
    )  # fmt: skip
    values = {name: judge.per_user(matrix, metrics) for name, matrix in lists.items()}
    return {
        "n_users": len(judge.users),
        "n_cold_users": judge.n_cold,
        "models": {name: means(found) for name, found in values.items()},
        "not_judged": left,
        "left_out": left_out,
        "notes": list(notes),
    } | uncertainty(values)


def uncertainty(values: Mapping[str, Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """``intervals`` of each mean and ``differences`` between every two models, as rows."""
    n = max(len(v) for found in values.values() for v in found.values())
    found = compare_models(values, resamples=10_000 if n <= 100_000 else 2_000, seed=seed)
    return {"intervals": found.means.to_dicts(), "differences": found.differences.to_dicts()}


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
    model: Path, history: Path, users: Path | None, k: int, columns: dict[str, str], out: Path, *,
    rules: Path | None = None, reasons: bool = False, encoding: str | None = None,
    time_format: str | None = None, progress: Progress = lambda step: None,
) -> Answers:  # fmt: skip
    """Recommendations from a saved model and a file of receipts, to a file.

    Answers for the shoppers of the file `users` (known or not) or else for all in the receipts. Called
    again after an interruption, it goes on with the first unfinished block of shoppers.
    """
    wanted_rules = None if rules is None else read_rules(rules)
    progress("load the model")
    recommender = TwoStageRecommender.load(model)
    table = None if users is None else read_table(users, encoding=encoding)
    progress(f"load {history}")
    data = RetailData.from_frames(
        read_parts(history, encoding=encoding), users=table, columns=columns,
        report=LoadReport(history.name), time_format=time_format,
    )  # fmt: skip
    wanted = None
    if table is not None:
        wanted = ids_like(table["user_id"], data.users["user_id"], who=f"{users}").unique().sort()
    batch = recommend_to_file(
        recommender, data, out, k, users=wanted, rules=wanted_rules, reasons=reasons,
        key=artifact_key(model), progress=progress,
    )  # fmt: skip
    return Answers(batch, data.report)
