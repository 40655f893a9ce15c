"""A short run of `make fuzz`, and the fuzzer itself: it finds what it is there to find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

import fuzzing
from retailrec.data import files as trial
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
    monkeypatch.setattr(trial, "adds_up", lambda file: False)
    dies_at_b = trial._PROGRAM.replace(
        "lazy = pl.scan", "number and __import__('os').abort(); lazy = pl.scan"
    )
    monkeypatch.setattr(trial, "_PROGRAM", dies_at_b)
    with pytest.raises(DataError, match=r"b\.parquet is damaged.*SIGABRT"):
        read_table(tmp_path)
    assert read_table(tmp_path / "a.parquet")["x"].to_list() == [1]


def test_no_verdict_where_no_trial_could_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(trial, "adds_up", lambda file: False)
    for nothing in ("/bin/false", str(tmp_path / "missing"), ""):
        monkeypatch.setattr(trial.sys, "executable", nothing)
        assert read_table(tmp_path)["x"].to_list() == [1]


SHOP = pl.DataFrame(
    {
        "user_id": [f"u{i % 60}" for i in range(900)],
        "time": pl.Series(range(900)).cast(pl.Datetime("us")),
        "value": [None if i % 7 == 0 else i / 8 for i in range(900)],
        "long": ["x" * (i % 9) * 700 for i in range(900)],
    }
)


@pytest.mark.parametrize("settings", [{}, {"row_group_size": 100}, {"data_page_size": 300}])
@pytest.mark.parametrize("kind", ["zstd", "snappy", "uncompressed", "lz4", "gzip"])
def test_a_whole_file_needs_no_trial(
    tmp_path: Path, kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.parquet"
    monkeypatch.setattr(trial, "_PROGRAM", "import os; print(0, flush=True); os.abort()")
    nested = SHOP.with_columns(pl.concat_list("value").alias("list"), pl.struct("time").alias("more"))
    for frame in (SHOP, nested, SHOP.clear()):
        frame.write_parquet(file, compression=kind, **settings)  # type: ignore[arg-type]
        assert read_table(file).height == frame.height
        pq.write_table(frame.to_arrow(), file, data_page_version="2.0", data_page_size=300)
        assert read_table(file).height == frame.height


def test_whatever_of_foot_and_page_headers_does_not_fit_is_tried(tmp_path: Path) -> None:
    """Every change of a count, a size or a place in them is seen, or changes no number that matters."""
    file = tmp_path / "r.parquet"
    SHOP.select("user_id").write_parquet(file, statistics=False, compression="uncompressed")
    assert trial.adds_up(file)
    whole, meta = file.read_bytes(), pq.read_metadata(file).row_group(0).column(0)
    foot = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in (meta.dictionary_page_offset, meta.data_page_offset, foot):
        seen = 0
        for place in range(at, at + 16):
            for bit in range(8):
                changed = bytearray(whole)
                changed[place] ^= 1 << bit
                file.write_bytes(changed)
                seen += not trial.adds_up(file)
        assert seen > 40, at  # of 128; others say how values are encoded, which the decoder looks at
    for cut in (0, 3, 12, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        assert not trial.adds_up(file)
