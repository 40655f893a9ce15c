"""The main job: load, hold out, fit, evaluate, refit, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.memory import peak_memory_mb, release_memory
from retailrec.compute.pairs import pair_keys
from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.errors import SettingError
from retailrec.evaluation import Judge, means
from retailrec.evaluation.backtest import backtest
from retailrec.evaluation.results import Means, PurposeResult, RunResult, Window
from retailrec.evaluation.window import Model, fitted
from retailrec.jobs.compare import baselines, hold_out
from retailrec.jobs.evaluate import uncertainty
from retailrec.jobs.purposes import judge_purposes
from retailrec.jobs.settings import Settings, choose_recipe, facts_of
from retailrec.jobs.verdict import hidden_sentence, verdict
from retailrec.metrics import parse_metric
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import Batch, ListFormat, joined, recommend_to_file
from retailrec.recommender.request import Request
from retailrec.recommender.rules import read_rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.report import summary
from retailrec.report.page import render, render_markdown
from retailrec.report.sent_coupons import SentCoupons, describe_sent
from retailrec.simulator.truth import Truth
from retailrec.work import staged, write_json

RESULTS = (
    "metrics.json",
    "recommendations.parquet",
    "judged.parquet",
    "model",
    "load_report.json",
    "report.html",
    "report.json",
    "report.md",
)
Everybody = Callable[[TwoStageRecommender, Path, Request, Progress], Batch]


@dataclass
class Timer:
    """Seconds of each step of a job."""

    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside, and give back the memory that it let go."""
        self.progress(name)
        started = perf_counter()
        yield
        release_memory()
        self.seconds[name] = round(perf_counter() - started, 3)


REPORT_K = 10  # the report judges ten recommendations


def run(
    data: RetailData,
    settings: Settings,
    out: Path,
    *,
    dataset: str = "memory",
    progress: Progress = silent,
    load_seconds: float = 0.0,
    truth: Truth | None = None,
    rules: Path | None = None,
    folds: int = 1,
    page: bool = True,
    sent: SentCoupons | None = None,
    everybody: Everybody | None = None,
    output: ListFormat | None = None,
) -> RunResult:
    """Evaluate on the last horizon, refit on everything, and write the results to `out`.

    Of generated data, `truth` tells how much of what is attainable was reached. `rules` shape the
    recommendations that are written, not the evaluation. `folds` - 1 horizons before the last one are
    judged too. `page` adds the report, and `sent` to it how shoppers who were sent coupons differ.

    Of a sample of shoppers, `everybody` writes the lists of all: it gets the fitted model, the place
    of the result, what is asked and the progress.

    Lists have the columns beside them that `output` names.

    Files: ``metrics.json``, ``recommendations.parquet`` (every known shopper), ``judged.parquet`` (the
    lists that the figures are of, by a model that ends before the last horizon), ``model/``,
    ``load_report.json``, ``report.html``, the same without pictures as ``report.md``, and its numbers,
    ``report.json``. They are written aside and
    put in place when all are complete.

    Raises
    ------
    DataError
        If the data is too short for the horizon, or nobody can be judged.
    SettingError
        If the settings ask for more than the data has.
    """
    wanted, settings = settings, settings.for_size(data.n_users)
    held_out = hold_out(data, settings)
    reason = choose_recipe(facts_of(held_out.past, settings.horizon_days), wanted).reason
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
    with staged(out, RESULTS) as staging:
        with timer.step("fit on what lies before the last horizon"):
            model = settings.model().fit(held_out.past, progress, keep_rows=True)
        described: dict[str, Any] | None = None
        ranking: dict[str, Any] | None = None
        if page:  # first, while nothing but the rows is in memory
            with timer.step("describe the ranking"):
                ranking = summary.describe_ranking(model, model.training_rows, settings.seed)
        with timer.step("evaluate"):
            judge = Judge.of(*held_out)
            k = max(REPORT_K, settings.k, *(parse_metric(m)[1] for m in settings.metrics))
            lists = compare(model, held_out.past, judge, k)
            values = {n: judge.per_user(items, settings.metrics) for n, items in lists.items()}
            models = {name: means(found) for name, found in values.items()}
            sure = uncertainty(values, settings.seed)
            judged = data.users["user_id"].gather(judge.users)
            write_judged(model, held_out.past, judge, lists["two_stage"], staging, output)
            best = None if truth is None else attainable(truth, judged, models)
            reliable = summary.reliability_bins(model, held_out) if settings.calibrate else None
            judged_on: Window = {
                "cutoff": held_out.past.end.isoformat(),
                "horizon_days": settings.horizon_days,
                "n_users": len(judge.users),
                "n_cold_users": judge.n_cold,
            }
        purposes: list[PurposeResult] = []
        if settings.purposes != ("mixed",):
            with timer.step("judge each purpose"):
                purposes = judge_purposes(model, held_out, settings.metrics, k)
        if folds > 1:
            with timer.step("earlier horizons"):
                several = over_folds(data, settings, models, folds, progress)
        if ranking is not None:
            with timer.step("describe for the report"):
                ranking["reliability"] = reliable
                described = describe(data, model, held_out, judge, lists, ranking, settings, progress)
                if sent is not None:
                    described["sent_coupons"] = describe_sent(
                        sent, held_out, judge, lists, settings.k, settings.horizon_days
                    )
        words = [
            model.report_[name]["words"] for name in ("half_life", "prior") if name in model.report_
        ]
        reason = "; ".join([reason.removesuffix("."), *words]) + "."
        windows, earlier = model.report_["windows"], model.hand_over()
        del model, held_out, judge, lists, values  # the second fit needs the room
        with timer.step("fit on everything"):
            final = settings.model().fit(data, progress, earlier=earlier)
        with timer.step("recommend"):
            file = staging / "recommendations.parquet"
            request = Request.of(settings.k, slots=settings.slots, rules=wanted_rules)
            if everybody is not None:
                batch = everybody(final, file, request, progress)
            else:
                batch = recommend_to_file(final, data, file, request, progress=progress, output=output)
        with timer.step("write"):
            final.save(staging / "model")
            write_json(staging / "load_report.json", data.report.as_dict())
        timer.seconds["total"] = round(sum(timer.seconds.values()), 3)
        result: RunResult = {
            "dataset": dataset,
            "evaluation": judged_on,
            "recipe": reason,
            "models": models,
            "verdict": verdict(models, sure["differences"], judged_on["n_users"]),
            "hidden": hidden_sentence(windows),
            "purposes": purposes,
            **sure,
            "folds": several,
            "rules": None if rules is None else batch.report.rules,
            "attainable": best,
            "reliability": reliable,
            "prefilters": final.report_["prefilters"],
            "label_windows": windows,
            "settings": settings.model_dump(),
            "seconds": timer.seconds,
            "peak_memory_mb": peak_memory_mb(),
            "versions": versions(),
        }
        write_json(staging / "metrics.json", result)
        if described is not None:
            progress("draw the report")
            told = {**described, **result}
            write_json(staging / "report.json", told)
            (staging / "report.html").write_text(render(told), encoding="utf-8")
            (staging / "report.md").write_text(render_markdown(told), encoding="utf-8")
    return result


