"""A file imports only from floors below its own, never sideways into another folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "retailrec"
FLOORS = [
    ["errors", "columns"],
    [
        "bytescan",
        "delimited",
        "workbook",
        "tables",
        "interchange",
        "parsing",
        "timeformats",
        "cleaning",
        "visits",
        "coding",
        "kernels",
        "history",
        "artifact",
        "engine",
    ],
    ["data"],
    ["datasets", "splits", "prefilters", "candidates", "rankers", "metrics"],
    ["features", "rules"],
    ["pool", "evaluation", "uncertainty"],
    ["frames", "reasons"],
    ["training"],
    ["two_stage"],
    ["config", "matching", "leaks", "understanding", "backtest", "batch"],
    ["report", "tuning", "walkthrough", "console"],
    ["pipeline"],
    ["cli", "serving"],
]
SIDEWAYS = {
    ("delimited", "bytescan"),
    ("tables", "delimited"),
    ("tables", "workbook"),
    ("parsing", "tables"),
    ("timeformats", "parsing"),
    ("cleaning", "parsing"),
    ("cleaning", "timeformats"),
    ("coding", "cleaning"),
    ("coding", "interchange"),
    ("coding", "tables"),
    ("coding", "timeformats"),
    ("coding", "visits"),
    ("history", "kernels"),
}


def floor_of(part: str) -> int:
    for number, parts in enumerate(FLOORS):
        if part in parts:
            return number
    raise AssertionError(f"{part} stands on no floor; place it in FLOORS")


def imports(path: Path) -> set[str]:
    """First part below the package of each import, `if TYPE_CHECKING` and lazy ones included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retailrec."):
            found.add(str(node.module).split(".")[1])
    return found


def test_files_import_from_lower_floors_only() -> None:
    wrong = []
    for path in SRC.rglob("*.py"):
        if path.name == "__init__.py" and path.parent == SRC:
            continue
        own = path.relative_to(SRC).parts[0].removesuffix(".py")
        for other in imports(path) - {own}:
            if floor_of(other) >= floor_of(own) and (own, other) not in SIDEWAYS:
                wrong.append(f"{path.relative_to(SRC)} imports {other}")
    assert not wrong


def test_every_file_stands_on_a_floor() -> None:
    for path in SRC.iterdir():
        if path.suffix == ".py" and path.name != "__init__.py":
            floor_of(path.stem)


def test_importing_the_package_loads_no_library() -> None:
    """What may be loaded at import: the package itself, and for the command line Typer and Rich."""
    heavy = (
        "polars numpy scipy numba implicit catboost lightgbm sklearn pandas pyarrow matplotlib pydantic"
    )
    code = f"import sys; import {{0}}; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    for module in ("retailrec", "retailrec.cli"):
        run = subprocess.run(
            [sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == "[]", module
