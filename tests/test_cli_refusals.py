"""The command line, as people misuse it: one sentence, status 2, and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from cli_support import Run, refused, retailrec
from conftest import receipts
from retailrec.simulator.shop import Shop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop")
    Shop(users=30, weeks=12).write(path)
    return path


GOOD = "user_id,item_id,time\n1,2,2024-01-01\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty; expected a header"]),
        (b"user_id,item_id,time\n", ["no line"]),
        (b"user_id,item,time\n1,2,3\n", ["lack column 'item_id'", "--columns item_id=item"]),
        (b"user_id,item_id,time,quantity\n1,2,2024-01-01,-1\n", ["none of the 1 lines", "return"]),
        (b"user_id,item_id,time\n1,2,2024-01-01\n1,3,31/01/2024\n", ["two formats"]),
        (GOOD.encode(), ["horizon"]),
        (
            b"user_id,item_id,time\n" + b"".join(b"1,2,2024-0%d-11\n" % m for m in range(1, 9)),
            ["k=5 is more than the 1 items"],
        ),
        (
            b"user_id,item_id,time\n"
            + b"".join(b"1,%d,2024-0%d-11\n" % (i, m) for m in range(1, 9) for i in range(6)),
            ["needs bought and not bought candidates", "longer horizon"],
        ),
        (bytes(range(256)) * 20, ["line 2 is not UTF-8"]),
    ],
    ids=[
        "empty",
        "no rows",
        "misspelt",
        "only returns",
        "two date formats",
        "too short",
        "one item",
        "one shopper",
        "bytes",
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    run = retailrec("run", "table", tmp_path / "in.csv", "--out", tmp_path / "out")
    refused(run, *words)
    assert not (tmp_path / "out").exists()


def test_bad_paths_names_and_numbers(tmp_path: Path, folder: Path) -> None:
    out = ["--out", tmp_path / "out"]
    refused(retailrec("run", "table", tmp_path / "none.csv", *out), "no file or folder")
    refused(retailrec("run", "table", tmp_path, *out), "no data file")
    refused(retailrec("run", "walmart", folder, *out), "no data set 'walmart'")
    refused(retailrec("run", "complete-journey", folder, "--k", 0, *out), "'k'")
    refused(
        retailrec("run", "complete-journey", folder, "--k", 9999, *out), "more than the 3,000 items"
    )
    refused(retailrec("run", "complete-journey", folder, "--horizon-days", 0, *out), "horizon_days")
    refused(
        retailrec("run", "complete-journey", folder, "--horizon-days", 999, *out),
        "no more than the horizon",
    )
    refused(retailrec("run", "complete-journey", folder, "--columns", "a=b", *out), "knows its columns")
    refused(retailrec("run", "complete-journey", folder, "--columns", "a", *out), "standard=yours")
    refused(
        retailrec("run", "complete-journey", folder, "--config", tmp_path / "x.toml", *out),
        "can't be read",
    )
    (tmp_path / "half.parquet").write_bytes((folder / "product.parquet").read_bytes()[:200])
    refused(retailrec("run", "table", tmp_path / "half.parquet", *out), "can't be read")
    refused(
        retailrec("recommend", "--model", tmp_path, "--history", "x", "--out", "y.csv"),
        "no saved model",
    )
    (tmp_path / "file").write_text("x")
    refused(retailrec("run", "complete-journey", folder, "--out", tmp_path / "file"), "is a file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k = ", "no valid TOML"),
        ("kk = 3", "'kk'"),
        ("k = 'many'", "'k'"),
        ("[[sources]]\ntype = 'magic'", "no source 'magic'"),
        ("[[sources]]\ntype = 'als'\nfactor = 3", "no parameter 'factor'"),
        ("[ranker]\ntype = 'svm'", "no ranker 'svm'"),
        ("prefilters = 'strict'", "no prefilter preset 'strict'"),
        ("metrics = ['accuracy@5']", "no metric 'accuracy'"),
    ],
)
def test_bad_configs(tmp_path: Path, folder: Path, text: str, words: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    out = tmp_path / "out"
    refused(
        retailrec("run", "complete-journey", folder, "--config", tmp_path / "c.toml", "--out", out),
        words,
    )
    assert not out.exists()


def test_a_failed_run_keeps_the_old_results(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("old")
    receipts().head(3).write_csv(tmp_path / "few.csv")
    refused(retailrec("run", "table", tmp_path / "few.csv", "--out", tmp_path / "out"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.json"]
    assert (tmp_path / "out" / "metrics.json").read_text() == "old"


def test_a_process_ends_with_one_sentence_and_status_two(tmp_path: Path) -> None:
    """As people run it: nothing on stdout, no traceback, nothing written."""
    script = "from retailrec.cli import main; main()"
    command = [sys.executable, "-c", script, "run", "walmart", ".", "--out", "out"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    refused(Run(run.returncode, run.stdout, run.stderr), "error: there is no data set 'walmart'")
    assert run.stdout == ""
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_has_no_room_is_a_sentence() -> None:
    command = [sys.executable, "-c", "from retailrec.cli import main; main()", "features"]
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    refused(Run(run.returncode, "", run.stderr), "what this command prints", "No space left on device")


def test_files_are_utf_8_and_output_goes_on_whatever_the_locale(tmp_path: Path) -> None:
    """The page of `allocate` has a triangle, a shop's names have any letter; ISO-8859-1 has neither."""
    script = (
        "from pathlib import Path\n"
        "from retailrec.cli.console import OUT, open_standard_streams\n"
        "from retailrec.work import write_result, write_text\n"
        "write_text('\\u03a9', Path('a.html')), write_result('\\u25be', Path('b.html'))\n"
        "open_standard_streams(), OUT.print('till \\u03a9')"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", script]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, **locale}
    )
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "till \\u03a9\n")
    assert [(tmp_path / f).read_text("utf-8") for f in ("a.html", "b.html")] == ["Ω", "▾"]


def test_what_memory_can_not_hold_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "wide.toml").write_text("[[sources]]\ntype = 'als'\nfactors = 1000000000\n")
    run = ("run", "complete-journey", folder, "--out", tmp_path / "out", "--quiet")
    refused(retailrec(*run, "--config", tmp_path / "wide.toml"), "factors", "at most 10000")
    told = "Unable to allocate 440. GiB"
    with patch("retailrec.datasets.load_until", side_effect=MemoryError(told)):
        refused(retailrec(*run), f"there is not enough memory ({told}). Ask for less")
    assert not (tmp_path / "out").exists()


def test_arguments_in_excess_are_said_with_how_the_command_is_called() -> None:
    option = "check [OPTIONS] [receipts]; the data set is an option, such as --dataset table."
    refused(retailrec("check", "table", "receipts.csv"), option)
    refused(
        retailrec("run", "table", "a.csv", "b.csv"), "retailrec run [OPTIONS] {dataset} [path]. See"
    )


def test_a_name_between_colons_is_said_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ":cat:.csv"
    refused(retailrec("run", "table", file), ":cat:.csv")