def describe(
    data: RetailData,
    model: TwoStageRecommender,
    held_out: Split,
    judge: Judge,
    lists: Mapping[str, NDArray[np.int32]],
    ranking: dict[str, Any],
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    """The numbers of the report that are not in ``metrics.json``."""
    methods = [*baselines().items(), *((source.name, source) for source in model.sources_)]
    words = {name: str(getattr(method, "words", "")) for name, method in methods}
    return {
        "methods": words | {"two_stage": "two-stage model", "pool": "all sources together"},
        "data": summary.describe_data(data, settings.horizon_days),
        "matching": summary.describe_matching(model, held_out, settings.seed, progress),
        "ranking": ranking,
        "results": summary.describe_results(judge, lists, settings.metrics, held_out.past),
        "examples": summary.describe_examples(model, held_out, judge, lists, settings.k, settings.seed),
    }


def over_folds(
    data: RetailData,
    settings: Settings,
    last: Mapping[str, Mapping[str, float | None]],
    folds: int,
    progress: Progress,
) -> dict[str, Any]:
    """Mean and spread over the last horizon, whose means are `last`, and `folds` - 1 before it."""
    models: dict[str, Model] = {**baselines(), "two_stage": settings.model()}
    earlier = backtest(
        data.asof(data.end - timedelta(days=settings.horizon_days)),
        models,
        horizon_days=settings.horizon_days,
        n_folds=folds - 1,
        metrics=settings.metrics,
        progress=progress,
    ).table.filter(segment="all")
    rows: list[dict[str, Any]] = []
    for name, metrics in last.items():
        for metric, value in metrics.items():
            means_ = [*earlier.filter(model=name, metric=metric)["mean"], value]
            known = pl.Series([v for v in means_ if v is not None], dtype=pl.Float64)
            mean, spread = cast(float | None, known.mean()), cast(float | None, known.std())
            rows.append({"model": name, "metric": metric, "mean": mean, "spread": spread})
    return {"n": folds, "summary": rows}


def compare(
    model: TwoStageRecommender, past: RetailData, judge: Judge, k: int
) -> dict[str, NDArray[np.int32]]:
    """(n_users, k) item codes of unfiltered simple methods and of two_stage for the judged users."""
    lists = {name: fitted(simple, past)(judge.users, k) for name, simple in baselines().items()}
    lists["two_stage"] = model.recommend_codes(past.history(codes=judge.users), k).items
    return lists


def write_judged(
    model: TwoStageRecommender,
    past: RetailData,
    judge: Judge,
    lists: NDArray[np.int32],
    folder: Path,
    output: ListFormat | None,
) -> None:
    """Write the lists that were judged: `user_id`, `item_id`, `rank`, `bought` in the window.

    They know the receipts before the cutoff alone, and the file carries that end.
    """
    n, k = lists.shape
    place, rank = np.divmod(np.arange(n * k), k)
    items = lists.ravel()
    there = items >= 0
    place, rank, items = place[there], rank[there] + 1, items[there]
    bought = np.isin(pair_keys(place, items, judge.n_items), judge.keys)
    frame = pl.DataFrame(
        {
            "user_id": past.users["user_id"].gather(judge.users[place]),
            "item_id": past.items["item_id"].gather(items),
            "rank": rank.astype(np.int32),
            "bought": bought,
        }
    )
    output = output or ListFormat()
    catalogue = model.answerer(Request()).catalogue
    frame = joined(frame, output.beside(catalogue.items, catalogue.prices, past.end))
    output.write(frame.lazy(), folder / "judged.parquet", past.end)


def attainable(
    truth: Truth, user_ids: pl.Series, models: dict[str, Means]
) -> dict[str, dict[str, Any]]:
    """Best precision to expect over these shoppers of generated data, and each model's share of it."""
    best: dict[str, dict[str, Any]] = {}
    for text in next(iter(models.values())):
        metric, k = parse_metric(text)
        if metric.name == "precision":
            low, high = truth.best_precision(k, user_ids)
            reached = {name: (values[text] or 0.0) / high for name, values in models.items()}
            best[text] = {"low": low, "high": high, "reached": reached}
    return best
