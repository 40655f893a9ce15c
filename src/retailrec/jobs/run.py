"""The main job: load, hold out, fit, evaluate, refit, write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import Candidates
from retailrec.candidates.pool import score_pool
from retailrec.compute.memory import peak_memory_mb
from retailrec.compute.progress import Progress, Timer, silent
from retailrec.compute.shards import SHARD, map_shards, n_threads
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.errors import SettingError
from retailrec.evaluation import Judge, means
from retailrec.evaluation.backtest import Model, backtest, fitted
from retailrec.evaluation.bootstrap import compare_models
from retailrec.evaluation.inspection import held_out_reliability
from retailrec.evaluation.judge import listed
from retailrec.evaluation.results import Difference, Means, PurposeResult, RunResult, Window
from retailrec.jobs.evaluate import baselines, hold_out, uncertainty
from retailrec.jobs.settings import Settings, choose_recipe, facts_of
from retailrec.metrics import parse_metric
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import NO_COLUMNS, ListFormat, joined, recommend_to_file
from retailrec.recommender.purposes import Purpose, owned_pairs, purchases_for
from retailrec.recommender.request import Request
from retailrec.recommender.rules import read_rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.report import summary
from retailrec.report.page import render, render_markdown
from retailrec.report.summary import SentCoupons, describe_sent
from retailrec.simulator.truth import Truth
from retailrec.work import staged, write_json

CHANCE = 0.05  # a corrected p from this on
COSTS = {"repeats": 0.005, "firsts": 0.05}  # shares hidden from which on a filter is said to cost


def verdict(models: Mapping[str, Means], differences: Sequence[Difference], n_users: int) -> str:
    """Whether two stages improve on the best simple method, in one sentence, by the first metric.

    Parameters
    ----------
    differences : of every two models, as `compare_models` gives them; ``p_corrected`` decides
    n_users : who are judged

    Examples
    --------
    >>> models = {"popular": {"recall@10": 0.1}, "two_stage": {"recall@10": 0.12}}
    >>> row = {"model": "two_stage", "versus": "popular", "metric": "recall@10", "difference": 0.02,
    ...        "low": 0.01, "high": 0.03, "p": 0.001, "p_corrected": 0.004}
    >>> print(verdict(models, [row], 800).replace("; ", ";\\n"))
    two_stage improves on popular, the best simple method: recall@10 0.1200 against 0.1000 (+20.0%);
    by 0.0200 [0.0100, 0.0300] over 800 users, p 0.004.
    >>> verdict(models, [row | {"p_corrected": 0.625}], 9).split(":")[0]
    'two_stage is not shown to improve on popular, the best simple method'
    """
    metric = next(iter(models["two_stage"]))
    defined = {n: mean for n, v in models.items() if (mean := v[metric]) is not None}
    simple = {n: v for n, v in defined.items() if n != "two_stage"}
    if "two_stage" not in defined or not simple:
        return f"{metric} is not defined for these users, so nothing can be said about two stages."
    best = max(simple, key=lambda n: simple[n])
    ours, theirs = defined["two_stage"], simple[best]
    share = f" ({ours / theirs - 1:+z.1%})" if theirs > 0 else ""
    pairs = [d for d in differences if d["metric"] == metric]
    sure = next(d for d in pairs if (d["model"], d["versus"]) == ("two_stage", best))
    low, high, p = sure["low"], sure["high"], sure["p_corrected"]
    interval = "" if low is None or high is None else f" [{low:z.4f}, {high:z.4f}]"
    how_sure = "p < 0.001" if p < 0.001 else f"p {p:.3f}"
    how_sure += f", corrected for {len(pairs)} comparisons" if len(pairs) > 1 else ""
    figures = (
        f"{best}, the best simple method: {metric} {ours:.4f} against {theirs:.4f}{share}; by "
        f"{ours - theirs:z.4f}{interval} over {n_users:,} users, {how_sure}"
    )
    if p >= CHANCE or low is None:
        return f"two_stage is not shown to improve on {figures}, which could be chance."
    if ours > theirs:
        return f"two_stage improves on {figures}."
    return f"two_stage is worse than {figures}. Use {best} instead."


def hidden_sentence(windows: Sequence[Mapping[str, Any]]) -> str | None:
    """What prefilters hide of the purchases in label windows, and whether it costs; None if nothing.

    Examples
    --------
    >>> window = {"repeats": 80, "repeats_hidden": 0, "firsts": 20, "firsts_hidden": 5}
    >>> print(hidden_sentence([window]).replace("; ", ";\\n"))
    prefilters hide 0.0% of the repeat and 25.0% of the first purchases of the label windows;
    no list can hold these, so try prefilters = "none".
    """
    hidden = {
        "repeats": [(w.get("repeats_hidden", 0), w.get("repeats", 0)) for w in windows],
        "firsts": [(w.get("firsts_hidden", 0), w.get("firsts", 0)) for w in windows],
    }
    shares = {
        kind: sum(part for part, _ in counts) / max(sum(whole for _, whole in counts), 1)
        for kind, counts in hidden.items()
    }
    if not any(shares.values()):
        return None
    costs = any(shares[kind] >= COSTS[kind] for kind in COSTS)
    return (
        f"prefilters hide {shares['repeats']:.1%} of the repeat and {shares['firsts']:.1%} of the "
        f"first purchases of the label windows"
        + ('; no list can hold these, so try prefilters = "none".' if costs else ".")
    )


def judge_purposes(
    model: TwoStageRecommender, held_out: Split, metrics: list[str], k: int
) -> list[PurposeResult]:
    """*replenish* by repeat purchases of the window; *discover*, if it was learnt, by new ones.

    A shopper counts who bought something of the kind. The simple methods are the model's sources, each
    alone: to replenish, the shopper's own items by the source's score; to discover, the best that it
    proposes of what is new to the shopper.

    Parameters
    ----------
    held_out : what the model was fitted on, and the window that follows
    k : length of the lists
    """
    past = held_out.past
    learnt: tuple[Purpose, ...] = ("discover",) if "discover" in model.learnt_purposes else ()
    found = [_judged(model, purpose, past, held_out, metrics, k) for purpose in ("replenish", *learnt)]
    return [result for result in found if result is not None]


def _judged(
    model: TwoStageRecommender,
    purpose: Purpose,
    past: RetailData,
    held_out: Split,
    metrics: list[str],
    k: int,
) -> PurposeResult | None:
    """The result of one purpose; None if no user bought anything of the kind."""
    after_days = None if model.discover is None else model.discover.after_days
    target = purchases_for(purpose, past, held_out.target, after_days)
    if not len(np.intersect1d(target["user"].unique().to_numpy(), past.active_users())):
        return None
    judge = Judge.of(past, target)
    lists = dict(single_sources(model, purpose, past, judge.users, k))
    history = past.history(codes=judge.users)
    lists["two_stage"] = model.recommend_codes(history, k, purpose).items
    values = {name: judge.per_user(items, metrics) for name, items in lists.items()}
    models = {name: means(of) for name, of in values.items()}
    return {
        "purpose": purpose,
        "n_users": len(judge.users),
        "n_bought": len(judge.keys),
        "models": models,
        "verdict": verdict(models, _differences(values, metrics[0]), len(judge.users)),
    }


def single_sources(
    model: TwoStageRecommender, purpose: Purpose, past: RetailData, users: NDArray[np.int64], k: int
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Name of each source, and its `k` best items of the kind for each user, none of them hidden."""
    stage = model.stage_for(purpose)
    sources = [source.unfiltered() for source in stage.sources]

    def shard(rows: slice) -> dict[str, Candidates]:
        history = past.history(codes=users[rows])
        if purpose == "discover":
            owned = owned_pairs(history, stage.after_days)
            return {s.name: s.candidates(history, k, owned) for s in sources}
        pool = score_pool(sources, history, owned_pairs(history))
        return {s.name: pool.best(pool.scores[:, i].copy(), k) for i, s in enumerate(sources)}

    parts = list(map_shards(shard, len(users), size=SHARD, threads=n_threads(model.threads)))
    for source in sources:
        yield source.name, np.vstack([part[source.name].items for part in parts])


