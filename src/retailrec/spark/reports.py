"""Reports of shards, added up to those that the local engine gives of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from retailrec.data.cleaning import LoadReport


class Texts:
    """How Spark's accumulator adds up lists of texts.

    What a task tells counts once, when it is done, in the last stage of a job that writes.
    """

    def zero(self, value: list[str]) -> list[str]:
        """Nothing."""
        return []

    def addInPlace(self, one: list[str], other: list[str]) -> list[str]:
        """Both."""
        one.extend(other)
        return one


def add_load_reports(
    reports: Sequence[dict[str, Any]], into: LoadReport, numbers: Callable[[int], int]
) -> None:
    """Add what shards' cleaning did, as JSON holds it, to the report of the whole.

    `numbers` makes a line's number of its place.
    """
    rejected: dict[str, int] = {}
    examples: dict[str, list[int]] = {}
    differences: list[tuple[int, str]] = []
    for told in reports:
        into.kept += told["kept"]
        for count in ("merged", "pieces", "differing", "doubled"):
            setattr(into, count, getattr(into, count) + told[count])
        differences = sorted([*differences, *map(tuple, told["differences"])])[:3]
        into.split += told["split"]
        into.n_users += told["n_users"]
        into.n_baskets += told["n_baskets"]
        for name in ("first", "last"):
            if told[name] is not None:
                time, known = datetime.fromisoformat(told[name]), getattr(into, name)
                pick = min if name == "first" else max
                setattr(into, name, time if known is None else pick(time, known))
        for reason, n in told["rejected"].items():
            rejected[reason] = rejected.get(reason, 0) + n
            examples[reason] = sorted([*examples.get(reason, []), *told["examples"][reason]])[:3]
    for reason, n in rejected.items():
        into.rejected[reason] = into.rejected.get(reason, 0) + n
        known = into.examples.get(reason, [])
        into.examples[reason] = sorted([*known, *(numbers(place) for place in examples[reason])])[:3]
    into.rejected = dict(sorted(into.rejected.items(), key=lambda pair: -pair[1]))
    into.differences = [(numbers(place), words) for place, words in differences]
    into.note_receipts()
