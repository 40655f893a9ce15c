"""Choose pool size, feature families and ranker settings on rolling folds before the last horizon."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.splits import rolling_folds
from retailrec.errors import DataError, SettingError
from retailrec.evaluation import Judge, means
from retailrec.jobs.settings import Settings, Typed
from retailrec.metrics import parse_metric
from retailrec.rankers import Ranker, TrainingFrame
from retailrec.recommender.stage_one import CandidateFrame
from retailrec.work import Work

POOL_SIZES = (100, 200, 300)


@dataclass(frozen=True)
class FoldFrames:
    """What one fold's ranker is trained on and judged by; stage one does not depend on the ranker.

    Attributes
    ----------
    train : rows of the label windows before the fold
    test : candidate rows of the shoppers who are judged
    families : family of each column that is a feature; the others are the sources' scores and ranks
    """

    train: TrainingFrame
    test: CandidateFrame
    judge: Judge
    families: dict[str, str]

    def score(self, ranker: Ranker, metric: str, drop: Sequence[str] = ()) -> float:
        """Mean metric of the ranker, fitted without the columns or families in `drop`.

        Raises
        ------
        DataError
            If the metric is not known, such as one of money without prices.
        """
        kept = [
            i
            for i, name in enumerate(self.train.names)
            if name not in drop and self.families.get(name, "source") not in drop
        ]
        names = [self.train.names[i] for i in kept]
        fitted = ranker.fit(self.train._replace(x=_columns(self.train.x, kept), names=names))
        scores = fitted.predict(_columns(self.test.x, kept))
        items = self.test.pool.best(scores, parse_metric(metric)[1]).items
        found = means(self.judge.per_user(items, [metric]))[metric]
        if found is None:
            raise DataError(
                f"tune: {metric} can't be computed from these receipts; name another metric."
            )
        return found


def fold_frames(
    settings: Settings, data: RetailData, n_folds: int, progress: Progress = silent
) -> list[FoldFrames]:
    """Frames of the `n_folds` horizons before the last one, oldest first.

    Raises
    ------
    DataError
        If the data is too short for so many folds.
    """
    horizon = timedelta(days=settings.horizon_days)
    frames = []
    for fold in rolling_folds(data.end - horizon, horizon=horizon, n=n_folds, stride=horizon):
        if fold.cutoff <= data.start:
            raise DataError(
                f"the receipts are too short for {n_folds} folds of {settings.horizon_days:g} days "
                f"before the last horizon; ask for fewer folds."
            )
        progress(f"fold from {fold.cutoff:%Y-%m-%d}")
        past, target = fold.split(data)
        judge = Judge.of(past, target)
        model = settings.model()
        train = model.training_frame(past)
        model.fit_stage_one(past)
        test = model.candidate_frame(past.history(codes=judge.users))
        frames.append(FoldFrames(train, test, judge, model.features_.families))
    return frames


def tune(
    data: RetailData,
    settings: Settings,
    study: Path,
    *,
    trials: int = 30,
    n_folds: int = 2,
    metric: str = "precision@5",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Search with Optuna's TPE, from where the folder `study` of finished trials stopped.

    The last horizon is never looked at. The first trial is the default. The folder is held meanwhile; a
    trial that was cut or altered is computed again.

    Returns
    -------
    dict with ``default`` and ``best`` (mean metric over the folds), ``trials``, and ``toml``, settings
    that `--config` reads

    Raises
    ------
    SettingError
        If Optuna is missing.
    DataError
        If the study is of other data or settings, can't be written, or another process holds it.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise SettingError("tuning needs Optuna; pip install 'retailrec[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    frames: dict[int, list[FoldFrames]] = {}

    def frames_of(size: int) -> list[FoldFrames]:
        if size not in frames:
            frames.clear()  # one pool size in memory at a time
            wanted = settings.model_copy(update={"pool_size": size})
            frames[size] = fold_frames(wanted, data, n_folds, progress)
        return frames[size]

    plan = _fingerprint(data, settings, n_folds, metric)
    with Work.held(study, plan, others="refuse") as work:
        families = sorted(set(frames_of(settings.pool_size)[0].families.values()) - {"pair", "item"})
        space = _space(families, settings)
        default = _default(families, settings, frames_of(settings.pool_size)[-1].train)
        before = [t for t in work.finished("trial-") if _fits(t, space)]
        search = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=settings.seed + len(before)),
        )
        for trial in before:
            search.add_trial(
                optuna.trial.create_trial(
                    params=trial["params"], distributions=space, value=trial["value"]
                )
            )
        if not any(trial["params"] == default for trial in before):
            search.enqueue_trial(default)
        free = (name for n in count() if work.facts(name := f"trial-{n:05d}") is None)
        for number in range(len(before), len(before) + trials):
            progress("trials", number + 1, len(before) + trials)
            asked = search.ask(space)
            chosen = _chosen(asked.params, families)
            ranker = settings.model_copy(update={"ranker": Typed(**chosen["ranker"])}).make_ranker()
            folds = frames_of(chosen["pool_size"])
            values = [fold.score(ranker, metric, chosen["drop_features"]) for fold in folds]
            search.tell(asked, float(np.mean(values)))
            trial = {"params": asked.params, "value": float(np.mean(values))}
            work.finish(next(free), trial)
        tried = search.trials
    best = search.best_trial
    standing = next(t.value for t in tried if t.params == default)
    chosen = _chosen(best.params, families)
    return {
        "metric": metric,
        "folds": n_folds,
        "trials": len(tried),
        "default": standing,
        "best": best.value,
        "settings": chosen,
        "toml": f"# {metric} {best.value:.4f} on earlier windows; default {standing:.4f}\n"
        + _toml(chosen),
    }


def _space(families: Sequence[str], settings: Settings) -> dict[str, Any]:
    """What is searched, as Optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "iterations": IntDistribution(40, 250, log=True),
        "leaves": IntDistribution(7, 63, log=True),
        "learning_rate": FloatDistribution(0.03, 0.2, log=True),
        "min_rows": IntDistribution(20, 400, log=True),
        "column_share": FloatDistribution(0.1, 0.6),
        "l2": FloatDistribution(0.5, 30, log=True),
        **{f"with_{family}": CategoricalDistribution([True, False]) for family in families},
        "pool_size": CategoricalDistribution(sorted({*POOL_SIZES, settings.pool_size})),
    }


