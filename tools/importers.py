"""Which files of the package only one other file imports: each may belong into its reader.

python tools/importers.py [WING]
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "retailrec"


def importers() -> dict[str, set[str]]:
    """Module -> the modules that import it, packages' own ``__init__`` included."""
    files = {name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("retailrec"):
                parts = [f"{node.module}.{alias.name}" for alias in node.names]
                for target in {part if part in files else node.module for part in parts}:
                    found[target].add(module)
    return {module: found[module] - {module} for module in files}


def name(path: Path) -> str:
    """A file's module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def main() -> None:
    wing = sys.argv[1] if len(sys.argv) > 1 else ""
    by_module = importers()
    single = {m: next(iter(by)) for m, by in by_module.items() if len(by) == 1}
    for module, reader in sorted(single.items()):
        if f"retailrec.{wing}" in module:
            path = PACKAGE.parent / Path(*module.split("."))
            file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
            print(f"{len(file.read_text().splitlines()):>5} {module} <- {reader}")
    print(f"{len(by_module)} files, {len(single)} with a single importer")


if __name__ == "__main__":
    main()
