"""Print the oldest versions that pyproject.toml states, as pins for pip; for `make test-oldest`.

Extras that the tests use and the tests' own tools are among them: a new pandas asks for a new NumPy.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("excel", "tune", "groceries", "serve", "spark")
GROUPS = ("test", "build")


def main() -> None:
    print("\n".join(pins(tomllib.loads((ROOT / "pyproject.toml").read_text()))))


def pins(stated: dict[str, Any]) -> list[str]:
    """One `name==version` a package."""
    requirements = list(stated["project"]["dependencies"])
    for extra in EXTRAS:
        requirements += stated["project"]["optional-dependencies"][extra]
    for group in GROUPS:
        requirements += stated["dependency-groups"][group]
    return sorted({pinned(requirement) for requirement in requirements})


def pinned(requirement: str) -> str:
    """`name==version` of `name>=version` or of what is pinned, the forms of what is tested.

    A marker (`; sys_platform != 'win32'`) goes along.
    """
    parts = re.fullmatch(r"([\w.-]+(?:\[\w+\])?)[>=]=([\w.]+)(; .+)?", requirement)
    if parts is None:
        raise SystemExit(f"pyproject.toml: {requirement!r} must be written as name>=version.")
    return f"{parts[1]}=={parts[2]}{parts[3] or ''}"


if __name__ == "__main__":
    main()
