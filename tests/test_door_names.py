"""What `import retailrec` offers: one list, which the docs' table and the docs' imports agree with."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import retailrec

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLAIN = [name for name in retailrec.__all__ if name != "__version__"]


def test_dir_shows_the_names_and_nothing_else() -> None:
    assert dir(retailrec) == sorted(retailrec.__all__)


@pytest.mark.parametrize("name", PLAIN)
def test_every_name_is_there_and_documented(name: str) -> None:
    thing = getattr(retailrec, name)
    assert thing.__doc__
    assert thing.__module__.startswith("retailrec.") if name != "errors" else True


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recomend'"):
        retailrec.recomend  # noqa: B018


def test_the_docs_table_has_the_same_names() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text()
    table = page.split("\n## Entry points\n")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == sorted(PLAIN)


def test_docs_import_from_the_door_only_what_it_has() -> None:
    lines = re.findall(r"^from retailrec import (.+)$", "\n".join(p.read_text() for p in PAGES), re.M)
    asked = {name.strip() for line in lines for name in line.split(",")}
    assert asked
    assert asked <= set(retailrec.__all__)


def test_the_version_is_the_installed_one() -> None:
    assert retailrec.__version__ == version("retailrec")


def test_the_door_loads_no_library_until_a_name_is_asked_for() -> None:
    code = "import sys, retailrec; dir(retailrec); print('polars' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
