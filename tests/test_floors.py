"""The house stands as docs/how-it-works.md draws it: its table of floors against every import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "retailrec"
DOOR = "retailrec"  # its __init__: loads the main names when they are asked for; nobody inside may ask


class Wing(NamedTuple):
    floor: int
    names: tuple[str, ...]


def wings() -> list[Wing]:
    """The rows of the docs' table."""
    page = (ROOT / "docs" / "how-it-works.md").read_text()
    table = page.split("\n## Layers\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", table, re.M)
    return [Wing(int(floor), tuple(re.findall(r"`(\w+)`", cell))) for floor, cell in rows]


WING_OF = {name: wing for wing in wings() for name in wing.names}


def modules(root: Path = SRC) -> dict[str, Path]:
    """Dotted name -> file; of a package, its __init__."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [DOOR, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, lazily and for type checking included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *([source] if source else [])])
            if source not in known:
                continue
            for alias in node.names:
                if f"{source}.{alias.name}" in known:
                    yield f"{source}.{alias.name}"
                elif (source, alias.name) != (DOOR, "__version__"):
                    yield source


IMPORTS = {name: set(imports(name, path, MODULES)) - {name} for name, path in MODULES.items()}


def wing_of(module: str) -> Wing:
    return (
        WING_OF[module.split(".")[1]] if module != DOOR else Wing(max(w.floor for w in wings()) + 1, ())
    )


def test_the_table_names_what_is_there_and_nothing_else() -> None:
    there = {name.split(".")[1] for name in MODULES if name != DOOR}
    assert set(WING_OF) == there
    assert len(WING_OF) == sum(len(wing.names) for wing in wings()), "a name stands in two rows"


def test_a_file_imports_from_its_own_wing_and_from_lower_floors_only() -> None:
    wrong = [
        f"{name} (floor {wing_of(name).floor}) imports {other} (floor {wing_of(other).floor})"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if name != DOOR
        and wing_of(other) != wing_of(name)
        and wing_of(other).floor >= wing_of(name).floor
    ]
    assert not wrong, "\n".join(wrong)


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """What is left when all that imports nothing left, or is imported by nothing left, is taken away."""
    left = {name: others & set(arrows) for name, others in arrows.items()}
    while True:
        asked = set().union(*left.values()) if left else set()
        kept = {name: others for name, others in left.items() if others and name in asked}
        kept = {name: others & set(kept) for name, others in kept.items()}
        if kept == left:
            return sorted(left)
        left = kept


def test_no_chain_of_imports_among_files_leads_back() -> None:
    assert circles(IMPORTS) == []


def test_no_chain_of_imports_among_wings_leads_back() -> None:
    arrows: dict[str, set[str]] = {}
    for name, others in IMPORTS.items():
        if name != DOOR:
            asked = {" ".join(wing_of(other).names) for other in others}
            arrows.setdefault(" ".join(wing_of(name).names), set()).update(asked)
    for own, asked in arrows.items():
        asked.discard(own)
    assert circles(arrows) == []


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("import retailrec.top", "retailrec.top"),
        ("import retailrec.top as t", "retailrec.top"),
        ("from retailrec import top", "retailrec.top"),
        ("from retailrec import Main", "retailrec"),
        ("from retailrec.top import thing", "retailrec.top"),
        ("from .. import top", "retailrec.top"),
        ("from ..top import thing", "retailrec.top"),
        ("from . import beside", "retailrec.low.beside"),
        ("from .beside import thing", "retailrec.low.beside"),
        ("def f():\n    from retailrec.top import thing", "retailrec.top"),
        ("if TYPE_CHECKING:\n    from retailrec import top", "retailrec.top"),
    ],
)
def test_every_spelling_of_an_import_is_seen(tmp_path: Path, statement: str, seen: str) -> None:
    (tmp_path / "low").mkdir()
    for file in ("__init__.py", "top.py", "low/__init__.py", "low/beside.py"):
        (tmp_path / file).write_text("")
    (tmp_path / "low/one.py").write_text(statement)
    known = modules(tmp_path)
    assert set(imports("retailrec.low.one", known["retailrec.low.one"], known)) == {seen}


def test_no_line_is_kept_from_the_formatter() -> None:
    kept = re.compile(r"#\s*fmt:\s*(skip|off)")
    files = [p for wing in ("src", "tests", "tools", "benchmarks") for p in (ROOT / wing).rglob("*.py")]
    assert not [p.name for p in files if p.name != "test_floors.py" and kept.search(p.read_text())]


def test_circles_are_seen_at_any_length() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]


def test_importing_the_package_loads_no_library() -> None:
    """What may be loaded at import: the package itself, and for the command line Typer and Rich."""
    heavy = (
        "polars numpy scipy numba implicit catboost lightgbm sklearn pandas pyarrow matplotlib pydantic "
        "pyspark"
    )
    code = f"import sys; import {{0}}; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    for module in ("retailrec", "retailrec.cli"):
        run = subprocess.run(
            [sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == "[]", module