def _differences(values: Mapping[str, Mapping[str, Any]], metric: str) -> list[Any]:
    """Differences between every two methods in the first metric."""
    first = {name: {metric: of[metric]} for name, of in values.items()}
    return compare_models(first).differences.to_dicts()


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
    output: ListFormat | None = None,
) -> RunResult:
    """Evaluate on the last horizon, refit on everything, and write the results to `out`.

    Of generated data, `truth` tells how much of what is attainable was reached. `rules` shape the
    recommendations that are written, not the evaluation. `folds` - 1 horizons before the last one are
    judged too. `page` adds the report, and `sent` to it how shoppers who were sent coupons differ.

    Lists have the columns beside them that `output` names.

    Files: ``metrics.json``, ``recommendations.parquet`` (every known shopper), ``judged.parquet`` (the
    lists that the figures are of, by a model that ends before the last horizon), ``model/``,
    ``load_report.json``, ``report.html``, the same without pictures as ``report.md``, and its numbers,
    ``report.json``. They are written aside and
    put in place when all are complete.

    Raises
    ------
    DataError
        If the data is too short for the horizon, or no user can be judged.
    SettingError
        If the settings ask for more than the data has.
    """
    unsized, settings = settings, settings.for_size(data.n_users)
    held_out = hold_out(data, settings)
    reason = choose_recipe(facts_of(held_out.past, settings.horizon_days), unsized).reason
    if settings.k > data.n_items:
        raise SettingError(
            f"k={settings.k} is more than the {data.n_items:,} items of the catalogue; ask for fewer."
        )
    for name in settings.metrics:
        parse_metric(name)
    wanted_rules = None if rules is None else read_rules(rules)
    if wanted_rules is not None:
        wanted_rules.check_category(data.items)
    if truth is not None:
        truth.require_window(held_out.past.end, data.end)
    timer, several = Timer(progress, {"load": round(load_seconds, 3)}), None
    with staged(out, RESULTS) as staging:
        with timer.step("fit on what lies before the last horizon"):
            model = settings.model().fit(held_out.past, progress, keep_rows=True)
            earlier = model.hand_over(data)
        described: dict[str, Any] | None = None
        with timer.step("evaluate"):
            judge = Judge.of(*held_out)
            k = max(REPORT_K, settings.k, *(parse_metric(m)[1] for m in settings.metrics))
            lists = compare(model, held_out.past, judge, k)
            values = {n: judge.per_user(items, settings.metrics) for n, items in lists.items()}
            models = {name: means(found) for name, found in values.items()}
            sure = uncertainty(values, settings.seed)
            judged = data.users["user_id"].gather(judge.users)
            write_judged(model, held_out.past, judge, lists["two_stage"], staging, output or NO_COLUMNS)
            best = None if truth is None else attainable(truth, judged, models)
            reliable = held_out_reliability(model, held_out).to_dicts() if settings.calibrate else None
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
        if page:
            with timer.step("describe the ranking"):
                ranking = summary.describe_ranking(model, held_out, settings.seed)
                ranking["reliability"] = reliable
            with timer.step("describe for the report"):
                described = describe(data, model, held_out, judge, lists, ranking, settings, progress)
                if sent is not None:
                    described["sent_coupons"] = describe_sent(
                        sent, held_out, judge, lists, settings.k, settings.horizon_days
                    )
        words = [
            model.report_[name]["words"] for name in ("half_life", "prior") if name in model.report_
        ]
        reason = "; ".join([reason.removesuffix("."), *words]) + "."
        windows = model.report_["windows"]
        del model, held_out, judge, lists, values  # the second fit needs the room
        with timer.step("fit on everything"):
            final = settings.model().fit(data, progress, earlier=earlier)
        with timer.step("recommend"):
            file = staging / "recommendations.parquet"
            length = None if settings.slots else settings.k  # slots say it too
            request = Request.of(length, slots=settings.slots, rules=wanted_rules)
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
            report = {**described, **result}
            write_json(staging / "report.json", report)
            (staging / "report.html").write_text(render(report), encoding="utf-8")
            (staging / "report.md").write_text(render_markdown(report), encoding="utf-8")
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
    past.forget_history()  # they shared it
    lists["two_stage"] = model.recommend_codes(past.history(codes=judge.users), k).items
    return lists


def write_judged(
    model: TwoStageRecommender,
    past: RetailData,
    judge: Judge,
    lists: NDArray[np.int32],
    folder: Path,
    output: ListFormat,
) -> None:
    """Write the lists that were judged, which know the receipts before the cutoff alone."""
    users = past.users["user_id"].gather(judge.users)
    frame = listed(users, lists, judge.hits(lists), past.items["item_id"])
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
