"""The README's example runs, and its commands exist."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from retailrec.cli.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(code.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["offers"].height == 15
    assert (tmp_path / "out/model/manifest.json").is_file()


def test_the_commands_exist() -> None:
    known = {c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands}
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)) + "\n".join(
        re.findall(r"`(retailrec [^`]*)`", README)
    )
    used = set(re.findall(r"retailrec ([a-z-]+)", shell))
    assert {"run", "match", "recommend"} <= used <= known
    targets = set(re.findall(r"make ([a-z-]+)", README)) - {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", *targets):
        assert f"\n{target}:" in makefile


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.skipif("DEMO" not in os.environ, reason="DEMO names the folder that `make demo` wrote")
def test_the_table_of_the_demo_is_what_the_demo_wrote() -> None:
    head, _, *rows = re.findall(r"^ (?:model |──|\w+ +0\.).*", README, re.M)
    found = json.loads((Path(os.environ["DEMO"]) / "metrics.json").read_text())["models"]
    assert [row.split()[0] for row in rows] == list(found)
    for model, *cells in map(str.split, rows):
        shown = dict(zip(head.split()[1:], map(float, cells), strict=True))
        assert {name: found[model][name] for name in shown} == pytest.approx(
            shown, abs=1e-3
        )  # other processors
