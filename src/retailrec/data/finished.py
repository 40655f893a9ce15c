"""Frames that a long job has finished, each beside what proves it whole: rows, checksum, facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.work import write_frame, write_text


def keep_finished(frame: pl.DataFrame, file: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write a Parquet file and, when that is whole, its proof, which ends in .json.

    Raises
    ------
    DataError
        If they can't be written.
    """
    write_frame(frame, file)
    proof = {"rows": frame.height, "sha256": _sha256(file), "facts": dict(facts or {})}
    write_text(json.dumps(proof), file.with_suffix(".json"))


def facts_of_finished(file: Path) -> dict[str, Any] | None:
    """The facts that were kept with a file; None if it is not there, not whole or was altered.

    The number of rows is that of its proof: `rows_of_finished` of the file.
    """
    try:
        proof = json.loads(file.with_suffix(".json").read_text())
        facts: dict[str, Any] = proof["facts"]
        if proof["sha256"] != _sha256(file) or proof["rows"] != rows_of_finished(file):
            return None
        return facts if isinstance(facts, dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pl.exceptions.PolarsError):
        return None


def rows_of_finished(file: Path) -> int:
    """Rows of a Parquet file, by its foot."""
    return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
