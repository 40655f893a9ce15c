"""Choose pool size, feature families and ranker settings on rolling folds before the last horizon."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
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
from retailrec.rankers import Ranker, TrainingFrame
from retailrec.recommender.rows import CandidateFrame

POOL_SIZES = (100, 200, 300)
_STUDY = "retailrec"


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
        """Mean metric of the ranker, fitted without the columns or families in `drop`."""
        kept = [
            i
            for i, name in enumerate(self.train.names)
            if name not in drop and self.families.get(name, "source") not in drop
        ]
        names = [self.train.names[i] for i in kept]
        fitted = ranker.fit(self.train._replace(x=_columns(self.train.x, kept), names=names))
        items = self.test.pool.best(fitted.predict(_columns(self.test.x, kept)), 10).items
        return means(self.judge.per_user(items, [metric]))[metric] or 0.0


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
    found = []
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
        found.append(FoldFrames(train, test, judge, model.features_.families))
    return found


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
    """Search with Optuna's TPE; every trial is written to the file `study`, which a rerun goes on with.

    The last horizon is never looked at. The first trial is the default.

    Returns
    -------
    dict with ``default`` and ``best`` (mean metric over the folds), ``trials``, and ``toml``, settings
    that `--config` reads

    Raises
    ------
    SettingError
        If Optuna is missing, or the study is of other data or settings.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
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

    families = sorted(set(frames_of(settings.pool_size)[0].families.values()) - {"pair", "item"})

    def objective(trial: Any) -> float:
        chosen = _suggest(trial, families, settings)
        done, goal = trial.number + 1, len(before) + trials
        progress("trials", done, goal)
        ranker = settings.model_copy(update={"ranker": Typed(**chosen["ranker"])}).make_ranker()
        values = [
            f.score(ranker, metric, chosen["drop_features"]) for f in frames_of(chosen["pool_size"])
        ]
        trial.set_user_attr("settings", chosen)
        return float(np.mean(values))

    study.parent.mkdir(parents=True, exist_ok=True)
    found = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(study))),
        study_name=_STUDY,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=settings.seed),
    )
    _require_same(found, _fingerprint(data, settings, n_folds, metric), study)
    before = [t for t in found.trials if t.state.is_finished()]
    if not before:
        found.enqueue_trial(_default(families, settings))
    found.optimize(objective, n_trials=trials)
    best, default = found.best_trial, found.trials[0]
    chosen = best.user_attrs["settings"]
    return {
        "metric": metric,
        "folds": n_folds,
        "trials": len(found.trials),
        "default": default.value,
        "best": best.value,
        "settings": chosen,
        "toml": f"# {metric} {best.value:.4f} on earlier windows; default {default.value:.4f}\n"
        + _toml(chosen),
    }


def _suggest(trial: Any, families: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The settings of a trial."""
    ranker = {
        "type": "lightgbm",
        "iterations": trial.suggest_int("iterations", 40, 250, log=True),
        "leaves": trial.suggest_int("leaves", 7, 63, log=True),
        "learning_rate": round(trial.suggest_float("learning_rate", 0.03, 0.2, log=True), 4),
        "min_rows": trial.suggest_int("min_rows", 20, 400, log=True),
        "column_share": round(trial.suggest_float("column_share", 0.1, 0.6), 3),
        "l2": round(trial.suggest_float("l2", 0.5, 30, log=True), 3),
    }
    drop = [f for f in families if not trial.suggest_categorical(f"with_{f}", [True, False])]
    sizes = sorted({*POOL_SIZES, settings.pool_size})
    size = trial.suggest_categorical("pool_size", sizes)
    return {"pool_size": size, "drop_features": drop, "ranker": ranker}


def _default(families: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The default settings in the terms of `_suggest`."""
    from retailrec.rankers import LightGBMRanker

    plain = LightGBMRanker()
    names = ("iterations", "leaves", "learning_rate", "min_rows", "column_share", "l2")
    kept = {f"with_{f}": f not in settings.drop_features for f in families}
    return {n: getattr(plain, n) for n in names} | kept | {"pool_size": settings.pool_size}


def _fingerprint(data: RetailData, settings: Settings, n_folds: int, metric: str) -> str:
    facts = {
        "lines": data.log.height,
        "users": data.n_users,
        "items": data.n_items,
        "end": data.end.isoformat(),
        "folds": n_folds,
        "metric": metric,
        "settings": settings.model_dump(mode="json"),
    }
    return json.dumps(facts, sort_keys=True)


def _require_same(study: Any, fingerprint: str, path: Path) -> None:
    known = study.user_attrs.get("of")
    if known is None:
        study.set_user_attr("of", fingerprint)
    elif known != fingerprint:
        raise SettingError(
            f"the study {path} is of other data, folds or settings; name another file to start anew."
        )


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
