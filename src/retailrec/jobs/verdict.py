"""Whether two stages pay, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retailrec.evaluation.results import Difference
from retailrec.report.results import Means


def verdict(models: Mapping[str, Means], differences: Sequence[Difference]) -> str:
    """Whether two stages pay on this data, in one sentence, by the first metric.

    Examples
    --------
    >>> models = {"popular": {"recall@10": 0.1}, "two_stage": {"recall@10": 0.12}}
    >>> verdict(models, [{"model": "two_stage", "versus": "popular", "metric": "recall@10",
    ...                   "difference": 0.02, "low": 0.01, "high": 0.03}])
    'two_stage pays: recall@10 0.1200 against 0.1000 of popular, the best simple method (+20.0%).'
    """
    metric = next(iter(models["two_stage"]))
    defined = {n: mean for n, v in models.items() if (mean := v[metric]) is not None}
    simple = {n: v for n, v in defined.items() if n != "two_stage"}
    if "two_stage" not in defined or not simple:
        return f"{metric} is not defined for these shoppers, so nothing can be said about two stages."
    best = max(simple, key=lambda n: simple[n])
    ours, theirs = defined["two_stage"], simple[best]
    share = f" ({ours / theirs - 1:+.1%})" if theirs > 0 else ""
    rows = (d for d in differences if (d["model"], d["versus"]) == ("two_stage", best))
    sure = next(d for d in rows if d["metric"] == metric)
    figures = f"{metric} {ours:.4f} against {theirs:.4f} of {best}, the best simple method{share}"
    if sure["low"] is not None and sure["low"] > 0:
        return f"two_stage pays: {figures}."
    if sure["high"] is not None and sure["high"] < 0:
        return f"two stages do not pay on this data: {figures}. Use {best} instead."
    return f"two stages do not pay for sure on this data: {figures}, which could be chance."
