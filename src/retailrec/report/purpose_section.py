"""The report's section on purposes: each beside the best single source, by its own truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from retailrec.report.markup import number, table

_WORDS = {
    "replenish": "Replenish: what is bought again",
    "discover": "Discover: what is new to the shopper",
}
_TRUTH = {
    "replenish": "repeat purchases by {n_users:,} shoppers who bought something again",
    "discover": "first purchases by {n_users:,} shoppers who bought something new to them",
}


def purpose_sections(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Key, title and HTML of the section; none where no purpose was judged."""
    if not found:
        return []
    parts = []
    for result in found:
        purpose, models = result["purpose"], result["models"]
        metrics = list(models["two_stage"])
        rows = [[name, *(number(values[m]) for m in metrics)] for name, values in models.items()]
        parts.append(
            f"<h3>{_WORDS[purpose]}</h3><p>Judged by {result['n_bought']:,} "
            f"{_TRUTH[purpose].format(**result)}. Simple methods are held to the same items.</p>"
            f"{table(['', *metrics], rows)}<p>{escape(result['verdict'])}</p>"
        )
    return [("purposes", "Purposes: what is bought again, what is new", "".join(parts))]
