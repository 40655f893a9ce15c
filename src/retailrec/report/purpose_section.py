"""The report's section on purposes: each beside the best single source, by its own truth."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from retailrec.report.html import Section, number, table
from retailrec.report.results import PurposeResult

_WORDS = {
    "replenish": "Replenish: what is bought again",
    "discover": "Discover: what is new to the shopper",
}
_TRUTH = {
    "replenish": "repeat purchases by {n_users:,} shoppers who bought something again",
    "discover": "purchases of what was new to them by {n_users:,} shoppers",
}


def purpose_sections(purposes: Sequence[PurposeResult]) -> list[Section]:
    """The section; none where no purpose was judged."""
    if not purposes:
        return []
    parts = []
    for result in purposes:
        purpose, models = result["purpose"], result["models"]
        metrics = list(models["two_stage"])
        rows = [[name, *(number(values[m]) for m in metrics)] for name, values in models.items()]
        parts.append(
            f"<h3>{_WORDS[purpose]}</h3><p>Judged by {result['n_bought']:,} "
            f"{_TRUTH[purpose].format(**result)}. Simple methods are held to the same items.</p>"
            f"{table(['', *metrics], rows)}<p>{escape(result['verdict'])}</p>"
        )
    return [Section("purposes", "Purposes: what is bought again, what is new", "".join(parts))]
