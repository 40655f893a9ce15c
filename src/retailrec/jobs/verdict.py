"""Sentences of a run: whether two stages improve on counting, and what prefilters hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retailrec.evaluation.results import Difference, Means

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
    share = f" ({ours / theirs - 1:+.1%})" if theirs > 0 else ""
    rows = (d for d in differences if (d["model"], d["versus"]) == ("two_stage", best))
    sure = next(d for d in rows if d["metric"] == metric)
    low, high, p = sure["low"], sure["high"], sure["p_corrected"]
    interval = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
    how_sure = "p < 0.001" if p < 0.001 else f"p {p:.3f}"
    figures = (
        f"{best}, the best simple method: {metric} {ours:.4f} against {theirs:.4f}{share}; by "
        f"{ours - theirs:.4f}{interval} over {n_users:,} users, {how_sure}"
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
