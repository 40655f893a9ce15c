"""A short run of `make fuzz`, and the fuzzer itself: it finds what it is there to find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import fuzzing
from retailrec.data import trial
from retailrec.data.files import read_table
from retailrec.errors import DataError


@pytest.mark.slow
def test_mutated_inputs_are_read_whole_or_refused_in_words() -> None:
    for seed in range(60):
        kind, outcome, message = fuzzing.one(seed)
        assert outcome in ("read", "refused"), f"seed {seed} ({kind}): {message}"
        assert outcome == "read" or len(message) > 20


def test_the_fuzzer_sees_a_lost_line(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fuzzing.load_dataset

    def careless(name: str, path: object) -> object:
        data = whole(name, path)  # type: ignore[arg-type]
        data.report.read -= 1
        return data

    monkeypatch.setattr(fuzzing, "load_dataset", careless)
    assert any(fuzzing.one(seed)[1] == "failed" for seed in range(5))


@pytest.mark.slow
def test_a_page_that_makes_the_decoder_die_is_a_sentence() -> None:
    """One changed bit of this file made Polars ask for 2^61 bytes and end its process."""
    told = subprocess.run(
        [sys.executable, fuzzing.__file__, "--worker", "2479", "2480"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    seed, kind, outcome, message = json.loads(told.stdout)
    assert (seed, kind, outcome) == (2479, "parquet", "refused")
    assert "is damaged" in message


def test_the_file_that_killed_its_trial_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.parquet", "b.parquet"):
        pl.DataFrame({"x": [1]}).write_parquet(tmp_path / name)
    assert read_table(tmp_path)["x"].to_list() == [1, 1]
    dies_at_b = trial._PROGRAM.replace(
        "lazy = pl.scan", "number and __import__('os').abort(); lazy = pl.scan"
    )
    monkeypatch.setattr(trial, "_PROGRAM", dies_at_b)
    with pytest.raises(DataError, match=r"b\.parquet is damaged.*SIGABRT"):
        read_table(tmp_path)
    assert read_table(tmp_path / "a.parquet")["x"].to_list() == [1]


def test_no_verdict_where_no_trial_could_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "a.parquet")
    for nothing in ("/bin/false", str(tmp_path / "missing"), ""):
        monkeypatch.setattr(trial.sys, "executable", nothing)
        assert read_table(tmp_path)["x"].to_list() == [1]
