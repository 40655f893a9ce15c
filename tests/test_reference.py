"""docs/reference/ and llms.txt say what there is: every public name, every page."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import reference  # noqa: E402

NAMES = reference.public_names()
CURE = "run `make reference` and look at what it changed"


def test_the_reference_lists_what_the_package_has() -> None:
    written = {
        p.relative_to(ROOT).as_posix(): p.read_text() for p in (ROOT / "docs/reference").glob("*.md")
    }
    assert written == reference.pages(), CURE


def test_llms_txt_names_every_page_and_leads_somewhere() -> None:
    text = (ROOT / "llms.txt").read_text()
    assert text == reference.llms_txt(), CURE
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")} <= linked
    assert all((ROOT / link).is_file() for link in linked)


@pytest.mark.parametrize("module", [m for m, names in NAMES.items() if names])
def test_every_listed_name_is_there(module: str) -> None:
    home = import_module(module)
    missing = [name for name in NAMES[module] if not hasattr(home, name)]
    assert not missing


def test_every_public_module_is_on_one_page() -> None:
    pages = reference.pages().values()
    for module, names in NAMES.items():
        if names and not reference.is_package(module):
            assert sum(f"\n::: {module}\n" in page for page in pages) == 1, module


def test_a_public_name_that_no_page_lists_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reference.pages()
    wing = tmp_path / "retailrec" / "metrics"
    wing.mkdir(parents=True)
    (wing.parent / "__init__.py").write_text('"""The package."""\n')
    (wing / "__init__.py").write_text('"""Metrics."""\n')
    (wing / "brand_new.py").write_text(
        '"""New."""\n\nLIMIT: int = 3\n\n\ndef fresh() -> None: ...\n\n\ndef _inner() -> None: ...\n'
    )
    monkeypatch.setattr(reference, "PACKAGE", tmp_path / "retailrec")
    assert reference.public_names()["retailrec.metrics.brand_new"] == ["LIMIT", "fresh"]
    assert reference.pages()["docs/reference/metrics.md"] != before["docs/reference/metrics.md"]