def _fits(trial: dict[str, Any], space: dict[str, Any]) -> bool:
    """Is it a trial of this search, with a number for a value?"""
    params, value = trial.get("params"), trial.get("value")
    if not isinstance(params, dict) or set(params) != set(space) or not isinstance(value, float):
        return False
    try:
        return all(space[name]._contains(space[name].to_internal_repr(v)) for name, v in params.items())
    except (ValueError, TypeError, KeyError):  # a choice that there is no longer
        return False


def _chosen(params: dict[str, Any], families: Sequence[str]) -> dict[str, Any]:
    """The settings of a trial."""
    ranker = {
        "type": "lightgbm",
        "iterations": params["iterations"],
        "leaves": params["leaves"],
        "learning_rate": round(params["learning_rate"], 4),
        "min_rows": params["min_rows"],
        "column_share": round(params["column_share"], 3),
        "l2": round(params["l2"], 3),
    }
    drop = [f for f in families if not params[f"with_{f}"]]
    return {"pool_size": params["pool_size"], "drop_features": drop, "ranker": ranker}


def _default(families: Sequence[str], settings: Settings, train: TrainingFrame) -> dict[str, Any]:
    """The default settings in the terms of `_space`."""
    from retailrec.rankers import LightGBMRanker

    plain = LightGBMRanker()
    plain.iterations = plain.usual_trees(train)
    names = ("iterations", "leaves", "learning_rate", "min_rows", "column_share", "l2")
    kept = {f"with_{f}": f not in settings.drop_features for f in families}
    return {n: getattr(plain, n) for n in names} | kept | {"pool_size": settings.pool_size}


def _fingerprint(data: RetailData, settings: Settings, n_folds: int, metric: str) -> str:
    facts = {
        "data": data.fingerprint(),
        "folds": n_folds,
        "metric": metric,
        "settings": settings.model_dump(mode="json"),
    }
    return json.dumps(facts, sort_keys=True)


def _toml(chosen: dict[str, Any]) -> str:
    lines = [
        f"pool_size = {chosen['pool_size']}",
        f"drop_features = {json.dumps(chosen['drop_features'])}",
        "",
        "[ranker]",
    ]
    lines += [f"{name} = {json.dumps(value)}" for name, value in chosen["ranker"].items()]
    return "\n".join(lines) + "\n"


def _columns(x: NDArray[np.float32], kept: Sequence[int]) -> NDArray[np.float32]:
    return x if len(kept) == x.shape[1] else np.ascontiguousarray(x[:, kept])
