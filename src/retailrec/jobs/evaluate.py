"""Judge files of anybody's recommendations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from retailrec.data.files import read_table
from retailrec.evaluation import judge_frames, means
from retailrec.evaluation.bootstrap import compare_models
from retailrec.evaluation.results import Difference, Interval, Uncertainty
from retailrec.metrics import parse_metric


def evaluate_files(
    recommendations: Mapping[str, Path],
    truth: Path,
    metrics: Sequence[str],
    *,
    history: Path | None = None,
    items: Path | None = None,
    encoding: str | None = None,
) -> dict[str, Any]:
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
        frames,
        read(truth),
        k,
        history=None if history is None else read(history),
        items=None if items is None else read(items),
    )
    values = {name: judge.per_user(matrix, metrics) for name, matrix in lists.items()}
    return {
        "n_users": len(judge.users),
        "n_cold_users": judge.n_cold,
        "models": {name: means(found) for name, found in values.items()},
        "not_judged": left,
        "left_out": left_out,
        "notes": list(notes),
        **uncertainty(values),
    }


def uncertainty(values: Mapping[str, Mapping[str, Any]], seed: int = 0) -> Uncertainty:
    """``intervals`` of each mean and ``differences`` between every two models, as rows."""
    n = max(len(v) for found in values.values() for v in found.values())
    found = compare_models(values, resamples=10_000 if n <= 100_000 else 2_000, seed=seed)
    return {
        "intervals": cast(list[Interval], found.means.to_dicts()),
        "differences": cast(list[Difference], found.differences.to_dicts()),
    }
