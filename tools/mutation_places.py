"""Where a mutation of `mutations.py` stands in the package, in whatever file defines its function."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from mutations import Mutation


class Place(NamedTuple):
    """Where a definition stands: a file, and characters of its text."""

    file: Path
    start: int
    stop: int


def definitions(package: Path) -> dict[str, list[Place]]:
    """Qualified name -> places of every function, class and constant of the package."""
    found: dict[str, list[Place]] = {}
    for file in sorted(package.rglob("*.py")):
        text = file.read_text()
        starts = [0]
        for line in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))

        def note(name: str, node: ast.stmt, file: Path = file, starts: list[int] = starts) -> None:
            place = Place(file, starts[node.lineno - 1], starts[node.end_lineno or node.lineno])
            found.setdefault(name, []).append(place)

        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                note(node.name, node)
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        note(f"{node.name}.{inner.name}", inner)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                note(node.targets[0].id, node)
    return found


def place_of(mutation: Mutation, known: dict[str, list[Place]]) -> Place:
    """The one place where the mutation fits.

    Raises
    ------
    LookupError
        If there is none, or there are several.
    """
    where, old, _ = mutation
    fits = [p for p in known.get(where, []) if p.file.read_text()[p.start : p.stop].count(old) == 1]
    if len(fits) != 1:
        raise LookupError(
            f"'{old}' should stand once in one definition of '{where}'; it fits {len(fits)} of "
            f"{len(known.get(where, []))}. Bring tools/mutations.py up to date."
        )
    return fits[0]
