"""What CONTRIBUTING.md says about adding one more is done, block by block, in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"^```(python|diff)\n(.*?)^```", TEXT, re.S | re.M)


def apply(kind: str, text: str, copy: Path) -> None:
    """Append to a file, make it, or change the lines that a diff names."""
    head, _, body = text.partition("\n")
    file = copy / head.removeprefix("# ")
    if kind == "python":
        before = file.read_text() + "\n\n" if file.exists() else ""
        file.write_text(before + body)
        return
    now = file.read_text()
    for hunk in body.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert now.count(old) == 1, f"{head} has not the lines {old!r} once"
        now = now.replace(old, new)
    file.write_text(now)


@pytest.mark.slow  # fits a model in a process of its own
def test_one_more_of_everything_works(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for wing in ("compute", "simulator"):  # their compiled loops are cached where they stand
        shutil.rmtree(tmp_path / "src/retailrec" / wing)
        (tmp_path / "src/retailrec" / wing).symlink_to(ROOT / "src/retailrec" / wing)
    edits = [block for block in BLOCKS if block[1].startswith("# src/")]
    (script,) = [text for _, text in BLOCKS if not text.startswith("# src/")]
    for kind, text in edits:
        apply(kind, text, tmp_path)
    where = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=where,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_kind_of_thing_has_its_block() -> None:
    kinds = (
        "feature",
        "metric",
        "prefilter",
        "business rule",
        "source",
        "ranker",
        "data set",
        "setting",
    )
    for kind in kinds:
        assert re.search(rf"^\*\*A {kind}\*\*", TEXT, re.M), kind
    assert len([text for _, text in BLOCKS if text.startswith("# src/")]) == 12


def test_the_commands_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", TEXT):
        assert f"\n{target}:" in makefile or target == "is", target
